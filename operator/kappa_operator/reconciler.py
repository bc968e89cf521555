"""The work queue: every key at most once at a time, coalesced while it waits, retried with back-off when it fails.

`WorkQueue` decides, synchronously and with the time as an argument; `Reconciler` adds the tasks. A key added while it
is being worked on is worked on once more afterwards: nothing that happened meanwhile is lost.
"""

import asyncio
import heapq
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delay before the n-th retry: `first * 2**(n-1)` up to `most` seconds, spread by `jitter` (a share, both ways)."""

    first: float = 0.2
    most: float = 60.0
    jitter: float = 0.2

    def delay(self, failures: int, chance: float) -> float:
        """`chance` is a random number in 0..1."""
        base = min(self.most, self.first * 2.0 ** min(failures - 1, 30))
        return float(base * (1.0 + self.jitter * (2.0 * chance - 1.0)))


class WorkQueue:
    """The queue without tasks or clocks. `now` is any monotonic time in seconds."""

    def __init__(self, backoff: Backoff | None = None) -> None:
        self.backoff = backoff or Backoff()
        self._ready: deque[str] = deque()
        self._waiting: set[str] = set()
        self._running: set[str] = set()
        self._again: set[str] = set()
        self._due: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        self._failures: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._ready)

    def __repr__(self) -> str:
        return f"<WorkQueue ready={len(self._ready)} running={len(self._running)} delayed={len(self._due)}>"

    def add(self, key: str) -> None:
        """Work on this key as soon as possible."""
        self._due.pop(key, None)
        if key in self._running:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.append(key)

    def add_later(self, key: str, at: float) -> None:
        """Work on this key at a time; the earliest of several wins."""
        if key not in self._waiting and (key not in self._due or at < self._due[key]):
            self._due[key] = at
            heapq.heappush(self._heap, (at, key))

    def next_due(self) -> float | None:
        """When `take` would find more because time has passed."""
        while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take(self, now: float) -> str | None:
        """The next key to work on, which is running from now on; None when nothing is due."""
        while (due := self.next_due()) is not None and due <= now:
            self.add(heapq.heappop(self._heap)[1])
        if not self._ready:
            return None
        key = self._ready.popleft()
        self._waiting.discard(key)
        self._running.add(key)
        return key

    def done(self, key: str, now: float, *, failed: bool = False, chance: float = 0.5) -> None:
        """Work on this key has ended."""
        self._running.discard(key)
        if failed:
            self._failures[key] = self._failures.get(key, 0) + 1
            self.add_later(key, now + self.backoff.delay(self._failures[key], chance))
            self._again.discard(key)
        else:
            self._failures.pop(key, None)
            if key in self._again:
                self._again.discard(key)
                self.add(key)


class Reconciler:
    """Runs `handle(key)` for the keys of a WorkQueue, `workers` at a time. `handle` returns seconds until it wants the
    key again, or 0."""

    def __init__(
        self,
        handle: Callable[[str], Awaitable[float]],
        *,
        workers: int = 8,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
        observe: Callable[[str, float, bool], None] = lambda key, seconds, failed: None,
    ) -> None:
        self.queue = WorkQueue()
        self._handle, self._workers, self._clock, self._chance = handle, workers, clock, chance
        self._observe = observe
        self._wake = asyncio.Event()

    def add(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.queue.add(key)
        self._wake.set()

    def add_later(self, key: str, delay: float) -> None:
        self.queue.add_later(key, self._clock() + delay)
        self._wake.set()

    async def run(self) -> None:
        """Works until cancelled."""
        running: set[asyncio.Task[None]] = set()
        try:
            while True:
                self._wake.clear()
                while len(running) < self._workers and (key := self.queue.take(self._clock())) is not None:
                    task = asyncio.create_task(self._work(key), name=f"reconcile {key}")
                    running.add(task)
                    task.add_done_callback(running.discard)
                    task.add_done_callback(lambda _: self._wake.set())
                due = self.queue.next_due()
                wait = None if due is None or len(running) >= self._workers else max(0.0, due - self._clock())
                try:
                    await asyncio.wait_for(self._wake.wait(), wait)
                except TimeoutError:
                    pass
        finally:
            for task in list(running):
                task.cancel()

    async def _work(self, key: str) -> None:
        begun = self._clock()
        failed = True
        again = 0.0
        try:
            again = await self._handle(key)
            failed = False
        except Exception as error:  # one key that fails must not stop the others
            logger.warning("%s: %s: %s; will be tried again", key, type(error).__name__, error, exc_info=_bug(error))
        finally:
            now = self._clock()
            self._observe(key, now - begun, failed)
            self.queue.done(key, now, failed=failed, chance=self._chance())
            if again > 0 and not failed:
                self.queue.add_later(key, now + again)


def _bug(error: Exception) -> bool:
    """Whether a stack trace helps: not for what the API server or a pod answered."""
    return not type(error).__module__.startswith(("kappa_operator.kube", "kappa_operator.instance"))
