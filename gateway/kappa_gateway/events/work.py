"""Work: one accepted asynchronous invocation or one event, as it stands in the work stream.

The subject says whose it is: `kappa.work.async.<namespace>.<function>`, `kappa.work.trigger.<namespace>.<trigger>`,
and for ordered Triggers one more token, the partition. Outcomes on their way to receivers outside stand under
`kappa.work.outcome.<namespace>.<function or trigger>`. Names hold no dots, so they are tokens as they are. What belongs
to the work besides its body is in the message's headers, as ASCII.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from kappa_api import names
from kappa_api.cloudevents import MEDIA_TYPE
from kappa_gateway.events.stored_data import StoredData

PREFIX: Final = "kappa.work."
ASYNC, TRIGGER, OUTCOME = "async", "trigger", "outcome"

#: Two things in one header: nats-py looks at every character of every header's name.
_WORK: Final = "Kappa-Work"  # `<epoch milliseconds of acceptance> <id>`
_CALL, _OBJECT, _ORIGIN = "Kappa-Call", "Kappa-Object", "Kappa-Origin"
_DATA: Final = "Kappa-Data"
_DESTINATION: Final = "Kappa-Destination"
_HOPS: Final = "Kappa-Hops"


@dataclass(frozen=True, slots=True)
class Lane:
    """One queue of work. `partition` is empty but for ordered Triggers."""

    kind: str  # ASYNC | TRIGGER | OUTCOME
    namespace: str
    name: str
    partition: str = ""

    @property
    def subject(self) -> str:
        tail = f".{self.partition}" if self.partition else ""
        return f"{PREFIX}{self.kind}.{self.namespace}.{self.name}{tail}"

    @property
    def key(self) -> str:
        """`namespace/name` of the Function or of the Trigger; of an outcome, of what it is the outcome of."""
        return f"{self.namespace}/{self.name}"

    @classmethod
    def of(cls, subject: str) -> "Lane":
        """Raises ValueError for a subject that is no lane's."""
        pieces = subject.removeprefix(PREFIX).split(".")
        if not subject.startswith(PREFIX) or not 3 <= len(pieces) <= 4 or pieces[0] not in (ASYNC, TRIGGER, OUTCOME):
            raise ValueError(f"{subject!r} is not a lane's subject")
        return cls(*pieces)


@dataclass(frozen=True, slots=True)
class HttpCall:
    """What the caller asked for. `path`: what the instance is to see; `lines`: header lines for it, in wire form
    (latin-1), each with its CRLF, the platform's own (route, identity) included."""

    method: str
    path: str
    lines: bytes


#: Hands a function one CloudEvent, which is the body: event handlers get it as they get a Trigger's.
EVENT_CALL: Final = HttpCall(
    "POST", "/", f"content-type: {MEDIA_TYPE}\r\n{names.HEADER_EVENT_SHAPE}: cloudevent\r\n".encode()
)


@dataclass(frozen=True, slots=True)
class Work:
    """`call` is None for an event: then `body` is its CloudEvent in the JSON format.

    `accepted_ms`: epoch milliseconds. `stored`: name in the object store of a body too large for a message; `body` is
    then empty. `data`: what is stored is only the data of the CloudEvent that `body` is. `origin`: id of the dead
    letter that this is a replay of, or empty. `destination`: of an outcome, see `outcomes/address.py`.
    `hops`: see `kappa_gateway.hops`.
    """

    id: str
    accepted_ms: int
    body: bytes
    call: HttpCall | None = None
    stored: str = ""
    origin: str = ""
    data: StoredData | None = field(default=None, kw_only=True)
    destination: str = field(default="", kw_only=True)
    hops: int = field(default=0, kw_only=True)

    def headers(self) -> dict[str, str]:
        found = {_WORK: f"{self.accepted_ms} {self.id}"}
        if self.call is not None:
            found[_CALL] = json.dumps([self.call.method, self.call.path, self.call.lines.decode("latin-1")])
        if self.stored:
            found[_OBJECT] = self.stored
        if self.data is not None:
            found[_DATA] = self.data.text()
        if self.origin:
            found[_ORIGIN] = self.origin
        if self.destination:
            found[_DESTINATION] = self.destination
        if self.hops:
            found[_HOPS] = str(self.hops)
        return found

    @classmethod
    def read(cls, headers: Mapping[str, str] | None, body: bytes) -> "Work":
        """Raises ValueError for a message that Kappa did not write."""
        headers = headers or {}
        try:
            call = HttpCall(*_call(headers[_CALL])) if _CALL in headers else None
            accepted, _, work_id = headers[_WORK].partition(" ")
            return cls(
                work_id,
                int(accepted),
                body,
                call,
                headers.get(_OBJECT, ""),
                headers.get(_ORIGIN, ""),
                data=StoredData.read(headers[_DATA]) if _DATA in headers else None,
                destination=headers.get(_DESTINATION, ""),
                hops=int(headers.get(_HOPS, 0)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"a message in the work stream that is not Kappa's: {error!r}") from error


def accepted_ms(headers: Mapping[str, str]) -> int:
    """When the work with these headers was accepted; 0: it is not Kappa's."""
    digits = headers.get(_WORK, "").partition(" ")[0]
    return int(digits) if digits.isdigit() else 0


def _call(text: str) -> tuple[str, str, bytes]:
    method, path, lines = json.loads(text)
    return method, path, lines.encode("latin-1")


def new_id() -> str:
    """128 random bits: who has the id may fetch the result."""
    return os.urandom(16).hex()
