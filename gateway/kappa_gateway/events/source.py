"""What a source of events is, and what it is given.

A source reads from some system and hands CloudEvents to its `Sink`; only when that has returned does JetStream have the
events, and only then may the source acknowledge them to where they came from. So nothing is lost; what is repeated
because a source died in between has the same `id` and is dropped as a duplicate. Ids must therefore be derived from the
origin's own (a sequence number, a delivery id), never drawn at random.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from kappa_api.cloudevents import CloudEvent
from kappa_api.trigger import Trigger

Json = Any


class SourceError(Exception):
    """The source cannot go on now; the message is for the Trigger's status and says what to do. It is run again."""


class Place(enum.Enum):
    """On which gateways a source of this kind runs."""

    ONE = "one"  # a lease says which: what it reads can have only one reader
    EACH = "each"  # every gateway: the other side shares out, or repetitions are dropped as duplicates
    NONE = "none"  # nowhere: it is called over HTTP


class Sink(Protocol):
    """Where a source puts its events. Belongs to one Trigger."""

    async def emit(self, events: Sequence[CloudEvent]) -> None:
        """Returns when JetStream has all that pass the Trigger's filter. Raises UnavailableError: emit them again."""

    def connected(self) -> None:
        """The source reads: the status says so, and its next failure is a first one."""


class State(Protocol):
    """A few bytes that survive the gateway: where to go on. Kept in a JetStream bucket, per Trigger (by uid)."""

    async def load(self, key: str) -> bytes | None: ...

    async def save(self, key: str, value: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a source may use besides its Trigger.

    `secret`: data of a Secret of type kappa.dev/source in the Trigger's namespace, decoded; None: there is none.
    `bus`: the platform's NATS connection (`kappa_gateway.events.bus.Bus`). `kube`: the API server (`kube.Kube`).
    `check_address(host, port)`: coroutine that resolves and raises SourceError for addresses that may not be connected
    to, and returns the host's addresses. `wall`: epoch seconds. `gateway`: this gateway's name. `shared`: prefixes that
    the admin shares (see `tenancy`). `resources`: what `kubernetes` sources may read besides what is harmless.
    """

    sink: Sink
    state: State
    secret: Any  # Callable[[str], Mapping[str, bytes] | None]
    bus: Any
    kube: Any
    check_address: Any  # Callable[[str, int], Awaitable[None]]
    wall: Any  # Callable[[], float]
    gateway: str = ""
    shared: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Trace:
    """What a source leaves in another system for as long as its Trigger is there. `place`: what of the spec says where;
    while that stays the same, the source itself sees to it. `text`: what it is, and how it is removed by hand.
    `server`: where that is, according to a Secret; empty where none says so, or it cannot be read now."""

    place: tuple[str, ...]
    text: str
    server: str = ""


class Source(Protocol):
    """One Trigger's source. Modules in `sources/` offer `SHAPE` (one of names.SHAPES) or `shape(trigger)`, `PLACE` or
    `place(trigger)`, and `make(trigger, surroundings) -> Source`; kinds with Place.NONE offer `receive` instead (see
    `Receiver`). `make` must not do I/O.

    A module whose sources leave something elsewhere has `trace(trigger, surroundings) -> Trace | None`, without I/O:
    the trace is written down before the source runs. Its sources have `async def forget(self)`: called when the Trigger
    is gone, or reads elsewhere, on a source that never ran, perhaps by several gateways one after the other. When a
    Trigger names another place, `async def where(self) -> str` tells whether it is another one, in the words of the
    other system itself: what two names lead to may be the same, and in use. Without it nothing is forgotten then."""

    async def run(self) -> None:
        """Reads until cancelled. Raises SourceError; whatever else it raises is logged as a bug and run again."""


@dataclass(frozen=True, slots=True)
class Inbound:
    """A request to `/hooks/<namespace>/<trigger>`. `headers`: lower-case names, repeated ones joined with commas."""

    method: str
    path: str  # what follows the Trigger's name, raw
    query: str
    headers: Mapping[str, str]
    body: bytes
    now: float  # epoch seconds


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to an Inbound. `events` are put into the stream first; when that fails the answer is 503 instead.

    `challenge`: for the header WWW-Authenticate. `notice`: what somebody must do before events can come, for the log
    and the Trigger's status; empty: that is done; None: nothing is said.
    """

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    events: tuple[CloudEvent, ...] = ()
    challenge: str = ""
    notice: str | None = None


class Receiver(Protocol):
    """`receive` of a kind called over HTTP. Pure: verifies, normalises, answers. `secret` as in Surroundings."""

    def __call__(self, trigger: Trigger, inbound: Inbound, secret: Any) -> Reply: ...
