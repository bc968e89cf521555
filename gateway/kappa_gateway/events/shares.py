"""How much of the work stream a namespace may fill, so that one tenant's flood refuses nobody else's work. No I/O.

All work stands in one stream (decision 0017), and a stream that is full takes nothing, of anybody. So before it comes
to that, new work is taken only while what its namespace holds is at most `factor` times what is still free: as much,
as set up. So the first that floods comes to a stop at half of the stream, the next at half of the rest, and one that
holds nothing always finds room; nobody has to say how large whose share is ("dynamic threshold": Choudhury and Hahne
1998, as for bodies in `held.py`). Within the namespace the same holds for each Function and each Trigger, of what the
namespace may still have.

**What a namespace holds** is known from the poller's look at the stream, about once a second: its bytes in all, and
messages per lane. JetStream does not tell the bytes of a lane, so they are reckoned: the stream's bytes are divided
by messages and by what one message of each lane measured, as far as this gateway published some, or looked at the
oldest. What this gateway has published since that look is added. What others have, is not: so a namespace may be over
its share by what they accept in a second, which is why even the largest share leaves a part of the stream free.

Dead letters stand in a stream for all as well, which every lane needs now and then. They are shared out alike: the
lanes of a namespace that has too many wait until some are replayed, purged or too old, and nobody else's do.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Final

from kappa_api.cloudevents import CloudEvent
from kappa_gateway.events.bus import UnavailableError
from kappa_gateway.events.source import Sink
from kappa_gateway.events.work import PREFIX, TRIGGER, Lane

log = logging.getLogger(__name__)

#: What JetStream keeps with a message, and its headers: about so many bytes.
OVERHEAD: Final = 200
#: One message moves the mean size of its lane by this part.
_WEIGHT: Final = 1 / 16
_MOST_REMEMBERED: Final = 10_000
#: How many times as much one Function or Trigger may hold as it leaves to the others of its namespace.
_WITHIN: Final = 4.0
#: How much of its share a namespace must have left before the log speaks of it again.
_CALM: Final = 0.9

#: A Function's or a Trigger's work: the kind of its lanes, and `namespace/name`.
Owner = tuple[str, str]


class CrowdedError(UnavailableError):
    """Too much work waits already, of this namespace or for this Function or Trigger. Others' is taken."""


class Shares:
    """`percent`: the most of the stream that one namespace may fill while nobody else has anything in it; 100: all.
    `prefix`: of the stream's subjects, before kind, namespace and name; `what`: it has."""

    def __init__(self, percent: int, prefix: str = PREFIX, what: str = "work") -> None:
        self._prefix, self._what = prefix, what
        self._factor = percent / (100 - percent) if percent < 100 else 0.0  # 0: no bound
        self.held = self.most = 0  # bytes of the stream when it was last looked at; 0: not yet
        self.namespaces: dict[str, float] = {}
        self._owners: dict[Owner, float] = {}
        self._since = 0.0  # bytes published here since
        self._sizes: dict[Owner, float] = {}
        self._subjects: dict[str, Owner] = {}
        self._told: set[str] = set()

    # --- what is known ------------------------------------------------------------------------------------------------
    def looked(self, lanes: Mapping[Lane, int], held: int, most: int) -> None:
        """What stands in the stream: messages per lane, and bytes in all, of `most` (0 or less: without a bound)."""
        counts: dict[Owner, int] = {}
        for lane, count in lanes.items():
            owner = (lane.kind, lane.key)
            counts[owner] = counts.get(owner, 0) + count
        usual = held / max(1, sum(counts.values()))
        self._sizes = {owner: size for owner, size in self._sizes.items() if owner in counts}
        weights = {owner: count * self._sizes.get(owner, usual) for owner, count in counts.items()}
        scale = held / max(1.0, sum(weights.values()))
        self.held, self.most, self._since = held, max(0, most), 0.0
        self._owners, self.namespaces = {}, {}
        for owner, weight in weights.items():
            self._add(owner, weight * scale)
        self._told = {name for name in self._told if self.namespaces.get(name, 0.0) > _CALM * self._limit()}

    def published(self, subject: str, size: int) -> None:
        """JetStream has taken a message with a body of so many bytes, from this gateway."""
        if not subject.startswith(self._prefix):
            return
        owner = self._subjects.get(subject)
        if owner is None:
            if len(self._subjects) >= _MOST_REMEMBERED:
                self._subjects.clear()
            kind, namespace, name = subject.removeprefix(self._prefix).split(".")[:3]
            owner = self._subjects[subject] = (kind, f"{namespace}/{name}")
        self._since += size + OVERHEAD
        self._add(owner, size + OVERHEAD)
        self._measure(owner, size)

    def sampled(self, lane: Lane, size: int) -> None:
        """A message in this lane has a body of so many bytes."""
        self._measure((lane.kind, lane.key), size)

    def _measure(self, owner: Owner, size: int) -> None:
        mean = self._sizes.get(owner)
        self._sizes[owner] = size + OVERHEAD if mean is None else mean + (size + OVERHEAD - mean) * _WEIGHT

    def _add(self, owner: Owner, size: float) -> None:
        namespace = owner[1].partition("/")[0]
        self._owners[owner] = self._owners.get(owner, 0.0) + size
        self.namespaces[namespace] = self.namespaces.get(namespace, 0.0) + size

    # --- asking -------------------------------------------------------------------------------------------------------
    def _limit(self) -> float:
        """Bytes that any namespace may hold now."""
        return self._factor * max(0.0, self.most - self.held - self._since)

    def crowded(self, kind: str, key: str) -> str:
        """Why no more is taken for this Function or Trigger now (kind: of its lanes), or an empty string."""
        if not self.most or not self._factor:
            return ""
        namespace, limit = key.partition("/")[0], self._limit()
        holds = self.namespaces.get(namespace, 0.0)
        if holds > limit:
            self._tell(namespace)
            return f"too much {self._what} of the namespace {namespace} waits already"
        if self._owners.get((kind, key), 0.0) > _WITHIN * (limit - holds):
            self._tell(namespace)
            return f"too much {self._what} waits already for {key}"
        return ""

    def _tell(self, namespace: str) -> None:
        if namespace not in self._told:
            self._told.add(namespace)
            text = "%s has too much %s waiting, and gets no more into the stream: %d of %d bytes"
            log.warning(text, namespace, self._what, self.namespaces.get(namespace, 0.0), self.most)

    def __repr__(self) -> str:
        return f"<Shares {self.held + self._since:.0f} of {self.most} bytes, {len(self.namespaces)} namespaces>"


class PatientSink:
    """The Sink of a source that can wait where it is: what would be too much is not taken, and comes again."""

    def __init__(self, sink: Sink, shares: Shares, key: str) -> None:
        self._sink, self._shares, self._key = sink, shares, key

    async def emit(self, events: Sequence[CloudEvent]) -> None:
        """As `Sink.emit`; CrowdedError is an UnavailableError."""
        if problem := self._shares.crowded(TRIGGER, self._key):
            raise CrowdedError(problem)
        await self._sink.emit(events)

    def connected(self) -> None:
        self._sink.connected()
