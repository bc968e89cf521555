"""Gateways that die, restart, leave, or do not answer: no spike, no gap, nothing that waits for ever."""

import random

import pytest

from kappa_api.wire import Demand, FunctionStats, Stats
from kappa_operator.autoscaler.measure import Measure, Reading
from kappa_operator.autoscaler.signals import WHOLE_SECONDS, Need, Signals

KEY = "ns/a"
BOTH = frozenset({"g1", "g2"})


def stats(
    clock: float,
    reading: FunctionStats | None,
    *,
    epoch: str = "e",
    since: float = 0.0,
    instances: dict[str, int] | None = None,
    draining: dict[str, int] | None = None,
) -> Stats:
    return Stats("g", epoch, clock, {KEY: reading} if reading else {}, draining or {}, instances, since)


class Gateway:
    """A gateway under a steady load of `rate` calls a second of 0.1 s each."""

    def __init__(self, signals: Signals, name: str, rate: int) -> None:
        self.signals, self.name, self.rate = signals, name, rate
        self.born, self.epoch = 0.0, 0

    def restart(self, now: float) -> None:
        self.born, self.epoch = now, self.epoch + 1

    def read(self, now: float, since: bool = False) -> None:
        age = now - self.born
        calls = int(self.rate * age)
        reading = FunctionStats(
            arrivals=calls, invocations=calls, service_seconds=calls * 0.1, in_service=1, moments=int(age * 10)
        )
        epoch, clock = self.signals.last(self.name, now)
        asked = clock if since and epoch == str(self.epoch) else 0.0
        self.signals.observe(self.name, stats(age, reading, epoch=str(self.epoch), since=asked), now)


def test_a_gateway_that_restarts_again_and_again_never_shows_more_than_its_load() -> None:
    signals, chance = Signals(), random.Random(3)
    one, two = Gateway(signals, "g1", 20), Gateway(signals, "g2", 30)
    for second in range(1, 300):
        if chance.random() < 0.1:
            two.restart(second - chance.random())
        one.read(second, since=True)
        two.read(second, since=True)
        need = signals.need(KEY, 1.0)
        assert need.arrivals <= 52
        assert need.busy <= 5.2


def test_readings_that_fail_for_a_while_make_neither_a_spike_nor_a_gap() -> None:
    signals, measure = Signals(), Measure()
    one, two = Gateway(signals, "g1", 20), Gateway(signals, "g2", 30)
    rates = []
    for second in range(1, 60):
        one.read(second)
        if not 20 < second < 24:  # three readings in a row
            two.read(second)
        signals.lapse(second, 4.0)
        need = signals.need(KEY, 1.0)
        measure.reading(
            Reading(1.0, need.arrivals, need.moments, need.ended, busy=need.busy, in_service=need.in_service)
        )
        if second > 10:
            rates.append((need.arrivals, measure.arrivals, need.busy))
    assert {arrivals for arrivals, _, _ in rates} == {50}
    assert max(rate for _, rate, _ in rates) < 52
    assert min(rate for _, rate, _ in rates) > 48
    assert [busy for _, _, busy in rates] == [pytest.approx(5.0, abs=0.2)] * len(rates)


def test_what_waited_at_a_gateway_that_is_gone_is_dropped_with_its_pod() -> None:
    signals = Signals()
    signals.observe("g1", stats(1, FunctionStats(arrivals=1, in_service=1)), 0)
    signals.observe("g2", stats(1, FunctionStats(arrivals=9, waiting=9)), 0)
    signals.keep(BOTH, 1)
    assert signals.need(KEY) == Need(waiting=9, in_service=1)
    signals.keep(frozenset({"g1"}), 1.5)
    assert signals.need(KEY) == Need(in_service=1)


def test_what_waited_at_a_gateway_that_hangs_is_dropped_when_it_was_not_heard_for_long() -> None:
    signals = Signals()
    signals.observe("g1", stats(1, FunctionStats(arrivals=9, waiting=9)), 0)
    signals.keep(frozenset({"g1"}), 0)
    signals.lapse(4.0, 4.0)
    assert signals.need(KEY).waiting == 9
    signals.lapse(4.5, 4.0)
    assert signals.need(KEY) == Need()
    assert not signals.complete(frozenset({"g1"}), 4.5, 4.0)
    signals.demand(Demand("g1", {KEY: (3, 0)}), 5)
    signals.lapse(6, 4.0)
    assert signals.need(KEY).waiting == 3


def test_a_function_that_was_deleted_and_made_anew_begins_at_zero_within_the_epoch() -> None:
    signals = Signals()
    signals.observe("g", stats(10, FunctionStats(arrivals=1000, invocations=1000, service_seconds=100)), 0)
    signals.observe("g", stats(12, FunctionStats(arrivals=4, invocations=4, service_seconds=1.0, moments=2)), 2)
    assert signals.need(KEY) == Need(average=0.5, busy=0.5, arrivals=4, ended=4, moments=2)


def test_a_partial_reading_leaves_quiet_functions_as_they_are() -> None:
    signals = Signals()
    first = FunctionStats(arrivals=100, invocations=100, service_seconds=10, moments=50)
    signals.observe("g", stats(10, first), 0)
    assert signals.last("g", 1) == ("e", 10)
    assert signals.observe("g", stats(11, None, since=10), 1) == frozenset()
    assert signals.need(KEY) == Need()
    more = FunctionStats(arrivals=102, invocations=102, service_seconds=10.5, moments=51)
    assert signals.observe("g", stats(12, more, since=11), 2) == {KEY}
    assert signals.need(KEY) == Need(arrivals=2, ended=2, average=0.5, busy=0.5, moments=1)
    assert signals.observe("g", stats(13, None, since=12), 3) == frozenset()
    assert signals.need(KEY) == Need(), "what happened two readings ago is over"


def test_whole_readings_come_from_time_to_time_and_forget_functions_that_are_gone() -> None:
    signals = Signals()
    assert signals.last("g", 0) == ("", 0.0)
    signals.observe("g", stats(10, FunctionStats(arrivals=1)), 0)
    signals.observe("g", stats(11, None, since=10), 1)
    assert signals.last("g", 1 + WHOLE_SECONDS) == ("", 0.0)
    signals.observe("g", stats(400, None), 400)
    assert signals.last("g", 401) == ("e", 400)
    # Known no more: a reading of it starts from zero.
    signals.observe("g", stats(401, FunctionStats(arrivals=5), since=400), 401)
    assert signals.need(KEY).arrivals == 5


PODS = ("ns/p", "ns/q")
BUSY2 = FunctionStats(arrivals=1, in_service=2)
KNOWN = {
    "one gateway tells all": ([stats(1, BUSY2, instances={"ns/p": 2})], {"ns/p": 2, "ns/q": 0}),
    "two gateways add up": (
        [stats(1, BUSY2, instances={"ns/p": 2}), stats(1, BUSY2, instances={"ns/p": 1, "ns/q": 1})],
        {"ns/p": 3, "ns/q": 1},
    ),
    "idle at one of them": (
        [stats(1, BUSY2, instances={"ns/q": 2}), stats(1, FunctionStats(arrivals=1), instances={})],
        {"ns/p": 0, "ns/q": 2},
    ),
    "not known there at all": ([stats(1, None, instances={})], {"ns/p": 0, "ns/q": 0}),
    "it does not tell": ([stats(1, BUSY2)], {}),
    "one of them does not tell": ([stats(1, BUSY2, instances={"ns/p": 2}), stats(1, BUSY2)], {}),
    "it tells of a part": ([stats(1, BUSY2, instances={"ns/p": 1})], {"ns/p": 1}),
    "the rest is at one that drains": (
        [stats(1, BUSY2, instances={"ns/p": 1}, draining={"ns/q": 1})],
        {"ns/p": 1, "ns/q": 0},
    ),
}


@pytest.mark.parametrize("row", KNOWN.values(), ids=KNOWN.keys())
def test_in_service_per_instance(row: tuple[list[Stats], dict[str, int]]) -> None:
    signals = Signals()
    for number, reading in enumerate(row[0]):
        signals.observe(f"g{number}", reading, 0)
    assert signals.in_service(KEY, PODS, frozenset(f"g{n}" for n in range(len(row[0])))) == row[1]


def test_in_service_is_unknown_while_a_gateway_was_never_read() -> None:
    signals = Signals()
    signals.observe("g1", stats(1, BUSY2, instances={"ns/p": 2}), 0)
    assert signals.in_service(KEY, PODS, BOTH) == {}
    signals.demand(Demand("g2", {KEY: (1, 1)}), 0)
    assert signals.in_service(KEY, PODS, BOTH) == {}


def test_a_pod_is_not_drained_while_a_leaving_gateway_has_something_there() -> None:
    signals = Signals()
    signals.observe("g1", stats(1, None, draining={"ns/p": 0}), 0)
    signals.observe("leaving", stats(1, None, draining={"ns/p": 1}), 0)
    assert not signals.drained("ns/p", frozenset({"g1"}))
    signals.observe("leaving", stats(2, None, draining={"ns/p": 0}), 1)
    assert signals.drained("ns/p", frozenset({"g1"}))
