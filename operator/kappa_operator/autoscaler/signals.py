"""What the gateways report, put together per function.

Readings are counters with the gateway's own clock, so the average concurrency between two of them is exact however
late one comes. A gateway that restarts begins a new epoch: its first reading only sets a new start, it makes no spike.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from kappa_api.wire import Demand, FunctionStats, Stats

Keys = frozenset[str]
IDLE = FunctionStats()
STRANGER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Need:
    """Invocations of one function, over all gateways. `average` is the mean of (in service + waiting) between the
    last two readings, `busy` that of in service alone; `arrivals` came in between them, `ended` ended."""

    waiting: int = 0
    in_service: int = 0
    average: float = 0.0
    arrivals: int = 0
    busy: float = 0.0
    ended: int = 0


@dataclass(slots=True)
class _Part:
    """One function at one gateway."""

    counters: FunctionStats = IDLE
    waiting: int = 0
    in_service: int = 0
    average: float = 0.0
    arrivals: int = 0
    busy: float = 0.0
    ended: int = 0

    @property
    def quiet(self) -> bool:
        return not (self.waiting or self.in_service or self.average or self.arrivals)


@dataclass(slots=True)
class _Gateway:
    epoch: str = ""
    clock: float = 0.0
    read_at: float = float("-inf")
    heard_at: float = float("-inf")
    parts: dict[str, _Part] = field(default_factory=dict)
    draining: Mapping[str, int] = field(default_factory=dict)


class Signals:
    """Latest readings of every gateway. `gateway` names are pod names; `now` is monotonic seconds of the operator."""

    def __init__(self) -> None:
        self._gateways: dict[str, _Gateway] = {}

    def observe(self, gateway: str, stats: Stats, now: float) -> Keys:
        """Takes a scrape over; returns the functions that had traffic since the last one."""
        known = self._gateways.setdefault(gateway, _Gateway())
        first = known.epoch != stats.epoch
        elapsed = stats.clock - known.clock
        parts: dict[str, _Part] = {}
        active: set[str] = set()
        for key, new in stats.functions.items():
            part = known.parts.get(key)
            if part is not None and part.counters == new and part.quiet:
                parts[key] = part
                continue
            # A function that is new in a known epoch began at zero; in a new epoch the past is unknown.
            old = new if first else part.counters if part is not None else IDLE
            served = new.service_seconds - old.service_seconds
            seconds = served + new.waiting_seconds - old.waiting_seconds
            counts = elapsed > 0 and not first
            parts[key] = part = _Part(
                counters=new,
                waiting=new.waiting,
                in_service=new.in_service,
                average=max(0.0, seconds / elapsed) if counts else 0.0,
                arrivals=max(0, new.arrivals - old.arrivals),
                busy=max(0.0, served / elapsed) if counts else 0.0,
                ended=max(0, new.invocations - old.invocations),
            )
            if not part.quiet:
                active.add(key)
        known.parts, known.draining = parts, stats.draining
        known.epoch, known.clock, known.read_at, known.heard_at = stats.epoch, stats.clock, now, now
        return frozenset(active)

    def demand(self, message: Demand, now: float) -> Keys:
        """Takes a call for instances over: what waits at one gateway right now."""
        known = self._gateways.setdefault(message.gateway, _Gateway())
        known.heard_at = now
        for key, (waiting, in_service) in message.functions.items():
            part = known.parts.setdefault(key, _Part())
            part.waiting, part.in_service = waiting, in_service
        return frozenset(message.functions)

    def keep(self, gateways: frozenset[str], now: float) -> None:
        """Forgets every gateway that is not one of these, once it has been silent for a while: a new one may send
        demand before its pod is known here."""
        for name, known in list(self._gateways.items()):
            if name not in gateways and now - known.heard_at > STRANGER_SECONDS:
                del self._gateways[name]

    def forget(self, key: str) -> None:
        """Nothing waits for this function any more; the counters stay, as the next difference starts from them."""
        for known in self._gateways.values():
            if (part := known.parts.get(key)) is not None:
                known.parts[key] = _Part(part.counters)

    def need(self, key: str) -> Need:
        """What one function has at all gateways together."""
        parts = [part for known in self._gateways.values() if (part := known.parts.get(key)) is not None]
        return Need(
            waiting=sum(part.waiting for part in parts),
            in_service=sum(part.in_service for part in parts),
            average=sum(part.average for part in parts),
            arrivals=sum(part.arrivals for part in parts),
            busy=sum(part.busy for part in parts),
            ended=sum(part.ended for part in parts),
        )

    def complete(self, gateways: frozenset[str], now: float, seconds: float) -> bool:
        """Whether every one of these gateways was read within the last seconds (and there is one at all)."""
        return bool(gateways) and all(
            name in self._gateways and now - self._gateways[name].read_at <= seconds for name in gateways
        )

    def drained(self, pod: str, gateways: frozenset[str]) -> bool:
        """Whether every gateway has seen this pod drain and has nothing there any more."""
        return all(
            (known := self._gateways.get(name)) is not None and known.draining.get(pod) == 0 for name in gateways
        )
