"""The trace classes: what each stands for is in its docstring. Every one begins and ends idle; seeds are fixed.

Durations are log-normal around their mean with a coefficient of variation of 0.3 unless said otherwise.
"""

import csv
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from engine import FunctionTrace
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

Times = NDArray[np.float64]
SEED = 20200715
HOUR = 3600.0
TAIL = 180.0


@dataclass(frozen=True)
class TraceClass:
    """`functions` of one class; `about` is one line for the tables."""

    name: str
    about: str
    functions: list[FunctionTrace]


def durations(rng: Generator, count: int, mean: float, cv: float = 0.3) -> Times:
    sigma2 = np.log(1 + cv * cv)
    return rng.lognormal(np.log(mean) - sigma2 / 2, np.sqrt(sigma2), count)


def poisson(rng: Generator, rate: Callable[[Times], Times], most: float, begin: float, end: float) -> Times:
    """A Poisson process with this rate (calls a second), by thinning one of rate `most`."""
    times = np.sort(rng.uniform(begin, end, rng.poisson(most * (end - begin))))
    return times[rng.uniform(0, most, len(times)) < rate(times)]


def flat(rng: Generator, rate: float, begin: float, end: float) -> Times:
    return np.sort(rng.uniform(begin, end, rng.poisson(rate * (end - begin))))


def trace(name: str, times: Times, took: Times, end: float, concurrency: int = 1) -> FunctionTrace:
    order = np.argsort(times)
    return FunctionTrace(name, times[order].tolist(), took[order].tolist(), float(end), concurrency)


def steady() -> TraceClass:
    """A client that calls 60 times a second, evenly (each call up to half an interval late), for 15 minutes."""
    rng = default_rng(SEED)
    count = 60 * 900
    times = 5 + (np.arange(count) + rng.uniform(0, 0.5, count)) / 60
    return TraceClass(
        "steady",
        "60 calls/s, evenly, 100 ms each, for 15 min",
        [trace("steady", times, durations(rng, count, 0.1, 0.1), 905 + TAIL)],
    )


def day_rate(t: Times) -> Times:
    """Calls a second: 4 at midnight, 40 at noon."""
    return np.asarray(4 + 36 * (0.5 - 0.5 * np.cos(2 * np.pi * t / (24 * HOUR))))


def diurnal() -> TraceClass:
    """A day of Poisson calls whose rate follows the sun, with a surge every ten minutes or so."""
    rng = default_rng(SEED + 1)
    day = 24 * HOUR
    smooth = poisson(rng, day_rate, 40, 0, day)
    surges = [
        flat(rng, 2 * float(day_rate(np.array(begin))), begin, begin + 10)
        for begin in np.cumsum(rng.exponential(600, 120))
        if begin < day - 60
    ]
    times = np.concatenate([smooth, *surges])
    return TraceClass(
        "diurnal",
        "a day of 4 to 40 calls/s, three times as many for 10 s about every 10 min, 200 ms each",
        [trace("diurnal", times, durations(rng, len(times), 0.2), day)],
    )


def smooth_day() -> TraceClass:
    """Two hours before noon of the same day without its surges: what no reactive policy can be much better at."""
    rng = default_rng(SEED + 9)
    times = poisson(rng, lambda t: day_rate(t + 10 * HOUR), 40, 0, 2 * HOUR)
    return TraceClass(
        "smooth day",
        "10:00 to 12:00 of the day without the surges",
        [trace("smooth", times, durations(rng, len(times), 0.2), 2 * HOUR)],
    )


def steady_long() -> TraceClass:
    """The steady trace for four hours: its beginning no longer matters."""
    rng = default_rng(SEED)
    count = 60 * 4 * 3600
    times = 5 + (np.arange(count) + rng.uniform(0, 0.5, count)) / 60
    return TraceClass(
        "steady for 4 h",
        "60 calls/s, evenly, 100 ms each, for 4 hours",
        [trace("steady", times, durations(rng, count, 0.1, 0.1), 4 * HOUR + 5 + TAIL)],
    )


def bursty() -> TraceClass:
    """Calls come in bursts: every few minutes 60 within three seconds, little in between."""
    rng = default_rng(SEED + 2)
    begins = np.cumsum(rng.uniform(120, 420, 40))
    times = np.concatenate([b + rng.uniform(0, 3, 60) for b in begins] + [flat(rng, 0.2, 0, begins[-1])])
    return TraceClass(
        "bursty",
        "60 calls within 3 s every 2 to 7 min, 200 ms each, 0.2 calls/s between",
        [trace("bursty", times, durations(rng, len(times), 0.2), begins[-1] + 3 + TAIL)],
    )


def on_off() -> TraceClass:
    """Work in sessions: two minutes of traffic, then nothing for eight."""
    rng = default_rng(SEED + 3)
    begins = np.arange(18) * 600 + rng.uniform(0, 60, 18)
    times = np.concatenate([flat(rng, 15, b, b + 120) for b in begins])
    return TraceClass(
        "on/off",
        "15 calls/s for 2 min, then none for about 8, 200 ms each",
        [trace("on-off", times, durations(rng, len(times), 0.2), 18 * 600 + 60 + TAIL)],
    )


def rare() -> TraceClass:
    """One call an hour, at any moment of it, for two weeks."""
    rng = default_rng(SEED + 4)
    times = (np.arange(336) + rng.uniform(0, 1, 336)) * HOUR
    return TraceClass(
        "rare",
        "one call an hour at any moment of it, 300 ms, for two weeks",
        [trace("rare", times, durations(rng, 336, 0.3), 337 * HOUR)],
    )


def timer() -> TraceClass:
    """Schedules: every 5 and 15 minutes and every hour, a few seconds late at most."""
    rng = default_rng(SEED + 5)
    functions = []
    for period in (300, 900, 3600):
        count = int(48 * HOUR / period)
        times = 60 + np.arange(count) * period + rng.exponential(1.0, count)
        functions.append(trace(f"every-{period}-s", times, durations(rng, count, 1.0), 48 * HOUR + period))
    return TraceClass("timer", "schedules of 5, 15 and 60 min, about 1 s late, 1 s each, for 2 days", functions)


def flash() -> TraceClass:
    """A quiet function becomes famous: from 1 to 200 calls a second within 10 seconds, gone after some minutes."""
    rng = default_rng(SEED + 6)

    def rate(t: Times) -> Times:
        rise = np.clip((t - 600) / 10, 0, 1)
        fall = np.exp(-np.clip(t - 720, 0, None) / 60)
        return np.asarray(1 + 199 * rise * fall)

    times = poisson(rng, rate, 200, 0, 1500)
    return TraceClass(
        "flash crowd",
        "1 call/s, then 200 calls/s within 10 s for 2 min, fading; 100 ms each",
        [trace("flash", times, durations(rng, len(times), 0.1), 1500 + TAIL)],
    )


def read_csv(path: Path) -> TraceClass:
    """A trace of the user's own: columns time (seconds), function, duration (seconds), with a header line."""
    calls: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    with path.open(newline="") as file:
        for number, row in enumerate(csv.DictReader(file), 2):
            try:
                calls[row["function"]].append((float(row["time"]), float(row["duration"])))
            except (KeyError, TypeError, ValueError) as error:
                raise SystemExit(f"{path}:{number}: needs the columns time,function,duration ({error!r})") from error
    first = min((at for found in calls.values() for at, _ in found), default=0.0)
    last = max((at + took for found in calls.values() for at, took in found), default=0.0)
    functions = [
        trace(name, np.array([at - first for at, _ in found]), np.array([t for _, t in found]), last - first + TAIL)
        for name, found in sorted(calls.items())
    ]
    return TraceClass(path.name, "replayed", functions)


def limits() -> list[TraceClass]:
    """Classes without a target, which show where the limits are."""
    return [steady_long(), smooth_day()]


def classes() -> list[TraceClass]:
    return [make() for make in (steady, diurnal, bursty, on_off, rare, timer, flash)]
