"""A mix of 1,000 functions drawn from the distributions of Shahrad et al., "Serverless in the Wild" (USENIX ATC 2020).

From the study: 45 % of the applications are invoked at most once an hour, 81 % at most once a minute, and the 18.6 %
above that make 99.6 % of the invocations; calls per day are spread log-uniformly inside each band, and the top of the
last band follows from the 99.6 %. Gaps between calls: a fifth of the applications nearly regular (timers), two fifths
with a coefficient of variation around one (Poisson), two fifths above (bursts). Average durations: log-normal, median
0.68 s, sigma 2.36, cut at 60 s.

Ours, as nothing is published on it: functions called more than once a minute take around 100 ms (log-normal, sigma 1):
on a real platform the busiest functions are short ones; and durations vary by 30 % from call to call.

A day is simulated. Of a function called more often than is worth that, a stretch of at least 30 minutes after 10
minutes of warm-up is simulated and counted as often as it fits into the day.
"""

import numpy as np
from engine import FunctionTrace
from numpy.random import Generator, default_rng
from traces import SEED, Times, TraceClass, durations, trace

DAY = 86_400.0
WARM_UP = 600.0
STRETCH = 1800.0
CALLS = 3000
#: Share of the functions, and the band of their calls per day.
BANDS = ((0.45, 1.0, 24.0), (0.364, 24.0, 1440.0), (0.186, 1440.0, 1_100_000.0))


def gaps(rng: Generator, kind: str, mean: float, count: int) -> Times:
    if kind == "regular":
        return mean + np.diff(rng.exponential(min(1.0, mean / 20), count + 1))
    if kind == "poisson":
        return rng.exponential(mean, count)
    shape = 1 / rng.uniform(2, 5) ** 2
    return rng.gamma(shape, mean / shape, count)


def function(rng: Generator, number: int, per_day: float, hot: bool) -> FunctionTrace:
    kind = str(rng.choice(["regular", "poisson", "bursty"], p=[0.2, 0.4, 0.4]))
    mean = DAY / per_day
    end = min(DAY, max(WARM_UP + STRETCH, CALLS * mean))
    expected = int(end / mean)
    times = rng.uniform(0, mean) + np.cumsum(gaps(rng, kind, mean, 2 * expected + 50))
    times = times[times < end]
    average = float(np.exp(rng.normal(np.log(0.1), 1.0) if hot else rng.normal(-0.38, 2.36)))
    made = trace(f"{kind}-{number}", times, durations(rng, len(times), min(average, 60.0)), end)
    if end >= DAY:
        return made
    weight = DAY / (end - WARM_UP)
    return FunctionTrace(made.name, made.arrivals, made.durations, end, 1, WARM_UP, weight)


def mix(count: int = 1000) -> TraceClass:
    rng = default_rng(SEED + 7)
    functions = []
    for share, low, high in BANDS:
        for _ in range(round(share * count)):
            per_day = float(np.exp(rng.uniform(np.log(low), np.log(high))))
            functions.append(function(rng, len(functions), per_day, low >= 1440))
    return TraceClass("azure mix", f"{count:,} functions after the Azure study, one day", functions)
