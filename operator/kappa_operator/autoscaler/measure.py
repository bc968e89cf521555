"""How fast invocations come, how long one takes, and how much they queue, from counters that only grow. Pure.

Rates forget within seconds, as a step in the traffic has to count at once; the service time forgets within minutes, as
code changes rarely. Invocations that have not ended yet count with the time that they have taken so far, so that a slow
function is known to be slow before the first one of them ends.

Calls that come together say less about the next second than calls that come one by one: 50 at once are one event, not
50 a second from now on. So gateways also count the *moments* (tenths of a second) in which calls came. Fewer of them
than the same number of independent calls would have filled means bursts, and the rate counts for less.
"""

import math
from dataclasses import dataclass, field

from kappa_operator.autoscaler.upscale import Load

#: How long rates, and everything else, are remembered, in seconds.
RATE_MEMORY, MEMORY = 2.0, 60.0
SHORTEST = 0.5
#: How long a queue has to be watched, between two readings, until it tells a rate.
WATCHED = 0.3
#: A queue stands when it has not been empty for so many seconds, and for so many service times.
STOOD, STOOD_CALLS = 1.5, 6.0
#: One that has less than this share of what it had a reading before is falling.
FALLING = 0.8
MOMENT_SECONDS = 0.1
#: Standard deviations above which a rise, or a rising line through the last readings, is no accident.
NOISE = 3.0
#: Readings that a line is drawn through.
LINE = 4


@dataclass(frozen=True, slots=True)
class Reading:
    """What happened in the last `seconds`: invocations that `arrived`, in how many `moments`; that `ended`; the
    seconds that all of them together spent in service (`busy`) and `waiting`; how many are `in_service` and `queued`
    now, and how many instances are `ready`."""

    seconds: float
    arrived: int = 0
    moments: int = 0
    ended: int = 0
    busy: float = 0.0
    waiting: float = 0.0
    in_service: int = 0
    queued: int = 0
    ready: int = 0


@dataclass(slots=True)
class _Watch:
    """A queue that is watched `since` then, up to `last`: how many must have `arrived`, and in how many `moments`, of
    which the last was `moment`, when there were `counted`."""

    since: float
    last: float
    arrived: float
    present: int
    in_service: int
    moments: int
    moment: int
    counted: float = 0.0


@dataclass(slots=True)
class Measure:
    """`arrivals`: invocations a second that will go on coming; `trend`: by how much that grows each second. `service`:
    mean seconds of one invocation, 0 while none was ever seen. `queueing`: invocations waiting on average, times the
    instances that there were: it tells what waiting would be with another number of them. `standing`: how
    many have been waiting for a while, though not always the same ones: a queue that does not fall, with
    the `ready` instances that there were."""

    arrivals: float = 0.0
    trend: float = 0.0
    service: float = 0.0
    queueing: float = 0.0
    standing: float = 0.0
    ready: int = 0
    _lowest: float = 0.0
    _queued: int = 0
    _stood: float = 0.0
    _busy: float = 0.0
    _ended: float = 0.0
    _moments: float = 0.0
    _independent: float = 0.0
    _present: float = 0.0
    _rates: list[tuple[float, float]] = field(default_factory=list)
    _watch: _Watch | None = None

    def reading(self, new: Reading) -> None:
        """Takes the next interval over."""
        if new.seconds <= 0:
            return
        self._watch = None
        fade = math.exp(-new.seconds / MEMORY)
        self._busy = self._busy * fade + new.busy
        self._ended = self._ended * fade + new.ended
        if self._busy > 0:
            # Those in service have done half of their work, on average.
            self.service = self._busy / max(0.5, self._ended + new.in_service / 2)
        self._rate(new, fade)
        lowest = min(new.waiting / new.seconds, new.queued)
        self._stood = self._stood + new.seconds if lowest >= 0.5 else 0.0
        stood = self._stood >= max(STOOD, STOOD_CALLS * self.service) and new.queued > FALLING * self._queued
        self.standing = min(self._lowest, lowest) if stood else 0.0
        self._lowest, self._queued, self.ready = lowest, new.queued, new.ready
        self.queueing = self.queueing * fade + (1 - fade) * new.waiting / new.seconds * new.ready

    def watched(self, now: float, waiting: int, in_service: int) -> None:
        """Between two readings: so many wait and are in service now. What was there before, and must have ended since
        then, tells how many came; a step is known long before the next reading, and a burst is still a burst."""
        present, moment = waiting + in_service, int(now / MOMENT_SECONDS)
        seen = self._watch
        if seen is None:
            self._watch = _Watch(now, now, 0.0, present, in_service, 0, moment)
            return
        seen.arrived += present - seen.present
        if self.service > 0:
            seen.arrived += seen.in_service * (now - seen.last) / self.service
        if moment != seen.moment and seen.arrived > seen.counted + 0.9:
            seen.moments, seen.moment, seen.counted = seen.moments + 1, moment, seen.arrived
        seen.last, seen.present, seen.in_service = now, present, in_service
        if (seconds := now - seen.since) >= WATCHED and seen.arrived > 0:
            usually = self._moments / self._independent if self._independent else 1.0
            even = min(1.0, max(1, seen.moments) / _independent(seen.arrived, seconds), usually)
            more = seen.arrived * even * even - self.arrivals * seconds
            if more > NOISE * even * math.sqrt(seen.arrived * even):
                self.arrivals += more / seconds

    def load(self, waiting: int, in_service: int) -> Load:
        """What there is to do now, with what the readings say of it."""
        return Load(
            waiting,
            in_service,
            self.arrivals,
            self.service,
            self.trend,
            self.queueing,
            self.standing,
            self.ready,
        )

    def _rate(self, new: Reading, fade: float) -> None:
        # A reading right after another one says little about a rate.
        seconds = max(new.seconds, SHORTEST)
        rate = variance = 0.0
        if new.arrived:
            even = self._even(new, seconds, fade)
            rate = new.arrived / seconds * even * even
            variance = rate * rate / (new.arrived * even)
        self._rates = [*self._rates[1 - LINE :], (rate, variance)]
        slope, error = _line(self._rates)
        # One rise is a step; a trend has risen twice.
        last = [rate for rate, _ in self._rates[-3:]]
        rising = len(last) == 3 and last[0] < last[1] < last[2]
        # A fixed number of callers calls more often when it waits less: new instances would seem to need newer ones.
        # But then there are no more invocations at a time than before.
        present = (new.busy + new.waiting) / new.seconds
        more = (present - self._present) / self.service if self.service else 0.0
        self._present = present
        self.trend = max(0.0, min(slope, last[2] - last[1], more)) if rising and slope > NOISE * error else 0.0
        if self.trend or rate > self.arrivals + NOISE * math.sqrt(variance):
            self.arrivals = max(self.arrivals, rate + self.trend / 2)
        else:
            self.arrivals += -math.expm1(-new.seconds / RATE_MEMORY) * (rate - self.arrivals)
        if self.arrivals < 1e-3:
            self.arrivals = 0.0

    def _even(self, new: Reading, seconds: float, fade: float) -> float:
        """1 when calls come independently of each other, less when they come together: in this reading, or usually."""
        independent = _independent(new.arrived, seconds)
        self._moments = self._moments * fade + new.moments
        self._independent = self._independent * fade + independent
        return min(1.0, new.moments / independent, self._moments / self._independent)


def _independent(arrived: float, seconds: float) -> float:
    """Moments that so many calls fill on average when each comes by itself."""
    slots = seconds / MOMENT_SECONDS
    return slots * -math.expm1(-arrived / slots)


def _line(rates: list[tuple[float, float]]) -> tuple[float, float]:
    """Slope of the least-squares line through equidistant (value, variance), and its standard error."""
    if len(rates) < 3:
        return 0.0, 0.0
    middle = (len(rates) - 1) / 2
    spread = sum((x - middle) ** 2 for x in range(len(rates)))
    slope = sum((x - middle) * rate for x, (rate, _) in enumerate(rates)) / spread
    return slope, math.sqrt(sum((x - middle) ** 2 * variance for x, (_, variance) in enumerate(rates))) / spread
