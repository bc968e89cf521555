"""Feeds one lane: keeps as many messages in hand as the function could run, while there is work.

What is in hand stands in the function's queue, so it is demand like any caller's. Batches are gathered here. A feeder
ends when its lane has been empty for a while; whoever accepts work for the lane, or sees it in the stream, makes
another one.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from kappa_gateway.events.bus import UnavailableError
from kappa_gateway.events.dead import Death
from kappa_gateway.events.delivery import attempts
from kappa_gateway.events.delivery.item import Item, Shop, firmly
from kappa_gateway.events.delivery.job import DRAIN, SUSPEND, Job
from kappa_gateway.events.delivery.pull import ACK, Delivery, Pulls
from kappa_gateway.events.delivery.target import Target
from kappa_gateway.events.outcomes.sending import Sending
from kappa_gateway.events.streams import WORK
from kappa_gateway.events.work import ASYNC, OUTCOME, Lane, Work, accepted_ms

log = logging.getLogger(__name__)

#: After so long without work the lane is left to the poller.
QUIET_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 1.0
#: Events that come at the same time make one batch, though the Trigger waits for no more.
GATHER_SECONDS: Final = 0.01
#: How often a suspended lane is searched for what has become too old, and how much is fetched at once then.
REAP_SECONDS: Final = 10.0
REAP_MESSAGES: Final = 64
#: Bytes of messages that a lane has in hand, and all lanes together, before it asks for no more than it needs to go on.
LANE_BYTES: Final = 16 * 1024 * 1024
ALL_BYTES: Final = 64 * 1024 * 1024
#: A batch that has so many bytes, with what of its events stands in the bucket, waits for no more. As Lambda has it.
BATCH_BYTES: Final = 6 * 1024 * 1024


class Feeder:
    """`backlog`: messages in the stream when it was last looked at. `run` is its task."""

    def __init__(self, shop: Shop, pulls: Pulls, lane: Lane, ended: Callable[["Feeder"], None]) -> None:
        self._shop, self.lane, self._ended = shop, lane, ended
        self._pull = pulls.make(lane, self._took)
        self._pull.news = self.poke
        self.backlog = 0
        self._news = asyncio.Event()
        self._closing = self._suspended = False
        self._jobs: dict[Job, asyncio.Task[None]] = {}
        self._mine = 0  # items in hand
        self._most = 0  # how many there should be; 0: not known, or as many as their bytes allow
        self._used = False  # something came since the last look
        self._held = 0  # bytes of their messages
        self._burials: set[asyncio.Task[None]] = set()
        self._gathered: list[Item] = []
        self._gathered_bytes = 0
        self._gather_timer: asyncio.TimerHandle | None = None
        self._missing_since = 0.0
        self._next_reap = 0.0

    def poke(self) -> None:
        """There may be something to do."""
        self._news.set()

    def nudge(self) -> None:
        """There is more work, or room for more. It is looked at only where more would be asked for now: each look costs
        a twentieth of a delivery, and three belong to each."""
        if self._suspended:
            return  # whether it still is, is looked at once a second
        left = self._pull.left
        if not left or not self._most or (self._most - self._mine - left) * 4 >= self._most:
            self._news.set()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        quiet_since = loop.time()
        try:
            while not self._closing:
                self._news.clear()
                target = self._shop.targets.of(self.lane)
                if target is not None:
                    try:
                        await self._feed(target)
                    except UnavailableError:
                        log.debug("%s: NATS is away", self.lane.subject)
                if self._mine or self.backlog or self._used:
                    self._used = False
                    quiet_since = loop.time()
                elif loop.time() - quiet_since > QUIET_SECONDS:
                    return
                try:
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._news.wait()
                except TimeoutError:
                    pass
        finally:
            if not self._closing:
                self._pull.close()
                self._ended(self)

    async def close(self) -> None:
        """Takes nothing more, gives back what waits, and returns when what runs has ended."""
        self._closing = True
        self._news.set()
        self._pull.close()
        if self._gather_timer is not None:
            self._gather_timer.cancel()
        for item in self._gathered:
            await item.give_back()
        self._gathered = []
        for job in list(self._jobs):
            job.withdraw(DRAIN)
        if self._jobs:
            await asyncio.wait(self._jobs.values())

    def abandon(self) -> None:
        """The end of patience: tasks are cancelled; JetStream gives their work to somebody else."""
        for task in self._jobs.values():
            task.cancel()

    # --- fetching -----------------------------------------------------------------------------------------------------
    async def _feed(self, target: Target) -> None:
        if target.missing:
            self._missing_since = self._missing_since or asyncio.get_running_loop().time()
        else:
            self._missing_since = 0.0
        if target.delivery.suspend and not target.missing:
            await self._hold(target)
            return
        self._suspended = False
        await self._pull.ensure()
        self._most = most = target.in_hand
        asked = self._pull.asked
        wanted = most - self._mine - asked
        if self._held >= LANE_BYTES or self._shop.held >= ALL_BYTES:
            wanted = 0 if self._mine or asked else 1
            most = wanted
            self._most = 0
        if wanted > 0 and (not asked or wanted * 4 >= most):
            await self._pull.ask(wanted)

    async def _hold(self, target: Target) -> None:
        """The lane is suspended: what waits goes back. Only what has become too old is fetched, and ends."""
        if not self._suspended:
            self._suspended = True
            for job in list(self._jobs):
                job.withdraw(SUSPEND)
        now = asyncio.get_running_loop().time()
        if now < self._next_reap or self._mine or self._pull.asked:
            return
        self._next_reap = now + REAP_SECONDS
        oldest = await self._shop.bus.get(WORK, seq=1, next_of=self.lane.subject)
        if oldest is None:
            return
        accepted = accepted_ms(oldest.headers)
        if attempts.expires_ms(target.delivery, accepted) <= self._shop.now_ms():
            await self._pull.ensure()
            await self._pull.ask(REAP_MESSAGES)
            self._next_reap = now

    # --- what comes ---------------------------------------------------------------------------------------------------
    def _took(self, delivery: Delivery) -> None:
        items = self._shop.items
        known = items.get(delivery.seq)
        if known is not None:  # JetStream had no word of it for too long; it is still in hand
            known.delivery.reply = delivery.reply
            return
        if self._shop.acks is not None and self._shop.acks.again(delivery.seq, delivery.reply):
            return
        try:
            work = Work.read(delivery.headers, delivery.data)
        except ValueError:
            task = asyncio.get_running_loop().create_task(self._bury(delivery))
            self._burials.add(task)
            task.add_done_callback(self._burials.discard)
            return
        item = items[delivery.seq] = Item(self._shop, self.lane, delivery, work)
        self._mine += 1
        self._used = True
        self._held += len(delivery.data)
        self._shop.held += len(delivery.data)
        self.nudge()
        target = self._shop.targets.of(self.lane) if self.lane.kind != ASYNC else None
        size = target.batch.size if target is not None else 1
        if size == 1:
            self._begin([item])
            return
        assert target is not None
        weight = len(delivery.data) + (work.data.inline if work.data is not None else 0)
        if self._gathered_bytes + weight > BATCH_BYTES:
            self._flush()
        self._gathered.append(item)
        self._gathered_bytes += weight
        if len(self._gathered) >= size or self._gathered_bytes >= BATCH_BYTES:
            self._flush()
        elif self._gather_timer is None:
            window = max(GATHER_SECONDS, float(target.batch.window_seconds))
            self._gather_timer = asyncio.get_running_loop().call_later(window, self._flush)

    def _flush(self) -> None:
        if self._gather_timer is not None:
            self._gather_timer.cancel()
            self._gather_timer = None
        items, self._gathered, self._gathered_bytes = self._gathered, [], 0
        if items:
            self._begin(items)

    def _begin(self, items: list[Item]) -> None:
        made = Sending if self.lane.kind == OUTCOME else Job
        job = made(self._shop, self.lane, items, self._missing_since)
        task = asyncio.get_running_loop().create_task(job.run(self._pull.created))
        self._jobs[job] = task
        task.add_done_callback(lambda done: self._finished(job, items, done))

    def _finished(self, job: Job, items: list[Item], task: "asyncio.Task[None]") -> None:
        del self._jobs[job]
        self._mine -= len(items)
        held = sum(len(item.delivery.data) for item in items)
        self._held -= held
        self._shop.held -= held
        for item in items:
            if not item.over:  # a bug, or it was abandoned: JetStream gives it out again
                self._shop.items.pop(item.delivery.seq, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a bug while delivering %s", self.lane.subject, exc_info=error)
        self.nudge()

    async def _bury(self, delivery: Delivery) -> None:
        """Whoever may publish to the work stream wrote something else into it."""
        error = {"type": attempts.MALFORMED, "message": "not a message of Kappa's"}
        death = Death(attempts.MALFORMED, 0, error)
        shop, lane = self._shop, self.lane
        await firmly(lambda: shop.dead.put(lane, {}, delivery.data, death, msg_id=f"dead/{WORK}/{delivery.seq}"))
        await shop.bus.tell(delivery.reply, ACK)
