"""Specs, messages, snapshots, routes and events: whatever they are made of, they are accepted or refused with a reason.

Nothing else may come out: no other exception, no message without a field, nothing accepted that leads to a pod which
must not be.
"""

import base64
import json
import re
from typing import Any

from fuzz_forms import document, message, numbered
from fuzz_target import Form, Target
from hypothesis import strategies as st
from kappa_pod_security import violations

from kappa_api.errors import SpecError
from kappa_api.function import parse_function
from kappa_api.routes import Claim, assign, namespace_of
from kappa_api.runtime import parse_runtime
from kappa_api.wire import Demand, Health, LoadError, Specialize, Stats, WireError
from kappa_gateway.errors import GatewayError
from kappa_gateway.routes import Entry, RouteTable, check_path, split_function_path
from kappa_operator import pods
from kappa_runtime.context import FunctionInfo
from kappa_runtime.exchange import Request
from kappa_runtime.lambda_events import make_event

Json = Any

_TEXT = st.one_of(
    st.text(max_size=12), st.sampled_from(["", "main.handler", "python", "..", "a/b", "\0", "é", "1Gi", "GET"])
)
_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 1 << 65), st.floats(allow_nan=False), _TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_TEXT, inner, max_size=3)),
    max_leaves=6,
)

GOOD: Json = {
    "runtime": "python",
    "handler": "main.handler",
    "signature": "event",
    "code": {"inline": "x = 1"},
    "env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
    "envFrom": [{"configMapRef": {"name": "c"}}],
    "resources": {"limits": {"memory": "1Gi"}, "requests": {"cpu": "100m"}},
    "volumes": [{"name": "v", "emptyDir": {}}],
    "volumeMounts": [{"name": "v", "mountPath": "/v"}],
    "serviceAccountName": "robot",
    "timeoutSeconds": 30,
    "concurrency": 1,
    "scaling": {"minReplicas": 0, "maxReplicas": 3, "idleSeconds": 60},
    "http": {
        "routes": [{"host": "a.org", "path": "/x/{y}", "methods": ["GET"]}],
        "auth": {"type": "none"},
        "idempotent": True,
        "maxBodyBytes": 7,
    },
}
_SOURCES: list[Json] = [
    {"inline": "x"},
    {"files": {"main.py": "x", "a/b.py": ""}},
    {"configMap": {"name": "c"}},
    {"archive": {"url": "https://h/a.zip", "sha256": "0" * 64}},
    {"image": "i", "command": ["sh"], "args": ["-c"]},
]


def _places(value: Json, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(value, dict):
        for key, child in value.items():
            found += _places(child, (*path, key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            found += _places(child, (*path, index))
    return found


def _changed(value: Json, path: tuple[Any, ...], change: Any) -> Json:
    if not path:
        return change(value)
    if isinstance(value, list) and path[0] < len(value):
        return [_changed(v, path[1:], change) if i == path[0] else v for i, v in enumerate(value)]
    if isinstance(value, dict) and path[0] in value:
        return {k: _changed(v, path[1:], change) if k == path[0] else v for k, v in value.items()}
    return value


@st.composite
def near(draw: st.DrawFn, good: Json) -> Json:
    """A good document with a few places replaced, removed, or given one more field."""
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.sampled_from(_places(good)))
        kind = draw(st.integers(0, 2))
        new, key = draw(_JSON), draw(_TEXT)

        def change(old: Json, kind: int = kind, new: Json = new, key: str = key) -> Json:
            if kind == 1 and isinstance(old, dict):
                return {**old, key: new}
            if kind == 2 and isinstance(old, dict) and old:
                return dict(list(old.items())[1:])
            return new

        good = _changed(good, place, change)
    return good


@st.composite
def functions(draw: st.DrawFn) -> Json:
    code = draw(st.sampled_from(_SOURCES))
    spec = {**GOOD, "code": code}
    if "image" in code:
        spec = {key: value for key, value in spec.items() if key not in ("runtime", "handler", "signature")}
    meta = {"name": "fn", "namespace": "ns", "uid": "u", "generation": 1, "creationTimestamp": "2024-01-01T00:00:00Z"}
    return {"metadata": meta, "spec": draw(near(spec))}


@st.composite
def runtimes(draw: st.DrawFn) -> Json:
    spec = {"image": "i", "pool": {"min": 1, "max": 2}, "resources": {"limits": {"memory": "1Gi"}}}
    return {"metadata": {"name": "python", "uid": "r"}, "spec": draw(near(spec))}


RUNTIME = parse_runtime({"metadata": {"name": "python", "uid": "r"}, "spec": {"image": "i"}})
WHO = pods.Identity("ns", "p", b"secret")


def check_function(resource: Json) -> None:
    try:
        function = parse_function(resource)
    except SpecError as error:
        _names_fields(error)
        return
    if function.spec.code.image is not None:
        manifest = pods.image_pod(function, "r1", WHO)
    else:
        manifest = pods.own_pod(function, "r1", RUNTIME, WHO, "why")
    json.dumps(manifest)
    assert violations(manifest["spec"]) == []
    assert manifest["metadata"]["namespace"] == "ns"
    Entry.of(function)


def check_runtime_resource(resource: Json) -> None:
    try:
        json.dumps(pods.pool_pod(parse_runtime(resource), WHO))
    except SpecError as error:
        _names_fields(error)


def _names_fields(error: SpecError) -> None:
    assert error.problems
    for problem in error.problems:
        assert problem.field.startswith(("spec", "metadata")), problem
        assert problem.message, problem
        assert len(problem.message) < 4000, "a message repeats the input at length"
    str(error).encode("utf-8", "backslashreplace")


# --- messages between processes ---------------------------------------------------------------------------------------
_STATS = {"invocations": 1, "errors": 0, "arrivals": 1, "coldStarts": 0, "serviceSeconds": 0.5, "waitingSeconds": 0.0}
MESSAGES: list[tuple[Any, Json]] = [
    (Demand, {"gateway": "g", "functions": {"ns/fn": {"waiting": 1, "inService": 0}}}),
    (
        Stats,
        Stats("g", "e", 1.0, {}, {"ns/p": 1}).to_json()
        | {"functions": {"a/b": {**_STATS, "inService": 1, "waiting": 0}}},
    ),
    (Health, Health("serving", "ns/fn", "r", 1).to_json()),
    (LoadError, {"type": "E", "message": "m", "traceback": "t", "file": "f", "line": 1}),
    (Specialize, Specialize("ns", "fn", "r", "main.h", "event", {"main.py": b"x"}).to_json()),
]


@st.composite
def messages(draw: st.DrawFn) -> tuple[int, Json]:
    index = draw(st.integers(0, len(MESSAGES) - 1))
    return index, draw(near(MESSAGES[index][1]))


def check_message(case: tuple[int, Json]) -> None:
    kind = MESSAGES[case[0]][0]
    try:
        found = kind.from_json(case[1])
    except WireError:
        return
    json.dumps(found.to_json())


# --- routes -----------------------------------------------------------------------------------------------------------
_PIECES = st.sampled_from(["a", "b", "{x}", "{y+}", "", "%61", "a b", "..", "{", "{x}y", "é"])
_HOSTS = st.sampled_from(["", "a.org", "b.a.org", "*.a.org", "*.org", "*", "A.org", "a..org"])
_PATHS = st.lists(st.sampled_from(["a", "b", "%61", "%2f", "..", ".", "", "\\", "_kappa", "é", "%ff", "%"]), max_size=4)


@st.composite
def tables(draw: st.DrawFn) -> Json:
    entries = []
    for number in range(draw(st.integers(0, 5))):
        routes = draw(
            st.lists(
                st.fixed_dictionaries(
                    {"path": st.lists(_PIECES, max_size=3).map(lambda p: "/" + "/".join(p)), "host": _HOSTS},
                    optional={"methods": st.lists(st.sampled_from(["GET", "POST"]), max_size=2)},
                ),
                max_size=3,
            )
        )
        entries.append((draw(st.sampled_from(["a", "b"])) + f"/f{number}", draw(st.integers(1, 3)), routes))
    return entries, draw(_HOSTS), "/" + "/".join(draw(_PATHS)), draw(st.sampled_from(["GET", "POST", "PUT"]))


def check_routes(case: Json) -> None:
    rows, host, path, method = case
    entries = []
    for key, age, routes in rows:
        namespace, _, name = key.partition("/")
        meta = {"namespace": namespace, "name": name, "creationTimestamp": f"2024-01-0{age}T00:00:00Z"}
        spec = {"runtime": "python", "handler": "main.handler", "code": {"inline": ""}, "http": {"routes": routes}}
        try:
            entries.append(Entry.of(parse_function({"metadata": meta, "spec": spec})))
        except SpecError as error:
            _names_fields(error)
    owners, conflicts = assign(Claim(e.key, e.created, e.routes) for e in entries)
    assert (owners, conflicts) == assign(Claim(e.key, e.created, e.routes) for e in reversed(entries))
    table = RouteTable(entries)
    assert _found(table, host, method, path) or not table.names_host(host, method, path)
    try:
        check_path(path)
        split_function_path("/fn" + path)
        match = table.find(host, method, path)
    except GatewayError as refused:
        if refused.status not in (400, 404, 405):
            raise AssertionError("a path is the caller's fault") from refused
        return
    match.lines().decode("ascii")
    holders = {namespace_of(owner) for (at, _, _), owner in owners.items() if at and at == host}
    assert len(holders) <= 1, "two namespaces have one host"
    assert not holders or namespace_of(match.key) in holders, "another namespace answers on this host"


def _found(table: RouteTable, host: str, method: str, path: str) -> bool:
    try:
        table.find(host, method, path)
    except GatewayError:
        return False
    return True


# --- events -----------------------------------------------------------------------------------------------------------
_BYTES = st.one_of(
    st.binary(max_size=30), st.sampled_from([b"", b"text/plain", b"application/json; charset=utf-16", b"a=b; c"])
)
_HEADER_NAMES = st.sampled_from(
    [
        b"cookie",
        b"content-type",
        b"host",
        b"x",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"kappa-route",
        b"kappa-path-parameters",
        b"kappa-x",
    ]
)


@st.composite
def calls(draw: st.DrawFn) -> tuple[bytes, list[tuple[bytes, bytes]], bytes]:
    target = b"/" + draw(st.one_of(_BYTES, st.sampled_from([b"a?b=c&b=%ff&=&d", b"%zz?", b"?" * 9, b"\xc3\xa9?\xff"])))
    return target, draw(st.lists(st.tuples(_HEADER_NAMES, _BYTES), max_size=5)), draw(_BYTES)


INFO = FunctionInfo(name="fn", namespace="ns", revision="r", timeout_seconds=1, memory_mb=0)


def check_event(case: tuple[bytes, list[tuple[bytes, bytes]], bytes]) -> None:
    target, headers, body = case
    request = Request()
    request.method, request.target, request.headers = "POST", target, headers
    event = make_event(request, body, INFO, "id", 0.0)
    again = json.loads(json.dumps(event))
    assert again == event
    assert event["rawPath"].isascii()
    assert not any(name.startswith("kappa-") for name in event["headers"])
    if body:
        text = event["body"]
        assert (base64.b64decode(text) if event["isBase64Encoded"] else text.encode()) == body


def is_resource(value: Json) -> bool:
    """The API server sends nothing else: metadata are its own."""
    meta = value.get("metadata") if isinstance(value, dict) else None
    if not isinstance(meta, dict) or "name" not in meta:
        return False
    texts = [meta.get(key, "") for key in ("name", "namespace", "uid", "creationTimestamp")]
    return all(isinstance(text, str) and text.isascii() for text in texts) and type(meta.get("generation", 0)) is int


def _is_table(value: Json) -> bool:
    if not isinstance(value, list) or [type(part) for part in value] != [list, str, str, str]:
        return False
    rows, _, path, _ = value
    good = all(
        isinstance(row, list) and [type(part) for part in row] == [str, int, list] and 0 < row[1] < 4 for row in rows
    )
    # Names are the API server's; of a Function there is one.
    keys = [row[0] for row in rows] if good else []
    return good and path.startswith("/") and len({*keys}) == len(keys) and all(_KEY.fullmatch(key) for key in keys)


_KEY = re.compile(r"[a-z]{1,5}/[a-z][a-z0-9]{0,5}")
_ROUTES = document("/fn/", "/{x}/{y+}", "*.a.org", "%2f", "host", "path", "methods", fits=_is_table)
_LINES = message((b"cookie: ", b"kappa-route: ", b"kappa-path-parameters: ", b"x-forwarded-for: ", b"?a=b&c", b"%zz"))


def _read_call(data: bytes) -> Json:
    lines, body = _LINES.read(data)
    target, *lines = [line[:-2] for line in lines] or [b""]
    return b"/" + target, [line.partition(b":")[::2] for line in lines], body


def _write_call(case: Json) -> bytes:
    lines = [case[0][1:], *(name + b":" + value for name, value in case[1])]
    return _LINES.write(([line.replace(b"\r\n", b"") + b"\r\n" for line in lines], case[2]))


TARGETS = (
    Target(
        "spec-function",
        "Function resources: accepted, or refused with fields; pods stay restricted",
        functions(),
        check_function,
        document(*GOOD, *GOOD["http"], *GOOD["scaling"], "image", "archive", "sha256", "files", fits=is_resource),
    ),
    Target(
        "spec-runtime",
        "Runtime resources",
        runtimes(),
        check_runtime_resource,
        document("pool", "resources", "limits", "requests", "memory", "1Gi", fits=is_resource),
    ),
    Target(
        "messages",
        "messages between the platform's processes",
        messages(),
        check_message,
        numbered(document("functions", "waiting", "inService", "files", "concurrency", "env"), len(MESSAGES)),
        found=((0, {"gateway": "g", "functions": {"ns/fn": {"waiting": float("inf"), "inService": 0}}}),),
    ),
    Target("routes", "route tables of two tenants, and paths to find in them", tables(), check_routes, _ROUTES),
    Target("events", "HTTP calls as events", calls(), check_event, Form(_read_call, _write_call, _LINES.words)),
)
