"""Signals are exact, whatever becomes of a gateway. (The decisions: autoscaler/test_decide.py.)"""

from kappa_api.wire import Demand, FunctionStats, Stats
from kappa_operator.autoscaler.signals import Need, Signals


def stats(clock: float, epoch: str = "e", draining: dict[str, int] | None = None, **functions: FunctionStats) -> Stats:
    return Stats("g", epoch, clock, {f"ns/{name}": found for name, found in functions.items()}, draining or {})


def test_the_average_is_the_difference_of_two_readings() -> None:
    signals = Signals()
    signals.observe("g", stats(10, a=FunctionStats(service_seconds=5, waiting_seconds=1)), 0)
    active = signals.observe("g", stats(14, a=FunctionStats(arrivals=2, service_seconds=11, waiting_seconds=3)), 4)
    assert active == {"ns/a"}
    assert signals.need("ns/a") == Need(average=2.0, arrivals=2, busy=1.5, moments=2)


def test_a_gateway_that_restarts_makes_no_spike() -> None:
    signals = Signals()
    signals.observe("g", stats(1000, "one", a=FunctionStats(arrivals=10**6, service_seconds=9e5)), 0)
    assert signals.observe("g", stats(2, "two", a=FunctionStats(arrivals=5, service_seconds=1)), 1) == frozenset()
    assert signals.need("ns/a") == Need()
    signals.observe("g", stats(3, "two", a=FunctionStats(arrivals=6, service_seconds=1.5)), 2)
    assert signals.need("ns/a") == Need(average=0.5, arrivals=1, busy=0.5, moments=1)


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
