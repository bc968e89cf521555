"""Signals are exact, decisions are a table."""

from typing import Any

import pytest

from kappa_api.wire import Demand, FunctionStats, Stats
from kappa_operator.autoscaler.decide import Inputs, Policy, decide
from kappa_operator.autoscaler.signals import Need, Signals

POLICY = Policy(min_replicas=0, max_replicas=10, idle_seconds=60, concurrency=2, window_seconds=15)
NOW = 1000.0


def inputs(current: int, waiting: int = 0, in_service: int = 0, *, idle: float = 0.0, **more: Any) -> Inputs:
    return Inputs(Need(waiting, in_service), current, NOW - idle, **more)


ROWS = {
    "up at once to what is needed": (inputs(0, waiting=3), POLICY, 2),
    "in service and waiting count together": (inputs(1, waiting=3, in_service=2), POLICY, 3),
    "capped": (inputs(1, waiting=300), POLICY, 10),
    "up even when a gateway is silent": (inputs(0, waiting=1, heard=False), POLICY, 1),
    "enough": (inputs(2, in_service=4), POLICY, 2),
    "down to the peak of the window": (inputs(5, in_service=2, peaks=((NOW - 10, 3), (NOW, 1))), POLICY, 3),
    "older peaks are forgotten": (inputs(5, in_service=2, peaks=((NOW - 16, 5), (NOW, 1))), POLICY, 1),
    "never below what is in service": (inputs(5, in_service=8), POLICY, 4),
    "not down while a gateway is silent": (inputs(5, heard=False, idle=500), POLICY, 5),
    "the last one stays while idleSeconds run": (inputs(3, idle=59), POLICY, 1),
    "and goes after": (inputs(1, idle=60), POLICY, 0),
    "minReplicas keep": (inputs(5, idle=500), Policy(2, 10, 60, 2), 2),
    "minReplicas raise": (inputs(0, idle=500), Policy(2, 10, 60, 2), 2),
    "maxReplicas lower at once": (inputs(8, in_service=16, heard=False), Policy(0, 5, 60, 2), 5),
    "zero stays zero": (inputs(0), POLICY, 0),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_decide(row: tuple[Inputs, Policy, int]) -> None:
    given, policy, wanted = row
    decision = decide(NOW, given, policy)
    assert decision.wanted == wanted
    assert decision.inputs is given
    assert decision.reason


def test_the_reason_is_a_sentence_for_people() -> None:
    reasons = [decide(NOW, row[0], row[1]).reason for row in ROWS.values()]
    assert reasons[0] == "3 waiting and 0 in service, 2 per instance"
    assert reasons[2] == "300 waiting and 0 in service, 2 per instance, capped by maxReplicas 10"
    assert reasons[5] == "the last 15 s needed at most 3 (minReplicas is 0)"
    assert reasons[10] == "no invocation for 60 s (idleSeconds is 60)"


def stats(clock: float, epoch: str = "e", draining: dict[str, int] | None = None, **functions: FunctionStats) -> Stats:
    return Stats("g", epoch, clock, {f"ns/{name}": found for name, found in functions.items()}, draining or {})


def test_the_average_is_the_difference_of_two_readings() -> None:
    signals = Signals()
    signals.observe("g", stats(10, a=FunctionStats(service_seconds=5, waiting_seconds=1)), 0)
    active = signals.observe("g", stats(14, a=FunctionStats(arrivals=2, service_seconds=11, waiting_seconds=3)), 4)
    assert active == {"ns/a"}
    assert signals.need("ns/a") == Need(average=2.0, arrivals=2)


def test_a_gateway_that_restarts_makes_no_spike() -> None:
    signals = Signals()
    signals.observe("g", stats(1000, "one", a=FunctionStats(arrivals=10**6, service_seconds=9e5)), 0)
    assert signals.observe("g", stats(2, "two", a=FunctionStats(arrivals=5, service_seconds=1)), 1) == frozenset()
    assert signals.need("ns/a") == Need()
    signals.observe("g", stats(3, "two", a=FunctionStats(arrivals=6, service_seconds=1.5)), 2)
    assert signals.need("ns/a") == Need(average=0.5, arrivals=1)


def test_what_is_in_service_counts_at_once_even_in_a_first_reading() -> None:
    signals = Signals()
    assert signals.observe("g", stats(1, a=FunctionStats(in_service=3)), 0) == {"ns/a"}
    assert signals.need("ns/a") == Need(in_service=3)


def test_quiet_functions_are_not_reported() -> None:
    signals = Signals()
    reading = FunctionStats(arrivals=5, service_seconds=3)
    signals.observe("g", stats(1, a=reading), 0)
    assert signals.observe("g", stats(2, a=reading), 1) == frozenset()


def test_gateways_add_up_and_a_gone_one_is_forgotten() -> None:
    signals = Signals()
    signals.observe("g1", stats(1, a=FunctionStats(in_service=1)), 0)
    signals.observe("g2", stats(1, a=FunctionStats(waiting=2)), 0)
    assert signals.need("ns/a") == Need(waiting=2, in_service=1)
    signals.keep(frozenset({"g1"}), 11)
    assert signals.need("ns/a") == Need(in_service=1)


def test_demand_counts_until_the_next_reading_says_otherwise() -> None:
    signals = Signals()
    signals.observe("g", stats(1), 0)
    signals.demand(Demand("g", {"ns/a": (4, 1)}), 0)
    assert signals.need("ns/a") == Need(waiting=4, in_service=1)
    signals.observe("g", stats(2), 1)
    assert signals.need("ns/a") == Need()


def test_demand_of_a_gateway_whose_pod_is_not_known_yet_counts_for_a_while() -> None:
    signals = Signals()
    signals.demand(Demand("new", {"ns/a": (1, 0)}), 0)
    signals.keep(frozenset(), 9)
    assert signals.need("ns/a") == Need(waiting=1)
    signals.keep(frozenset(), 11)
    assert signals.need("ns/a") == Need()


def test_complete_needs_every_gateway_and_at_least_one() -> None:
    signals = Signals()
    signals.observe("g1", stats(1), 100)
    assert signals.complete(frozenset({"g1"}), 103, 4)
    assert not signals.complete(frozenset({"g1"}), 105, 4)
    assert not signals.complete(frozenset({"g1", "g2"}), 101, 4)
    assert not signals.complete(frozenset(), 101, 4)


def test_drained_when_every_gateway_has_seen_it_and_has_nothing_left() -> None:
    signals = Signals()
    both = frozenset({"g1", "g2"})
    signals.observe("g1", stats(1, draining={"ns/p": 0}), 0)
    assert not signals.drained("ns/p", both)
    signals.observe("g2", stats(1, draining={"ns/p": 1}), 0)
    assert not signals.drained("ns/p", both)
    signals.observe("g2", stats(2, draining={"ns/p": 0}), 1)
    assert signals.drained("ns/p", both)
