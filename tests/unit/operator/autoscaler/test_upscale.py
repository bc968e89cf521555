"""Waiting invocations ask for instances only as far as these help."""

import pytest

from kappa_operator.autoscaler.measure import Measure
from kappa_operator.autoscaler.need import Sample, staff, window_need
from kappa_operator.autoscaler.upscale import Load, Supply, helpful

SLOW = Supply(ready=0, warm=0, cold_seconds=1.0)

ROWS = {
    # load, supply, concurrency, instances that help
    "nothing waits": (Load(0, 3, 50, 0.1), Supply(6), 1, 0),
    "the first one always": (Load(1, 0), Supply(0), 1, 1),
    "two calls and two slots claim one": (Load(2, 0), Supply(0), 2, 1),
    "one on its way is enough for one": (Load(1, 0), Supply(0, 1, 0.02), 1, 0),
    "50 at zero take the pool, not 50 pods": (Load(50, 0), Supply(0, warm=5), 1, 5),
    "and with the pool on its way none": (Load(50, 0), Supply(0, 5, 0.02, warm=0), 1, 0),
    "a new pod would come too late": (Load(5, 5, 0, 0.1), Supply(5, warm=0), 1, 0),
    "slow handlers are worth a new pod": (Load(5, 5, 0, 10.0), Supply(5, warm=0), 1, 5),
    "too slow for what arrives": (Load(3, 5, 60, 0.1), Supply(5, warm=0), 1, 6),
    "a full queue of short calls": (Load(200, 5, 0, 0.1), Supply(5, warm=0), 1, 27),
    "one short wait is no reason": (Load(1, 9, 60, 0.1), Supply(9), 1, 0),
    "concurrency counts": (Load(40, 20, 0, 2.0), Supply(2, warm=0), 10, 3),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_helpful(row: tuple[Load, Supply, int, int]) -> None:
    load, supply, concurrency, expected = row
    assert helpful(load, supply, concurrency, patience=0.2, most=100) == expected


def test_most_is_most() -> None:
    assert helpful(Load(500, 0, 0, 10.0), SLOW, 1, 0.2, most=7) == 7


def test_more_patience_never_starts_more() -> None:
    found = [helpful(Load(50, 2, 5, 0.2), Supply(2), 1, patience, 100) for patience in (0.05, 0.1, 0.2, 0.5, 1.0, 5.0)]
    assert found == sorted(found, reverse=True)


NEED_ROWS = {
    # (seconds, busy, peak) of each interval, concurrency, instances needed since 0
    "nothing": ([], 1, 0),
    "no traffic": ([(1, 0.0, 0)] * 5, 1, 0),
    "one short call": ([(1, 0.1, 1), (1, 0.0, 0)], 1, 1),
    "a steady load never needed its square root": ([(1, 6.0, 7)] * 10, 1, 7),
    "a random load keeps its spread free": ([(1, 6.0, 30)] * 10, 1, 10),
    "a burst that was cleared at once": ([(1, 0.2, 50)] + [(1, 0.1, 1)] * 9, 1, 1),
    "a rise counts soon": ([(1, 1.0, 1)] * 5 + [(1, 9.0, 20)] * 5, 1, 13),
    "slots share instances": ([(1, 25.0, 40)] * 5, 10, 4),
}


@pytest.mark.parametrize("row", NEED_ROWS.values(), ids=NEED_ROWS.keys())
def test_window_need(row: tuple[list[tuple[float, float, int]], int, int]) -> None:
    intervals, concurrency, expected = row
    samples = [Sample(float(at), *interval) for at, interval in enumerate(intervals, 1)]
    assert window_need(samples, 0.0, concurrency, 1.3) == expected


def test_what_is_older_than_the_window_is_forgotten() -> None:
    samples = [Sample(1, 1, 50.0, 50), Sample(20, 1, 1.0, 1)]
    assert window_need(samples, 10, 1, 1.3) == 1


def test_staff() -> None:
    assert [staff(busy, 1, 1.3) for busy in (0, 0.1, 0.5, 1, 6, 100)] == [0, 1, 2, 3, 10, 113]


def test_a_slow_call_is_known_before_it_ends() -> None:
    measure = Measure()
    for _ in range(5):
        measure.reading(1.0, 0, 0, 2.0, in_service=2)
    assert measure.service == pytest.approx(10, rel=0.2)


def test_the_service_time_is_busy_time_by_calls() -> None:
    measure = Measure()
    for _ in range(100):
        measure.reading(1.0, 60, 60, 6.0, in_service=6)
    assert measure.service == pytest.approx(0.1, rel=0.01)
    assert measure.arrivals == pytest.approx(60, rel=0.01)


def test_rates_rise_at_once_and_fall_slowly() -> None:
    measure = Measure()
    measure.reading(1.0, 60, 0, 0, 0)
    assert measure.arrivals == 90
    measure.reading(1.0, 0, 0, 0, 0)
    assert 45 < measure.arrivals < 90
    for _ in range(30):
        measure.reading(1.0, 0, 0, 0, 0)
    assert measure.arrivals == 0


def test_a_reading_right_after_another_one_is_no_rate() -> None:
    measure = Measure()
    measure.reading(0.004, 1, 0, 0.0, 0)
    assert measure.arrivals < 0.1
    measure.reading(0.0, 5, 0, 0.0, 0)
    assert measure.arrivals < 0.1


def test_noise_is_no_rise() -> None:
    measure = Measure()
    for arrived in [60] * 10 + [70]:
        measure.reading(1.0, arrived, arrived, 6.0, 6)
    assert 60 < measure.arrivals < 65
