"""What the gateways report, put together per function.

Readings are counters with the gateway's own clock, so the average concurrency between two of them is exact however
late one comes. What may happen to a gateway, and what becomes of its part:

* it restarts: a new epoch; its first reading only sets a new start, so it makes no spike;
* it is not read for a while: what it said last goes on counting (no gap), until it counts as lost (`lapse`); the
  reading after that is an average over the whole time, and its counts are brought to one interval (no spike);
* its pod is gone: all of it is dropped at once, so that what waited there asks for nothing any more;
* a function is deleted and made anew: its counters begin at zero again within the epoch.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kappa_api.wire import Demand, FunctionStats, Stats

Keys = frozenset[str]
IDLE = FunctionStats()
STRANGER_SECONDS = 10.0
#: How often everything is read, not only what has changed.
WHOLE_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Need:
    """Invocations of one function, over all gateways. `average` is the mean of (in service + waiting) between the
    last two readings, `busy` that of in service alone; `arrivals` came in between them, in so many `moments` (tenths of
    a second, added up over the gateways); `ended` ended."""

    waiting: int = 0
    in_service: int = 0
    average: float = 0.0
    arrivals: int = 0
    busy: float = 0.0
    ended: int = 0
    moments: int = 0

    @property
    def quiet(self) -> bool:
        """Whether there is nothing to do, and was not."""
        return not (self.waiting or self.in_service or self.arrivals or self.average)


@dataclass(slots=True)
class _Part:
    """One function at one gateway. The last two readings are `seconds` apart."""

    counters: FunctionStats = IDLE
    waiting: int = 0
    in_service: int = 0
    average: float = 0.0
    arrivals: int = 0
    busy: float = 0.0
    ended: int = 0
    moments: int = 0
    seconds: float = 0.0

    @property
    def quiet(self) -> bool:
        return not (self.waiting or self.in_service or self.average or self.arrivals)


@dataclass(slots=True)
class _Gateway:
    """`lively`: the functions whose part is not quiet. `instances`: in service per pod, None when it does not tell.
    `hung`: pods that do not say to it that they live. `listed`: its pod has been seen."""

    epoch: str = ""
    clock: float = 0.0
    read_at: float = float("-inf")
    whole_at: float = float("-inf")
    heard_at: float = float("-inf")
    listed: bool = False
    parts: dict[str, _Part] = field(default_factory=dict)
    lively: set[str] = field(default_factory=set)
    draining: Mapping[str, int] = field(default_factory=dict)
    instances: Mapping[str, int] | None = None
    hung: tuple[str, ...] = ()

    def quieten(self, keys: Iterable[str]) -> None:
        """Nothing goes on there; the counters stay, as the next difference starts from them."""
        for key in keys:
            if (part := self.parts.get(key)) is not None:
                self.parts[key] = _Part(part.counters)


class Signals:
    """Latest readings of every gateway. `gateway` names are pod names; `now` is monotonic seconds of the operator."""

    def __init__(self) -> None:
        self._gateways: dict[str, _Gateway] = {}

    def last(self, gateway: str, now: float) -> tuple[str, float]:
        """Epoch and clock of a gateway's last reading, for it to leave out what has not changed since; clock 0 when
        a whole reading is due, which forgets functions that are gone."""
        known = self._gateways.get(gateway)
        if known is None or now - known.whole_at > WHOLE_SECONDS:
            return "", 0.0
        return known.epoch, known.clock

    def observe(self, gateway: str, stats: Stats, now: float) -> Keys:
        """Takes a scrape over; returns the functions that had traffic since the last one."""
        known = self._gateways.setdefault(gateway, _Gateway())
        first = known.epoch != stats.epoch
        elapsed = 0.0 if first else stats.clock - known.clock
        # What a partial reading leaves out is as it was, and quiet.
        whole = first or not stats.since
        parts = {} if whole else known.parts
        known.quieten(known.lively - stats.functions.keys())
        lively: set[str] = set()
        for key, new in stats.functions.items():
            part = known.parts.get(key)
            if part is None or part.counters != new or not part.quiet:
                # A function that is new in a known epoch began at zero; in a new epoch the past is unknown.
                part = _difference(new, new if first else part.counters if part is not None else IDLE, elapsed)
            parts[key] = part
            if not part.quiet:
                lively.add(key)
        known.parts, known.lively = parts, lively
        known.draining, known.instances, known.hung = stats.draining, stats.instances, stats.hung
        known.epoch, known.clock, known.read_at, known.heard_at = stats.epoch, stats.clock, now, now
        known.whole_at = now if whole else known.whole_at
        return frozenset(lively)

    def demand(self, message: Demand, now: float) -> Keys:
        """Takes a call for instances over: what waits at one gateway right now."""
        known = self._gateways.setdefault(message.gateway, _Gateway())
        known.heard_at = now
        for key, (waiting, in_service) in message.functions.items():
            part = known.parts.setdefault(key, _Part())
            part.waiting, part.in_service = waiting, in_service
            known.lively.add(key)
        return frozenset(message.functions)

    def keep(self, gateways: frozenset[str], now: float) -> None:
        """Forgets each gateway whose pod is gone. One whose pod was never seen stays for a while: a new one may send
        demand before its pod is known here."""
        for name, known in list(self._gateways.items()):
            if name in gateways:
                known.listed = True
            elif known.listed or now - known.heard_at > STRANGER_SECONDS:
                del self._gateways[name]

    def lapse(self, now: float, seconds: float) -> None:
        """What a gateway said that was not heard for so long counts no more."""
        for known in self._gateways.values():
            if now - known.heard_at > seconds and known.lively:
                known.quieten(known.lively)
                known.lively = set()

    def forget(self, key: str) -> None:
        """Nothing waits for this function any more."""
        for known in self._gateways.values():
            known.quieten((key,))
            known.lively.discard(key)

    def need(self, key: str, seconds: float = 0.0) -> Need:
        """What one function has at all gateways together. With `seconds`, the counts of a reading that covers much
        more than that are brought down to it."""
        parts = [part for known in self._gateways.values() if (part := known.parts.get(key)) is not None]
        shares = [seconds / part.seconds if part.seconds > 1.5 * seconds > 0 else 1.0 for part in parts]
        return Need(
            waiting=sum(part.waiting for part in parts),
            in_service=sum(part.in_service for part in parts),
            average=sum(part.average for part in parts),
            arrivals=round(sum(part.arrivals * share for part, share in zip(parts, shares, strict=True))),
            busy=sum(part.busy for part in parts),
            ended=round(sum(part.ended * share for part, share in zip(parts, shares, strict=True))),
            moments=round(sum(part.moments * share for part, share in zip(parts, shares, strict=True))),
        )

    def in_service(self, key: str, pods: Iterable[str], gateways: frozenset[str]) -> dict[str, int]:
        """Invocations in service at each of a function's pods, over all gateways. What one of them cannot tell is left
        out: it must be taken for busy."""
        pods = tuple(pods)
        found = dict.fromkeys(pods, 0)
        for name in gateways:
            known = self._gateways.get(name)
            if known is None or not known.epoch:
                return {}
            part = known.parts.get(key)
            if part is None or not part.in_service:
                continue
            here = known.instances or {}
            told = sum(here.get(pod, 0) for pod in pods) + sum(known.draining.get(pod, 0) for pod in pods)
            for pod in pods:
                if pod in here:
                    found[pod] += here[pod]
                # All that is in service there is accounted for, so there is nothing at this one.
                elif told < part.in_service:
                    found.pop(pod, None)
            pods = tuple(pod for pod in pods if pod in found)
        return found

    def complete(self, gateways: frozenset[str], now: float, seconds: float) -> bool:
        """Whether every one of these gateways was read within the last seconds (and there is one at all)."""
        return bool(gateways) and all(
            name in self._gateways and now - self._gateways[name].read_at <= seconds for name in gateways
        )

    def hung(self, now: float, seconds: float) -> frozenset[str]:
        """Pods that one of the gateways read within the last seconds takes for hung."""
        heard = (known for known in self._gateways.values() if now - known.read_at <= seconds)
        return frozenset(pod for known in heard for pod in known.hung)

    def drained(self, pod: str, gateways: frozenset[str]) -> bool:
        """Whether every one of these gateways has seen this pod drain, and none at all has anything there any more."""
        return all(
            (known := self._gateways.get(name)) is not None and known.draining.get(pod) == 0 for name in gateways
        ) and not any(known.draining.get(pod) for known in self._gateways.values())


def _difference(new: FunctionStats, old: FunctionStats, elapsed: float) -> _Part:
    """What happened between two readings `elapsed` apart; 0: the first of an epoch."""
    if new.arrivals < old.arrivals or new.invocations < old.invocations:
        old = IDLE
    served = new.service_seconds - old.service_seconds
    seconds = served + new.waiting_seconds - old.waiting_seconds
    return _Part(
        counters=new,
        waiting=new.waiting,
        in_service=new.in_service,
        average=max(0.0, seconds / elapsed) if elapsed > 0 else 0.0,
        arrivals=new.arrivals - old.arrivals,
        busy=max(0.0, served / elapsed) if elapsed > 0 else 0.0,
        ended=new.invocations - old.invocations,
        moments=_moments(new, old, elapsed),
        seconds=elapsed,
    )


def _moments(new: FunctionStats, old: FunctionStats, elapsed: float) -> int:
    """In how many tenths of a second invocations came; as many as chance would give when the gateway does not tell."""
    arrivals = new.arrivals - old.arrivals
    if new.moments is not None:
        return max(min(1, arrivals), new.moments - (old.moments or 0))
    tenths = max(1.0, elapsed * 10)
    return round(-tenths * math.expm1(-arrivals / tenths))
