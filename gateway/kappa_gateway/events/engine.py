"""All of events and asynchronous invocations in one object, which `main.py` makes when there is a NATS to use."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from nats.errors import Error as NatsError

from kappa_gateway.events import streams
from kappa_gateway.events.bodies import StoredBodies
from kappa_gateway.events.bus import Bus, UnavailableError
from kappa_gateway.events.cancel import Control
from kappa_gateway.events.dead import Dead
from kappa_gateway.events.delivery.acks import Acks
from kappa_gateway.events.delivery.feeder import Feeder
from kappa_gateway.events.delivery.item import Item, Shop
from kappa_gateway.events.delivery.poller import Poller
from kappa_gateway.events.delivery.pull import IN_PROGRESS, Pulls
from kappa_gateway.events.delivery.target import Targets
from kappa_gateway.events.destinations import Destinations
from kappa_gateway.events.hosting import TriggerHost
from kappa_gateway.events.keys import Keys
from kappa_gateway.events.ledger import Ledger
from kappa_gateway.events.outcomes.outbox import Outbox
from kappa_gateway.events.outcomes.post import Poster
from kappa_gateway.events.rates import Defaults, TriggerRates
from kappa_gateway.events.records import Record
from kappa_gateway.events.results import Results
from kappa_gateway.events.settings import EventSettings
from kappa_gateway.events.shares import Shares
from kappa_gateway.events.submit import Submit
from kappa_gateway.events.work import Lane

if TYPE_CHECKING:
    from kappa_gateway.app import Gateway

log = logging.getLogger(__name__)

RETRY_SECONDS: Final = 0.5
#: Between two looks at the dead letters.
COUNT_SECONDS: Final = 5.0


class Events:
    """`bus`, `submit`, `results`, `cancel`, `dead`, `ledger`: what the front and the sources use; `host`: the Triggers,
    `rates`: how much may be posted for them, `shares`: how much of the stream each namespace has.
    `ready` is set when the streams are known to be there. `poke(lane)`: something was published to the lane."""

    def __init__(self, settings: EventSettings, gateway: "Gateway", wall: Callable[[], float] = time.time) -> None:
        self.settings, self._gateway = settings, gateway
        self.bus = Bus(settings)
        self.ready = asyncio.Event()
        self.ledger = Ledger()
        self.shares = Shares(settings.namespace_share)
        self.bus.stored = self._stored
        self.host = TriggerHost(settings, self.bus, self.poke, gateway.settings.name, self.ledger, wall)
        self.host.shares = self.shares
        limits, admission = gateway.settings.limits, gateway.admission
        defaults = Defaults(limits.event_rate, limits.event_caller_rate)
        self.rates = TriggerRates(self.host.triggers, admission.peers, admission.room, defaults)
        self.targets = Targets(gateway, self.host.triggers, settings.outcomes)
        self.bodies = StoredBodies(self.bus)
        self._items: dict[int, Item] = {}
        self.control = Control(self.bus, self._items, wall)
        self.results = Results(self.bus, self.control.where, wall)
        self.control.results = self.results
        self.dead = Dead(self.bus, self.bodies, self.poke, self._revisions, wall, share=settings.namespace_share)
        self.submit = Submit(self.bus, self.bodies, Keys(self.bus), self.poke, wall)
        self.destinations = Destinations(
            self.bus,
            Outbox(self.bus, self.dead, self.poke, wall),
            self.poke,
            Poster(loopback=settings.allow_loopback, wall=wall),
            shared=settings.shared_subjects,
            wall=wall,
        )
        self._pulls = Pulls(self.bus, self.poke)
        self._poller = Poller(self.bus, self.ledger, self._found, self.shares)
        self._acks = Acks(self.bus)
        self._shop = Shop(
            gateway,
            self.bus,
            self.targets,
            self.results,
            self.dead,
            self.destinations,
            self.bodies,
            self.ledger,
            self._items,
            wall,
            acks=self._acks,
        )
        self._feeders: dict[Lane, tuple[Feeder, asyncio.Task[None]]] = {}
        self._closing = False
        self._connected = asyncio.Event()
        self.bus.heard.append(self._connected.set)

    async def cancel(self, text: str) -> Record | None:
        """See `Control.cancel`."""
        return await self.control.cancel(text)

    @property
    def in_hand(self) -> int:
        return len(self._items)

    # --- tasks --------------------------------------------------------------------------------------------------------
    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for work in (self.bus.keep(), self._prepare(), self._poll(), self._count(), self._speak(), self._sources()):
                group.create_task(work)

    def poke(self, lane: Lane) -> None:
        """There is work in the lane: it is fed at once."""
        if self._closing:
            return
        known = self._feeders.get(lane)
        if known is None:
            feeder = Feeder(self._shop, self._pulls, lane, self._ended)
            task = asyncio.get_running_loop().create_task(feeder.run())
            task.add_done_callback(_check)
            self._feeders[lane] = (feeder, task)
        else:
            known[0].nudge()

    async def drain(self, grace: float) -> None:
        """Takes no more work; gives back what waits at once; what runs gets `grace` seconds. Accepting goes on."""
        self._closing = True
        await self._pulls.deafen()
        feeders = [feeder for feeder, _ in self._feeders.values()]
        if feeders:
            closing = [asyncio.ensure_future(feeder.close()) for feeder in feeders]
            _, late = await asyncio.wait(closing, timeout=max(grace, 0.1))
            for feeder in feeders:
                feeder.abandon()
            for item in list(self._items.values()):
                await item.give_back()
            for task in late:
                task.cancel()
            await asyncio.gather(*(task for _, task in self._feeders.values()), *late, return_exceptions=True)
        await self._acks.flush()

    async def close(self) -> None:
        """After `drain`, and after the tasks were cancelled."""
        await self.destinations.close()
        await self.bus.close()

    # --- inside -------------------------------------------------------------------------------------------------------
    async def _prepare(self) -> None:
        """After each connect: streams, inboxes; then what is in hand is spoken for, before JetStream gives it away."""
        while True:
            await self._connected.wait()
            self._connected.clear()
            try:
                await self._pulls.listen()
                await self._acks.listen()
                await self.control.listen()
                await self._say()
                await streams.ensure(self.bus)
            except NatsError as error:
                log.debug("NATS left while its streams were looked at: %r", error)
                await asyncio.sleep(RETRY_SECONDS)
                if self.bus.up:
                    self._connected.set()
                continue
            self.ready.set()
            for feeder, _ in self._feeders.values():
                feeder.poke()

    async def _sources(self) -> None:
        await self.ready.wait()
        await self.host.run()

    async def _poll(self) -> None:
        await self.ready.wait()
        await self._poller.run()

    async def _count(self) -> None:
        """Looks now and then at what the dead letters of each namespace need."""
        await self.ready.wait()
        while True:
            try:
                await self.dead.counts()
            except UnavailableError:
                log.debug("the dead letters cannot be counted")
            await asyncio.sleep(COUNT_SECONDS)

    def _stored(self, subject: str, size: int) -> None:
        (self.dead.shares if subject.startswith(streams.DEAD_PREFIX) else self.shares).published(subject, size)

    async def _speak(self) -> None:
        """Says of all that is in hand that it is worked on, three times as often as JetStream wants to hear it."""
        while True:
            await asyncio.sleep(self.settings.ack_seconds / 3)
            await self._say()

    async def _say(self) -> None:
        if self.bus.up:
            for item in list(self._items.values()):
                await self.bus.tell(item.delivery.reply, IN_PROGRESS)

    def _found(self, lane: Lane, count: int) -> None:
        if lane not in self._feeders:
            self.poke(lane)
        known = self._feeders.get(lane)
        if known is not None:
            known[0].backlog = count

    def _ended(self, feeder: Feeder) -> None:
        self._feeders.pop(feeder.lane, None)

    def _revisions(self, function: str) -> set[str]:
        state = self._gateway.catalog.functions.get(function)
        return {x.revision for x in state.queue.instances.values() if not x.draining} if state is not None else set()


def _check(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()):
        log.error("a bug in a feeder", exc_info=error)
