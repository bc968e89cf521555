"""The soak must be able to fail: a leak of each kind is found, and what comes and goes is not one."""

import random
import subprocess
import sys

import pytest
from soak import judge
from soak_samples import Sample, Series, look, tasks_in
from soak_trend import count, memory, slope

TIMES = [float(number * 3) for number in range(200)]  # ten minutes


def noisy(base: float, growth: float, noise: float) -> list[float]:
    chance = random.Random(7)
    return [base + growth * at / TIMES[-1] + chance.uniform(0, noise) for at in TIMES]


def test_the_slope_is_not_moved_by_spikes() -> None:
    values = [2.0 * at for at in TIMES]
    for number in range(0, 200, 12):
        values[number] += 1e6
    assert slope(TIMES, values) == pytest.approx(2.0)
    assert slope([1.0], [1.0]) == 0.0


@pytest.mark.parametrize(("percent", "flat"), [(0.0, True), (1.0, True), (3.0, False), (20.0, False), (-5.0, True)])
def test_memory(percent: float, flat: bool) -> None:
    base = 60e6
    trend = memory(TIMES, noisy(base, base * percent / 100, base * 0.02))
    assert (trend.why == "") is flat
    assert trend.share == pytest.approx(percent / 100, abs=0.02)


@pytest.mark.parametrize(("leaked", "flat"), [(0, True), (1, True), (6, False), (60, False)])
def test_counts(leaked: int, flat: bool) -> None:
    """Forty come and go at random; those that leak never go."""
    trend = count(TIMES, [float(int(value)) for value in noisy(20, leaked, 40)])
    assert (trend.why == "") is flat, trend


def test_a_pool_that_fills_up_is_no_leak_until_it_is_too_full() -> None:
    values = noisy(5, 6, 0)
    assert count(TIMES, values).why
    assert not count(TIMES, values, bound=12).why
    assert count(TIMES, values, bound=10).why


def test_too_little_to_tell_is_no_pass() -> None:
    assert memory(TIMES[:5], [1.0] * 5).why
    assert count(TIMES[:5], [1.0] * 5).why


def test_tasks_are_found_in_metrics_and_in_health() -> None:
    assert tasks_in("# HELP kappa_gateway_tasks x\nkappa_gateway_tasks 17.0\n") == 17
    assert tasks_in('{"state": "serving", "tasks": 3}') == 3
    assert tasks_in("kappa_local_tasks 9\n") == 9
    assert tasks_in("nothing") == -1


LEAKER = """
import sys, threading
kept = []
for line in sys.stdin:
    kept.append(bytearray(b'x') * 2_000_000)
    kept.append(open('/dev/null'))
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    print('done', flush=True)
"""


def test_a_real_process_that_leaks_is_seen() -> None:
    with subprocess.Popen(
        [sys.executable, "-S", "-c", LEAKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        samples = []
        for _ in range(20):
            child.stdin.write("leak\n")
            child.stdin.flush()
            child.stdout.readline()
            samples.append(look(child.pid))
        child.kill()
    times = [float(number) for number in range(20)]
    rss, own, fds, threads = ([float(value) for value in column] for column in zip(*samples, strict=True))
    assert memory(times, rss).why
    assert memory(times, own).why
    assert count(times, fds).why
    assert count(times, threads).why


def gateways(first: list[float], second: list[float]) -> list[Series]:
    return [
        Series(
            name,
            "gateway",
            pid,
            [Sample(at, 60_000_000, 1, int(n), 9, int(n)) for at, n in zip(TIMES, counts, strict=True)],
        )
        for name, pid, counts in (("gateway-1", 1, first), ("gateway-2", 2, second))
    ]


def test_connections_that_move_from_gateway_to_gateway_are_no_leak_and_a_leak_of_one_gateway_is() -> None:
    falling, rising, level = noisy(50, -8, 0), noisy(50, 8, 0), noisy(50, 0, 0)
    assert not [v for v in judge(gateways(falling, rising), TIMES[0]) if v.trend.why]
    leaking = [(v.series.name, v.measure) for v in judge(gateways(level, rising), TIMES[0]) if v.trend.why]
    assert leaking == [("together", "fds"), ("together", "tasks")]
