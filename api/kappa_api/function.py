"""The Function resource as frozen dataclasses: parsed with defaults, checked with field paths.

The same rules stand in the chart's CRD (OpenAPI v3), which refuses most faults at apply time; this module is what the
operator and the gateway trust, and adds what a schema cannot say. `tests/unit/api/test_crd.py` holds the two together.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kappa_api.callers import OPEN, Auth, Cors, read_auth, read_cors
from kappa_api.delivery import DEFAULT_DELIVERY, FUNCTION_NAME, Delivery, read_delivery
from kappa_api.errors import Problem, SpecError
from kappa_api.fields import Reader
from kappa_api.limits import NO_LIMITS, RequestLimits, read_limits
from kappa_api.names import FUNCTION_KIND
from kappa_api.routes import METHODS, Route, host_problem, parse_template

Json = Any

NAME_PATTERN = r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?"
HANDLER_PATTERN = r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+"
ENV_PATTERN = r"[-._a-zA-Z][-._a-zA-Z0-9]*"
SHA256_PATTERN = r"[0-9a-f]{64}"
QUANTITY_PATTERN = r"[0-9]+(\.[0-9]+)?(n|u|m|k|[MGTPE]|[KMGTPE]i|[eE][0-9]+)?"
SIGNATURES = ("event", "asgi")
MAX_INLINE_BYTES = 1 << 20
MAX_TIMEOUT_SECONDS = 3600
MAX_CONCURRENCY = 1000
MAX_REPLICAS = 1000
RESERVED_ENV = ("PORT", "POD_IP", "POD_NAME")
RESERVED_ENV_PREFIX = "KAPPA_"
#: Kinds of volumes that the `restricted` Pod Security level allows: none of them reaches into the node.
VOLUME_KINDS = (
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
)
SOURCES = ("inline", "files", "configMap", "archive", "image")


@dataclass(frozen=True, slots=True)
class Archive:
    """A zip or tar of code: fetched over https, accepted only with this SHA-256 (64 lower-case hex digits)."""

    url: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Code:
    """Exactly one source is set. `files` maps a relative path to text; `inline` has become `{"main.py": text}` in it.

    `command` and `args` go with `image` and mean what they mean in a container.
    """

    files: Mapping[str, str] | None = None
    config_map: str | None = None
    archive: Archive | None = None
    image: str | None = None
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scaling:
    """How many instances: `min_replicas` to `max_replicas`; the last one goes after `idle_seconds` without a call."""

    min_replicas: int = 0
    max_replicas: int = 20
    idle_seconds: int = 60


@dataclass(frozen=True, slots=True)
class Http:
    """Routes besides `/fn/<namespace>/<name>`, and how HTTP calls are treated.

    `idempotent`: the function says that running an invocation twice does no harm, so that one whose instance died may
    be sent again whatever its method. `max_body_bytes` caps a request body; 0 leaves it to the gateway's own limit.
    """

    routes: tuple[Route, ...] = ()
    auth: Auth = OPEN
    cors: Cors | None = None
    idempotent: bool = False
    max_body_bytes: int = 0
    limits: RequestLimits = NO_LIMITS


@dataclass(frozen=True, slots=True)
class PodNeeds:
    """What the function asks of its pod, as in a pod's container and spec (JSON objects, passed through)."""

    env: tuple[Mapping[str, Json], ...] = ()
    env_from: tuple[Mapping[str, Json], ...] = ()
    resources: Mapping[str, Json] = field(default_factory=dict)
    volumes: tuple[Mapping[str, Json], ...] = ()
    volume_mounts: tuple[Mapping[str, Json], ...] = ()
    service_account_name: str = ""

    def plain_env(self) -> dict[str, str]:
        """The variables that are plain values: these can be given to a pool pod with the code."""
        return {entry["name"]: str(entry.get("value", "")) for entry in self.env if "valueFrom" not in entry}


@dataclass(frozen=True, slots=True)
class FunctionSpec:
    """`spec` of a Function. `runtime` is empty exactly when the code is an image. `delivery`: the field `async`."""

    code: Code
    runtime: str = ""
    handler: str = ""
    signature: str = "event"
    pod: PodNeeds = PodNeeds()
    timeout_seconds: int = 30
    concurrency: int = 1
    scaling: Scaling = Scaling()
    http: Http = Http()
    delivery: Delivery = DEFAULT_DELIVERY


@dataclass(frozen=True, slots=True)
class Function:
    """One Function as the API server holds it. `created` is the RFC 3339 creation time."""

    namespace: str
    name: str
    uid: str
    generation: int
    created: str
    spec: FunctionSpec

    @property
    def key(self) -> str:
        """`namespace/name`: what every map of functions is keyed by."""
        return f"{self.namespace}/{self.name}"


def parse_function(resource: Mapping[str, Json]) -> Function:
    """Reads a Function resource. Raises SpecError with every fault found, each with its field path and remedy."""
    problems: list[Problem] = []
    meta = resource.get("metadata") or {}
    name, namespace = str(meta.get("name", "")), str(meta.get("namespace", ""))
    if not re.fullmatch(FUNCTION_NAME, name):
        problems.append(
            Problem("metadata.name", "must be at most 52 characters of a-z, 0-9 and -, and begin with a letter")
        )
    if resource.get("spec") is None:
        problems.append(Problem("spec", "is required"))
    spec = _spec(Reader(resource.get("spec"), "spec", problems))
    if problems:
        raise SpecError(FUNCTION_KIND, namespace, name, tuple(problems))
    return Function(
        namespace=namespace,
        name=name,
        uid=str(meta.get("uid", "")),
        generation=int(meta.get("generation", 0)),
        created=str(meta.get("creationTimestamp", "")),
        spec=spec,
    )


def _spec(reader: Reader) -> FunctionSpec:
    code = _code(reader.child("code"), reader)
    is_image = code.image is not None
    runtime = reader.string("runtime", pattern=NAME_PATTERN, hint="the name of a Runtime, such as python")
    handler = reader.string("handler", pattern=HANDLER_PATTERN, hint="module.attribute, such as main.handler")
    if is_image:
        for key in ("runtime", "handler", "signature"):
            if key in reader:
                reader.fault(key, "does not go with code.image: the image brings its own server; remove this field")
    else:
        for key in ("runtime", "handler"):
            if key not in reader:
                reader.fault(key, "is required unless code.image is set")
    spec = FunctionSpec(
        code=code,
        runtime=runtime,
        handler=handler,
        signature=reader.choice("signature", "event", SIGNATURES),
        pod=_pod(reader),
        timeout_seconds=reader.integer("timeoutSeconds", 30, 1, MAX_TIMEOUT_SECONDS),
        concurrency=reader.integer("concurrency", 1, 1, MAX_CONCURRENCY),
        scaling=_scaling(reader.child("scaling")),
        http=_http(reader.child("http")),
        delivery=_delivery(reader.child("async")),
    )
    reader.unknown()
    return spec


def _code(reader: Reader, parent: Reader) -> Code:
    chosen = [source for source in SOURCES if source in reader]
    if len(chosen) != 1:
        found = f"found {' and '.join(chosen)}" if chosen else "found none"
        parent.fault("code", f"must have exactly one of {', '.join(SOURCES)}; {found}")
    files: Mapping[str, str] | None = None
    inline = reader.string("inline")
    texts = reader.string_map("files")
    if "inline" in reader:
        files = {"main.py": inline}
    if "files" in reader:
        files = texts
        if not files:
            reader.fault("files", "must hold at least one file")
        for path in files:
            if message := path_problem(path):
                reader.fault(f"files[{path}]", message)
    if files is not None and sum(len(text.encode()) for text in files.values()) > MAX_INLINE_BYTES:
        reader.fault("inline" if "inline" in reader else "files", "is larger than 1 MiB: use code.archive instead")
    config_map = archive = None
    source = reader.child("configMap")
    if "configMap" in reader:
        config_map = source.string("name", required=True, pattern=NAME_PATTERN, hint="the name of a ConfigMap")
        source.unknown()
    source = reader.child("archive")
    if "archive" in reader:
        url = source.string(
            "url", required=True, pattern=r"https?://[^\s/?#]+\S*", hint="an https:// URL of a zip or tar"
        )
        sha256 = source.string("sha256", required=True, pattern=SHA256_PATTERN, hint="64 lower-case hex digits")
        archive = Archive(url, sha256)
        source.unknown()
    image = reader.string("image", pattern=r"\S+", hint="an image reference")
    code = Code(
        files=files,
        config_map=config_map,
        archive=archive,
        image=image if "image" in reader else None,
        command=reader.strings("command"),
        args=reader.strings("args"),
    )
    for key in ("command", "args"):
        if key in reader and "image" not in reader:
            reader.fault(key, "goes with code.image only; remove it")
    reader.unknown()
    return code


def path_problem(path: str) -> str:
    """What is wrong with the relative path of a code file, or an empty string."""
    if not path or len(path) > 255 or "\\" in path or "\0" in path:
        return "must be a relative path of 1 to 255 characters without backslashes"
    if path.startswith("/") or any(piece in ("", ".", "..") for piece in path.split("/")):
        return "must stay inside the code folder: a relative path without . or .. pieces"
    if not path.isprintable() or any(len(piece.encode(errors="replace")) > 255 for piece in path.split("/")):
        return "must be printable, with at most 255 bytes between slashes"
    return ""


def volume_problem(volume: Mapping[str, Json]) -> tuple[str, str]:
    """(field, what is wrong with it) of a volume of a kind that a Function may not have, or two empty strings."""
    for kind in volume:
        if kind != "name" and kind not in VOLUME_KINDS:
            return str(kind), f"is not allowed in a Function: use one of {', '.join(VOLUME_KINDS)}"
    return "", ""


def _pod(reader: Reader) -> PodNeeds:
    env = reader.objects("env", required="name")
    for index, entry in enumerate(env):
        name = entry["name"]
        where = f"env[{index}]"
        if not re.fullmatch(ENV_PATTERN, name):
            reader.fault(f"{where}.name", f"{name[:80]!r} is not a name of an environment variable")
        if name in RESERVED_ENV or name.startswith(RESERVED_ENV_PREFIX):
            reader.fault(
                f"{where}.name", f"{name[:80]!r} is set by Kappa: choose a name other than PORT, POD_* and KAPPA_*"
            )
        if "value" in entry and "valueFrom" in entry:
            reader.fault(where, "must have value or valueFrom, not both")
        if "value" in entry and not isinstance(entry["value"], str):
            reader.fault(f"{where}.value", 'must be a string: put numbers and booleans in quotes, such as "1"')
        if "valueFrom" in entry and not isinstance(entry["valueFrom"], Mapping):
            reader.fault(f"{where}.valueFrom", "must be an object")
    mounts = reader.objects("volumeMounts", required="name")
    for index, mount in enumerate(mounts):
        if not (isinstance(mount.get("mountPath"), str) and mount["mountPath"]):
            reader.fault(f"volumeMounts[{index}].mountPath", "is required")
    volumes = reader.objects("volumes", required="name")
    for index, volume in enumerate(volumes):
        kind, message = volume_problem(volume)
        if message:
            reader.fault(f"volumes[{index}].{kind[:80]}", message)
    return PodNeeds(
        env=env,
        env_from=reader.objects("envFrom"),
        resources=_resources(reader.child("resources")),
        volumes=volumes,
        volume_mounts=mounts,
        service_account_name=reader.string(
            "serviceAccountName", pattern=NAME_PATTERN, hint="the name of a ServiceAccount"
        ),
    )


def _resources(reader: Reader) -> Mapping[str, Json]:
    found: dict[str, Json] = {}
    for key in ("limits", "requests"):
        quantities = reader.mapping(key)
        for name, quantity in quantities.items():
            if not isinstance(quantity, str | int) or not re.fullmatch(QUANTITY_PATTERN, str(quantity)):
                reader.fault(f"{key}.{name}", f"{quantity!r} is not a quantity such as 256Mi or 500m")
        if quantities:
            found[key] = dict(quantities)
    reader.unknown()
    return found


def _scaling(reader: Reader) -> Scaling:
    scaling = Scaling(
        min_replicas=reader.integer("minReplicas", 0, 0, MAX_REPLICAS),
        max_replicas=reader.integer("maxReplicas", 20, 1, MAX_REPLICAS),
        idle_seconds=reader.integer("idleSeconds", 60, 1, 86400),
    )
    if scaling.min_replicas > scaling.max_replicas:
        reader.fault("minReplicas", f"{scaling.min_replicas} is more than maxReplicas {scaling.max_replicas}")
    reader.unknown()
    return scaling


def _delivery(reader: Reader) -> Delivery:
    found = read_delivery(reader, results=True)
    reader.unknown()
    return found


def _http(reader: Reader) -> Http:
    routes = tuple(_route(item) for item in reader.items("routes"))
    cors = reader.child("cors")
    found = Http(
        routes=routes,
        auth=read_auth(reader.child("auth")),
        cors=read_cors(cors) if "cors" in reader else None,
        idempotent=reader.boolean("idempotent", False),
        max_body_bytes=reader.integer("maxBodyBytes", 0, 0, 1 << 40),
        limits=read_limits(reader.child("limits")),
    )
    reader.unknown()
    return found


def _route(reader: Reader) -> Route:
    path = reader.string("path", "/", required=True, hint="a path template such as /hello/{name}")
    try:
        parse_template(path)
    except ValueError as error:
        reader.fault("path", str(error))
        path = "/"
    host = reader.string("host")
    if host and (message := host_problem(host)):
        reader.fault("host", message)
    methods = reader.strings(
        "methods", lambda m: "" if m in METHODS else f"{m[:20]!r} is not one of {', '.join(METHODS)}"
    )
    reader.unknown()
    return Route(path=path, host=host, methods=methods)
