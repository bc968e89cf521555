"""The chart's CRDs and the dataclasses of kappa_api say the same: fields, defaults, enums, ranges, patterns, verdicts.

`BOTH` are specs on which schema and code agree. `ONLY_CODE` are those that a schema cannot judge: the API server takes
them, the operator reports them. `ONLY_SCHEMA` are those that the API server refuses before any code sees them.
"""

import re
from collections.abc import Mapping
from typing import Any

import jsonschema
import pytest
from kappa_schemas import at, crd, examples, fill, integers, known_fields, schema_of, takes

from kappa_api import callers, delivery, function, names, routes, runtime
from kappa_api.errors import SpecError
from kappa_api.function import parse_function
from kappa_api.runtime import parse_runtime

Json = Any

EXAMPLES = [pytest.param(item, id=where) for where, item in examples(names.FUNCTION_KIND)]


FUNCTION_SCHEMA, RUNTIME_SCHEMA = schema_of("functions"), schema_of("runtimes")


def a_function(spec: Json, name: str = "hello") -> Json:
    return {"metadata": {"name": name, "namespace": "default"}, "spec": spec}


def base(**fields: Json) -> Json:
    return {"runtime": "python", "handler": "main.handler", "code": {"inline": "x"}} | fields


def code(**source: Json) -> Json:
    return base(code=source)


def image(**fields: Json) -> Json:
    return {"code": {"image": "team/server:1"}} | fields


def route(**fields: Json) -> Json:
    return base(http={"routes": [{"path": "/"} | fields]})


ISSUER = "https://issuer.example"
JWT = {"issuer": ISSUER, "audiences": ["api"]}


def auth(kind: str, **blocks: Json) -> Json:
    return base(http={"auth": {"type": kind} | blocks})


def jwt(**fields: Json) -> Json:
    return auth("jwt", jwt=JWT | fields)


def keys(*secrets: Json) -> Json:
    return auth("apiKey", apiKey={"secrets": list(secrets)})


def cors(*origins: str, **fields: Json) -> Json:
    return base(http={"cors": {"allowOrigins": list(origins) or ["https://app.example.org"]} | fields})


def schema_takes(resource: Json, schema: Json = FUNCTION_SCHEMA) -> bool:
    return takes(schema, resource)


def code_takes(resource: Json) -> bool:
    try:
        parse_function(resource)
    except SpecError:
        return False
    return True


# --- names ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("plural", "kind", "scope"),
    [
        (names.FUNCTION_PLURAL, names.FUNCTION_KIND, "Namespaced"),
        (names.RUNTIME_PLURAL, names.RUNTIME_KIND, "Cluster"),
    ],
)
def test_names(plural: str, kind: str, scope: str) -> None:
    found = crd(plural)
    spec = found["spec"]
    assert found["metadata"]["name"] == f"{plural}.{names.GROUP}"
    assert (spec["group"], spec["names"]["plural"], spec["names"]["kind"]) == (names.GROUP, plural, kind)
    assert spec["scope"] == scope
    assert [version["name"] for version in spec["versions"]] == [names.VERSION]


# --- fields -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("path", "spec"),
    [
        ("spec", base()),
        ("spec.code", code(inline="x")),
        ("spec.code.configMap", code(configMap={"name": "x"})),
        ("spec.code.archive", code(archive={"url": "https://a/b", "sha256": "0" * 64})),
        ("spec.resources", base(resources={})),
        ("spec.scaling", base(scaling={})),
        ("spec.http", base(http={})),
        ("spec.http.auth", base(http={"auth": {}})),
        ("spec.http.auth.apiKey", auth("apiKey", apiKey={"secrets": [{"name": "s"}]})),
        ("spec.http.auth.apiKey.secrets[]", auth("apiKey", apiKey={"secrets": [{"name": "s"}]})),
        ("spec.http.auth.jwt", auth("jwt", jwt=JWT)),
        ("spec.http.auth.jwt.requiredClaims[]", auth("jwt", jwt=JWT | {"requiredClaims": [{"name": "a"}]})),
        ("spec.http.auth.kubernetes", auth("kubernetes", kubernetes={})),
        ("spec.http.cors", cors()),
        ("spec.http.routes[]", route()),
        ("spec.http.limits", base(http={"limits": {}})),
        ("spec.http.limits.rate", base(http={"limits": {"rate": {"requests": 1}}})),
        ("spec.async", base(**{"async": {}})),
        ("spec.async.backoff", base(**{"async": {"backoff": {}}})),
        ("spec.async.onSuccess", base(**{"async": {"onSuccess": {"function": "b"}}})),
        ("spec.async.onFailure", base(**{"async": {"onFailure": {"function": "b"}}})),
        ("spec.http.limits.callerRate", base(http={"limits": {"callerRate": {"requests": 1}}})),
    ],
)
def test_fields_of_functions(path: str, spec: Json) -> None:
    assert known_fields(parse_function, a_function(spec), path) == set(at(FUNCTION_SCHEMA, path)["properties"])


@pytest.mark.parametrize("path", ["spec", "spec.pool"])
def test_fields_of_runtimes(path: str) -> None:
    resource = {"metadata": {"name": "python"}, "spec": {"image": "x", "pool": {}}}
    assert known_fields(parse_runtime, resource, path) == set(at(RUNTIME_SCHEMA, path)["properties"])


# --- defaults ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "spec",
    [
        base(),
        image(),
        base(scaling={"minReplicas": 3}),
        route(host="a.example"),
        auth("jwt", jwt=JWT),
        auth("kubernetes"),
        cors(),
        base(**{"async": {}}),
        base(**{"async": {"backoff": {}, "retries": 0}}),
    ],
    ids=str,
)
def test_defaults_of_functions(spec: Json) -> None:
    resource = a_function(spec)
    assert parse_function(fill(resource, FUNCTION_SCHEMA)) == parse_function(resource)


def test_every_default_of_a_function_is_in_the_schema() -> None:
    filled = fill(a_function(base()), FUNCTION_SCHEMA)["spec"]
    plain = function.FunctionSpec(code=function.Code())
    assert filled | {"code": None} == {
        "code": None,
        "runtime": "python",
        "handler": "main.handler",
        "timeoutSeconds": plain.timeout_seconds,
        "concurrency": plain.concurrency,
        "scaling": {
            "minReplicas": plain.scaling.min_replicas,
            "maxReplicas": plain.scaling.max_replicas,
            "idleSeconds": plain.scaling.idle_seconds,
        },
        "http": {
            "auth": {"type": plain.http.auth.type},
            "idempotent": plain.http.idempotent,
            "maxBodyBytes": plain.http.max_body_bytes,
        },
    }


def test_every_default_of_async_is_in_the_schema() -> None:
    filled = fill(a_function(base(**{"async": {"backoff": {}}})), FUNCTION_SCHEMA)["spec"]["async"]
    plain = delivery.DEFAULT_DELIVERY
    assert filled == {
        "retries": plain.retries,
        "backoff": {
            "seconds": plain.backoff.seconds,
            "factor": plain.backoff.factor,
            "maxSeconds": plain.backoff.max_seconds,
            "jitterPercent": plain.backoff.jitter_percent,
        },
        "maxAgeSeconds": plain.max_age,
        "resultSeconds": plain.result_seconds,
        "suspend": plain.suspend,
    }


def test_every_default_of_a_runtime_is_in_the_schema() -> None:
    plain = runtime.Runtime("python", "", "x")
    assert fill({"spec": {"image": "x"}}, RUNTIME_SCHEMA)["spec"] == {
        "image": "x",
        "imagePullPolicy": plain.image_pull_policy,
        "pool": {"min": plain.pool.min, "max": plain.pool.max},
    }


# --- enums, patterns, ranges ------------------------------------------------------------------------------------------
def test_enums() -> None:
    assert tuple(at(FUNCTION_SCHEMA, "spec.signature")["enum"]) == function.SIGNATURES
    assert tuple(at(FUNCTION_SCHEMA, "spec.http.auth.type")["enum"]) == callers.AUTH_TYPES
    assert tuple(at(FUNCTION_SCHEMA, "spec.http.auth.jwt.algorithms")["items"]["enum"]) == callers.ALGORITHMS
    assert tuple(at(FUNCTION_SCHEMA, "spec.http.cors.allowMethods")["items"]["enum"]) == callers.CORS_METHODS
    assert tuple(at(FUNCTION_SCHEMA, "spec.http.routes[].methods")["items"]["enum"]) == routes.METHODS
    sources = [branch["required"] for branch in at(FUNCTION_SCHEMA, "spec.code")["oneOf"]]
    assert sources == [[source] for source in function.SOURCES]


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("metadata.name", delivery.FUNCTION_NAME),
        ("spec.runtime", function.NAME_PATTERN),
        ("spec.handler", function.HANDLER_PATTERN),
        ("spec.serviceAccountName", function.NAME_PATTERN),
        ("spec.code.configMap.name", function.NAME_PATTERN),
        ("spec.code.archive.sha256", function.SHA256_PATTERN),
        ("spec.env[].name", function.ENV_PATTERN),
        ("spec.http.auth.apiKey.secrets[].name", callers.SECRET_NAME_PATTERN),
        ("spec.http.auth.jwt.issuer", callers.URL_PATTERN),
        ("spec.http.auth.jwt.jwksUri", callers.URL_PATTERN),
        ("spec.http.auth.jwt.requiredClaims[].name", callers.CLAIM_PATTERN),
        ("spec.async.onSuccess.function", delivery.FUNCTION_NAME),
        ("spec.async.onSuccess.subject", delivery.SUBJECT),
        ("spec.async.onSuccess.url", callers.URL_PATTERN),
    ],
)
def test_patterns(path: str, pattern: str) -> None:
    assert at(FUNCTION_SCHEMA, path)["pattern"] == f"^{pattern}$"


@pytest.mark.parametrize("schema", [FUNCTION_SCHEMA, RUNTIME_SCHEMA], ids=["function", "runtime"])
@pytest.mark.parametrize("which", ["limits", "requests"])
def test_pattern_of_quantities(schema: Json, which: str) -> None:
    values = at(schema, f"spec.resources.{which}")["additionalProperties"]
    assert values["pattern"] == f"^{function.QUANTITY_PATTERN}$"


def test_reserved_names_of_variables() -> None:
    refused = at(FUNCTION_SCHEMA, "spec.env[].name")["not"]["pattern"]
    for name in (*function.RESERVED_ENV, function.RESERVED_ENV_PREFIX, f"{function.RESERVED_ENV_PREFIX}X"):
        assert re.search(refused, name), name
    assert not re.search(refused, "PORTAL")


def in_place(path: tuple[str, ...], spec: Json) -> Json:
    """The spec with what the field at `path` needs around it."""
    if path[:3] == ("http", "auth", "jwt"):
        spec["http"]["auth"] = {"type": "jwt", "jwt": JWT | spec["http"]["auth"]["jwt"]}
    elif path[:2] == ("http", "cors"):
        spec["http"]["cors"]["allowOrigins"] = ["*"]
    return spec


def put(path: tuple[str, ...], value: int) -> Json:
    for name in reversed(path):
        value = {name: value}  # type: ignore[assignment]
    return value


@pytest.mark.parametrize(
    ("path", "field"),
    [pytest.param(path, field, id=".".join(path)) for path, field in integers(at(FUNCTION_SCHEMA, "spec"))],
)
def test_ranges(path: tuple[str, ...], field: Mapping[str, int]) -> None:
    low, high = field["minimum"], field["maximum"]
    for value, good in ((low, True), (high, True), (low - 1, False), (high + 1, False)):
        spec = in_place(path, base(**put(path, value)))
        if path == ("scaling", "minReplicas"):
            spec["scaling"]["maxReplicas"] = 1000
        if path[-1] in ("perSeconds", "burst"):
            spec["http"]["limits"][path[-2]]["requests"] = 1
        assert (schema_takes(a_function(spec)), code_takes(a_function(spec))) == (good, good), value


@pytest.mark.parametrize("name", ["min", "max"])
def test_ranges_of_pools(name: str) -> None:
    field = at(RUNTIME_SCHEMA, f"spec.pool.{name}")
    for value, good in ((field["minimum"], True), (field["maximum"], True), (-1, False), (1001, False)):
        resource = {"metadata": {"name": "x"}, "spec": {"image": "x", "pool": {"min": 0, "max": 1000} | {name: value}}}
        assert schema_takes(resource, RUNTIME_SCHEMA) is good
        if good:
            parse_runtime(resource)
        else:
            with pytest.raises(SpecError):
                parse_runtime(resource)


# --- verdicts ---------------------------------------------------------------------------------------------------------
DIGEST = "a" * 64
GOOD: list[Json] = [
    base(),
    base(signature="asgi"),
    base(handler="package.module.Class.method"),
    base(runtime="python3.13"),
    code(inline=""),
    code(files={"main.py": "x", "lib/a.py": ""}),
    code(configMap={"name": "hello.code"}),
    code(archive={"url": "https://example.org/a.zip?x=1", "sha256": DIGEST}),
    image(),
    image(code={"image": "x", "command": ["a"], "args": ["b", ""]}),
    base(env=[]),
    base(env=[{"name": "A", "value": ""}, {"name": "b.c-d_e"}]),
    base(env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": True}}}]),
    base(env=[{"name": "PORTAL", "value": "1"}, {"name": "KAPPA", "value": "1"}]),
    base(envFrom=[{"secretRef": {"name": "s"}, "prefix": "X_"}, {"configMapRef": {"name": "c"}}]),
    base(resources={}),
    base(resources={"limits": {"memory": "256Mi", "cpu": 1}, "requests": {"cpu": "0.5", "memory": "1e9"}}),
    base(resources={"limits": {"memory": "64Ki", "cpu": "1500m", "example.org/gpu": 1}}),
    base(volumes=[{"name": "v", "emptyDir": {}}], volumeMounts=[{"name": "v", "mountPath": "/v", "readOnly": True}]),
    base(serviceAccountName="robot"),
    base(scaling={"minReplicas": 2, "maxReplicas": 2, "idleSeconds": 1}),
    base(http={"idempotent": True, "maxBodyBytes": 1 << 40}),
    base(http={"auth": {"type": "none"}}),
    base(http={"auth": {}}),
    keys({"name": "robots"}),
    keys({"name": "robots"}, {"name": "people.v2"}),
    auth("jwt", jwt=JWT),
    jwt(jwksUri="https://issuer.example:8443/a/b?c=d", leewaySeconds=0, algorithms=["EdDSA"]),
    jwt(issuer="http://127.0.0.1:8080"),
    jwt(requiredClaims=[{"name": "https://a.example/roles", "values": ["a", "b c"]}, {"name": "email"}]),
    auth("kubernetes"),
    auth("kubernetes", kubernetes={}),
    auth("kubernetes", kubernetes={"audiences": ["kappa"]}),
    cors(),
    cors("*"),
    cors("*", allowCredentials=False),
    cors("https://*.example.org", "http://localhost:3000", "https://[::1]:8443", allowCredentials=True),
    cors(allowMethods=["*"], allowHeaders=["*", "x-token"], exposeHeaders=["ETag"], maxAgeSeconds=0),
    base(http={"limits": {"maxWaiting": 5, "rate": {"requests": 100}}}),
    base(http={"limits": {"callerRate": {"requests": 10, "perSeconds": 60, "burst": 3}}}),
    route(path="/hello/{name}", host="api.example.org", methods=["GET", "POST"]),
    route(path="/files/{path+}", host="*.example.org"),
    route(path="/a/b.c~d/%20/"),
    route(host=""),
    base(**{"async": {"retries": 5, "backoff": {"seconds": 1, "factor": 1}, "maxAgeSeconds": 60}}),
    base(**{"async": {"onSuccess": {"function": "next"}, "onFailure": {"subject": "team.orders.failed"}}}),
    base(**{"async": {"onFailure": {"url": "https://example.org/hook?x=1"}, "resultSeconds": 0, "suspend": True}}),
]
BAD: list[Json] = [
    {},
    {"code": {"inline": "x"}},
    {"code": {"inline": "x"}, "handler": "main.handler"},
    {"code": {"inline": "x"}, "runtime": "python"},
    {"runtime": "python", "handler": "main.handler"},
    base(runtime=""),
    base(runtime="Python"),
    base(runtime=3),
    base(handler="handler"),
    base(handler="main.1"),
    base(handler="main."),
    base(signature="wsgi"),
    base(code="print()"),
    base(code=[]),
    code(),
    code(inline="x", image="y"),
    code(inline="x", files={"main.py": "x"}),
    code(inline=3),
    code(inline="x" * (1 << 20) + "x"),
    code(inline="x", command=["a"]),
    code(configMap={"name": "x"}, args=["a"]),
    code(files={}),
    code(files={"main.py": 3}),
    code(files=["main.py"]),
    code(configMap={}),
    code(configMap={"name": "No"}),
    code(archive={"url": "https://a/b"}),
    code(archive={"sha256": DIGEST}),
    code(archive={"url": "ftp://a/b", "sha256": DIGEST}),
    code(archive={"url": "https://", "sha256": DIGEST}),
    code(archive={"url": "https://a/b", "sha256": DIGEST.upper()}),
    code(archive={"url": "https://a/b", "sha256": DIGEST[1:]}),
    code(image="x"),
    image(runtime="python"),
    image(handler="main.handler"),
    image(signature="event"),
    image(code={"image": ""}),
    image(code={"image": "a b"}),
    image(code={"image": "x", "command": "a"}),
    image(code={"image": "x", "args": [1]}),
    base(env={}),
    base(env=["A=1"]),
    base(env=[{"value": "x"}]),
    base(env=[{"name": ""}]),
    base(env=[{"name": "1A"}]),
    base(env=[{"name": "A=B"}]),
    base(env=[{"name": "A", "value": 1}]),
    base(env=[{"name": "A", "value": True}]),
    base(env=[{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]),
    base(env=[{"name": "A", "valueFrom": "x"}]),
    base(env=[{"name": "PORT", "value": "1"}]),
    base(env=[{"name": "POD_NAME", "value": "1"}]),
    base(env=[{"name": "KAPPA_X", "value": "1"}]),
    base(envFrom=["x"]),
    base(resources={"limits": {"memory": "256X"}}),
    base(resources={"limits": {"memory": "256mi"}}),
    base(resources={"limits": {"memory": "1ki"}}),
    base(resources={"limits": {"memory": "-1"}}),
    base(resources={"limits": {"cpu": -1}}),
    base(resources={"limits": {"cpu": 0.5}}),
    base(resources={"limits": {"cpu": True}}),
    base(resources={"requests": ["cpu"]}),
    base(volumes=[{"emptyDir": {}}]),
    base(volumes=[{"name": ""}]),
    base(volumeMounts=[{"name": "v"}]),
    base(volumeMounts=[{"mountPath": "/v"}]),
    base(serviceAccountName="No_Name"),
    base(timeoutSeconds="30"),
    base(timeoutSeconds=1.5),
    base(concurrency=True),
    base(scaling=3),
    base(scaling={"minReplicas": "1"}),
    base(http=[]),
    base(http={"auth": {"type": "basic"}}),
    base(http={"auth": "none"}),
    auth("apiKey"),
    auth("jwt"),
    auth("none", apiKey={"secrets": [{"name": "s"}]}),
    auth("none", kubernetes={}),
    base(http={"auth": {"jwt": JWT}}),
    auth("apiKey", jwt=JWT),
    auth("apiKey", apiKey={"secrets": [{"name": "s"}]}, jwt=JWT),
    auth("kubernetes", jwt=JWT),
    auth("jwt", jwt=JWT, kubernetes={}),
    keys(),
    keys("robots"),
    keys({}),
    keys({"name": "No"}),
    keys({"name": "a/b"}),
    keys(*[{"name": "s"}] * 17),
    auth("apiKey", apiKey={"secrets": {"name": "s"}}),
    auth("jwt", jwt={"issuer": ISSUER}),
    auth("jwt", jwt={"audiences": ["api"]}),
    jwt(issuer="issuer.example"),
    jwt(issuer="file:///etc/passwd"),
    jwt(issuer="https://user@issuer.example"),
    jwt(issuer="https://issuer.example/#a"),
    jwt(issuer="https:///"),
    jwt(jwksUri="ftp://a/b"),
    jwt(jwksUri="https://a b"),
    jwt(audiences=[]),
    jwt(audiences=[""]),
    jwt(audiences="api"),
    jwt(audiences=["a"] * 17),
    jwt(algorithms=[]),
    jwt(algorithms=["none"]),
    jwt(algorithms=["RS256", "HS256"]),
    jwt(leewaySeconds="30"),
    jwt(leewaySeconds=-1),
    jwt(leewaySeconds=301),
    jwt(requiredClaims=[{"values": ["a"]}]),
    jwt(requiredClaims=[{"name": ""}]),
    jwt(requiredClaims=[{"name": "a", "values": "b"}]),
    jwt(requiredClaims=[{"name": "a", "values": [1]}]),
    jwt(requiredClaims={"name": "a"}),
    auth("kubernetes", kubernetes={"audiences": [""]}),
    auth("kubernetes", kubernetes={"audiences": "a"}),
    base(http={"cors": {}}),
    base(http={"cors": {"allowOrigins": []}}),
    base(http={"cors": "*"}),
    cors("app.example.org"),
    cors("https://app.example.org/"),
    cors("https://APP.example.org"),
    cors("https://*"),
    cors("https://a.*.org"),
    cors("*.example.org"),
    cors("null"),
    cors("https://a.example,https://b.example"),
    cors("*", allowCredentials=True),
    cors("https://a.example", "*", allowCredentials=True),
    cors(allowCredentials="true"),
    cors(allowMethods=["get"]),
    cors(allowMethods="GET"),
    cors(allowHeaders=["a b"]),
    cors(allowHeaders=["a\r\nb"]),
    cors(exposeHeaders=[""]),
    cors(maxAgeSeconds=-1),
    cors(maxAgeSeconds=86401),
    base(http={"idempotent": "yes"}),
    base(http={"limits": []}),
    base(http={"limits": {"rate": 5}}),
    base(http={"limits": {"rate": {}}}),
    base(http={"limits": {"rate": {"perSeconds": 60}}}),
    base(http={"limits": {"callerRate": {"requests": 0.5}}}),
    base(http={"routes": {}}),
    base(http={"routes": [{}]}),
    base(http={"routes": ["/"]}),
    route(path=""),
    route(path="hello"),
    route(path="/a b"),
    route(path="/{a"),
    route(path="/{1}"),
    route(path="/x{a}"),
    route(path="/{a+}/b"),
    route(host="API.example.org"),
    route(host="-a.example"),
    route(host="a..b"),
    route(host="a." * 150 + "b"),
    route(methods=["get"]),
    route(methods=["CONNECT"]),
    route(methods="GET"),
    base(**{"async": []}),
    base(**{"async": {"retries": "2"}}),
    base(**{"async": {"backoff": 5}}),
    base(**{"async": {"onSuccess": {}}}),
    base(**{"async": {"onSuccess": {"function": "a", "url": "https://a.example"}}}),
    base(**{"async": {"onFailure": {"function": "other/one"}}}),
    base(**{"async": {"onFailure": {"subject": "orders.*"}}}),
    base(**{"async": {"onFailure": {"subject": "$JS.API"}}}),
    base(**{"async": {"onFailure": {"url": "ftp://a.example"}}}),
    base(**{"async": {"suspend": "yes"}}),
]
#: The schema takes these, the code does not.
ONLY_CODE: dict[str, Json] = {
    "minReplicas over maxReplicas": base(scaling={"minReplicas": 30}),
    "files too large together": code(files={"main.py": "x" * (1 << 20), "b.py": "x"}),
    "text too large in bytes, not in characters": code(inline="é" * ((1 << 19) + 1)),
    "path that leaves the folder": code(files={"../main.py": ""}),
    "absolute path": code(files={"/main.py": ""}),
    "parameter twice": route(path="/{a}/{a}"),
    "unknown field (the API server drops it, kubectl warns)": base(timeout=3),
    "unknown field below": base(scaling={"min": 3}),
    "unknown field of auth": auth("none", basic={}),
}
#: The code takes these, the schema does not.
ONLY_SCHEMA: dict[str, Json] = {
    "valueFrom without a source": base(env=[{"name": "A", "valueFrom": {}}]),
    "secretKeyRef without a key": base(env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s"}}}]),
    "null (the API server drops it before it looks)": base(env=None),
    "mount that is not a boolean": base(volumeMounts=[{"name": "v", "mountPath": "/v", "readOnly": "yes"}]),
}


@pytest.mark.parametrize("spec", GOOD, ids=lambda spec: str(spec)[:90])
def test_both_take(spec: Json) -> None:
    resource = a_function(spec)
    jsonschema.Draft202012Validator(FUNCTION_SCHEMA).validate(fill(resource, FUNCTION_SCHEMA))
    parse_function(resource)
    parse_function(fill(resource, FUNCTION_SCHEMA))


@pytest.mark.parametrize("spec", BAD, ids=lambda spec: str(spec)[:90])
def test_both_refuse(spec: Json) -> None:
    resource = a_function(spec)
    assert (schema_takes(resource), code_takes(resource)) == (False, False)


@pytest.mark.parametrize("resource", EXAMPLES)
def test_both_take_the_examples(resource: Json) -> None:
    jsonschema.Draft202012Validator(FUNCTION_SCHEMA).validate(fill(resource, FUNCTION_SCHEMA))
    parse_function(resource)


@pytest.mark.parametrize("name", ["", "-a", "a-", "1a", "A", "a.b", "a" * 53, "a_b"])
def test_both_refuse_names(name: str) -> None:
    resource = a_function(base(), name)
    assert (schema_takes(resource), code_takes(resource)) == (False, False)


@pytest.mark.parametrize("name", ["a", "a" * 52, "a-1"])
def test_both_take_names(name: str) -> None:
    resource = a_function(base(), name)
    assert (schema_takes(resource), code_takes(resource)) == (True, True)


@pytest.mark.parametrize("spec", ONLY_CODE.values(), ids=ONLY_CODE)
def test_only_code_refuses(spec: Json) -> None:
    resource = a_function(spec)
    assert (schema_takes(resource), code_takes(resource)) == (True, False)


@pytest.mark.parametrize("spec", ONLY_SCHEMA.values(), ids=ONLY_SCHEMA)
def test_only_schema_refuses(spec: Json) -> None:
    resource = a_function(spec)
    assert (schema_takes(resource), code_takes(resource)) == (False, True)
