"""What `make chaos-events` counts as lost, as a duplicate, and as a dead letter that is as it should be."""

import pytest
from proof_ledger import Dead, Ledger, identity
from proof_returns import Return, resumed
from proof_rules import DUPLICATES, ENOUGH, Expected, assess, overall

THREE = Expected(attempts=3)


def book(*runs: str, accepted: bool = True, source: str = "kv") -> Ledger:
    """One event handed in at 1, taken at 2; then a run a second: `+` succeeded, `-` failed. Several events: several
    strings."""
    ledger = Ledger()
    for number, text in enumerate(runs):
        ident = identity(source, number)
        ledger.send(ident, 1.0)
        if accepted:
            ledger.accept(ident, 2.0)
        for second, run in enumerate(text):
            ledger.run(ident, run == "+", 3.0 + second)
    return ledger


def dead(number: int = 0, cause: str = "retries_exhausted", attempts: int = 3) -> Dead:
    return Dead(identity("kv", number), cause, attempts, at=50.0)


def test_a_good_run() -> None:
    row = assess("kv", book("+", "-+", "--+", "---"), [dead(3)], THREE)
    assert row.problems == []
    assert (row.sent, row.accepted, row.succeeded, row.failures, row.dead, row.lost) == (4, 4, 3, 6, 1, 0)
    assert (row.p50, row.p99) == (2.0, 3.0)


@pytest.mark.parametrize("runs", ["", "-", "--", "---"], ids=["never ran", "once", "twice", "used up, no letter"])
def test_lost(runs: str) -> None:
    ledger = book("+", runs)
    row = assess("kv", ledger, [], THREE)
    assert row.lost == 1
    assert row.problems == ["1 lost"]
    assert ledger.open([]) == [identity("kv", 1)]
    assert ledger.open([identity("kv", 1)]) == []


def test_what_was_not_accepted_is_not_lost_but_told() -> None:
    row = assess("kv", book("", accepted=False), [], THREE)
    assert (row.sent, row.accepted, row.lost) == (1, 0, 0)
    assert row.problems == ["1 were not taken in time"]


def test_a_run_before_the_answer_came_took_no_time() -> None:
    ledger = Ledger()
    ledger.send("proof-kv-0", 1.0)
    ledger.run("proof-kv-0", True, 1.5)
    ledger.accept("proof-kv-0", 2.0)
    row = assess("kv", ledger, [], THREE)
    assert (row.succeeded, row.p99, row.problems) == (1, 0.0, [])


@pytest.mark.parametrize(
    ("runs", "letter", "kills", "problem"),
    [
        ("---", dead(), (), ""),
        ("--", dead(), (10.0,), ""),
        ("--", dead(), (), "2 failures and 0 kills"),
        ("--", dead(), (1.0, 60.0), "2 failures and 0 kills"),
        ("---", dead(attempts=2), (), "2 attempts, not 3"),
        ("---", dead(cause="max_age"), (), "cause 'max_age'"),
    ],
    ids=["told", "killed", "untold", "killed at another time", "given up early", "another cause"],
)
def test_dead_letters_are_accounted_for(runs: str, letter: Dead, kills: tuple[float, ...], problem: str) -> None:
    row = assess("kv", book(runs), [letter], Expected(3, kills))
    assert row.lost == 0
    assert row.dead == 1
    if problem:
        assert len(row.problems) == 1
        assert problem in row.problems[0]
    else:
        assert row.problems == []


def test_a_dead_letter_that_stands_twice() -> None:
    row = assess("kv", book("---"), [dead(), dead()], THREE)
    assert row.dead == 1
    assert row.problems == ["1 are dead letters twice"]


def test_duplicates_are_counted_and_bounded() -> None:
    few, many = int(ENOUGH * DUPLICATES), int(ENOUGH * DUPLICATES) + 1
    assert assess("kv", book(*["++"] * few, *["+"] * (ENOUGH - few)), [], THREE).problems == []
    row = assess("kv", book(*["++"] * many, *["+"] * (ENOUGH - many)), [], THREE)
    assert row.problems == [f"{many} duplicates"]
    assert row.again == 0


def test_duplicates_of_what_was_handed_in_twice_are_told_apart() -> None:
    ledger = book("++", "++")
    ledger.send(identity("kv", 0), 1.5)
    row = assess("kv", ledger, [], THREE)
    assert (row.duplicates, row.again) == (2, 1)
    assert row.problems == [], "too few events to judge a share"
    assert overall([row], ledger, [], ["kv"]) == ["2 duplicates of 2 events"]


def test_other_sources_are_not_counted() -> None:
    ledger = book("+")
    ledger.send("proof-redis-0", 1.0)
    ledger.accept("proof-redis-0", 1.0)
    assert assess("kv", ledger, [], THREE).lost == 0
    assert assess("redis", ledger, [], THREE).lost == 1


def test_strangers_and_sources_that_were_left_out() -> None:
    ledger = book("+")
    ledger.run("proof-mqtt-7", True, 5.0)
    row = assess("kv", ledger, [], THREE)
    found = overall([row], ledger, [Dead("proof-s3-1", "retries_exhausted", 3, 5.0)], ["kv", "mqtt"])
    assert [text.partition(", such as")[0] for text in found] == [
        "1 runs of ids that nobody sent",
        "1 dead letters of nobody's",
        "nothing was sent to mqtt",
    ]


def test_how_soon_a_source_goes_on_after_nats_is_back() -> None:
    ledger = Ledger()
    # (accepted, first success): before the fault, in it and in hand of a gateway, in it, after it
    for number, (taken, done) in enumerate([(9.0, 21.0), (11.0, 12.0), (12.0, 23.5), (24.0, 24.5)]):
        ledger.send(identity("kv", number), taken)
        ledger.accept(identity("kv", number), taken)
        ledger.run(identity("kv", number), True, done)
    items = ledger.items.values()
    assert resumed(items, [Return(10.0, 20.0)]) == [3.5]
    assert resumed(items, [Return(10.0, 24.2), Return(40.0, 41.0)]) == [pytest.approx(0.3)]
    assert assess("kv", ledger, [], Expected(3, returns=[Return(10.0, 20.0)])).resumed == [3.5]
