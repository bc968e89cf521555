"""How long the last instance of an idle function stays, and when one is started ahead of the next call. Pure.

After Shahrad et al., "Serverless in the Wild" (USENIX ATC 2020): a histogram of a function's idle times, its head and
tail percentiles with a margin, a test whether it says anything at all, and a fixed keep-alive where it does not. What
differs, and why:

* The bins grow geometrically, from a second to a day, and each knows the smallest and the largest time in it. The paper
  counts minutes up to four hours; here a start takes milliseconds, so seconds matter, and an hourly timer is known to
  the second. Old times fade (all counts are halved from time to time).
* An idle instance has a price. `worth` is how many idle instance-seconds one avoided cold start may cost; the instance
  stays as long as the histogram says that staying is worth it, at most `idleSeconds`, and a prewarmed one is only
  started if its window, from the head to the tail of the remaining idle times, is worth it too. The two together never
  idle longer than `idleSeconds` in one idle period: that is the bound a developer sets.
"""

import math
from dataclasses import dataclass, field

GROWTH = 1.15
SHORTEST, LONGEST = 1.0, 86_400.0
#: All counts are halved when there are this many.
FADE_AT = 256.0
_LOG = math.log(GROWTH)


@dataclass(frozen=True, slots=True)
class KeepPolicy:
    """`idle_seconds`: the bound. `worth`: idle instance-seconds that one avoided cold start may cost. `least`: idle
    times to know before the histogram rules. `most_outside`: the share of idle times longer than a day above which it
    does not. `head`, `tail`: percentiles of the prewarm window, `margin` widens it on both sides. `spread`: the largest
    standard deviation, as a share of the mean, of idle times that count as predictable. `linger`: seconds an instance
    stays at least. `lead`: seconds a start takes."""

    idle_seconds: float = 60.0
    worth: float = 88.0
    least: int = 6
    most_outside: float = 0.5
    head: float = 0.05
    tail: float = 0.99
    margin: float = 0.1
    spread: float = 0.5
    linger: float = 5.0
    lead: float = 1.0


@dataclass(frozen=True, slots=True)
class KeepPlan:
    """For one idle period, in seconds since it began: the last instance stays for `keep`; when `until` is not 0, one is
    there again from `prestart` to `until`."""

    keep: float
    prestart: float = 0.0
    until: float = 0.0
    reason: str = ""

    def holds(self, idle: float) -> bool:
        """Whether an instance should be there after `idle` seconds."""
        return idle < self.keep or self.prestart <= idle < self.until

    def next_change(self, idle: float) -> float:
        """Seconds of idleness at which `holds` changes next; infinity for never."""
        return min((edge for edge in (self.keep, self.prestart, self.until) if edge > idle), default=math.inf)


@dataclass(slots=True)
class Bin:
    """Idle times of about the same length. `low`, `high`: the shortest and the longest of them, in seconds; `total`,
    `squares`: the sums of them and of their squares. They fade, so `count` need not be whole."""

    count: float
    low: float
    high: float
    total: float
    squares: float


@dataclass(slots=True)
class IdleHistogram:
    """The idle times of one function: from the end of its last invocation to the next arrival."""

    bins: dict[int, Bin] = field(default_factory=dict)
    count: float = 0.0
    outside: float = 0.0
    _fresh: int = 0
    _planned: tuple[KeepPolicy, KeepPlan] | None = None

    def add(self, seconds: float) -> None:
        """One more idle time."""
        self._fresh += 1
        self.count += 1
        if seconds > LONGEST:
            self.outside += 1
            return
        index = max(0, math.ceil(math.log(max(seconds, SHORTEST) / SHORTEST) / _LOG))
        found = self.bins.get(index)
        if found is None:
            self.bins[index] = Bin(1, seconds, seconds, seconds, seconds * seconds)
        else:
            found.count += 1
            found.low, found.high = min(found.low, seconds), max(found.high, seconds)
            found.total += seconds
            found.squares += seconds * seconds
        if self.count >= FADE_AT:
            self._fade()

    def _fade(self) -> None:
        self.count /= 2
        self.outside /= 2
        for index, found in list(self.bins.items()):
            found.count /= 2
            found.total /= 2
            found.squares /= 2
            if found.count < 0.2:
                self.count -= found.count
                del self.bins[index]

    def plan(self, policy: KeepPolicy) -> KeepPlan:
        """What to do with an idle period. Made anew when the idle times that came since are a twentieth of all."""
        if self._planned is None or self._planned[0] != policy or self._fresh > self.count / 20:
            self._planned, self._fresh = (policy, _plan(self, policy)), 0
        return self._planned[1]


def _plan(histogram: IdleHistogram, policy: KeepPolicy) -> KeepPlan:
    bound = policy.idle_seconds
    if histogram.count < policy.least:
        return KeepPlan(bound, reason=f"idleSeconds is {bound:g}; only {histogram.count:.0f} idle times are known")
    if histogram.outside > policy.most_outside * histogram.count:
        return KeepPlan(bound, reason=f"idleSeconds is {bound:g}; most idle times are longer than a day")
    bins = [histogram.bins[index] for index in sorted(histogram.bins)]
    keep, hits = _keep(bins, histogram.count, policy)
    share = hits / histogram.count
    reason = f"{share:.0%} of {histogram.count:.0f} idle times ended within {keep:.0f} s"
    if keep >= bound:
        return KeepPlan(bound, reason=f"{reason}, idleSeconds is {bound:g}")
    rest = [found for found in bins if found.high > keep]
    return _prestart(rest, histogram.count, keep, reason, policy) or KeepPlan(keep, reason=reason)


def _keep(bins: list[Bin], count: float, policy: KeepPolicy) -> tuple[float, float]:
    """The time to stay for which hits * worth - idle seconds is largest, and the hits it has."""
    linger = min(policy.linger, policy.idle_seconds)
    best, best_value, best_hits = linger, -math.inf, 0.0
    hits = total = 0.0
    index = 0
    highs = (min(found.high * (1 + policy.margin), policy.idle_seconds) for found in bins)
    for stay in sorted({linger, policy.idle_seconds, *(high for high in highs if high > linger)}):
        while index < len(bins) and bins[index].high <= stay:
            hits += bins[index].count
            total += bins[index].total
            index += 1
        # The rule of succession: one idle time longer than any so far has not been seen yet.
        value = (hits + (stay == policy.idle_seconds)) * policy.worth - total - (count - hits) * stay
        if value > best_value:
            best, best_value, best_hits = stay, value, hits
    return best, best_hits


def _prestart(rest: list[Bin], count: float, keep: float, reason: str, policy: KeepPolicy) -> KeepPlan | None:
    """The prewarm window over the idle times longer than `keep`, if they are predictable and it is worth it."""
    mass = sum(found.count for found in rest)
    if mass < policy.least / 2:
        return None
    mean = sum(found.total for found in rest) / mass
    variance = max(0.0, sum(found.squares for found in rest) / mass - mean * mean)
    if math.sqrt(variance) > policy.spread * mean:
        return None
    head, tail = _percentile(rest, policy.head * mass, False), _percentile(rest, policy.tail * mass, True)
    # The margin is a share of what the window has to cover, not of the time until it opens: a timer that is exact to
    # the second needs an instance for a few seconds, however long its period is.
    margin = policy.margin * (tail - head) + 1.0
    start, until = max(keep, head - margin - policy.lead), tail + margin
    hits = sum(found.count for found in rest if start <= found.low and found.high <= until)
    spent = sum(max(0.0, min(found.total / found.count, until) - start) * found.count for found in rest)
    if until - start + keep > policy.idle_seconds or hits * policy.worth <= spent:
        return None
    text = f"{reason}; the others mostly end after {head:.0f} to {tail:.0f} s"
    return KeepPlan(keep, start, until, text)


def _percentile(bins: list[Bin], mass: float, high: bool) -> float:
    """The edge of the bin in which the `mass`-th of the idle times lies."""
    seen = 0.0
    for found in bins:
        seen += found.count
        if seen >= mass:
            return found.high if high else found.low
    return bins[-1].high
