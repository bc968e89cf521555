"""Rates of what is posted for Triggers, in virtual time: batches, several Triggers at once, whose account it is on."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kappa_profiles import tries

from kappa_api.errors import SpecError
from kappa_api.limits import PostLimits, Rate
from kappa_api.trigger import parse_trigger
from kappa_gateway.events.rates import Claim, Defaults, TriggerRates
from kappa_gateway.events.triggers import Triggers
from kappa_gateway.limits import CALLER_RATE, LEAST_GENERATION, TRIGGER_RATE, CallerRoom, Limiter
from kappa_gateway.peers import Peers

EPSILON = 0.01  # of an event: what rounding may let through
REF = {"secretRef": {"name": "s"}}
rates = st.builds(Rate, st.integers(1, 50), st.sampled_from([1, 1, 7, 60]), st.integers(0, 40))
posts = st.lists(
    st.tuples(st.sampled_from([0.0, 0.01, 0.3, 1.0, 60.0]), st.integers(1, 80), st.integers(0, 2)), max_size=50
)


def limiter(rate: Rate | None = None, caller_rate: Rate | None = None) -> Limiter:
    return Limiter(rate, caller_rate, Peers("kappa-system/gw-0"), CallerRoom(1000, 1000), TRIGGER_RATE)


def spec(kind: str = "event", uid: str = "uid-1", generation: int = 1, **limits: Any) -> dict[str, Any]:
    base: dict[str, Any] = {"event": {}, "webhook": {"preset": "github", **REF}, "s3": REF}.get(kind, {})
    source = {**base, **({"limits": limits} if limits else {})} if kind != "schedule" else {"cron": "* * * * *"}
    meta = {"namespace": "default", "name": "t", "uid": uid, "generation": generation}
    return {"metadata": meta, "spec": {"function": "f", "source": {kind: source}}}


class World:
    def __init__(self, rate: Rate | None = None, caller_rate: Rate | None = None) -> None:
        self.triggers = Triggers()
        self.room = CallerRoom(100, 100)
        self.rates = TriggerRates(self.triggers, Peers("kappa-system/gw-0"), self.room, Defaults(rate, caller_rate))

    def post(self, count: int = 1, caller: bytes = b"a", now: float = 0.0) -> str:
        """The reason of a refusal, or an empty string."""
        claim = Claim("default/t", caller, count)
        if refused := self.rates.ask(claim, now):
            return refused.reason
        self.rates.take(claim, now)
        return ""


# --- batches ----------------------------------------------------------------------------------------------------------
def test_events_count_and_not_requests() -> None:
    found = limiter(Rate(10, 1, 10))
    assert found.ask(b"", 0.0, 8) is None
    found.take(b"", 0.0, 8)
    refused = found.ask(b"", 0.0, 3)
    assert refused is not None
    assert (refused.reason, refused.retry_after) == (TRIGGER_RATE, 1)
    assert refused.after == pytest.approx(0.1, abs=0.001)
    assert found.ask(b"", 0.0, 2) is None
    assert found.ask(b"", 0.1, 3) is None


def test_more_than_a_burst_is_taken_from_a_full_bucket_and_owed() -> None:
    found = limiter(Rate(1, 1, 5))
    assert found.ask(b"", 0.0, 100) is None
    found.take(b"", 0.0, 100)
    refused = found.ask(b"", 0.0)
    assert refused is not None
    assert refused.retry_after == 96  # when 100 seconds are over but for the burst, of which one is needed
    assert found.ask(b"", 96.0) is None
    again = found.ask(b"", 96.0, 100)  # a full bucket again
    assert again is not None
    assert again.retry_after == 4


@tries(100)
@given(rates, posts)
def test_never_more_than_burst_and_rate(rate: Rate, given_: list[tuple[float, int, int]]) -> None:
    found, now = limiter(rate), 1000.0
    admitted: list[tuple[float, int]] = []
    for gap, count, _ in given_:
        now += gap
        if found.ask(b"", now, count) is None:
            found.take(b"", now, count)
            admitted.append((now, count))
    excess = -math.inf
    for first, (start, _) in enumerate(admitted):
        total = 0
        for at, count in admitted[first:]:
            total += count
            most = max(rate.size, *(n for _, n in admitted[first:]))
            excess = max(excess, total - most - rate.per_second * (at - start))
    assert excess <= EPSILON


@tries(100)
@given(rates, posts)
def test_whoever_waits_as_told_is_admitted(rate: Rate, given_: list[tuple[float, int, int]]) -> None:
    for found in (limiter(rate), limiter(None, rate)):
        now = 1000.0
        for gap, count, who in given_:
            now += gap
            refused = found.ask(bytes([who]), now, count)
            if refused is not None:
                assert refused.after > 0
                now += refused.after + 1e-6
                assert found.ask(bytes([who]), now, count) is None
            found.take(bytes([who]), now, count)


def test_a_callers_debt_is_not_forgotten() -> None:
    """Of silent callers nothing is kept but what they owe."""
    found = limiter(None, Rate(1, 1, 1))
    assert found.ask(b"a", 0.0, 1000) is None
    found.take(b"a", 0.0, 1000)
    for second in range(1, 998):
        other = b"b%d" % second  # so that generations turn
        assert found.ask(other, float(second)) is None
        found.take(other, float(second))
        assert found.ask(b"a", float(second)) is not None, second
    assert found.ask(b"a", 1000.0) is None
    found.turn(3000.0)
    found.turn(3000.0 + 2 * LEAST_GENERATION)
    assert found.callers == 0


# --- the registry -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["event", "webhook", "s3"])
def test_what_the_trigger_says_holds(kind: str) -> None:
    world = World()
    world.triggers.put(spec(kind, rate={"requests": 3, "perSeconds": 60}, callerRate={"requests": 2, "perSeconds": 60}))
    assert [world.post() for _ in range(3)] == ["", "", CALLER_RATE]
    assert [world.post(caller=b"b") for _ in range(2)] == ["", TRIGGER_RATE]


def test_the_gateways_own_hold_for_the_others() -> None:
    world = World(Rate(2, 60))
    world.triggers.put(spec())
    assert [world.post() for _ in range(3)] == ["", "", TRIGGER_RATE]
    world.triggers.put(spec(generation=2, rate={"requests": 100}))
    assert [world.post() for _ in range(3)] == ["", "", ""]


def test_sources_that_are_not_posted_to_have_none() -> None:
    world = World(Rate(1, 60), Rate(1, 60))
    world.triggers.put(spec("schedule"))
    assert [world.post() for _ in range(3)] == [""] * 3
    with pytest.raises(SpecError, match="limits"):
        parse_trigger(
            {**spec(), "spec": {"function": "f", "source": {"schedule": {"cron": "* * * * *", "limits": {}}}}}
        )


def test_another_change_leaves_the_accounts() -> None:
    world = World()
    limits = {"rate": {"requests": 2, "perSeconds": 60}}
    world.triggers.put(spec(**limits))
    assert [world.post() for _ in range(3)] == ["", "", TRIGGER_RATE]
    changed = spec(generation=2, **limits)
    changed["spec"]["retries"] = 7
    world.triggers.put(changed)
    assert world.post() == TRIGGER_RATE
    broken = spec(generation=3, **limits)
    broken["spec"]["function"] = "???"
    world.triggers.put(broken)  # its last valid spec goes on
    assert world.post() == TRIGGER_RATE
    world.triggers.put(spec(uid="uid-2", **limits))  # another one that has its name
    assert world.post() == ""
    world.triggers.remove("default/t")
    assert [world.post() for _ in range(5)] == [""] * 5


def test_nothing_stays_of_the_callers_of_a_trigger_that_is_gone() -> None:
    world = World()
    world.triggers.put(spec(callerRate={"requests": 2}))
    for number in range(10):
        assert world.post(caller=bytes([number])) == ""
    assert world.room.used == 10
    world.triggers.remove("default/t")
    assert world.room.used == 0


def test_what_brings_nothing_is_on_the_callers_account_alone() -> None:
    world = World()
    world.triggers.put(spec(rate={"requests": 3, "perSeconds": 60}, callerRate={"requests": 2, "perSeconds": 60}))
    for _ in range(50):
        world.rates.blame(Claim("default/t", b"stranger"), 0.0)
    assert world.post(caller=b"stranger") == CALLER_RATE
    assert [world.post(caller=b"friend") for _ in range(2)] == ["", ""]
    assert world.post(caller=b"other") == ""
    assert world.post(caller=b"third") == TRIGGER_RATE
    world.rates.blame(Claim("default/nobody", b"stranger"), 0.0)


def test_the_spec_is_read() -> None:
    found = parse_trigger(spec(rate={"requests": 5, "perSeconds": 2, "burst": 9}, callerRate={"requests": 1}))
    assert found.source.limits == PostLimits(Rate(5, 2, 9), Rate(1))
    for wrong in ({"rate": {}}, {"rate": {"requests": 0}}, {"maxWaiting": 3}, {"rate": {"requests": 1, "perDay": 1}}):
        with pytest.raises(SpecError, match=r"spec\.source\.event\.limits"):
            parse_trigger(spec(**wrong))
