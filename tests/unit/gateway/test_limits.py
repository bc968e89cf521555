"""Rate limits in virtual time: what is admitted in any window, by one gateway and by all, and what is remembered."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kappa_api.limits import Rate
from kappa_gateway.limits import (
    CALLER_RATE,
    FUNCTION_RATE,
    LEAST_GENERATION,
    SHARED,
    CallerRoom,
    Limiter,
    Pace,
    Refused,
    fields,
)
from kappa_gateway.peers import Peers

EPSILON = 0.01  # of a request: what rounding may let through
rates = st.builds(Rate, st.integers(1, 50), st.sampled_from([1, 1, 7, 60]), st.integers(0, 40))
steps = st.lists(st.sampled_from([0.0, 0.001, 0.01, 0.1, 0.3, 1.0, 5.0, 60.0]), max_size=80)
starts = st.sampled_from([0.0, 12345.678, 5_000_000.1])


def peers(count: int = 1) -> Peers:
    found = Peers("kappa-system/gw-0")
    for number in range(1, count):
        ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        found.put({"metadata": {"namespace": "kappa-system", "name": f"gw-{number}"}, "status": ready})
    assert found.count == count
    return found


def limiter(rate: Rate | None = None, caller_rate: Rate | None = None, count: int = 1, **room: int) -> Limiter:
    return Limiter(rate, caller_rate, peers(count), CallerRoom(room.get("total", 1000), room.get("each", 1000)))


def most_in_any_window(admitted: list[float], rate: Rate, burst: float) -> float:
    """By how many requests the worst window exceeds `burst + rate * w`; at most 0 when all is well."""
    excess = -math.inf
    for first, start in enumerate(admitted):
        for last in range(first, len(admitted)):
            allowed = burst + rate.per_second * (admitted[last] - start)
            excess = max(excess, last - first + 1 - allowed)
    return excess


# --- one bucket -------------------------------------------------------------------------------------------------------
def test_a_burst_then_the_rate() -> None:
    found = limiter(Rate(10, 1, 3))
    assert [found.admit(b"", 100.0) is None for _ in range(5)] == [True, True, True, False, False]
    refused = found.admit(b"", 100.0)
    assert refused is not None
    assert (refused.reason, refused.retry_after) == (FUNCTION_RATE, 1)
    assert refused.after == pytest.approx(0.1, abs=0.001)
    assert [found.admit(b"", 100.1) is None for _ in range(2)] == [True, False]
    assert [found.admit(b"", 200.0) is None for _ in range(4)] == [True, True, True, False]


def test_without_a_burst_as_many_as_requests() -> None:
    found = limiter(Rate(6, 60))
    assert [found.admit(b"", 0.0) is None for _ in range(7)] == [True] * 6 + [False]
    refused = found.admit(b"", 0.0)
    assert refused is not None
    assert refused.retry_after == 10
    assert found.admit(b"", 10.0) is None


@given(rates, steps, starts)
def test_never_more_than_burst_and_rate(rate: Rate, gaps: list[float], start: float) -> None:
    found, now, admitted = limiter(rate), start, []
    for gap in gaps:
        now += gap
        if found.admit(b"", now) is None:
            admitted.append(now)
    assert most_in_any_window(admitted, rate, rate.size) <= EPSILON


@given(rates, steps, starts)
def test_whoever_waits_as_told_is_admitted(rate: Rate, gaps: list[float], start: float) -> None:
    """So nothing that the limit allows is lost, and `Retry-After` is true."""
    found, now = limiter(rate), start
    for gap in gaps:
        now += gap
        refused = found.admit(b"", now)
        if refused is not None:
            assert 0 < refused.after <= rate.per_seconds / rate.requests * 1.01
            assert found.admit(b"", now + refused.after * 0.98) is not None or refused.after < 1e-5
            now += refused.after + 1e-6
            assert found.admit(b"", now) is None


# --- shares -----------------------------------------------------------------------------------------------------------
@given(rates, st.integers(1, 8), st.lists(st.tuples(st.sampled_from([0.0, 0.01, 0.1, 1.0, 9.0]), st.integers(0, 7))))
def test_all_gateways_together_keep_the_limit(rate: Rate, count: int, calls: list[tuple[float, int]]) -> None:
    gateways = [limiter(rate, count=count) for _ in range(count)]
    now, admitted = 0.0, []
    for gap, which in calls:
        now += gap
        if gateways[which % count].admit(b"", now) is None:
            admitted.append(now)
    # Each gateway admits one at least at once: the only excess there may be
    assert most_in_any_window(admitted, rate, max(rate.size, count)) <= EPSILON * count


@given(rates, st.integers(1, 1000))
def test_a_share_is_never_zero_and_all_are_the_whole(rate: Rate, count: int) -> None:
    share = Pace(rate, count)
    assert share.burst >= 1
    assert 1 / share.interval > 0
    assert count / share.interval == pytest.approx(rate.per_second)
    assert limiter(rate, count=count).admit(b"", 0.0) is None


@given(rates, st.lists(st.tuples(st.sampled_from([0.0, 0.05, 0.5, 3.0]), st.integers(1, 5)), max_size=60))
def test_gateways_that_come_and_go(rate: Rate, calls: list[tuple[float, int]]) -> None:
    """This one never admits more than if it were alone all the time."""
    shared = peers()
    found = Limiter(rate, None, shared, CallerRoom(10, 10))
    now, admitted = 0.0, []
    for gap, count in calls:
        now, shared.count = now + gap, count
        if found.admit(b"", now) is None:
            admitted.append(now)
    assert most_in_any_window(admitted, rate, rate.size) <= EPSILON


def test_a_new_gateway_forgives_nothing() -> None:
    shared = peers()
    found = Limiter(Rate(10, 1, 10), None, shared, CallerRoom(10, 10))
    assert [found.admit(b"", 0.0) is None for _ in range(11)] == [True] * 10 + [False]
    shared.count = 2
    assert found.admit(b"", 0.0) is not None
    shared.count = 1
    assert found.admit(b"", 0.0) is not None


# --- callers ----------------------------------------------------------------------------------------------------------
def test_each_caller_has_its_own() -> None:
    found = limiter(caller_rate=Rate(1, 60, 2))
    assert [found.admit(b"a", 0.0) is None for _ in range(3)] == [True, True, False]
    refused = found.admit(b"a", 0.0)
    assert refused is not None
    assert (refused.reason, refused.retry_after) == (CALLER_RATE, 60)
    assert found.admit(b"b", 0.0) is None


def test_who_is_refused_for_the_function_pays_nothing() -> None:
    found = limiter(Rate(1, 10), Rate(1, 100, 2))
    assert found.admit(b"a", 0.0) is None
    for _ in range(5):
        refused = found.admit(b"b", 0.0)
        assert refused is not None
        assert refused.reason == FUNCTION_RATE
    assert found.callers == 1
    assert [found.admit(b"b", 20.0) is None, found.admit(b"b", 40.0) is None] == [True, True]
    refused = found.admit(b"b", 60.0)
    assert refused is not None
    assert refused.reason == CALLER_RATE
    assert found.admit(b"c", 60.0) is None, "who is refused for himself takes nothing from the others"


def test_an_account_outlives_the_end_of_its_generation() -> None:
    found = limiter(caller_rate=Rate(1, 10, 5))  # a burst comes back in 50 s, so a generation lasts as long
    assert found.admit(b"first", 0.0) is None
    assert [found.admit(b"a", 49.0) is None for _ in range(6)] == [True] * 5 + [False]
    assert found.admit(b"a", 51.0) is not None
    assert found.admit(b"a", 59.0) is None
    assert found.admit(b"a", 101.0) is None
    assert found.callers == 1


def test_whoever_shared_an_account_takes_it_along() -> None:
    found = limiter(caller_rate=Rate(1, 10, 5), each=1)
    assert found.admit(b"first", 0.0) is None
    assert found.admit(b"a", 50.0) is None  # there is no room for him
    assert [found.admit(b"a", 99.0) is None for _ in range(6)] == [True] * 5 + [False]
    assert found.admit(b"a", 100.0) is not None, "the table has room again"
    assert found.admit(b"a", 109.0) is None


@given(
    rates,
    st.lists(st.tuples(st.sampled_from([0.0, 0.01, 0.4, 1.1, 30.0, 200.0]), st.integers(0, 12)), max_size=120),
    st.integers(0, 6),
)
def test_no_caller_is_ever_forgotten_too_early(rate: Rate, calls: list[tuple[float, int]], each: int) -> None:
    """Whatever the table's size and whoever comes: nobody gets more than his rate."""
    found, now = limiter(caller_rate=rate, each=each), 0.0
    admitted: dict[bytes, list[float]] = {}
    for gap, number in calls:
        now += gap
        caller = b"%d" % number
        if found.admit(caller, now) is None:
            admitted.setdefault(caller, []).append(now)
        assert found.callers <= each
    for times in admitted.values():
        assert most_in_any_window(times, rate, rate.size) <= EPSILON


def test_a_flood_of_addresses() -> None:
    """It fills the table, evicts nobody, and wins little."""
    rate = Rate(1, 10, 5)
    found = limiter(caller_rate=rate, each=100)
    for _ in range(5):
        assert found.admit(b"honest", 0.0) is None
    assert found.admit(b"honest", 0.0) is not None
    flood = sum(found.admit(b"bot-%d" % number, 0.0) is None for number in range(20_000))
    assert flood <= 99 + SHARED * rate.size
    assert found.callers == 100
    assert found.admit(b"honest", 0.0) is not None, "his account is still there"
    assert found.admit(b"honest", 10.0) is None
    assert found.admit(b"honest", 10.0) is not None
    # when the flood is over, everybody has an account of his own again
    assert [found.admit(b"late", 1000.0) is None for _ in range(6)] == [True] * 5 + [False]
    assert found.callers <= 100


def test_memory_is_bounded_over_all_functions_and_given_back() -> None:
    room = CallerRoom(50, 40)
    functions = [Limiter(None, Rate(1), peers(), room) for _ in range(3)]
    for found in functions:
        for number in range(100):
            found.admit(b"%d" % number, 0.0)
    assert room.used == sum(found.callers for found in functions) == 50
    assert functions[0].callers == 40
    functions[1].forget()
    assert room.used == 40
    # nobody calls any more: the sweep forgets them
    room.sweep(0.0 + LEAST_GENERATION)
    room.sweep(10.0)
    room.sweep(20.0)
    assert (room.used, room.limiters) == (0, set())


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.3, 1.0, 2.5]), st.integers(0, 9), st.integers(0, 2)), max_size=100))
def test_the_room_counts_right(calls: list[tuple[float, int, int]]) -> None:
    room = CallerRoom(12, 7)
    functions = [Limiter(None, Rate(2), peers(), room) for _ in range(3)]
    now = 0.0
    for gap, caller, which in calls:
        now += gap
        functions[which].admit(b"%d" % caller, now)
        assert room.used == sum(found.callers for found in functions) <= room.total
        assert {found for found in functions if found.callers} <= room.limiters


# --- what the caller reads --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("after", "seconds"), [(0.0001, 1), (1.0, 1), (1.00000001, 1), (1.2, 2), (59.5, 60)])
def test_retry_after_is_whole_and_enough(after: float, seconds: int) -> None:
    assert Refused(CALLER_RATE, Rate(1), after).retry_after == seconds


def test_fields_of_the_draft() -> None:
    expected = b'ratelimit-policy: "caller";q=10;w=60\r\nratelimit: "caller";r=0;t=5\r\n'
    assert fields(CALLER_RATE, Rate(10, 60), 5) == expected
    assert b'"function"' in fields(FUNCTION_RATE, Rate(10), 1)


# --- peers ------------------------------------------------------------------------------------------------------------
def gateway(name: str, *, ready: bool = True, phase: str = "Running", **meta: Any) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {
        "metadata": {"namespace": "kappa-system", "name": name, **meta},
        "status": {"phase": phase, "conditions": conditions},
    }


def test_peers() -> None:
    found = Peers("kappa-system/gw-0")
    assert found.count == 1, "nothing is known yet"
    found.put(gateway("gw-0", ready=False))
    assert found.count == 1, "who asks counts, ready or not"
    found.put(gateway("gw-0"))
    found.put(gateway("gw-1"))
    found.put({"metadata": {"namespace": "kappa-system", "name": "gw-2"}})
    assert (found.count, sorted(found.known())) == (2, [f"kappa-system/gw-{number}" for number in range(3)])
    found.put(gateway("gw-2"))
    assert found.count == 3
    found.put(gateway("gw-1", deletionTimestamp="2024-01-01T00:00:00Z"))
    found.put(gateway("gw-2", phase="Failed"))
    assert found.count == 1
    found.put(gateway("gw-1"))
    found.remove("kappa-system/gw-1")
    found.remove("kappa-system/never-seen")
    assert (found.count, sorted(found.known())) == (1, ["kappa-system/gw-0", "kappa-system/gw-2"])
