"""How fast invocations come and how long one takes, from counters that only grow. Pure.

Rates forget within seconds, as a step in the traffic has to count at once; the service time forgets within minutes, as
code changes rarely. Invocations that have not ended yet count with the time that they have taken so far, so that a slow
function is known to be slow before the first one of them ends.
"""

import math
from dataclasses import dataclass

RATE_MEMORY = 2.0
SERVICE_MEMORY = 60.0
SHORTEST = 0.5
#: Standard deviations above which a rise is no accident.
NOISE = 3.0


@dataclass(slots=True)
class Measure:
    """`arrivals` per second; `service`: mean seconds of one invocation, 0 while none was ever seen."""

    arrivals: float = 0.0
    service: float = 0.0
    _busy: float = 0.0
    _ended: float = 0.0

    def reading(self, seconds: float, arrived: int, ended: int, busy_seconds: float, in_service: int) -> None:
        """What happened in the last `seconds`: invocations that came, that ended, the time spent in service, and
        how many are in service now."""
        if seconds <= 0:
            return
        # A rise beyond the noise of a Poisson count is taken over at once, and half of it again as it will go on while
        # instances start; all else slowly. A reading right after another one says little about a rate.
        seconds_or_more = max(seconds, SHORTEST)
        rate, noise = arrived / seconds_or_more, math.sqrt(arrived) / seconds_or_more
        if rate > self.arrivals + NOISE * noise:
            self.arrivals = rate + (rate - self.arrivals) / 2
        else:
            self.arrivals += (1 - math.exp(-seconds / RATE_MEMORY)) * (rate - self.arrivals)
        if self.arrivals < 1e-3:
            self.arrivals = 0.0
        fade = math.exp(-seconds / SERVICE_MEMORY)
        self._busy = self._busy * fade + busy_seconds
        self._ended = self._ended * fade + ended
        if self._busy > 0:
            # Those in service have done half of their work, on average.
            self.service = self._busy / max(0.5, self._ended + in_service / 2)
