"""One function and one policy in virtual time: arrivals, waiting, instances that start, serve, drain.

Instances are chosen as the gateway does (least in service first), drained as the operator does (emptiest first, never
one that is busy before its work is done). An instance costs from the moment it is asked for until it is gone, so a
start is paid for. An invocation is *cold* when it finds no instance that serves (the gateway's own definition).
"""

import heapq
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from kappa_operator.autoscaler.measure import MOMENT_SECONDS

INFINITY = math.inf


@dataclass(frozen=True)
class FunctionTrace:
    """Arrivals in seconds, in order, and the service time of each; until `end`. Counted from `count_from`, each
    invocation and second `weight` times."""

    name: str
    arrivals: Sequence[float]
    durations: Sequence[float]
    end: float
    concurrency: int = 1
    count_from: float = 0.0
    weight: float = 1.0


@dataclass
class Result:
    """What came of it. `waits` has those that waited at all; `timeline` (time, instances) when it was asked for."""

    invocations: int = 0
    cold: int = 0
    started: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    waits: list[float] = field(default_factory=list)
    timeline: list[tuple[float, int]] = field(default_factory=list)


class Scaler(Protocol):
    """A policy. `next_tick`: when it wants to be asked again."""

    next_tick: float

    def arrived(self, now: float, run: "Run") -> None:
        """An invocation came; called before it is given to an instance."""

    def waits(self, now: float, run: "Run") -> None:
        """An invocation found no free slot."""

    def tick(self, now: float, run: "Run") -> None:
        """`next_tick` has come."""


class Instance:
    """`busy` of its slots are taken; `idle_since` means something when none is."""

    __slots__ = ("busy", "draining", "idle_since", "ready")

    def __init__(self) -> None:
        self.busy, self.idle_since, self.ready, self.draining = 0, 0.0, False, False


class Run:
    """The state of a run. `busy_seconds`, `wait_seconds`, `arrived`, `moments` and `ended` are a gateway's counters."""

    def __init__(
        self,
        trace: FunctionTrace,
        scaler: Scaler,
        start_seconds: float,
        timeline: bool = False,
        claim: Callable[[float], float] | None = None,
    ) -> None:
        """`start_seconds`: what every start takes, unless `claim` tells it for a start at a given time."""
        self.trace, self.scaler = trace, scaler
        self._claim = claim or (lambda now: start_seconds)
        self.now = 0.0
        self.queue: deque[float] = deque()
        self.queue_work: deque[float] = deque()
        self.in_service = self.arrived = self.ended = self.starting = 0
        self.moments, self._moment = 0, -1
        self.busy_seconds = self.wait_seconds = 0.0
        self.serving: list[Instance] = []
        self.alive = 0
        self.result = Result()
        self._keep_timeline = timeline
        self._ends: list[tuple[float, int, Instance]] = []
        self._ready: deque[tuple[float, Instance]] = deque()
        self._free: list[Instance] = []
        self._serial = 0

    # --- what a policy may do -----------------------------------------------------------------------------------------
    @property
    def waiting(self) -> int:
        return len(self.queue)

    def starting_seconds(self) -> float:
        """How long those that start still need, on average."""
        return sum(at - self.now for at, _ in self._ready) / len(self._ready) if self._ready else 0.0

    def scale(self, wanted: int) -> None:
        """Starts or drains until `wanted` instances serve or start."""
        while len(self.serving) + self.starting < wanted:
            instance = Instance()
            self._ready.append((self.now + self._claim(self.now), instance))
            self.starting += 1
            self.alive += 1
            self.result.started += 1
            if len(self._ready) > 1 and self._ready[-1][0] < self._ready[-2][0]:
                self._ready = deque(sorted(self._ready, key=lambda found: found[0]))
        while len(self.serving) + self.starting > wanted and self._ready:
            self._ready.pop()
            self.starting -= 1
            self.alive -= 1
        if len(self.serving) > wanted:
            for instance in sorted(self.serving, key=lambda i: (i.busy, -i.idle_since))[: len(self.serving) - wanted]:
                self.drain(instance)
        self._mark()

    def drain(self, instance: Instance) -> None:
        """Takes an instance out of service; it goes when its work is done."""
        self.serving.remove(instance)
        if instance in self._free:
            self._free.remove(instance)
        instance.draining = True
        if not instance.busy:
            self.alive -= 1
        self._mark()

    # --- the events ---------------------------------------------------------------------------------------------------
    def go(self) -> Result:
        trace, scaler, result = self.trace, self.scaler, self.result
        arrivals, durations, end = trace.arrivals, trace.durations, trace.end
        index, count, counted = 0, len(arrivals), trace.count_from <= 0
        ends = self._ends
        while True:
            at_arrival = arrivals[index] if index < count else INFINITY
            at_end = ends[0][0] if ends else INFINITY
            at_ready = self._ready[0][0] if self._ready else INFINITY
            now = min(at_arrival, at_end, at_ready, scaler.next_tick)
            if not counted and now >= trace.count_from:
                counted = True
                self._advance(trace.count_from)
                result.invocations = result.cold = result.started = 0
                result.seconds = result.slowest = 0.0
                result.waits.clear()
            if now >= end:
                self._advance(end)
                return result
            self._advance(now)
            if now == at_end:
                instance = heapq.heappop(ends)[2]
                self._finish(instance)
            elif now == at_ready:
                instance = self._ready.popleft()[1]
                self.starting -= 1
                instance.ready, instance.idle_since = True, now
                self.serving.append(instance)
                self._free.append(instance)
                self._dispatch()
            elif now == at_arrival:
                self._arrive(durations[index])
                index += 1
            else:
                scaler.tick(now, self)

    def _advance(self, now: float) -> None:
        passed = now - self.now
        self.result.seconds += self.alive * passed
        self.busy_seconds += self.in_service * passed
        self.wait_seconds += len(self.queue) * passed
        self.now = now

    def _arrive(self, duration: float) -> None:
        self.scaler.arrived(self.now, self)
        self.arrived += 1
        if self._moment != (moment := int(self.now / MOMENT_SECONDS)):
            self._moment = moment
            self.moments += 1
        self.result.invocations += 1
        self.result.cold += not self.serving
        if self._free and not self.queue:
            self._begin(duration)
            return
        self.queue.append(self.now)
        self.queue_work.append(duration)
        self.scaler.waits(self.now, self)

    def _begin(self, duration: float) -> None:
        free = self._free
        # The last one in is the emptiest or the one that was busy last: those at the front stay idle and can go.
        instance = free[-1] if self.trace.concurrency == 1 else min(free, key=lambda i: i.busy)
        instance.busy += 1
        if instance.busy >= self.trace.concurrency:
            free.remove(instance) if free[-1] is not instance else free.pop()
        self.in_service += 1
        self._serial += 1
        heapq.heappush(self._ends, (self.now + duration, self._serial, instance))

    def _finish(self, instance: Instance) -> None:
        self.in_service -= 1
        self.ended += 1
        instance.busy -= 1
        if not instance.busy:
            instance.idle_since = self.now
        if instance.draining:
            if not instance.busy:
                self.alive -= 1
                self._mark()
            return
        if instance.busy == self.trace.concurrency - 1:
            self._free.append(instance)
        self._dispatch()

    def _dispatch(self) -> None:
        while self.queue and self._free:
            waited = self.now - self.queue.popleft()
            self.result.waits.append(waited)
            self.result.slowest = max(self.result.slowest, waited)
            self._begin(self.queue_work.popleft())

    def _mark(self) -> None:
        if self._keep_timeline:
            self.result.timeline.append((self.now, self.alive))
