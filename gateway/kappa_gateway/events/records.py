"""What became of a piece of work, as it is written down: one JSON record per invocation, replaced as things go on.

For events a record exists only after a failed attempt: it counts the attempts, so that a consumer that JetStream made
anew, or another gateway, goes on where the last one was.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kappa_gateway.events.delivery.verdict import Outcome
from kappa_gateway.events.work import ASYNC, Lane, Work

Json = Any
QUEUED: Final = "queued"
RUNNING: Final = "running"
RETRYING: Final = "retrying"
SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"
EXPIRED: Final = "expired"
CANCELLED: Final = "cancelled"
FINAL: Final = frozenset({SUCCEEDED, FAILED, EXPIRED, CANCELLED})

#: Header fields that belong to one exchange, not to its result.
_DROPPED: Final = frozenset({"connection", "content-length", "transfer-encoding", "kappa-request-id", "date"})


@dataclass(frozen=True, slots=True)
class Record:
    """`function`: `namespace/name`. Times in epoch milliseconds: `accepted`, `changed`, `due` of the next attempt (0:
    none), `until`: after that the record is treated as gone. `error`: {type, message}; `result`: {status, headers, body
    or bodyBase64}; either may be empty. `cause`: why it became a dead letter."""

    id: str
    function: str
    state: str
    attempts: int = 0
    accepted: int = 0
    changed: int = 0
    due: int = 0
    until: int = 0
    cause: str = ""
    error: Mapping[str, Json] | None = None
    result: Mapping[str, Json] | None = None

    @property
    def final(self) -> bool:
        return self.state in FINAL

    def to_bytes(self) -> bytes:
        # Not `asdict`, which copies all the way down: a fifth of what a delivery costs
        found = {name: value for name in self.__slots__ if (value := getattr(self, name))}
        return json.dumps(found).encode()

    @classmethod
    def read(cls, data: bytes) -> "Record":
        found = json.loads(data)
        return cls(**{key: value for key, value in found.items() if key in cls.__slots__})


def record_key(lane: Lane, work: Work, seq: int) -> str:
    """The last token of the record's subject. Ids of events are the sources' own and may hold anything; the stream's
    sequence with the time is as unique."""
    return work.id if lane.kind == ASYNC else f"t{seq}-{work.accepted_ms}"


def result_of(outcome: Outcome) -> dict[str, Json]:
    """The function's answer, for whoever asks for it."""
    headers = []
    for line in outcome.lines:
        name, colon, value = line.partition(":")
        name = name.strip().lower()
        if colon and name not in _DROPPED:
            headers.append([name, value.strip()])
    found: dict[str, Json] = {"status": outcome.status, "headers": headers}
    try:
        found["body"] = outcome.body.decode()
    except UnicodeDecodeError:
        found["bodyBase64"] = base64.b64encode(outcome.body).decode()
    if outcome.truncated:
        found["truncated"] = True
    return found


def error_of(outcome: Outcome) -> dict[str, Json]:
    """What went wrong: `type` is the exception's, or the gateway's code, or `status_<n>`."""
    found: dict[str, Json] = {"type": outcome.reason, "message": outcome.explain()}
    if outcome.error and outcome.body:
        try:
            told = json.loads(outcome.body)
            found |= {"message": str(told.get("errorMessage") or told.get("message") or found["message"])}
        except (ValueError, AttributeError):
            pass
    return found
