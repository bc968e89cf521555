"""The work queue in virtual time, and the tasks around it."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from kappa_operator.reconciler import Backoff, Reconciler, WorkQueue

FLAT = Backoff(first=1.0, most=8.0, jitter=0.0)


def test_keys_are_coalesced_and_come_in_order() -> None:
    queue = WorkQueue()
    for key in ("a", "b", "a"):
        queue.add(key)
    assert [queue.take(0), queue.take(0), queue.take(0)] == ["a", "b", None]


def test_a_key_that_is_added_while_it_runs_runs_once_more() -> None:
    queue = WorkQueue()
    queue.add("a")
    assert queue.take(0) == "a"
    queue.add("a")
    queue.add("a")
    assert queue.take(0) is None
    queue.done("a", 1)
    assert queue.take(1) == "a"
    queue.done("a", 2)
    assert queue.take(2) is None


def test_failures_back_off_and_success_forgets_them() -> None:
    queue = WorkQueue(FLAT)
    queue.add("a")
    delays = []
    now = 0.0
    for _ in range(6):
        assert queue.take(now) == "a"
        queue.done("a", now, failed=True)
        due = queue.next_due()
        assert due is not None
        delays.append(due - now)
        assert queue.take(due - 0.001) is None
        now = due
    assert delays == [1, 2, 4, 8, 8, 8]
    assert queue.take(now) == "a"
    queue.done("a", now)
    queue.add("a")
    assert queue.take(now) == "a"
    queue.done("a", now, failed=True)
    assert queue.next_due() == now + 1


def test_news_ends_a_back_off() -> None:
    queue = WorkQueue(FLAT)
    queue.add("a")
    queue.take(0)
    queue.done("a", 0, failed=True)
    queue.add("a")
    assert queue.take(0) == "a"
    assert queue.next_due() is None


def test_the_earliest_of_several_times_wins() -> None:
    queue = WorkQueue()
    queue.add_later("a", 5)
    queue.add_later("a", 3)
    queue.add_later("a", 9)
    assert queue.next_due() == 3
    assert queue.take(3) == "a"
    assert queue.next_due() is None


def test_jitter_spreads_both_ways() -> None:
    backoff = Backoff(first=10, most=10, jitter=0.2)
    assert [backoff.delay(1, chance) for chance in (0.0, 0.5, 1.0)] == [8, 10, 12]


@given(st.lists(st.tuples(st.sampled_from(["add", "later", "take", "ok", "bad"]), st.sampled_from("abc"))))
def test_no_key_ever_runs_twice_at_a_time_or_is_lost(steps: list[tuple[str, str]]) -> None:
    queue = WorkQueue(FLAT)
    running: set[str] = set()
    owed: set[str] = set()
    now = 0.0
    for what, key in steps:
        now += 0.5
        if what == "add":
            queue.add(key)
            owed.add(key)
        elif what == "later":
            queue.add_later(key, now + 1)
            owed.add(key)
        elif what == "take":
            if (taken := queue.take(now)) is not None:
                assert taken not in running
                running.add(taken)
                owed.discard(taken)
        elif key in running:
            running.discard(key)
            queue.done(key, now, failed=what == "bad")
            if what == "bad":
                owed.add(key)
    for key in list(running):
        queue.done(key, now)
    while (taken := queue.take(now + 100)) is not None:
        owed.discard(taken)
        queue.done(taken, now + 100)
    assert not owed


async def test_workers_are_bounded_and_one_failure_stops_nobody() -> None:
    at_once = most = 0
    done: list[str] = []

    async def handle(key: str) -> float:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0)
        at_once -= 1
        if key == "bad":
            raise RuntimeError("no")
        done.append(key)
        return 0.0

    reconciler = Reconciler(handle, workers=2)
    task = asyncio.create_task(reconciler.run())
    reconciler.add([f"k{n}" for n in range(5)] + ["bad"])
    while len(done) < 5:
        await asyncio.sleep(0)
    task.cancel()
    assert most == 2
    assert sorted(done) == [f"k{n}" for n in range(5)]


async def test_a_handler_may_ask_to_be_called_again() -> None:
    now = 0.0
    calls: list[float] = []
    again = asyncio.Event()

    async def handle(key: str) -> float:
        calls.append(now)
        again.set()
        return 30.0

    reconciler = Reconciler(handle, clock=lambda: now)
    task = asyncio.create_task(reconciler.run())
    reconciler.add(["a"])
    await again.wait()
    await asyncio.sleep(0)
    assert reconciler.queue.next_due() == 30.0
    task.cancel()
