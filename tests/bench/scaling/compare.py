"""Runs every policy over a trace class and adds the results up, weighted where a trace stands for more than itself."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from engine import FunctionTrace, Result, Run
from oracle import always_on, busy_seconds, oracle
from policies import Fixed, Kappa, Kpa, KpaSettings
from traces import TraceClass

from kappa_operator.autoscaler.decide import Policy
from kappa_operator.autoscaler.keepalive import KeepPolicy

#: The bound of idleness; below it the histogram decides. `--idle-seconds` changes it for a run.
IDLE_SECONDS = 300.0
MOST = 1000

Runner = Callable[[FunctionTrace, float], Result]


@dataclass(frozen=True)
class Row:
    """One policy on one trace class. `seconds`: instance-seconds. `busy`: seconds in which instances had work."""

    trace: str
    policy: str
    start: float
    invocations: float
    cold: float
    started: float
    p50: float
    p99: float
    slowest: float
    seconds: float


def kappa(idle_seconds: float, timeline: bool = False) -> Runner:
    def run(trace: FunctionTrace, start: float) -> Result:
        policy = Policy(0, MOST, idle_seconds, trace.concurrency)
        # A prewarmed instance is started on a scrape, so up to a second early.
        keep = KeepPolicy(idle_seconds=idle_seconds, lead=start + 1.0)
        return Run(trace, Kappa(start, policy=policy, keep=keep), start, timeline).go()

    return run


def kpa(settings: KpaSettings, timeline: bool = False) -> Runner:
    return lambda trace, start: Run(trace, Kpa(trace.concurrency, settings), start, timeline).go()


def policies(idle_seconds: float = IDLE_SECONDS) -> dict[str, Runner]:
    """Every policy by its name in the tables."""
    return {
        "kappa": kappa(idle_seconds),
        "kpa": kpa(KpaSettings()),
        "keep 10 min": lambda trace, start: Run(trace, Fixed(trace.concurrency), start).go(),
        "always on": lambda trace, start: always_on(trace),
        "oracle": oracle,
        "busy": lambda trace, start: Result(
            sum(at >= trace.count_from for at in trace.arrivals), seconds=busy_seconds(trace)
        ),
    }


def compare(traces: TraceClass, name: str, runner: Runner, start: float) -> Row:
    """One row. Waits are weighted like the invocations."""
    invocations = cold = started = seconds = slowest = 0.0
    waits: list[np.ndarray] = []
    weights: list[np.ndarray] = []
    for function in traces.functions:
        result = runner(function, start)
        weight = function.weight
        invocations += weight * result.invocations
        cold += weight * result.cold
        started += weight * result.started
        seconds += weight * result.seconds
        slowest = max(slowest, result.slowest)
        waits.append(np.array(result.waits))
        weights.append(np.full(len(result.waits), weight))
    all_waits = np.concatenate(waits) if waits else np.zeros(0)
    order = np.argsort(-all_waits)
    longer = np.cumsum(np.concatenate(weights)[order]) if waits else np.zeros(0)

    def percentile(share: float) -> float:
        """The wait that `share` of the invocations do not exceed."""
        index = int(np.searchsorted(longer, (1 - share) * invocations, side="right"))
        return float(all_waits[order][index]) if index < len(order) else 0.0

    return Row(
        traces.name, name, start, invocations, cold, started, percentile(0.5), percentile(0.99), slowest, seconds
    )
