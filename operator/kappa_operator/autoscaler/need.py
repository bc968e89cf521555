"""How many instances a function really needed in the last window: what scaling down goes by. Pure.

Two readings bound it, and the smaller one counts. The *peak* is the most that was in service and waiting at one moment:
with so many instances nothing would have waited, but one burst makes it large. The *load* is the average in service,
from the gateways' counters and therefore exact; by the square-root staffing rule (the spread of a Poisson load is its
root) load + headroom * sqrt(load) slots keep waiting rare. A steady load never reaches the second, a burst that the
running instances cleared at once does not hold on to the first.

Bursts that come again and again are worth instances that are there already (`worth_holding`): with n of them the calls
of a burst wait about q / n all together, where q is what was measured, waiting times instances. n instances cost n, and
n + price * q / n is least at n = sqrt(price * q).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sample:
    """One interval between two readings that ended at `at`: `seconds` long, `busy` invocations in service on average,
    at most `peak` in service or waiting (as far as it was seen)."""

    at: float
    seconds: float
    busy: float
    peak: int


def staff(busy: float, concurrency: int, headroom: float) -> int:
    """Instances for `busy` invocations in service on average; 0 for none."""
    # An average a hair above a whole number is noise of two clocks, not a reason for one more instance.
    return math.ceil((busy + headroom * math.sqrt(busy)) / concurrency - 0.05) if busy > 0 else 0


def worth_holding(queueing: float, price: float) -> int:
    """Instances that are worth holding for bursts, when a second of waiting is worth `price` instance-seconds."""
    return round(math.sqrt(price * queueing))


def window_need(samples: Iterable[Sample], since: float, concurrency: int, headroom: float) -> int:
    """Instances that the intervals which ended after `since` needed; 0 when there was no traffic.

    The load is the larger one of the whole window's average and of its later half's, so that a rise counts soon.
    """
    recent = [sample for sample in samples if sample.at > since and (sample.peak or sample.busy)]
    if not recent:
        return 0
    everything = [sample for sample in samples if sample.at > since]
    half = (since + everything[-1].at) / 2
    busy = max(_average(everything), _average([s for s in everything if s.at > half]))
    peak = max(max(sample.peak, sample.busy) for sample in recent)
    return max(1, min(math.ceil(peak / concurrency - 0.05), staff(busy, concurrency, headroom)))


def _average(samples: list[Sample]) -> float:
    seconds = sum(sample.seconds for sample in samples)
    return sum(sample.busy * sample.seconds for sample in samples) / seconds if seconds > 0 else 0.0
