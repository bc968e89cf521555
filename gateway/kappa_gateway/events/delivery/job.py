"""One invocation for one piece of work, or for a batch of events: attempted until it is judged.

While the function has no room, or is not there for a moment, the work stays in this gateway's hand and is offered
again: that is no attempt. What is withdrawn while it waits has spent nothing either.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from kappa_gateway import hops
from kappa_gateway.events.bus import UnavailableError
from kappa_gateway.events.delivery import attempts, wire
from kappa_gateway.events.delivery.circle import circle
from kappa_gateway.events.delivery.composed import ComposedBody, parts_of_batch, parts_of_data, parts_of_event
from kappa_gateway.events.delivery.invoke import Invocation, Outgoing
from kappa_gateway.events.delivery.item import Item, Shop
from kappa_gateway.events.delivery.target import Target
from kappa_gateway.events.delivery.verdict import Outcome, Verdict, judge
from kappa_gateway.events.work import Lane, Work

log = logging.getLogger(__name__)

#: Reasons of a withdrawal.
DRAIN: Final = "the gateway ends"
SUSPEND: Final = "suspended"
AGED: Final = "too old"
CANCEL: Final = "cancelled"
#: After so long what was given back to a suspended lane is handed out again, to a request that was sent before.
SUSPENDED_SECONDS: Final = 1.0
#: How often a function that is not there is looked for.
MISSING_SECONDS: Final = 1.0
_LOST: Final = Outcome(code="body_lost", message="its stored body is gone")


class WithdrawnError(Exception):
    """The invocation waited, and shall not any more; the argument says why."""


class Job:
    """`items` have one lane. `missing_since`: since when (the loop's time) the lane has no function, 0: it has one."""

    def __init__(self, shop: Shop, lane: Lane, items: Sequence[Item], missing_since: float = 0.0) -> None:
        self._shop, self._lane = shop, lane
        self._items = list(items)
        self._missing_since = missing_since
        self._invocation: Invocation | None = None
        self._settling = False
        self._stop = ""  # reason of a withdrawal that has not been seen to yet
        self._wake = asyncio.Event()
        self._cancelled: Item | None = None
        for item in items:
            item.job = self

    @property
    def running(self) -> bool:
        """An instance has it, or may have it, or has just answered."""
        return self._settling or (self._invocation is not None and self._invocation.running)

    def withdraw(self, reason: str, item: Item | None = None) -> bool:
        """Whether it waited and will leave now; what runs goes on."""
        if self.running:
            return False
        self._stop, self._cancelled = reason, item
        self._wake.set()
        if self._invocation is not None:
            self._invocation.withdraw(WithdrawnError(reason))
        return True

    async def run(self, created: float) -> None:
        """To the end of all items. `created`: when the lane's consumer was made, epoch seconds."""
        unsure = [item for item in self._items if item.unsure(created)]
        if unsure:
            await asyncio.gather(*(item.remember() for item in unsure))
            self._items = [item for item in self._items if not item.over]
        throttled = 0
        while self._items:
            target = self._shop.targets.of(self._lane)
            if target is None:
                await self._pause(MISSING_SECONDS)
            elif await self._leave_early(target):
                return
            elif target.missing:
                await self._miss(target)
            else:
                self._missing_since = 0.0
                verdict = await self._try(target)
                if verdict is Verdict.THROTTLED:
                    throttled += 1
                    self._shop.ledger.of(self._lane).throttled += 1
                    await self._pause(attempts.pause(throttled))
                elif verdict is Verdict.GONE:
                    await self._pause(MISSING_SECONDS)

    async def _leave_early(self, target: Target) -> bool:
        """Sees to withdrawals and to what has become too old; whether nothing is left."""
        old = [item for item in self._items if item.expires_in(target) <= 0]
        for item in old:
            await item.die(target, attempts.MAX_AGE)
        most = self._shop.gateway.settings.events.max_hops
        for item in self._items:
            if hops.looped(item.work.hops, most) and not item.over:
                await item.die(target, attempts.LOOP, circle(item.work, target, most))
        if self._cancelled is not None and not self._cancelled.over:
            await self._cancelled.cancel(target)
        self._items = [item for item in self._items if not item.over]
        if self._stop == DRAIN or target.delivery.suspend:
            # To others at once; of what is suspended, requests that still stand would get the same again and again
            for item in self._items:
                await item.give_back(SUSPENDED_SECONDS if target.delivery.suspend else 0.0)
            self._items = []
        self._stop, self._cancelled = "", None
        self._wake.clear()
        return not self._items

    async def _miss(self, target: Target) -> None:
        now = asyncio.get_running_loop().time()
        self._missing_since = self._missing_since or now
        if now - self._missing_since < attempts.GRACE_SECONDS:
            await self._pause(MISSING_SECONDS)
            return
        for item in self._items:
            await item.die(target, target.missing)
        self._items = []

    async def _try(self, target: Target) -> Verdict:
        """One attempt, and what follows for the items."""
        try:
            if await self._lose(target):
                return Verdict.DONE  # of those; the loop goes on with the rest
            outgoing = await self._outgoing(target)
        except UnavailableError:
            return Verdict.THROTTLED
        if outgoing is None:
            outcome = _LOST
        else:
            try:
                outcome = await self._invoke(target, outgoing)
            except WithdrawnError:
                return Verdict.DONE  # of nothing: the loop looks at the reason
            finally:
                self._invocation = None
        event = self._items[0].work.call is None
        verdict = judge(outcome, event=event)
        if verdict in (Verdict.THROTTLED, Verdict.GONE):
            return verdict
        self._settling = True
        failed = set(range(len(self._items))) if verdict is not Verdict.DONE else set()
        if event and verdict is Verdict.DONE:
            failed = wire.failures(outcome, [item.work for item in self._items]) or set()
        never = attempts.Step(cause=attempts.BODY_LOST) if verdict is Verdict.HOPELESS else None
        bad = outcome
        if failed and verdict is Verdict.DONE:
            bad = Outcome(status=outcome.status, code="batch_item", message="listed in batchItemFailures")
        items, self._items = self._items, []
        ends = [
            item.fail(target, bad, step=never) if index in failed else item.succeed(target, outcome)
            for index, item in enumerate(items)
        ]
        if len(ends) == 1:
            await ends[0]
        else:
            await asyncio.gather(*ends)
        return verdict

    async def _invoke(self, target: Target, outgoing: Outgoing) -> Outcome:
        line = hops.line(max(item.work.hops for item in self._items))
        self._invocation = invocation = Invocation(self._shop.gateway, target.function, outgoing, line)
        if self._stop:  # it came while the body was fetched
            raise WithdrawnError(self._stop)
        patience = max(0.0, min(item.expires_in(target) for item in self._items))
        loop = asyncio.get_running_loop()
        timer = loop.call_later(patience, invocation.withdraw, WithdrawnError(AGED))
        try:
            return await invocation.run()
        finally:
            timer.cancel()
            for item in self._items:
                item.revision = invocation.revision

    async def _outgoing(self, target: Target) -> Outgoing | None:
        """None: its body is gone. Raises UnavailableError."""
        first, works = self._items[0], [item.work for item in self._items]
        call, made = first.work.call, max(item.attempts for item in self._items)
        if any(work.data is not None for work in works):
            return await self._large(works, target, made)
        if call is None:
            return wire.of_events(works, target, made)
        outgoing = wire.of_call(first.work, call, made)
        if not first.work.stored:
            return outgoing
        body = await self._shop.bodies.open(first.work.stored)
        return wire.with_body(outgoing, body) if body is not None else None

    async def _large(self, works: Sequence[Work], target: Target, made: int) -> Outgoing:
        """Of events whose data is in the bucket."""
        call = works[0].call
        if call is not None:
            parts = parts_of_event(works[0])
        else:
            parts = parts_of_batch(works) if wire.listed(target) else parts_of_data(works[0])
        body = ComposedBody(self._shop.bodies, parts)
        await body.begin()
        if call is not None:
            return wire.with_body(wire.of_call(works[0], call, made), body)
        return wire.of_large_events(works, target, made, body)

    async def _lose(self, target: Target) -> bool:
        """Events whose stored data is gone end; the rest of their batch goes on. Whether there were such. Raises
        UnavailableError."""
        large = [item for item in self._items if item.work.data is not None]
        lost = [item for item in large if not await self._shop.bodies.has(item.work.stored)]
        for item in lost:
            await item.fail(target, _LOST, step=attempts.Step(cause=attempts.BODY_LOST))
        self._items = [item for item in self._items if not item.over]
        return bool(lost)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass
