"""The messages between gateway, operator and runtime, as dataclasses with their JSON form.

`to_json` gives plain dicts; `from_json` raises WireError when the other side sent something else. Times are seconds
(float) unless a name says `ms`.
"""

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

Json = Any


class WireError(ValueError):
    """A message that does not have the agreed form."""


@dataclass(frozen=True, slots=True)
class ByteCode:
    """What a runtime has compiled of a revision's files: by their paths, in the runtime's own form (base64 on the
    wire). `tag` names the implementation and version; only a runtime of the same tag uses it."""

    tag: str
    files: Mapping[str, bytes]

    def to_json(self) -> dict[str, Json]:
        return {"tag": self.tag, "files": _from_bytes(self.files)}

    @classmethod
    def from_json(cls, value: Json) -> Self:
        try:
            return cls(str(value["tag"]), _to_bytes(value["files"]))
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise WireError(f"not byte code: {error!r}") from error


@dataclass(frozen=True, slots=True)
class Specialize:
    """Body of `PUT /_kappa/revision`. `files` maps relative paths to bytes (base64 on the wire).

    `memory_mb` is what the handler's context reports; 0 when there is no limit. With `want_byte_code` the answer may
    have `byteCode` beside the health (see `ByteCode`); `byte_code` is what an earlier instance answered. A runtime is
    free to ignore both.
    """

    namespace: str
    name: str
    revision: str
    handler: str
    signature: str
    files: Mapping[str, bytes]
    env: Mapping[str, str] = field(default_factory=dict)
    timeout_seconds: int = 30
    concurrency: int = 1
    memory_mb: int = 0
    want_byte_code: bool = False
    byte_code: ByteCode | None = None

    def to_json(self) -> dict[str, Json]:
        value: dict[str, Json] = {
            "function": {"namespace": self.namespace, "name": self.name},
            "revision": self.revision,
            "handler": self.handler,
            "signature": self.signature,
            "files": _from_bytes(self.files),
            "env": dict(self.env),
            "timeoutSeconds": self.timeout_seconds,
            "concurrency": self.concurrency,
            "memoryMb": self.memory_mb,
        }
        if self.want_byte_code:
            value["wantByteCode"] = True
        if self.byte_code is not None:
            value["byteCode"] = self.byte_code.to_json()
        return value

    @classmethod
    def from_json(cls, value: Json) -> Self:
        try:
            return cls(
                namespace=str(value["function"]["namespace"]),
                name=str(value["function"]["name"]),
                revision=str(value["revision"]),
                handler=str(value["handler"]),
                signature=str(value["signature"]),
                files=_to_bytes(value["files"]),
                env={str(k): str(v) for k, v in value.get("env", {}).items()},
                timeout_seconds=int(value.get("timeoutSeconds", 30)),
                concurrency=int(value.get("concurrency", 1)),
                memory_mb=int(value.get("memoryMb", 0)),
                want_byte_code=value.get("wantByteCode") is True,
                byte_code=ByteCode.from_json(value["byteCode"]) if value.get("byteCode") is not None else None,
            )
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise WireError(f"not a specialize message: {error!r}") from error


@dataclass(frozen=True, slots=True)
class LoadError:
    """Body of 422 to a specialize: why the code did not load. `line` is 0 when it is not known."""

    type: str
    message: str
    traceback: str = ""
    file: str = ""
    line: int = 0

    def to_json(self) -> dict[str, Json]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Json) -> Self:
        try:
            return cls(
                type=str(value["type"]),
                message=str(value["message"]),
                traceback=str(value.get("traceback", "")),
                file=str(value.get("file", "")),
                line=int(value.get("line", 0)),
            )
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise WireError(f"not a load error: {error!r}") from error


#: States a runtime reports in `Health.state`. While `loading`, invocations that arrive wait for the load to end.
RUNTIME_EMPTY, RUNTIME_LOADING, RUNTIME_SERVING, RUNTIME_DRAINING = "empty", "loading", "serving", "draining"


@dataclass(frozen=True, slots=True)
class Health:
    """Body of `GET /_kappa/health`, and of 200 or 409 to a specialize. `function` is `namespace/name`, or empty."""

    state: str
    function: str = ""
    revision: str = ""
    in_flight: int = 0

    def to_json(self) -> dict[str, Json]:
        return {"state": self.state, "function": self.function, "revision": self.revision, "inFlight": self.in_flight}

    @classmethod
    def from_json(cls, value: Json) -> Self:
        try:
            return cls(str(value["state"]), str(value["function"]), str(value["revision"]), int(value["inFlight"]))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise WireError(f"not a health message: {error!r}") from error


@dataclass(frozen=True, slots=True)
class Demand:
    """Body of `POST /v1/demand`: per function key, how many invocations wait and how many are in service here."""

    gateway: str
    functions: Mapping[str, tuple[int, int]]

    def to_json(self) -> dict[str, Json]:
        functions = {key: {"waiting": w, "inService": s} for key, (w, s) in self.functions.items()}
        return {"gateway": self.gateway, "functions": functions}

    @classmethod
    def from_json(cls, value: Json) -> Self:
        try:
            functions = {str(k): (int(v["waiting"]), int(v["inService"])) for k, v in value["functions"].items()}
            return cls(str(value["gateway"]), functions)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise WireError(f"not a demand message: {error!r}") from error


@dataclass(frozen=True, slots=True)
class FunctionStats:
    """One function at one gateway. Counters only grow; `service_seconds` and `waiting_seconds` are the integrals over
    time of `in_service` and `waiting` up to the moment of the answer: two readings give the exact average between.
    `moments`: tenths of a second in which an invocation arrived; None when the gateway does not tell."""

    invocations: int = 0
    errors: int = 0
    arrivals: int = 0
    cold_starts: int = 0
    service_seconds: float = 0.0
    waiting_seconds: float = 0.0
    in_service: int = 0
    waiting: int = 0
    moments: int | None = None


@dataclass(frozen=True, slots=True)
class Stats:
    """Body of `GET /v1/stats`. `epoch` changes when the process restarts (counters begin anew); `clock` is the
    gateway's own monotonic time of the reading. `draining` has every instance that this gateway has seen draining, as
    `namespace/pod`, with the invocations it still has there. `instances` has the invocations in service at every other
    instance that has any, of functions with more than one; None when the gateway does not tell. Functions without
    traffic since the start are left out.

    `since` is 0 for a whole reading. Otherwise the reader had asked for what is newer than its reading of that clock,
    and functions at which nothing has happened since, and nothing is going on, are left out as well.

    `hung` has the instances that were late and do not say that they live: the reader may ask for itself."""

    gateway: str
    epoch: str
    clock: float
    functions: Mapping[str, FunctionStats] = field(default_factory=dict)
    draining: Mapping[str, int] = field(default_factory=dict)
    instances: Mapping[str, int] | None = None
    since: float = 0.0
    hung: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Json]:
        value: dict[str, Json] = {
            "gateway": self.gateway,
            "epoch": self.epoch,
            "clock": self.clock,
            "functions": {
                key: {
                    "invocations": f.invocations,
                    "errors": f.errors,
                    "arrivals": f.arrivals,
                    "coldStarts": f.cold_starts,
                    "serviceSeconds": f.service_seconds,
                    "waitingSeconds": f.waiting_seconds,
                    "inService": f.in_service,
                    "waiting": f.waiting,
                    "moments": f.moments,
                }
                for key, f in self.functions.items()
            },
            "draining": dict(self.draining),
        }
        if self.instances is not None:
            value["instances"] = dict(self.instances)
        if self.since:
            value["since"] = self.since
        if self.hung:
            value["hung"] = list(self.hung)
        return value

    @classmethod
    def from_json(cls, value: Json) -> Self:
        try:
            instances = value.get("instances")
            return cls(
                gateway=str(value["gateway"]),
                epoch=str(value["epoch"]),
                clock=float(value["clock"]),
                functions={str(key): _function_stats(f) for key, f in value["functions"].items()},
                draining={str(key): int(n) for key, n in value["draining"].items()},
                instances=None if instances is None else {str(key): int(n) for key, n in instances.items()},
                since=float(value.get("since", 0.0)),
                hung=tuple(map(str, value.get("hung", ()))),
            )
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise WireError(f"not a stats message: {error!r}") from error


def _function_stats(value: Json) -> FunctionStats:
    return FunctionStats(
        invocations=int(value["invocations"]),
        errors=int(value["errors"]),
        arrivals=int(value["arrivals"]),
        cold_starts=int(value["coldStarts"]),
        service_seconds=float(value["serviceSeconds"]),
        waiting_seconds=float(value["waitingSeconds"]),
        in_service=int(value["inService"]),
        waiting=int(value["waiting"]),
        moments=None if value.get("moments") is None else int(value["moments"]),
    )


def _from_bytes(files: Mapping[str, bytes]) -> dict[str, str]:
    return {path: base64.b64encode(data).decode() for path, data in files.items()}


def _to_bytes(value: Json) -> dict[str, bytes]:
    return {str(path): base64.b64decode(data, validate=True) for path, data in value.items()}
