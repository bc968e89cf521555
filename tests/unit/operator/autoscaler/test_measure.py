"""Rates and times out of counters: steps, bursts, ramps and noise told apart."""

import random
from dataclasses import replace

import pytest

from kappa_operator.autoscaler.measure import Measure, Reading


def after(*readings: Reading) -> Measure:
    measure = Measure()
    for reading in readings:
        measure.reading(reading)
    return measure


def even(arrived: int) -> Reading:
    """A second in which calls of 100 ms came one by one."""
    return Reading(1.0, arrived, min(10, arrived), arrived, arrived / 10)


def test_a_slow_call_is_known_before_it_ends() -> None:
    measure = after(*[Reading(1.0, busy=2.0, in_service=2)] * 5)
    assert measure.service == pytest.approx(10, rel=0.2)


def test_the_service_time_is_busy_time_by_calls() -> None:
    measure = after(*[Reading(1.0, 60, 10, 60, 6.0, in_service=6)] * 100)
    assert measure.service == pytest.approx(0.1, rel=0.01)
    assert measure.arrivals == pytest.approx(60, rel=0.01)
    assert measure.trend == 0


def test_rates_rise_at_once_and_fall_slowly() -> None:
    measure = after(even(60))
    assert measure.arrivals == pytest.approx(60, rel=0.01)
    measure.reading(Reading(1.0))
    assert 30 < measure.arrivals < 60
    for _ in range(30):
        measure.reading(Reading(1.0))
    assert measure.arrivals == 0


def test_a_reading_right_after_another_one_is_no_rate() -> None:
    measure = after(Reading(0.004, 1, 1))
    assert measure.arrivals < 0.1
    measure.reading(Reading(0.0, 5, 1))
    assert measure.arrivals < 0.1


def test_noise_is_no_rise() -> None:
    measure = after(*[even(60)] * 10, even(70))
    assert 60 < measure.arrivals < 65
    assert measure.trend == 0


def test_a_burst_is_no_rate() -> None:
    """50 calls at once: nothing is known of the next second."""
    measure = after(Reading(1.0, 50, 1))
    assert measure.arrivals < 1
    assert measure.trend == 0


def test_who_often_sends_bursts_is_not_believed_the_first_even_second() -> None:
    bursts = [Reading(1.0, 20, 2), Reading(1.0), Reading(1.0)] * 10
    assert after(*bursts, even(20)).arrivals < 0.5 * after(even(20)).arrivals


def test_a_ramp_has_a_trend() -> None:
    measure = after(*[even(1)] * 10, *(even(n) for n in (20, 40, 60, 80)))
    assert measure.trend == pytest.approx(20, rel=0.1)
    assert measure.arrivals == pytest.approx(90, rel=0.1)
    measure.reading(even(80))
    assert measure.trend == 0


def test_callers_who_call_more_often_as_they_wait_less_are_no_trend() -> None:
    """Six callers, with one instance more each second."""
    ramp = [Reading(1.0, 10 * n, 10, 10 * n, n, waiting=6 - n, queued=6 - n, ready=n) for n in range(1, 6)]
    assert after(*ramp).trend == 0


def test_a_queue_that_does_not_fall_stands() -> None:
    waiting = Reading(1.0, 20, 10, 20, 2.0, waiting=4.0, in_service=2, queued=4, ready=2)
    assert after(waiting).standing == 0
    assert after(waiting, waiting).standing == 4
    assert after(waiting, waiting, replace(waiting, waiting=3.5)).standing == 3.5
    assert after(waiting, waiting, replace(waiting, queued=3)).standing == 0, "it falls"
    assert after(waiting, waiting, replace(waiting, queued=0), waiting).standing == 0


def test_slow_calls_have_to_end_before_their_queue_stands() -> None:
    waiting = Reading(1.0, 1, 1, 1, 2.0, waiting=4.0, in_service=2, queued=4, ready=2)
    standing = [after(*[waiting] * n).standing for n in (2, 5, 8, 12)]
    assert standing[0] == 0 < standing[-1]
    assert standing == sorted(standing)


def test_a_step_is_known_from_the_queue_before_the_next_reading() -> None:
    """60 calls of 100 ms a second from nothing, and one instance: 50 more wait each second."""
    measure = after(Reading(1.0, 1, 1, 1, 0.1))
    for hundredth in range(35):
        measure.watched(5 + hundredth / 100, 1 + hundredth // 2, 1)
    assert measure.arrivals == pytest.approx(60, rel=0.15)


def test_a_queue_that_is_there_at_once_tells_no_rate() -> None:
    measure = after(Reading(1.0, 1, 1, 1, 0.1))
    for hundredth in range(35):
        measure.watched(5 + hundredth / 100, min(49, 10 * hundredth) - hundredth // 10, 1)
    assert measure.arrivals < 20


def test_an_even_load_is_not_told_twice() -> None:
    measure = after(*[even(60)] * 20)
    known = measure.arrivals
    for hundredth in range(35):
        measure.watched(5 + hundredth / 100, hundredth % 3, 6)
    assert measure.arrivals == known


def test_a_random_load_has_hardly_ever_a_trend() -> None:
    rng = random.Random(1)
    measure, trends = Measure(), 0
    for _ in range(2000):
        measure.reading(even(sum(rng.random() < 0.02 for _ in range(1000))))
        trends += measure.trend > 0
    assert trends < 20


def test_queueing_is_waiting_times_instances_and_fades() -> None:
    measure = after(*[Reading(1.0, 20, 2, waiting=6.0, ready=2)] * 600)
    assert measure.queueing == pytest.approx(12, rel=0.01)
    for _ in range(60):
        measure.reading(Reading(1.0))
    assert measure.queueing == pytest.approx(12 / 2.718, rel=0.02)
