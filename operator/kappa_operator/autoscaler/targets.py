"""What the autoscaler remembers of each function, and which functions it has to look at. Synchronous, no I/O.

Ten thousand functions may have been called once and be at zero now: looking at them each second would cost more than
all the others. So those with instances stand in a set, and those with a date in a heap.
"""

import heapq
import math
from collections import deque
from dataclasses import dataclass, field

from kappa_operator.autoscaler.keepalive import IdleHistogram
from kappa_operator.autoscaler.measure import Measure
from kappa_operator.autoscaler.need import Sample


@dataclass(slots=True)
class Target:
    """One function that has, or once had, instances. `review`: when to decide again though nothing happens. `peak`: the
    most that was in service and waiting since the last reading. `settled`: at zero, and nothing but the idle times is
    kept."""

    wanted: int
    last_activity: float
    changed: float = -math.inf
    review: float = 0.0
    peak: int = 0
    settled: bool = False
    idle: IdleHistogram = field(default_factory=IdleHistogram)
    measure: Measure = field(default_factory=Measure)
    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=120))


class Targets:
    """By function key. Whoever changes `wanted` or `review` of a target tells `changed` afterwards."""

    def __init__(self) -> None:
        self._all: dict[str, Target] = {}
        self._up: set[str] = set()
        self._due: list[tuple[float, str]] = []

    def __repr__(self) -> str:
        return f"<Targets {len(self._all)} known, {len(self._up)} up, {len(self._due)} dates>"

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, key: str) -> bool:
        return key in self._all

    def get(self, key: str) -> Target | None:
        return self._all.get(key)

    def put(self, key: str, target: Target) -> Target:
        self._all[key] = target
        self.changed(key)
        return target

    def drop(self, key: str) -> Target | None:
        self._up.discard(key)
        return self._all.pop(key, None)

    def changed(self, key: str) -> None:
        """Files a target anew."""
        target = self._all[key]
        if target.wanted:
            self._up.add(key)
            return
        self._up.discard(key)
        if target.review < math.inf:
            heapq.heappush(self._due, (target.review, key))

    def up(self) -> frozenset[str]:
        """Those with instances."""
        return frozenset(self._up)

    def due(self, now: float) -> set[str]:
        """Those at zero whose date has come; each date is told once."""
        found = set()
        while self._due and self._due[0][0] <= now:
            at, key = heapq.heappop(self._due)
            target = self._all.get(key)
            if target is not None and target.review == at:
                found.add(key)
        return found
