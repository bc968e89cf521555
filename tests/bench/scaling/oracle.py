"""The oracle and the constant size: what can be computed without a simulation.

**Oracle**: knows every arrival, starts each instance ahead of time, so nothing ever waits, and pays the least for it:
the k-th instance is needed while at least k invocations are in service; across a gap it is kept exactly when keeping
it costs less than ending it and starting another one (which costs the start latency, as for everybody). The levels are
independent of each other, so the sum is the minimum over all plans in which nothing waits. With a concurrency above
one, slots are taken as freely divisible: a lower bound.

**Always on**: as many instances as the highest moment needs, for the whole trace.
"""

import math
from collections.abc import Iterator

from engine import FunctionTrace, Result


def steps(trace: FunctionTrace) -> Iterator[tuple[float, int]]:
    """(time, in service from then on), when every invocation begins on arrival."""
    events = [(at, 1) for at in trace.arrivals]
    events += [(at + took, -1) for at, took in zip(trace.arrivals, trace.durations, strict=True)]
    events.sort()
    level = 0
    for at, change in events:
        level += change
        yield at, level


def oracle(trace: FunctionTrace, start: float) -> Result:
    """The least instance-seconds with nothing waiting."""
    since: dict[int, float] = {}
    freed: dict[int, float] = {}
    low, end = trace.count_from, trace.end
    result = Result(invocations=sum(1 for at in trace.arrivals if at >= low))
    before = 0
    for at, level in steps(trace):
        needed = math.ceil(level / trace.concurrency)
        for k in range(before + 1, needed + 1):
            since[k] = at
            gap = at - freed.get(k, -math.inf)
            if at >= low:
                result.seconds += min(gap, start)
                result.started += gap > start
        for k in range(needed + 1, before + 1):
            freed[k] = at
            result.seconds += max(0.0, min(at, end) - max(since[k], low))
        before = needed
    return result


def always_on(trace: FunctionTrace) -> Result:
    """The peak, all the time; at least one instance."""
    peak = max((level for _, level in steps(trace)), default=0)
    count = max(1, math.ceil(peak / trace.concurrency))
    counted = sum(1 for at in trace.arrivals if at >= trace.count_from)
    return Result(invocations=counted, started=count, seconds=count * (trace.end - trace.count_from))


def busy_seconds(trace: FunctionTrace) -> float:
    """The time that instances are used at all: no policy can cost less."""
    level, last, total = 0, 0.0, 0.0
    for at, after in steps(trace):
        if at > trace.count_from:
            total += math.ceil(level / trace.concurrency) * (at - max(last, trace.count_from))
        level, last = after, at
    return total
