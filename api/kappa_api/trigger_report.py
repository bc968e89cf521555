"""Body of `GET /v1/triggers` on a gateway's admin port: what it knows of each Trigger, and of asynchronous invocations.

The operator adds the counters of all gateways up and writes `status` of Triggers and `status.async` of Functions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from kappa_api.wire import WireError

Json = Any

#: The counters of a Trigger, in the order in which its status keeps them for each gateway. They only grow while the
#: gateway's process (its epoch) lives.
COUNTERS = ("received", "filtered", "delivered", "failed", "deadLetters")


@dataclass(frozen=True, slots=True)
class TriggerReport:
    """One Trigger at one gateway. `uid` and `generation` say of which object and spec this is about.

    `running`: its source runs on this gateway. `connected`: it reads, or (for a kind that is called over HTTP) can be
    called. `message`: why it cannot go on, and what to do; empty when nothing is wrong. `last_event`: RFC 3339, or
    empty. `counts` has COUNTERS of this process. `lag`: events that are accepted and not finished, `oldest_seconds`:
    the age of the oldest; both are of the stream, the same at each gateway.
    """

    key: str
    uid: str
    generation: int = 0
    running: bool = False
    connected: bool = False
    message: str = ""
    last_event: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    lag: int = 0
    oldest_seconds: float = 0.0

    def to_json(self) -> dict[str, Json]:
        return {
            "key": self.key,
            "uid": self.uid,
            "generation": self.generation,
            "running": self.running,
            "connected": self.connected,
            "message": self.message,
            "lastEvent": self.last_event,
            **{name: self.counts.get(name, 0) for name in COUNTERS},
            "lag": self.lag,
            "oldestSeconds": self.oldest_seconds,
        }

    @classmethod
    def from_json(cls, value: Json) -> Self:
        try:
            return cls(
                key=str(value["key"]),
                uid=str(value["uid"]),
                generation=int(value.get("generation") or 0),
                running=bool(value.get("running")),
                connected=bool(value.get("connected")),
                message=str(value.get("message") or ""),
                last_event=str(value.get("lastEvent") or ""),
                counts={name: int(value.get(name) or 0) for name in COUNTERS},
                lag=int(value.get("lag") or 0),
                oldest_seconds=float(value.get("oldestSeconds") or 0.0),
            )
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise WireError(f"not a Trigger's report: {error!r}") from error


@dataclass(frozen=True, slots=True)
class AsyncReport:
    """Asynchronous invocations of one Function, as the streams have them: the same at each gateway."""

    waiting: int = 0
    oldest_seconds: float = 0.0
    dead_letters: int = 0

    def to_json(self) -> dict[str, Json]:
        return {"waiting": self.waiting, "oldestSeconds": self.oldest_seconds, "deadLetters": self.dead_letters}

    @classmethod
    def from_json(cls, value: Json) -> Self:
        try:
            return cls(
                waiting=int(value.get("waiting") or 0),
                oldest_seconds=float(value.get("oldestSeconds") or 0.0),
                dead_letters=int(value.get("deadLetters") or 0),
            )
        except (TypeError, ValueError, OverflowError, AttributeError) as error:
            raise WireError(f"not a report on asynchronous invocations: {error!r}") from error


@dataclass(frozen=True, slots=True)
class GatewayReport:
    """The whole answer. `epoch` changes when the process restarts: its counters begin anew. `functions`: by
    `namespace/name`, those that have asynchronous invocations waiting, or dead letters."""

    gateway: str
    epoch: str
    triggers: tuple[TriggerReport, ...] = ()
    functions: Mapping[str, AsyncReport] = field(default_factory=dict)

    def to_json(self) -> dict[str, Json]:
        return {
            "gateway": self.gateway,
            "epoch": self.epoch,
            "triggers": [report.to_json() for report in self.triggers],
            "functions": {key: report.to_json() for key, report in self.functions.items()},
        }

    @classmethod
    def from_json(cls, value: Json) -> Self:
        try:
            return cls(
                gateway=str(value["gateway"]),
                epoch=str(value["epoch"]),
                triggers=tuple(TriggerReport.from_json(item) for item in value.get("triggers") or ()),
                functions={
                    str(key): AsyncReport.from_json(item) for key, item in (value.get("functions") or {}).items()
                },
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise WireError(f"not a report on Triggers: {error!r}") from error
