"""The oracle: the best that anybody could do who knows a burst the moment it begins, with the same pool and starts.

Pure. It may use `pool` instances after `warm` seconds and as many more as it likes after `fresh` seconds (a pod from
nothing); it chooses the number of instances that ends soonest, and of equal ones the smallest.
"""

import heapq
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Starts:
    """What was measured in the same run: seconds until a pool pod serves, and until a new pod does."""

    pool: int
    warm: float
    fresh: float


def last_answer(requests: int, service: float, instances: int, starts: Starts) -> float:
    """Seconds until the last of so many simultaneous requests is answered; an instance runs one at a time."""
    free = [starts.warm] * min(instances, starts.pool) + [starts.fresh] * max(0, instances - starts.pool)
    heapq.heapify(free)
    last = 0.0
    for _ in range(requests):
        end = free[0] + service
        heapq.heapreplace(free, end)
        last = max(last, end)
    return last


def best(requests: int, service: float, starts: Starts, most: int) -> tuple[int, float]:
    """The number of instances, and the seconds."""
    found = min((round(last_answer(requests, service, n, starts), 4), n) for n in range(1, most + 1))
    return found[1], found[0]
