"""One piece of work in a gateway's hand, from its arrival to its acknowledgement, and how it ends.

The order is always the same: what became of it is written down where it lasts, then it is acknowledged. A gateway that
dies in between does it again.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from kappa_gateway import hops
from kappa_gateway.events.bodies import StoredBodies
from kappa_gateway.events.bus import Bus, TooLargeError, UnavailableError
from kappa_gateway.events.dead import Dead, Death
from kappa_gateway.events.delivery import attempts
from kappa_gateway.events.delivery.acks import Acks
from kappa_gateway.events.delivery.pull import ACK, Delivery, nak
from kappa_gateway.events.delivery.target import Target, Targets
from kappa_gateway.events.delivery.verdict import Outcome
from kappa_gateway.events.destinations import Destinations, Ended
from kappa_gateway.events.ledger import Ledger
from kappa_gateway.events.records import (
    CANCELLED,
    EXPIRED,
    FAILED,
    RETRYING,
    SUCCEEDED,
    Record,
    error_of,
    record_key,
    result_of,
)
from kappa_gateway.events.results import Results
from kappa_gateway.events.work import ASYNC, Lane, Work

if TYPE_CHECKING:
    from kappa_gateway.app import Gateway
    from kappa_gateway.events.delivery.job import Job

log = logging.getLogger(__name__)

#: While JetStream is away, what became of work is written again so often.
AGAIN_SECONDS: Final = 0.5
#: How long records of failed attempts are good for at least.
RECORD_MS: Final = 86_400_000
#: A lane's dead letters are spoken of in the log once in so long.
SAY_MS: Final = 60_000


@dataclass(slots=True, eq=False)
class Shop:
    """What the delivery works with. `items`: what is in hand, by its sequence in the stream. `acks`: None: each is said
    once. `held`: bytes of the messages in hand."""

    gateway: "Gateway"
    bus: Bus
    targets: Targets
    results: Results
    dead: Dead
    destinations: Destinations
    bodies: StoredBodies
    ledger: Ledger
    items: dict[int, "Item"]
    wall: Callable[[], float] = time.time
    draw: Callable[[], float] = random.random
    acks: Acks | None = None
    held: int = 0

    def now_ms(self) -> int:
        return int(self.wall() * 1000)


async def firmly(step: Callable[[], Awaitable[object]]) -> None:
    """Until it is done: nothing is acknowledged before."""
    while True:
        try:
            await step()
            return
        except UnavailableError:
            await asyncio.sleep(AGAIN_SECONDS)


class Item:
    """`attempts`: that have failed. `over`: it was acknowledged or given back, and is nobody's any more. `revision`:
    that had it last here, or empty."""

    __slots__ = ("attempts", "delivery", "job", "key", "lane", "over", "revision", "shop", "work")

    def __init__(self, shop: Shop, lane: Lane, delivery: Delivery, work: Work) -> None:
        self.shop, self.lane, self.delivery, self.work = shop, lane, delivery, work
        self.key = record_key(lane, work, delivery.seq)
        self.attempts = 0
        self.over = False
        self.job: Job | None = None
        self.revision = ""

    # --- looking ------------------------------------------------------------------------------------------------------
    def unsure(self, created: float) -> bool:
        """Whether there may be a record: of work that was given out before, and of what is older than its consumer
        (made at `created`), which JetStream made anew and which has forgotten its deliveries."""
        return self.delivery.delivered > 1 or self.delivery.stamp < created

    async def remember(self) -> None:
        """Goes on where the record says; it is over when that says that there is nothing to do now."""
        known: list[Record | None] = []

        async def look() -> None:
            known.append(await self.shop.results.read(self.key))

        await firmly(look)
        record = known[-1]
        if record is None:
            return
        if record.final:
            await self._acknowledge(done=record.state in (SUCCEEDED, CANCELLED))
            return
        self.attempts = record.attempts
        wait = (record.due - self.shop.now_ms()) / 1000
        if wait > 0:
            await self.give_back(wait)

    def expires_in(self, target: Target) -> float:
        """Seconds until it is too old."""
        return (attempts.expires_ms(target.delivery, self.work.accepted_ms) - self.shop.now_ms()) / 1000

    # --- ends ---------------------------------------------------------------------------------------------------------
    async def succeed(self, target: Target, outcome: Outcome) -> None:
        delivery = target.delivery
        if delivery.on_success is not None:  # before the record: with that, nobody would tell it any more
            await self._tell(target, Ended("Success", self.attempts + 1, outcome))
        if self.lane.kind == ASYNC:
            if delivery.result_seconds:
                await self._write(self._record(target, SUCCEEDED, result_of(outcome)))
            elif self.attempts:
                await firmly(lambda: self.shop.results.forget(self.key))
        self.shop.ledger.of(self.lane).succeeded += 1
        await self._acknowledge(recorded=self.lane.kind == ASYNC and delivery.result_seconds > 0, done=True)

    async def fail(self, target: Target, outcome: Outcome, *, step: attempts.Step | None = None) -> None:
        """An attempt was spent: again after a pause, or never. `step`: what follows, if it is known already."""
        shop, now = self.shop, self.shop.now_ms()
        self.attempts += 1
        shop.ledger.of(self.lane).failed += 1
        if step is None:
            step = attempts.after_failure(target.delivery, self.attempts, self.work.accepted_ms, now, shop.draw())
        if not step.due_ms:
            await self.die(target, step.cause, outcome)
            return
        record = self._record(target, RETRYING)
        await self._write(replace(record, due=step.due_ms, error=error_of(outcome), until=step.due_ms + RECORD_MS))
        await self.give_back((step.due_ms - shop.now_ms()) / 1000)

    async def die(self, target: Target, cause: str, outcome: Outcome | None = None) -> None:
        """It becomes a dead letter. `outcome`: of the last attempt, if there was one just now."""
        shop, expired = self.shop, cause == attempts.MAX_AGE
        error = error_of(outcome) if outcome is not None else {"type": cause, "message": _SAID.get(cause, cause)}
        death = Death(cause, self.attempts, error, target.function, self.revision)
        headers, data = self.delivery.headers, self.delivery.data
        await firmly(lambda: shop.dead.put(self.lane, headers, data, death, msg_id=f"dead/{self.key}"))
        looped, most = cause == attempts.LOOP, shop.gateway.settings.events.max_hops
        if target.delivery.on_failure is not None and (not looped or hops.may_tell(self.work.hops, most)):
            condition = "LoopDetected" if looped else "EventAgeExceeded" if expired else "RetriesExhausted"
            await self._tell(target, Ended(condition, self.attempts, outcome))
        record = replace(self._record(target, EXPIRED if expired else FAILED), cause=cause, error=error)
        if outcome is not None and not outcome.code:
            record = replace(record, result=result_of(outcome))
        await self._write(record)
        tally = shop.ledger.of(self.lane)
        tally.dead += 1
        tally.expired += expired
        tally.looped += looped
        if shop.now_ms() - tally.said_ms > SAY_MS:
            tally.said_ms = shop.now_ms()
            text = "%s %s: a dead letter after %d attempts (%s); %d here so far"
            why = error["message"] if looped else cause
            log.warning(text, self.lane.kind, self.lane.key, self.attempts, why, tally.dead)
        await self._acknowledge()

    async def cancel(self, target: Target) -> None:
        await self._write(self._record(target, CANCELLED))
        self.shop.ledger.of(self.lane).cancelled += 1
        await self._acknowledge(done=True)

    async def give_back(self, seconds: float = 0.0) -> None:
        """Somebody, perhaps this gateway, is to have it again after so long."""
        self._leave()
        await self.shop.bus.tell(self.delivery.reply, nak(seconds))

    # --- inside -------------------------------------------------------------------------------------------------------
    async def _acknowledge(self, *, recorded: bool = True, done: bool = False) -> None:
        """`recorded`: whoever gets it again sees that it is done. `done`: nobody needs its stored body any more; one
        that is not recorded is there until JetStream has heard, or who gets it again would find it lost."""
        self._leave()
        stored = self.work.stored if done else ""
        acks = self.shop.acks
        if recorded or acks is None:
            if acks is None or self.lane.partition:  # in a partition the next one waits for it
                await self.shop.bus.tell(self.delivery.reply, ACK)
            else:
                acks.soon(self.delivery.reply)
            if stored:
                await self.shop.bodies.drop(stored)
        else:
            then = partial(self.shop.bodies.drop, stored) if stored else None
            await acks.say(self.delivery.seq, self.delivery.reply, then)

    def _leave(self) -> None:
        self.over = True
        if self.shop.items.get(self.delivery.seq) is self:
            del self.shop.items[self.delivery.seq]

    def _record(self, target: Target, state: str, result: dict[str, Any] | None = None) -> Record:
        now = self.shop.now_ms()
        kept = target.delivery.result_seconds * 1000 if self.lane.kind == ASYNC else RECORD_MS
        return Record(
            id=self.work.id,
            function=target.function or self.lane.key,
            state=state,
            attempts=self.attempts + (state == SUCCEEDED),
            accepted=self.work.accepted_ms,
            changed=now,
            until=now + max(kept, 60_000),
            result=result,
        )

    async def _write(self, record: Record) -> None:
        try:
            await firmly(lambda: self.shop.results.write(self.key, record))
        except TooLargeError:
            result = {**(record.result or {}), "body": "", "truncated": True}
            result.pop("bodyBase64", None)
            await firmly(lambda: self.shop.results.write(self.key, replace(record, result=result)))

    async def _tell(self, target: Target, ended: Ended) -> None:
        chosen = target.delivery.on_success if ended.condition == "Success" else target.delivery.on_failure
        assert chosen is not None
        message = self.shop.destinations.message(self.lane, self.work, self.key, target.function, ended)
        await firmly(lambda: self.shop.destinations.send(self.lane, chosen, message))


_SAID: Final = {
    attempts.MAX_AGE: "older than its maximum age before it could run",
    attempts.FUNCTION_DELETED: "its function was deleted",
    attempts.TRIGGER_DELETED: "its Trigger was deleted",
    attempts.MALFORMED: "not a message of Kappa's",
}
