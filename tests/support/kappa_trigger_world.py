"""Gateways' Trigger machinery against a real NATS server: registry, runners, leases, sinks; no HTTP and no instances.

What a source emits is read from the work stream, which has dropped duplicates.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from kappa_nats import NatsServer

from kappa_api.cloudevents import CloudEvent
from kappa_gateway.events import streams
from kappa_gateway.events.bus import Bus
from kappa_gateway.events.hosting import TriggerHost
from kappa_gateway.events.settings import EventSettings
from kappa_gateway.events.work import Lane

Json = dict[str, Any]
SECONDS = 30.0


def trigger(name: str, source: Json, *, uid: str = "", generation: int = 1, **spec: Any) -> Json:
    """A Trigger in the namespace default, as the API server has it."""
    meta = {"namespace": "default", "name": name, "uid": uid or f"uid-{name}", "generation": generation}
    return {
        "apiVersion": "kappa.dev/v1",
        "kind": "Trigger",
        "metadata": meta,
        "spec": {"function": "f", "source": source, **spec},
    }


class TriggerGateway:
    """One gateway, as far as Triggers go."""

    def __init__(self, url: str, token: str, name: str, wall: Callable[[], float] = time.time, **settings: Any) -> None:
        self.settings = EventSettings(urls=(url,), token=token, allow_loopback=True, **settings)
        self.name = name
        self.bus = Bus(self.settings)
        self.poked: list[Lane] = []
        self.host = TriggerHost(self.settings, self.bus, self.poked.append, name, wall=wall)
        self.tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self.tasks.append(loop.create_task(self.bus.keep()))
        await streams.ensure(self.bus)
        self.tasks.append(loop.create_task(self.host.run()))

    async def stop(self) -> None:
        """In order: leases are given back."""
        for task in reversed(self.tasks):
            task.cancel()
            await asyncio.wait([task])
        self.tasks = []
        await self.bus.close()

    async def kill(self) -> None:
        """As kill -9 looks to the others: silent from one moment to the next, and nothing is given back."""
        transport = self.bus.nc._transport
        assert transport is not None
        self.bus._closed.set()
        self.tasks[0].cancel()
        self.bus.nc.options["allow_reconnect"] = False
        self.bus._inbox = ""
        self.bus.nc.publish = _nothing  # type: ignore[method-assign]
        await self.stop()

    def row(self, name: str) -> Json:
        """What GET /v1/triggers says of the Trigger."""
        return next(row for row in self.host.triggers.report() if row["key"] == f"default/{name}")

    async def until(self, name: str, seconds: float = SECONDS, **wanted: Any) -> Json:
        """The Trigger's row as soon as it says all this."""
        deadline = time.monotonic() + seconds
        while any(self.row(name)[key] != value for key, value in wanted.items()):
            assert time.monotonic() < deadline, self.row(name)
            await asyncio.sleep(0.02)
        return self.row(name)


async def _nothing(*_: Any, **__: Any) -> None:
    return None


class TriggerWorld:
    """A server, gateways on it, and a client of the test's own (`nc`, `js`)."""

    def __init__(self, server: NatsServer) -> None:
        self.server = server
        self.gateways: list[TriggerGateway] = []
        self.nc: Any = None
        self.js: Any = None

    async def gateway(self, name: str = "g1", **options: Any) -> TriggerGateway:
        made = TriggerGateway(self.server.url, self.server.token, name, **options)
        await made.start()
        self.gateways.append(made)
        return made

    async def work(self, count: int = 0, seconds: float = SECONDS) -> list[tuple[str, CloudEvent]]:
        """(subject, event) of all that is in the work stream, once that is at least `count`."""
        deadline = time.monotonic() + seconds
        while True:
            info = await self.js.stream_info(streams.WORK)
            if info.state.messages >= count:
                break
            assert time.monotonic() < deadline, f"{info.state.messages} of {count} events"
            await asyncio.sleep(0.02)
        found: list[tuple[str, CloudEvent]] = []
        if not info.state.messages:
            return found
        for seq in range(info.state.first_seq, info.state.last_seq + 1):
            message = await self.js.get_msg(streams.WORK, seq)
            found.append((message.subject, CloudEvent.from_json(json.loads(message.data))))
        return found

    async def events(self, count: int = 0, seconds: float = SECONDS) -> list[CloudEvent]:
        return [event for _, event in await self.work(count, seconds)]


@asynccontextmanager
async def trigger_world(server: NatsServer) -> AsyncIterator[TriggerWorld]:
    """A running server, with a store of its own."""
    world = TriggerWorld(server)
    await server.start()
    try:
        world.nc = await server.connect(allow_reconnect=True, max_reconnect_attempts=-1, reconnect_time_wait=0.2)
        world.js = world.nc.jetstream()
        yield world
    finally:
        await asyncio.gather(*(gateway.stop() for gateway in world.gateways))
        if world.nc is not None:
            await world.nc.close()
        await server.stop()
