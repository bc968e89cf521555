"""Who a caller is, which limits hold for a function, the budget for bodies, and the door: without any I/O."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kappa_api.function import parse_function
from kappa_api.limits import Rate
from kappa_gateway import caller_keys, settings
from kappa_gateway.admission import Admission
from kappa_gateway.catalog import State
from kappa_gateway.descriptors import fit
from kappa_gateway.door import ADDRESS, SEARCH_SECONDS, TOTAL, Door
from kappa_gateway.held import Held, Purse
from kappa_gateway.peers import Peers
from kappa_gateway.routes import Entry
from kappa_gateway.settings import Limits, Settings, SettingsError


# --- callers ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "key"),
    [
        (b"192.0.2.7", b"\xc0\x00\x02\x07"),
        (b"192.0.2.7:4711", b"\xc0\x00\x02\x07"),
        (b"::ffff:192.0.2.7", b"\xc0\x00\x02\x07"),
        (b"2001:db8:1:2::1", bytes.fromhex("20010db800010002")),
        (b"2001:db8:1:2:ffff:ffff:ffff:ffff", bytes.fromhex("20010db800010002")),
        (b"[2001:db8:1:2::1]:443", bytes.fromhex("20010db800010002")),
        (b"[2001:db8:1:2::1]", bytes.fromhex("20010db800010002")),
        (b"fe80::1%eth0", bytes.fromhex("fe80000000000000")),
        (b"2001:db8:1:3::1", bytes.fromhex("20010db800010003")),
        (b"", caller_keys.UNKNOWN),
        (b"unknown", caller_keys.UNKNOWN),
        (b"192.0.2.256", caller_keys.UNKNOWN),
        (b"0x7f000001", caller_keys.UNKNOWN),
        (b"1" * 1000, caller_keys.UNKNOWN),
        (b"\xff\xfe", caller_keys.UNKNOWN),
    ],
)
def test_addresses(text: bytes, key: bytes) -> None:
    assert caller_keys.by_address(text) == key


@pytest.mark.parametrize(
    ("fields", "hops", "seen"),
    [
        ([b"192.0.2.1"], 1, b"192.0.2.1"),
        ([b"10.9.9.9, 192.0.2.1"], 1, b"192.0.2.1"),  # the first is what the caller claims
        ([b"10.9.9.9", b"192.0.2.1"], 1, b"192.0.2.1"),
        ([b"10.9.9.9, 192.0.2.1, 10.0.0.1"], 2, b"192.0.2.1"),
        ([b"10.9.9.9, 192.0.2.1", b"10.0.0.1"], 2, b"192.0.2.1"),
        ([b"192.0.2.1"], 2, b"198.51.100.5"),  # did not come through both: the peer counts
        ([], 1, b"198.51.100.5"),
        ([], 2, b"198.51.100.5"),
    ],
)
def test_callers_behind_proxies(fields: list[bytes], hops: int, seen: bytes) -> None:
    peer = caller_keys.by_address(b"198.51.100.5")
    assert caller_keys.by_forwarded(fields, hops, peer) == caller_keys.by_address(seen)


def test_identities() -> None:
    keys = {caller_keys.by_identity(text) for text in ("a", "b", "x" * 1000, "x" * 1001, "\udcff")}
    assert len(keys) == 5
    assert max(map(len, keys)) <= 64
    assert caller_keys.by_identity("192.0.2.7") != caller_keys.by_address(b"192.0.2.7")


def test_nobody_can_make_the_memo_grow() -> None:
    for number in range(3 * caller_keys.MEMO_SIZE):
        caller_keys.by_address(b"2001:db8:%x::1" % number)
    assert len(caller_keys._memo) <= caller_keys.MEMO_SIZE


# --- which limits hold ------------------------------------------------------------------------------------------------
def state(limits: Any = None) -> State:
    spec = {"runtime": "python", "handler": "main.handler", "code": {"inline": "x"}, "http": {"limits": limits}}
    found = State("default/hello")
    found.entry = Entry.of(parse_function({"metadata": {"name": "hello", "namespace": "default"}, "spec": spec}))
    return found


def admission(**limits: Any) -> Admission:
    return Admission(Settings(secret=b"x", name="gw-1", limits=Limits(**limits)), Peers("kappa-system/gw-1"))


@pytest.mark.parametrize(
    ("asked", "holds"), [(None, 50), ({"maxWaiting": 3}, 3), ({"maxWaiting": 80}, 80), ({"maxWaiting": 100_000}, 90)]
)
def test_how_many_may_wait(asked: Any, holds: int) -> None:
    found = state(asked)
    admission(waiting_per_function=50, waiting_most=90).apply(found)
    assert found.max_waiting == holds


def test_rates_of_the_function_and_of_the_gateway() -> None:
    rules = admission(rate=Rate(7), caller_rate=Rate(8, 60))
    own, plain = state({"rate": {"requests": 5, "perSeconds": 10, "burst": 2}}), state()
    for found in (own, plain):
        rules.apply(found)
    assert own.limiter is not None
    assert plain.limiter is not None
    assert (own.limiter.rate, own.limiter.caller_rate) == (Rate(5, 10, 2), Rate(8, 60))
    assert (plain.limiter.rate, plain.limiter.caller_rate) == (Rate(7), Rate(8, 60))
    unlimited = state()
    admission().apply(unlimited)
    assert unlimited.limiter is None


def test_accounts_outlive_a_change_of_something_else() -> None:
    rules, found = admission(), state({"callerRate": {"requests": 1}})
    rules.apply(found)
    before = found.limiter
    assert before is not None
    assert before.admit(b"a", 0.0) is None
    found.entry = state({"callerRate": {"requests": 1}, "maxWaiting": 7}).entry
    rules.apply(found)
    assert (found.limiter, found.max_waiting) == (before, 7)
    found.entry = state({"callerRate": {"requests": 2}}).entry
    rules.apply(found)
    assert found.limiter is not before
    assert rules.room.used == 0
    assert found.limiter is not None
    assert found.limiter.admit(b"a", 0.0) is None
    found.entry = None  # deleted
    rules.apply(found)
    assert (found.limiter, rules.room.used) == (None, 0)


@pytest.mark.parametrize(
    ("text", "rate"),
    [("", None), ("0", None), ("100", Rate(100)), ("100/60", Rate(100, 60)), ("100/60/5", Rate(100, 60, 5))],
)
def test_rates_in_settings(text: str, rate: Rate | None) -> None:
    found = settings.load({"KAPPA_PLATFORM_SECRET": "x", "KAPPA_RATE": text, "KAPPA_CALLER_RATE": text})
    assert (found.limits.rate, found.limits.caller_rate) == (rate, rate)


@pytest.mark.parametrize("text", ["x", "-1", "1/0", "1/2/3/4", "1.5", "1/", "9999999", "1/99999", "1/1/9999999", "²"])
def test_bad_rates_in_settings(text: str) -> None:
    with pytest.raises(SettingsError, match="KAPPA_RATE"):
        settings.load({"KAPPA_PLATFORM_SECRET": "x", "KAPPA_RATE": text})


@pytest.mark.parametrize("name", ["KAPPA_MAX_CONNECTIONS", "KAPPA_MAX_WAITING", "KAPPA_FORWARDED_HOPS"])
def test_limits_that_must_not_be_zero(name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        settings.load({"KAPPA_PLATFORM_SECRET": "x", name: "0"})


# --- bodies that are held ---------------------------------------------------------------------------------------------
@dataclass
class Holder:
    held: int = 0


def test_one_function_gets_half_of_the_budget() -> None:
    budget, greedy, modest = Held(1000), Holder(), Holder()
    taken = 0
    while Purse(budget, greedy).take(10):
        taken += 10
    assert (taken, greedy.held, budget.used) == (500, 500, 500)
    assert Purse(budget, modest).take(200)
    assert not Purse(budget, greedy).take(1)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 300), st.booleans()), max_size=60))
def test_the_budget_counts_right(calls: list[tuple[int, int, bool]]) -> None:
    budget, holders = Held(1000), [Holder() for _ in range(4)]
    purses: list[Purse] = []
    for which, size, close in calls:
        if close and purses:
            purse = purses.pop(0)
            purse.close()
            purse.close()
            assert purse.size == 0
        else:
            purses.append(Purse(budget, holders[which]))
            before = budget.used
            taken = purses[-1].take(size)
            assert budget.used == before + (size if taken else 0)
        assert 0 <= budget.used == sum(holder.held for holder in holders) == sum(purse.size for purse in purses)
        assert budget.used <= budget.total
        for holder in holders:
            if not holder.held and budget.used < budget.total:
                probe = Purse(budget, holder)
                assert probe.take((budget.total - budget.used) // 2), "who holds nothing always gets something"
                probe.close()


# --- the door ---------------------------------------------------------------------------------------------------------
@dataclass(eq=False)
class Guest:
    door: "House"
    caller: bytes
    idle_since: float = float("inf")

    def retire(self) -> None:
        if self.idle_since < float("inf"):
            self.door.guests.remove(self)
            self.door.door.leave(self.caller)


@dataclass
class House:
    """A door with its guests."""

    total: int = 5
    per_address: int = 0
    guests: list[Guest] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.door = Door(self.total, self.per_address, lambda: list(self.guests))

    def come(self, caller: bytes, now: float) -> str:
        if self.door.full(now):
            return TOTAL
        if not self.door.enter(caller):
            return ADDRESS
        self.guests.append(Guest(self, caller))
        return ""


def test_everybody_comes_in_until_it_is_full() -> None:
    house = House(total=3)
    assert [house.come(b"a", 0.0) for _ in range(4)] == ["", "", "", TOTAL]
    house.door.leave(b"a")
    assert house.come(b"b", 0.0) == ""


def test_one_address_cannot_have_it_all() -> None:
    house = House(total=10, per_address=2)
    assert [house.come(b"a", 0.0) for _ in range(3)] == ["", "", ADDRESS]
    assert house.come(b"b", 0.0) == ""
    house.door.leave(b"a")
    assert house.come(b"a", 0.0) == ""


def test_idle_connections_make_room() -> None:
    house = House(total=3)
    for caller in (b"a", b"a", b"b"):
        assert house.come(caller, 0.0) == ""
    busy, old, other = house.guests
    old.idle_since, other.idle_since = 5.0, 1.0
    assert house.come(b"c", 10.0) == "", "of the address that has most, although the other idles longer"
    assert [guest.caller for guest in house.guests] == [b"a", b"b", b"c"]
    assert house.guests[0] is busy
    assert house.come(b"d", 11.0) == ""
    assert [guest.caller for guest in house.guests] == [b"a", b"c", b"d"]
    assert house.door.evicted == 2


def test_who_just_became_idle_stays() -> None:
    house = House(total=1)
    house.come(b"a", 0.0)
    house.guests[0].idle_since = 9.5
    assert house.come(b"b", 10.0) == TOTAL


def test_a_flood_does_not_search_for_each_newcomer() -> None:
    looks = []

    def guests() -> list[Guest]:
        looks.append(1)
        return []

    door = Door(0, 0, guests)
    for _ in range(100):
        assert door.full(50.0)
    assert door.full(50.0 + SEARCH_SECONDS * 1.01)
    assert len(looks) == 2


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.2, 2.0]), st.sampled_from([b"a", b"b", b"c"]), st.integers(0, 9))))
def test_the_door_counts_right(moves: list[tuple[float, bytes, int]]) -> None:
    house, now = House(total=4, per_address=3), 0.0
    for gap, caller, which in moves:
        now += gap
        if which < 5:
            house.come(caller, now)
        elif house.guests:
            guest = house.guests[which % len(house.guests)]
            if which < 8:
                guest.idle_since = now if guest.idle_since == float("inf") else float("inf")
            else:
                house.guests.remove(guest)
                house.door.leave(guest.caller)
        assert house.door.inside == len(house.guests) <= 4
        assert all(sum(g.caller == c for g in house.guests) <= 3 for c in (b"a", b"b", b"c"))


# --- descriptors ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("descriptors", "connections"), [(1_000_000, 10_000), (20_256, 10_000), (1024, 384), (64, 16), (3, 1)]
)
def test_connections_fit_the_descriptors(descriptors: int, connections: int) -> None:
    assert fit(Limits(), descriptors).connections == connections
