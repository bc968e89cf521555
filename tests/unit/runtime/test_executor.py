"""Threads and loops of the function: jobs end, are interrupted, and leave a usable executor."""

import asyncio
import threading
from queue import SimpleQueue

import pytest

from kappa_runtime.executor import Interrupted, Job, UserLoop, Workers


class Call(Job):
    """Runs a function; `done` is set when the executor says that it has finished."""

    def __init__(self, function):
        super().__init__()
        self.function, self.done, self.thread = function, threading.Event(), None

    def run(self):
        self.thread = threading.get_ident()
        self.function()

    async def run_async(self):
        await self.function()

    def finished(self):
        self.done.set()


def post(callback, *args):
    callback(*args)


@pytest.fixture
def workers():
    made = Workers(post)
    threading.Thread(target=made.adopt, daemon=True).start()
    return made


def test_jobs_that_follow_each_other_run_on_one_thread(workers):
    calls = [Call(lambda: None) for _ in range(5)]
    for call in calls:
        workers.submit(call)
        assert call.done.wait(10)
    assert len({call.thread for call in calls}) == 1


def test_jobs_that_overlap_run_on_several(workers):
    barrier = threading.Barrier(4)
    calls = [Call(lambda: barrier.wait(10)) for _ in range(4)]
    for call in calls:
        workers.submit(call)
    assert all(call.done.wait(10) for call in calls)
    assert len({call.thread for call in calls}) == 4


def test_an_interrupted_loop_ends_and_others_go_on(workers):
    started, seen = threading.Event(), SimpleQueue()

    def loop():
        started.set()
        try:
            while True:
                sum(range(10))
        except Interrupted as error:
            seen.put(error)
            raise

    call = Call(loop)
    workers.submit(call)
    assert started.wait(10)
    assert "in loop" in workers.stack(call, "/nowhere")
    workers.interrupt(call)
    assert call.done.wait(10)
    assert isinstance(seen.get(timeout=10), Interrupted)
    again = Call(lambda: None)
    workers.submit(again)
    assert again.done.wait(10)


def test_an_interrupt_that_comes_too_late_hits_nobody(workers):
    for _ in range(200):
        call = Call(lambda: None)
        workers.submit(call)
        workers.interrupt(call)
        assert call.done.wait(10)
    last = Call(lambda: sum(range(100_000)))
    workers.submit(last)
    assert last.done.wait(10)
    assert not last.interrupted


@pytest.fixture
def user_loop():
    made = UserLoop(post, asyncio.new_event_loop())
    threading.Thread(target=made.serve, daemon=True).start()
    return made


def test_a_task_is_cancelled_and_its_stack_shows_where_it_waits(user_loop):
    started = threading.Event()

    async def inner():
        started.set()
        await asyncio.sleep(1000)

    async def outer():
        await inner()

    call = Call(outer)
    user_loop.submit(call)
    assert started.wait(10)
    idle = Call(lambda: asyncio.sleep(0))
    user_loop.submit(idle)
    assert idle.done.wait(10)  # so that the loop is waiting, too
    stack = user_loop.stack(call, "/nowhere")
    assert "in outer" in stack
    assert "in inner" in stack
    user_loop.interrupt(call)
    assert call.done.wait(10)


def test_a_job_that_is_interrupted_before_it_begins(user_loop):
    blocked = threading.Event()

    async def block():
        blocked.wait(10)

    first, second = Call(block), Call(lambda: asyncio.sleep(1000))
    user_loop.submit(first)
    user_loop.submit(second)
    user_loop.interrupt(second)
    blocked.set()
    assert second.done.wait(10)


def test_the_loop_survives_what_a_task_raises(user_loop):
    async def exits():
        task = asyncio.ensure_future(raises())
        assert task
        await asyncio.sleep(0)

    async def raises():
        raise SystemExit

    for function in (exits, lambda: asyncio.sleep(0)):
        call = Call(function)
        user_loop.submit(call)
        assert call.done.wait(10)
