"""Whether a series of samples is flat. Pure.

Memory: the Theil-Sen slope (the median of the slopes between all pairs of samples: one spike, or a tenth of them, does
not move it) over the length of the run, in relation to the median. Descriptors, threads and tasks come and go with the
calls in flight, but what leaks never comes back: the smallest number of each tenth of the run must not grow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

MOST_GROWTH = 0.02
#: What a count may grow by: this many, or this share, whichever is more.
MOST_MORE, MOST_SHARE = 2.0, 0.05
BLOCKS = 10
FEWEST = 10


@dataclass(frozen=True, slots=True)
class Trend:
    """`growth` is in the series' unit over the whole time, `share` of the median. `why`: empty when it is flat."""

    middle: float
    growth: float
    why: str = ""

    @property
    def share(self) -> float:
        return self.growth / self.middle if self.middle else 0.0


def slope(times: Sequence[float], values: Sequence[float]) -> float:
    """Theil-Sen: per unit of time; 0 for fewer than two points."""
    slopes = [
        (values[j] - values[i]) / (times[j] - times[i])
        for i in range(len(times))
        for j in range(i + 1, len(times))
        if times[j] > times[i]
    ]
    return median(slopes) if slopes else 0.0


def memory(times: Sequence[float], values: Sequence[float]) -> Trend:
    """Bytes over seconds."""
    if len(values) < FEWEST:
        return Trend(0.0, 0.0, f"only {len(values)} samples")
    middle, growth = median(values), slope(times, values) * (times[-1] - times[0])
    over = growth > MOST_GROWTH * middle
    return Trend(middle, growth, f"grew by {growth / middle:.1%}, more than {MOST_GROWTH:.0%}" if over else "")


def count(times: Sequence[float], values: Sequence[float], bound: float = 0.0) -> Trend:
    """Descriptors, threads or tasks over seconds. What never exceeds `bound` may grow: a pool that is not full yet."""
    if len(values) < FEWEST:
        return Trend(0.0, 0.0, f"only {len(values)} samples")
    size = max(1, len(values) // BLOCKS)
    blocks = [(times[at], min(values[at : at + size])) for at in range(0, len(values) - size + 1, size)]
    at, least = [time for time, _ in blocks], [value for _, value in blocks]
    middle, growth = median(least), slope(at, least) * (times[-1] - times[0])
    over = growth > max(MOST_MORE, MOST_SHARE * middle) and max(values) > bound
    return Trend(
        middle, growth, f"{growth:.0f} more at the end than {middle:.0f}, and never given back" if over else ""
    )
