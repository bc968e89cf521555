"""The load: calls that begin at their times, whether those before them are answered or not (open loop).

Arrivals are a Poisson process of fixed rate: a platform that stalls is not spared the calls that come meanwhile. Calls
are bounded in number (`MOST_OPEN` at a time; what would exceed it is counted as lost by the caller and fails the run).
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from chaos_answer import Finding
from chaos_client import Client
from chaos_kinds import CYCLE, KINDS, Kind, perform

MOST_OPEN = 3000
#: Leases and deadlines run out while a machine stands still for longer: what fails then says nothing about Kappa.
MOST_LATE = 3.0
SWEEP_SECONDS = 0.5


@dataclass(slots=True)
class Record:
    """One call, done. Times are monotonic seconds. `slow`: seconds beyond what the function itself takes."""

    kind: str
    begun: float
    ended: float
    slow: float
    verdict: str
    why: str
    repeatable: bool
    endpoint: str
    request_id: str
    retries: int
    ident: str
    explained: str = ""


@dataclass
class Load:
    """`run` makes the steady mix until cancelled; `burst` adds calls of one kind. `records` has what has ended.

    `late`: the most seconds by which a call began too late: this program, or the whole machine, stood still.
    """

    client: Client
    base: str
    rate: float
    rng: Random = field(default_factory=lambda: Random(1))
    clock: Callable[[], float] = time.monotonic
    records: list[Record] = field(default_factory=list)
    begun: int = 0
    overflow: int = 0
    late: float = 0.0
    bugs: list[str] = field(default_factory=list)
    _open: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self) -> None:
        """Until cancelled."""
        weights = [kind.weight for kind in KINDS]
        due = next_sweep = self.clock()
        while True:
            now = self.clock()
            if now >= next_sweep:
                next_sweep = now + SWEEP_SECONDS
                self.client.sweep()
            if due > now:
                await asyncio.sleep(due - now)
                continue
            self.late = max(self.late, now - due)
            self._start(self.rng.choices(KINDS, weights)[0])
            due += self.rng.expovariate(self.rate)

    async def burst(self, rate: float, seconds: float, kind: Kind = CYCLE) -> None:
        """So many calls per second of one kind for a while; returns when the last has begun."""
        due = self.clock()
        end = due + seconds
        while due < end:
            await asyncio.sleep(max(0.0, due - self.clock()))
            self._start(kind)
            due += self.rng.expovariate(rate)

    async def settle(self, seconds: float = 45.0) -> int:
        """Waits until the calls that are under way have ended. Returns how many have not."""
        if self._open:
            await asyncio.wait(set(self._open), timeout=seconds)
        left = len(self._open)
        for task in list(self._open):
            task.cancel()
        return left

    @property
    def open(self) -> int:
        return len(self._open)

    def _start(self, kind: Kind) -> None:
        if len(self._open) >= MOST_OPEN:
            self.overflow += 1
            return
        self.begun += 1
        task = asyncio.get_running_loop().create_task(self._one(kind, f"{self.begun:07d}"))
        self._open.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._open.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self.bugs.append(repr(error))

    async def _one(self, kind: Kind, ident: str) -> None:
        begun = self.clock()
        outcome = await perform(self.client, kind, ident, self.base, self.rng)
        ended = self.clock()
        finding: Finding = outcome.finding
        answer = outcome.answer
        slow = max(0.0, ended - begun - outcome.nominal)
        self.records.append(
            Record(
                *(kind.name, begun, ended, slow, finding.verdict, finding.why, kind.repeatable),
                *(answer.endpoint, answer.request_id, answer.retries, ident),
            )
        )
