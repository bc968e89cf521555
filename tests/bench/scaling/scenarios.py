"""The two bursts of the real-cluster benchmark, in the simulator: a pool of 5 that is refilled.

A claim of a pool pod takes `warm`; the pool makes a new pod for each one claimed, which takes `made`; when the pool is
empty an instance waits for the next pod.
"""

from dataclasses import dataclass, field

import numpy as np
from engine import FunctionTrace, Run
from policies import Kappa
from traces import SEED

from kappa_operator.autoscaler.decide import Policy
from kappa_operator.autoscaler.keepalive import KeepPolicy


@dataclass
class Pool:
    """Pool pods by the time at which they are ready."""

    size: int = 5
    warm: float = 0.03
    made: float = 1.0
    ready: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ready = [0.0] * self.size

    def available(self, now: float) -> int:
        return sum(at <= now for at in self.ready)

    def claim(self, now: float) -> float:
        """Seconds until an instance asked for now serves."""
        self.ready.sort()
        if self.ready and self.ready[0] <= now:
            self.ready.pop(0)
            self.ready.append(now + self.made)
            return self.warm
        return self.made + self.warm


@dataclass(frozen=True)
class Scenario:
    """What came of one burst; `limit` is the slowest answer allowed, in seconds, handler included."""

    name: str
    slowest: float
    started: int
    peak: int
    limit: float
    most_started: int | None

    @property
    def met(self) -> bool:
        return bool(self.slowest <= self.limit and (self.most_started is None or self.started <= self.most_started))


def _run(name: str, arrivals: list[float], took: float, end: float, most_started: int | None) -> Scenario:
    pool = Pool()
    scaler = Kappa(
        pool.warm, policy=Policy(0, 100, 60, 1), keep=KeepPolicy(), pool=pool.available, made=pool.made + pool.warm
    )
    run = Run(FunctionTrace(name, arrivals, [took] * len(arrivals), end), scaler, pool.warm, True, pool.claim)
    result = run.go()
    peak = max((count for _, count in result.timeline), default=0)
    return Scenario(name, result.slowest + took, result.started, peak, 1.5, most_started)


def scenarios() -> list[Scenario]:
    """50 calls at once at zero, and a step from idle to 60 calls a second; 100 ms handler, concurrency 1."""
    rng = np.random.default_rng(SEED + 8)
    step = np.sort(rng.uniform(5, 65, 3600)).tolist()
    return [
        _run("50 calls at once at zero", [1.0] * 50, 0.1, 30, 12),
        _run("idle to 60 calls/s", step, 0.1, 120, None),
    ]
