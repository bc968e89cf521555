"""How long starts take here: measured, per runtime (or image), for pool pods and for pods that have to be made.

A start counts from the claim to the loaded code, in seconds. What decisions reckon with is the median of the last
ones: a pod whose image had to be pulled first, or a node that was busy for once, is one reading among many. A
function with enough starts of its own (one with heavy imports, say) is judged by those.
"""

import statistics
from collections import OrderedDict, deque
from dataclasses import dataclass

#: Before anything was measured: a pool pod, and a pod that has to be made (a real node; see docs/performance.md).
WARM_SECONDS, COLD_SECONDS = 0.03, 1.0
#: Readings outside of these say more about the cluster than about the next start.
LEAST, MOST = 0.005, 60.0
KEPT = 15
#: The assumption counts as much as this many readings, so that a first one that was slow rules nothing.
ASSUMED = 2
#: With so many starts of its own a function is judged by them.
ENOUGH = 5
MOST_KEYS = 4096


@dataclass(frozen=True, slots=True)
class Start:
    """One start: of which function (`namespace/name`), with which runtime or image, from the pool or not."""

    function: str
    runtime: str
    pooled: bool


class StartTimes:
    """Bounded memory: those measured longest ago are forgotten."""

    def __init__(self) -> None:
        self._seconds: OrderedDict[tuple[str, bool], deque[float]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<StartTimes {len(self._seconds)} measured>"

    def add(self, start: Start, seconds: float) -> None:
        for key in (start.function, start.runtime):
            where = (key, start.pooled)
            self._seconds.setdefault(where, deque(maxlen=KEPT)).append(min(max(seconds, LEAST), MOST))
            self._seconds.move_to_end(where)
        while len(self._seconds) > MOST_KEYS:
            self._seconds.popitem(last=False)

    def seconds(self, start: Start) -> float:
        """What the next such start will probably take."""
        own = self._seconds.get((start.function, start.pooled), ())
        if len(own) >= ENOUGH:
            return float(statistics.median(own))
        assumed = WARM_SECONDS if start.pooled else COLD_SECONDS
        return float(statistics.median([*self._seconds.get((start.runtime, start.pooled), ()), *[assumed] * ASSUMED]))
