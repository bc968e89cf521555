"""Where the function's code runs: on threads of its own, never on the server's loop, which must stay able to answer.

One thread loads the code. It then becomes the first worker (sync handlers) or runs the event loop of the function
(async handlers and ASGI apps), so that what the code made at import time (a database connection, a lock) is used on
the thread that made it. Further workers start when invocations overlap.

A job that is over its deadline is told to stop: a task by cancellation, a thread by an exception raised in it
(`Interrupted`). Neither can be forced; whoever called `interrupt` looks after a while whether the job has finished.
"""

import asyncio
import logging
import sys
import threading
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from queue import SimpleQueue
from typing import Any, Protocol

from kappa_runtime.tracebacks import stack_of, stack_of_coroutine

Post = Callable[..., object]

_log = logging.getLogger("kappa.runtime")


class Interrupted(BaseException):
    """The invocation's deadline has passed. Not an Exception, so that `except Exception` does not swallow it."""


class Job:
    """One run of the function's code. `run` or `run_async` is called on the function's side; `finished` on the
    server's."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.thread_id: int | None = None
        self.interrupted = False
        self.task: asyncio.Task[None] | None = None

    def run(self) -> None:
        raise NotImplementedError

    async def run_async(self) -> None:
        raise NotImplementedError

    def finished(self) -> None:
        raise NotImplementedError


class Executor(Protocol):
    """What the server uses of either kind."""

    def submit(self, job: Job) -> None: ...

    def interrupt(self, job: Job) -> None: ...

    def stack(self, job: Job, code_dir: str) -> str: ...


class Workers:
    """Threads for sync handlers, at most as many as there are jobs at a time. `post` calls a function on the server's
    loop."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._queue: SimpleQueue[Job] = SimpleQueue()
        self._threads, self._jobs = 1, 0  # the thread that will be adopted counts already

    def submit(self, job: Job) -> None:
        self._jobs += 1
        if self._jobs > self._threads:
            self._threads += 1
            threading.Thread(target=self._work, daemon=True, name=f"kappa-worker-{self._threads}").start()
        self._queue.put(job)

    def interrupt(self, job: Job) -> None:
        with job.lock:
            job.interrupted = True
            if job.thread_id is not None:
                raise_in_thread(job.thread_id)

    def stack(self, job: Job, code_dir: str) -> str:
        """Where the job is right now."""
        return stack_of(job.thread_id, code_dir)

    def adopt(self) -> None:
        """The calling thread becomes the first worker; returns when it is no longer needed."""
        self._work()

    def _work(self) -> None:
        while True:
            job = self._queue.get()
            try:
                self._run(job)
            except Interrupted:
                pass  # it arrived after the handler had returned
            self._post(self._done, job)
            if job.interrupted:
                return  # a second exception may be on its way to this thread: let it end here

    def _run(self, job: Job) -> None:
        try:
            job.thread_id = threading.get_ident()
            copy_context().run(job.run)
        finally:
            with job.lock:
                job.thread_id = None
            _checkpoint()

    def _done(self, job: Job) -> None:
        self._jobs -= 1
        if job.interrupted:
            self._threads -= 1
        job.finished()


class UserLoop:
    """The event loop of async handlers and ASGI apps, on the thread that calls `serve`."""

    def __init__(self, post: Post, loop: asyncio.AbstractEventLoop) -> None:
        self._post, self.loop = post, loop
        self._thread_id: int | None = None

    def serve(self) -> None:
        self._thread_id = threading.get_ident()
        while True:
            try:
                self.loop.run_forever()  # returns when the function's code stops it: that is not its to stop
            except (SystemExit, KeyboardInterrupt) as error:
                _log.error("a task of the function raised %s; it has ended, the instance goes on", type(error).__name__)

    def submit(self, job: Job) -> None:
        self.loop.call_soon_threadsafe(self._start, job)

    def call(self, coroutine: Coroutine[Any, Any, None], done: Callable[[], None]) -> None:
        """Runs a coroutine there, then `done` on the server's loop."""

        async def run() -> None:
            try:
                await coroutine
            finally:
                self._post(done)

        self._task = asyncio.run_coroutine_threadsafe(run(), self.loop)

    def interrupt(self, job: Job) -> None:
        job.interrupted = True
        self.loop.call_soon_threadsafe(self._cancel, job)

    def stack(self, job: Job, code_dir: str) -> str:
        """Where the job is right now: what blocks the loop, or else where its task waits."""
        running = stack_of(self._thread_id, code_dir)
        if running and not running.startswith('  File "/'):  # the outermost frame is in the function's folder
            return running
        return stack_of_coroutine(job.task.get_coro(), code_dir) if job.task is not None else ""

    def _start(self, job: Job) -> None:
        job.task = self.loop.create_task(job.run_async(), context=copy_context())
        # Not a `finally` in the coroutine: a task that is cancelled before its first step never enters it.
        job.task.add_done_callback(lambda _: self._post(job.finished))
        if job.interrupted:
            job.task.cancel()

    @staticmethod
    def _cancel(job: Job) -> None:
        if job.task is not None:
            job.task.cancel()


class EventLoopPolicy(asyncio.DefaultEventLoopPolicy):
    """`asyncio.get_event_loop()` gives each thread a loop when it asks, as Python does on the main thread only:
    handlers written for AWS Lambda, where code runs on the main thread, count on it."""

    def get_event_loop(self) -> asyncio.AbstractEventLoop:
        try:
            return super().get_event_loop()
        except RuntimeError:
            self.set_event_loop(self.new_event_loop())
            return super().get_event_loop()


def raise_in_thread(thread_id: int) -> None:
    """Raises Interrupted in a thread, at its next bytecode: code that waits in C does not notice before it returns."""
    import ctypes  # 1.5 MB that hardly any instance needs

    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), ctypes.py_object(Interrupted))


def _checkpoint() -> None:
    """Gives a pending Interrupted the chance to be raised here, where it is expected."""
    for _ in range(2):
        sys.getrefcount(None)
