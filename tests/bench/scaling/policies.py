"""The policies under comparison: Kappa (the operator's own code), Knative's KPA, a fixed keep-alive.

Constants of the KPA are its documented defaults (docs/scaling.md names them). Where its behaviour leaves room, the
reading that favours it is taken: exact averages without scrape noise, no delay between decision and pod, the emptiest
pods drained first, one pod (not two) for the first call at zero.
"""

import bisect
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from engine import INFINITY, Run

from kappa_operator.autoscaler.decide import Decision, Inputs, Policy, decide
from kappa_operator.autoscaler.keepalive import IdleHistogram, KeepPlan, KeepPolicy
from kappa_operator.autoscaler.measure import Measure, Reading
from kappa_operator.autoscaler.need import Sample
from kappa_operator.autoscaler.upscale import Supply

SCRAPE = 1.0
GATHER = 0.005


class Kappa:
    """Feeds `decide` what the operator would: a scrape every second, a demand message when something waits."""

    def __init__(
        self,
        start: float,
        *,
        policy: Policy,
        keep: KeepPolicy,
        pool: Callable[[float], int] = lambda now: 1 << 20,
        made: float = 1.0,
    ) -> None:
        """`pool` tells how many pool pods are ready; a start takes `start` from the pool and `made` without it."""
        self.start, self.policy, self.keep = start, policy, keep
        self.pool, self.made = pool, made
        self.next_tick = INFINITY
        self.histogram, self.measure = IdleHistogram(), Measure()
        self.wanted = 0
        self.changed = -INFINITY
        self.last_activity = 0.0
        self.decisions: list[Decision] = []
        self.keep_decisions = False
        self._samples: list[Sample] = []
        self._scrape_at = 0.0
        self._read = (0.0, 0, 0, 0, 0.0, 0.0)
        self._peak = 0
        self._demand_at, self._demanded = INFINITY, -INFINITY

    def arrived(self, now: float, run: Run) -> None:
        if not run.in_service and not run.waiting:
            idle = now - self.last_activity
            if run.arrived and idle >= self.keep.linger:
                self.histogram.add(idle)
            at, *counters = self._read
            self._read = (max(at, math.floor(now)), *counters)
            self._scrape_at = math.floor(now) + SCRAPE
            self.next_tick = min(self.next_tick, self._scrape_at)

    def waits(self, now: float, run: Run) -> None:
        if self._demand_at == INFINITY:
            # The first message of a burst leaves at once, the next ones gather.
            self._demand_at = max(now, self._demanded + GATHER)
            self.next_tick = min(self.next_tick, self._demand_at)

    def tick(self, now: float, run: Run) -> None:
        self._peak = max(self._peak, run.in_service + run.waiting)
        if now >= self._scrape_at:
            self._reading(now, run)
            self._scrape_at = math.floor(now) + SCRAPE
        self._decide(now, run)
        if now >= self._demand_at:
            self._demanded, self._demand_at = now, INFINITY

    def _reading(self, now: float, run: Run) -> None:
        at, arrived, moments, ended, busy, waiting = self._read
        seconds = now - at
        if seconds <= 0:
            return
        served = run.busy_seconds - busy
        self.measure.reading(
            Reading(
                seconds,
                run.arrived - arrived,
                run.moments - moments,
                run.ended - ended,
                served,
                run.wait_seconds - waiting,
                run.in_service,
                run.waiting,
                len(run.serving),
            )
        )
        self._samples.append(Sample(now, seconds, served / seconds, self._peak))
        self._samples = [s for s in self._samples if s.at > now - self.policy.window_seconds]
        self._read = (now, run.arrived, run.moments, run.ended, run.busy_seconds, run.wait_seconds)
        self._peak = run.in_service + run.waiting
        if served > 0:
            self.last_activity = now if run.in_service or run.waiting else self._ended(now, run)

    def _ended(self, now: float, run: Run) -> float:
        """When the last invocation ended: a gateway's counters tell it to the scrape; the engine knows it exactly."""
        return max((i.idle_since for i in run.serving), default=now)

    def _decide(self, now: float, run: Run) -> None:
        ready = len(run.serving)
        idle = not run.in_service and not run.waiting
        if run.waiting:
            self.measure.watched(now, run.waiting, run.in_service)
        plan: KeepPlan | None = self.histogram.plan(self.keep) if idle else None
        inputs = Inputs(
            load=self.measure.load(run.waiting, run.in_service),
            current=self.wanted,
            supply=Supply(ready, run.starting, run.starting_seconds(), self.pool(now), self.start, self.made),
            last_activity=self.last_activity,
            changed=self.changed,
            samples=tuple(self._samples),
            keep=plan,
        )
        decision = decide(now, inputs, self.policy)
        if self.keep_decisions:
            self.decisions.append(decision)
        if decision.wanted != self.wanted:
            self.wanted, self.changed = decision.wanted, now
            run.scale(self.wanted)
        if not idle:
            self.next_tick = math.floor(now) + SCRAPE
        else:
            # Nothing happens until then, and every scrape before it would decide the same.
            review = decision.review
            self.next_tick = INFINITY if review == INFINITY else max(math.floor(now) + SCRAPE, math.ceil(review))
            self._scrape_at = self.next_tick
        self.next_tick = min(self.next_tick, self._demand_at)


@dataclass(frozen=True)
class KpaSettings:
    """Knative Serving's defaults (config-autoscaler), for a revision with a container concurrency."""

    tick: float = 2.0
    stable: float = 60.0
    panic: float = 6.0
    panic_threshold: float = 2.0
    utilization: float = 0.7
    up_rate: float = 1000.0
    down_rate: float = 2.0
    grace: float = 30.0


@dataclass
class Kpa:
    """`Scale` of Knative's pod autoscaler, on the exact concurrency (in service and waiting)."""

    concurrency: int
    settings: KpaSettings = field(default_factory=KpaSettings)
    next_tick: float = INFINITY

    def __post_init__(self) -> None:
        self.wanted = 0
        self.panic_at, self.panic_pods = -INFINITY, 0
        self.first, self.last_busy = -INFINITY, -INFINITY
        self.zero_since = INFINITY
        self._times: list[float] = []
        self._sums: list[float] = []

    def arrived(self, now: float, run: Run) -> None:
        s = self.settings
        if now - self.last_busy > s.stable or not self._times:
            # No data for a whole window: the average starts anew with this call.
            self.first, self._times, self._sums = now, [now], [run.busy_seconds + run.wait_seconds]
        self.last_busy = now
        if self.wanted == 0:
            self.wanted = 1
            run.scale(1)
        self.zero_since = INFINITY
        # After a jump over quiet ticks: back to the grid.
        self.next_tick = min(self.next_tick, (math.floor(now / s.tick) + 1) * s.tick)

    def waits(self, now: float, run: Run) -> None:
        pass

    def _average(self, now: float, window: float) -> float:
        since = max(now - window, self.first)
        if now <= since:
            return 0.0
        index = max(0, bisect.bisect_right(self._times, since) - 1)
        return (self._sums[-1] - self._sums[index]) / (now - since)

    def tick(self, now: float, run: Run) -> None:
        s = self.settings
        target = s.utilization * self.concurrency
        self._times.append(now)
        self._sums.append(run.busy_seconds + run.wait_seconds)
        if len(self._times) > 200:
            del self._times[:100], self._sums[:100]
        if run.in_service or run.waiting:
            self.last_busy = now
        elif run.serving:
            self.last_busy = max(self.last_busy, *(i.idle_since for i in run.serving if i.idle_since <= now), -1.0)
        ready = max(1, len(run.serving))
        up, down = math.ceil(s.up_rate * ready), math.floor(ready / s.down_rate)
        stable = math.ceil(self._average(now, s.stable) / target - 1e-9)
        panic = math.ceil(self._average(now, s.panic) / target - 1e-9)
        wanted = min(max(stable, down), up)
        if panic / ready >= s.panic_threshold:
            self.panic_at = now
        elif self.panic_at > -INFINITY and now - self.panic_at > s.stable:
            self.panic_at, self.panic_pods = -INFINITY, 0
        if self.panic_at > -INFINITY:
            self.panic_pods = max(self.panic_pods, wanted, min(max(panic, down), up))
            wanted = self.panic_pods
        if wanted == 0:
            self.zero_since = min(self.zero_since, now)
            if now - self.zero_since < s.grace:
                wanted = 1
        else:
            self.zero_since = INFINITY
        if wanted != self.wanted:
            self.wanted = wanted
            run.scale(wanted)
        self.next_tick = now + s.tick
        if self.wanted == 0:
            self.next_tick = INFINITY
        elif self.wanted == 1 and self.panic_at == -INFINITY and not run.in_service and not run.waiting:
            # One idle pod: nothing changes before the stable window has passed, nor before the grace is over.
            quiet = self.last_busy + s.stable if self.zero_since == INFINITY else self.zero_since + s.grace
            self.next_tick = max(self.next_tick, math.floor(quiet / s.tick) * s.tick)


class Fixed:
    """One instance per invocation that finds no free slot; each stays for `keep` seconds after its last use."""

    def __init__(self, concurrency: int, keep: float = 600.0) -> None:
        self.concurrency, self.keep = concurrency, keep
        self.next_tick = INFINITY

    def arrived(self, now: float, run: Run) -> None:
        pass

    def waits(self, now: float, run: Run) -> None:
        if run.starting * self.concurrency < run.waiting:
            run.scale(len(run.serving) + run.starting + 1)
        self.next_tick = min(self.next_tick, now + self.keep)

    def tick(self, now: float, run: Run) -> None:
        for instance in [i for i in run.serving if not i.busy and i.idle_since + self.keep <= now]:
            run.drain(instance)
        idle = [i.idle_since + self.keep for i in run.serving if not i.busy]
        self.next_tick = min(idle, default=now + self.keep if run.alive else INFINITY)
