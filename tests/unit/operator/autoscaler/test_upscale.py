"""Waiting invocations, and a growing rate of them, ask for instances only as far as these are worth it."""

from dataclasses import replace

import pytest

from kappa_operator.autoscaler.need import Sample, staff, window_need, worth_holding
from kappa_operator.autoscaler.upscale import Load, Price, Supply, ahead, helpful

SLOW = Supply(ready=0, warm=0, cold_seconds=1.0)
PRICE = Price(waiting=4, stay=3)

ROWS = {
    # load, supply, concurrency, instances that are worth it
    "nothing waits": (Load(0, 3, 50, 0.1), Supply(6), 1, 0),
    "the first one always": (Load(1, 0), Supply(0), 1, 1),
    "two calls and two slots claim one": (Load(2, 0), Supply(0), 2, 1),
    "one on its way is enough for one": (Load(1, 0), Supply(0, 1, 0.02), 1, 0),
    "50 at zero take the pool, not 50 pods": (Load(50, 0), Supply(0, warm=5), 1, 5),
    "and with the pool on its way none": (Load(50, 0), Supply(0, 5, 0.02, warm=0), 1, 0),
    "a new pod would come too late": (Load(5, 5, 0, 0.1), Supply(5, warm=0), 1, 0),
    "slow handlers are worth a new pod": (Load(5, 5, 0, 10.0), Supply(5, warm=0), 1, 4),
    "too slow for what arrives": (Load(3, 5, 60, 0.1), Supply(5, warm=0), 1, 4),
    "and for what will arrive": (Load(3, 5, 45, 0.1, trend=10), Supply(5, warm=0), 1, 3),
    "callers who call again at once": (Load(4, 2, 18, 0.1, standing=4, standing_ready=2), Supply(2), 1, 4),
    "but not while new ones come": (Load(4, 2, 0, 0.1, standing=4, standing_ready=2), Supply(2, 1, 0.02), 1, 0),
    "nor when they have just come": (Load(4, 4, 0, 0.1, standing=4, standing_ready=2), Supply(4), 1, 0),
    "and would have been answered soon": (Load(4, 2, 0, 0.1), Supply(2), 1, 0),
    "a full queue of short calls": (Load(200, 5, 0, 0.1), Supply(5, warm=0), 1, 29),
    "one short wait is no reason": (Load(1, 9, 60, 0.1), Supply(9), 1, 0),
    "concurrency counts": (Load(40, 20, 0, 2.0), Supply(2, warm=0), 10, 4),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_helpful(row: tuple[Load, Supply, int, int]) -> None:
    load, supply, concurrency, expected = row
    assert helpful(load, supply, concurrency, PRICE, most=100) == expected


def test_most_is_most() -> None:
    assert helpful(Load(500, 0, 0, 10.0), SLOW, 1, PRICE, most=7) == 7


def test_the_dearer_waiting_is_the_more_are_started() -> None:
    found = [helpful(Load(50, 2, 5, 0.2), Supply(2), 1, replace(PRICE, waiting=p), 100) for p in (0, 0.1, 1, 10, 100)]
    assert found == sorted(found)
    assert found[0] == 0 < found[-1]


def test_the_longer_an_instance_stays_the_fewer_are_started() -> None:
    found = [helpful(Load(50, 2, 5, 0.2), Supply(2), 1, replace(PRICE, stay=s), 100) for s in (0, 1, 3, 10, 100, 1e6)]
    assert found == sorted(found, reverse=True)
    assert found[-1] == 0


AHEAD_ROWS = {
    "an even rate": (Load(0, 5, 50, 0.1), SLOW, 1, 0),
    "soon there will be 75 a second": (Load(0, 5, 50, 0.1, trend=10), SLOW, 1, 12),
    "a start from the pool needs less foresight": (Load(0, 5, 50, 0.1, trend=10), Supply(0), 1, 10),
    "slots share instances": (Load(0, 5, 50, 0.1, trend=10), SLOW, 4, 3),
}


@pytest.mark.parametrize("row", AHEAD_ROWS.values(), ids=AHEAD_ROWS.keys())
def test_ahead(row: tuple[Load, Supply, int, int]) -> None:
    load, supply, concurrency, expected = row
    assert ahead(load, supply, concurrency, headroom=1.3) == expected


def test_bursts_are_worth_the_root_of_what_waits() -> None:
    assert [worth_holding(queueing, 4) for queueing in (0, 0.01, 1, 4, 25, 100)] == [0, 0, 2, 4, 10, 20]


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
