"""A gateway's delivery in memory and in virtual time: the real feeder, jobs, queue and proxy; instances and JetStream
do what the test says."""

import asyncio
import re
from dataclasses import dataclass, field
from typing import Any, cast

from kappa_fake_nats import FakeBus, FakeNats
from kappa_gateway_world import Exchange, GatewayWorld, Host

from kappa_gateway.events.bus import Bus
from kappa_gateway.events.dead import Dead
from kappa_gateway.events.delivery.feeder import Feeder
from kappa_gateway.events.delivery.item import Item, Shop
from kappa_gateway.events.delivery.pull import Pulls
from kappa_gateway.events.delivery.target import Targets
from kappa_gateway.events.destinations import Destinations
from kappa_gateway.events.ledger import Ledger
from kappa_gateway.events.outcomes.outbox import Outbox
from kappa_gateway.events.outcomes.post import Poster
from kappa_gateway.events.records import Record
from kappa_gateway.events.results import Results
from kappa_gateway.events.triggers import Triggers
from kappa_gateway.events.work import ASYNC, HttpCall, Lane, Work

LANE = Lane(ASYNC, "default", "hello")
_ID = re.compile(rb"\r\nkappa-request-id: (\w+)\r\n")


@dataclass
class Engine:
    """One gateway process, as far as it delivers."""

    bus: FakeBus
    shop: Shop
    pulls: Pulls
    feeder: Feeder
    task: Any
    tasks: list[Any] = field(default_factory=list)


class DeliveryWorld(GatewayWorld):
    """`engine` is None after a crash, until `begin`."""

    def __init__(self, ack_seconds: float = 15.0, timeout: int = 2) -> None:
        super().__init__()
        self.gateway.ready = True
        self.function("hello", timeout=timeout)
        self.nats = FakeNats(self.loop, ack_seconds)
        self.accepted: list[str] = []
        self.engine: Engine | None = None
        self.begin()

    # --- the gateway process ------------------------------------------------------------------------------------------
    def begin(self) -> None:
        """The delivery starts."""
        self.engine = self.loop.run_until_complete(self._begin())
        self.loop.settle()

    async def _begin(self) -> Engine:
        wall = self.loop.time
        fake = FakeBus(self.nats)
        bus = cast(Bus, fake)
        items: dict[int, Item] = {}
        results = Results(bus, _nowhere, wall)
        dead = Dead(bus, cast(Any, None), _unheard, lambda key: set(), wall)
        outbox = Outbox(bus, dead, _unheard, wall)
        destinations = Destinations(bus, outbox, _unheard, Poster(loopback=False, wall=wall), wall=wall)
        shop = Shop(
            self.gateway,
            bus,
            Targets(self.gateway, Triggers()),
            results,
            dead,
            destinations,
            cast(Any, None),
            Ledger(),
            items,
            wall,
            lambda: 0.5,
        )
        pulls = Pulls(bus, _unheard)
        await pulls.listen()
        feeder = Feeder(shop, pulls, LANE, lambda ended: None)
        feeder.backlog = 1  # it does not end by itself
        engine = Engine(fake, shop, pulls, feeder, self.loop.create_task(feeder.run()))

        async def speak() -> None:
            while True:
                await asyncio.sleep(self.nats.ack_seconds / 3)
                for item in list(items.values()):
                    await fake.tell(item.delivery.reply, b"+WPI")

        engine.tasks.append(self.loop.create_task(speak()))
        return engine

    def crash(self) -> None:
        """kill -9: its tasks end where they are, its connections as well."""
        engine, self.engine = self.engine, None
        assert engine is not None
        self.nats.forget(engine.bus)
        engine.feeder._closing = True
        for task in (engine.task, *engine.tasks):
            task.cancel()
        engine.feeder.abandon()
        engine.bus.tell = _silent  # type: ignore[method-assign]
        self.loop.settle()

    def leave(self) -> None:
        """NATS is away: what was asked for is forgotten there."""
        self.nats.away = True
        for consumer in self.nats.consumers.values():
            consumer.requests.clear()

    def come_back(self) -> None:
        """NATS is back, and the gateway has connected again."""
        self.nats.away = False
        if self.engine is not None:
            self.loop.run_until_complete(self.engine.pulls.listen())
            self.engine.feeder.poke()
        self.loop.settle()

    def drain(self) -> None:
        """Ends in order."""
        engine, self.engine = self.engine, None
        assert engine is not None

        async def close() -> None:
            await engine.pulls.deafen()
            await engine.feeder.close()

        closing = self.loop.create_task(close())
        self.loop.settle()
        while not closing.done():
            for host, exchange in self.look():
                host.reply(exchange, OK)
            self.loop.settle()
            if not closing.done():
                self.pass_(1.0)
        for task in engine.tasks:
            task.cancel()

    # --- what happens -------------------------------------------------------------------------------------------------
    def accept(self) -> str:
        work = Work(f"{len(self.accepted) + 1:032x}", int(self.loop.time() * 1000), b"{}", HttpCall("POST", "/", b""))
        self.nats.publish(LANE.subject, work.body, work.headers(), work.id)
        self.accepted.append(work.id)
        self.loop.settle()
        return work.id

    def pass_(self, seconds: float) -> None:
        """Time passes, in steps in which the server may hand out what is due."""
        end = self.loop.time() + seconds
        while self.loop.time() < end:
            self.loop.pass_(min(0.5, end - self.loop.time()))
            self.nats.serve()
            self.loop.settle()

    def record(self, work_id: str) -> Record | None:
        data = self.nats.results.get(f"kappa.result.{work_id}")
        return Record.read(data) if data is not None else None

    def runs(self) -> list[tuple[str, Host, Exchange]]:
        """What instances have to answer, with the id of the work."""
        found = []
        for host, exchange in self.look():
            match = _ID.search(exchange.data)
            assert match is not None
            found.append((match[1].decode(), host, exchange))
        return found


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def _unheard(lane: Lane) -> None:
    return


async def _nowhere(seq: int) -> bool | None:
    return None


async def _silent(subject: str, body: bytes = b"") -> None:
    return
