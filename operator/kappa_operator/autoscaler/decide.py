"""How many instances a function gets: one pure function of signals, history, policy and time.

* **Up**, at once, by as many instances as are worth it for the invocations that wait, or that a growing load will need
  (`upscale`); and by one ahead of the next expected call (`keepalive`).
* **Down**, at most once per window and only while every gateway is heard, to what the window needed and what bursts are
  worth (`need`), never below what is in service and never while something waits.
* **To zero** when the function has been idle for as long as its idle times say (`keepalive`).
* **Bounds** come first: minReplicas, maxReplicas, and what quota and fairness leave (`share`).

The simulator (tests/bench/scaling) calls this very function.
"""

import math
from dataclasses import dataclass

from kappa_operator.autoscaler.keepalive import KeepPlan
from kappa_operator.autoscaler.need import Sample, window_need, worth_holding
from kappa_operator.autoscaler.share import Limit
from kappa_operator.autoscaler.upscale import Load, Price, Supply, ahead, helpful


@dataclass(frozen=True, slots=True)
class Policy:
    """A function's bounds and how its decisions are made.

    `window_seconds`: how far back the need is remembered, and the least time between a change and the next step down;
    longer: fewer starts, more idle instances. `headroom`: square roots of the load kept free; more: less waiting.
    `start_price`, `hold_price`: instance-seconds that a second of one waiting invocation is worth, when an instance is
    started for it, and when one is kept for the next burst; more: less waiting, more instances.
    """

    min_replicas: int
    max_replicas: int
    idle_seconds: float
    concurrency: int
    window_seconds: float = 3.0
    headroom: float = 1.2
    start_price: float = 3.0
    hold_price: float = 4.0


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a decision is made from.

    `current` instances are wanted now, `supply` says how many of them serve. `last_activity` and `changed` (of the
    wanted number) are times like `now`. `samples` are the last intervals, oldest first. `keep` plans the present idle
    period; None: `idleSeconds` rules. `limit`: what quota and fairness leave. `over_memory`: idle instances hold more
    memory than the cluster allows, and this function's are to go. `heard`: every gateway was read.
    """

    load: Load
    current: int
    supply: Supply
    last_activity: float
    changed: float = -math.inf
    samples: tuple[Sample, ...] = ()
    keep: KeepPlan | None = None
    limit: Limit | None = None
    over_memory: bool = False
    heard: bool = True


@dataclass(frozen=True, slots=True)
class Decision:
    """`wanted` instances from `at` on, and why, in a sentence. `review`: when to decide again though nothing happens;
    infinity for never."""

    at: float
    wanted: int
    reason: str
    inputs: Inputs
    review: float = math.inf


def decide(now: float, inputs: Inputs, policy: Policy) -> Decision:
    """The number of instances from now on."""
    limit = inputs.limit
    high = policy.max_replicas if limit is None else min(policy.max_replicas, limit.most)
    low = min(policy.min_replicas, high)
    cap = (
        f"maxReplicas is {policy.max_replicas}" if limit is None or policy.max_replicas <= limit.most else limit.reason
    )
    idle_for = now - inputs.last_activity
    keep = inputs.keep or KeepPlan(policy.idle_seconds, reason=f"idleSeconds is {policy.idle_seconds:g}")
    if inputs.current > high:
        return Decision(now, high, cap, inputs, now)
    if inputs.load.waiting:
        return _up(now, inputs, policy, low, high, cap)
    if inputs.current < low:
        return Decision(now, low, f"minReplicas is {policy.min_replicas}", inputs, now)
    grown = min(high, ahead(inputs.load, inputs.supply, policy.concurrency, policy.headroom))
    if grown > inputs.current:
        reason = f"calls come faster by {inputs.load.trend:.1f} a second each second: {grown} will be needed"
        return Decision(now, grown, reason, inputs)
    idle = not inputs.load.in_service
    if not inputs.current:
        # Ahead of the next call: only inside the window, so that a late decision starts nothing in vain.
        if idle and high and not inputs.over_memory and keep.prestart <= idle_for < keep.until:
            reason = f"started ahead of the next call: {keep.reason}"
            return Decision(now, 1, reason, inputs, inputs.last_activity + keep.until)
        return Decision(now, 0, "as many as are needed", inputs, inputs.last_activity + keep.next_change(idle_for))
    if not inputs.heard:
        return Decision(now, inputs.current, "not every gateway answers: nothing is removed", inputs)
    if idle and not low and (inputs.over_memory or not keep.holds(idle_for)):
        why = "idle instances hold too much memory" if inputs.over_memory else keep.reason
        review = inputs.last_activity + keep.next_change(idle_for)
        return Decision(now, 0, f"idle for {idle_for:.0f} s: {why}", inputs, review)
    return _down(now, inputs, policy, low, keep, idle_for)


def _up(now: float, inputs: Inputs, policy: Policy, low: int, high: int, cap: str) -> Decision:
    """Something waits: as many more as are worth it."""
    load, supply = inputs.load, inputs.supply
    most = max(0, high - inputs.current)
    price = Price(policy.start_price, policy.window_seconds)
    added = helpful(load, supply, policy.concurrency, price, most + 1)
    wanted = max(low, inputs.current + min(added, most))
    state = f"{load.waiting} waiting, {load.in_service} in service, {supply.ready} of {inputs.current} instances ready"
    if added > most:
        return Decision(now, wanted, f"{state}; {cap}", inputs)
    if not added:
        text = f"{state}: another one would come too late to be worth it"
        return Decision(now, wanted, text if wanted == inputs.current else f"minReplicas is {low}", inputs, now)
    return Decision(now, wanted, f"{state}: {added} more {'is' if added == 1 else 'are'} worth it", inputs)


def _down(now: float, inputs: Inputs, policy: Policy, low: int, keep: KeepPlan, idle_for: float) -> Decision:
    """Nothing waits: to what the window needed, once per window."""
    current = inputs.current
    busy = math.ceil(inputs.load.in_service / policy.concurrency)
    need = window_need(inputs.samples, now - policy.window_seconds, policy.concurrency, policy.headroom)
    burst = worth_holding(inputs.load.queueing, policy.hold_price)
    floor = max(low, busy, need, burst, 1 if keep.holds(idle_for) or not busy else 0)
    if floor >= current:
        review = inputs.last_activity + keep.next_change(idle_for) if not busy else math.inf
        if current > max(low, busy, 1):
            review = min(review, now + 1.0)
        return Decision(now, current, "as many as are needed", inputs, review)
    since = inputs.changed + policy.window_seconds
    if now < since:
        return Decision(now, current, "one step down per window", inputs, since)
    reason = f"the last {policy.window_seconds:g} s needed {need}, {inputs.load.in_service} in service"
    reason += f", bursts are worth {burst}" if burst > max(need, busy) else ""
    return Decision(now, floor, reason + (f", minReplicas is {low}" if floor == low and low else ""), inputs, now)
