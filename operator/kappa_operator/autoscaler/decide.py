"""How many instances a function gets: a pure function of signals, history, policy and time.

Up: at once, to what is in service and waiting. Down: to the most that the last window needed, and only while every
gateway is heard. To zero: after `idle_seconds` without traffic. The precise rules (does another instance help at all,
histograms of idle times) take the place of `_need` and `_may_be_zero`.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from kappa_operator.autoscaler.signals import Need


@dataclass(frozen=True, slots=True)
class Policy:
    """A function's bounds. `window_seconds`: how far back the need is remembered."""

    min_replicas: int
    max_replicas: int
    idle_seconds: float
    concurrency: int
    window_seconds: float = 15.0


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a decision is made from. `peaks` are (time, instances needed) of the window; `heard`: every gateway was
    read."""

    need: Need
    current: int
    last_activity: float
    peaks: tuple[tuple[float, int], ...] = ()
    heard: bool = True


@dataclass(frozen=True, slots=True)
class Decision:
    """`wanted` instances from `at` on, and why, in a sentence."""

    at: float
    wanted: int
    reason: str
    inputs: Inputs


def instances_needed(need: Need, policy: Policy) -> int:
    """Instances that the invocations of this moment fill."""
    demand = max(float(need.in_service + need.waiting), need.average)
    # An average a hair above a whole number is noise of two clocks, not a reason for one more instance.
    return math.ceil(demand / policy.concurrency - 0.05)


def decide(now: float, inputs: Inputs, policy: Policy) -> Decision:
    """The number of instances from now on."""
    instant = math.ceil((inputs.need.in_service + inputs.need.waiting) / policy.concurrency)
    bounded = min(policy.max_replicas, max(policy.min_replicas, instant))
    if bounded > inputs.current:
        return Decision(now, bounded, _up(inputs, policy, instant, bounded), inputs)
    if inputs.current > policy.max_replicas:
        return Decision(now, policy.max_replicas, f"maxReplicas is {policy.max_replicas}", inputs)
    if not inputs.heard:
        return Decision(now, inputs.current, "not every gateway answers: nothing is removed", inputs)
    peak = max([instant, *_within(inputs.peaks, now - policy.window_seconds)], default=0)
    idle = now - inputs.last_activity
    floor = max(policy.min_replicas, peak)
    if floor == 0 and (inputs.current == 0 or idle < policy.idle_seconds):
        floor = min(1, inputs.current)
    floor = min(policy.max_replicas, floor)
    if floor >= inputs.current:
        return Decision(now, inputs.current, "as many as are needed", inputs)
    if floor == 0:
        reason = f"no invocation for {idle:.0f} s (idleSeconds is {policy.idle_seconds:g})"
    else:
        reason = f"the last {policy.window_seconds:g} s needed at most {peak} (minReplicas is {policy.min_replicas})"
    return Decision(now, floor, reason, inputs)


def _up(inputs: Inputs, policy: Policy, instant: int, bounded: int) -> str:
    if bounded == policy.min_replicas and bounded > instant:
        return f"minReplicas is {policy.min_replicas}"
    need = inputs.need
    reason = f"{need.waiting} waiting and {need.in_service} in service, {policy.concurrency} per instance"
    return reason + (f", capped by maxReplicas {policy.max_replicas}" if bounded < instant else "")


def _within(peaks: Iterable[tuple[float, int]], since: float) -> list[int]:
    return [count for at, count in peaks if at >= since]
