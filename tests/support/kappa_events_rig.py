"""Gateways in this process with a real NATS server: what tests of events stand on.

`EventsRig` is a gateway of `kappa_gateway_rig` with its `Events` running. Several share one NATS, and see the same
functions only as far as the test tells each of them.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

from kappa_gateway_rig import Rig, Seen, reply, running
from kappa_nats import NatsServer

from kappa_gateway.events.bus import UnavailableError
from kappa_gateway.events.engine import Events
from kappa_gateway.events.records import Record
from kappa_gateway.events.settings import EventSettings
from kappa_gateway.events.submit import Accepted, Submission
from kappa_gateway.events.work import HttpCall

FAST = {"backoff": {"seconds": 0, "factor": 1, "jitterPercent": 0}}


class EventsRig:
    """`rig`: its data path; `events`: what is tested. `crash` ends it as kill -9 would: nothing is given back."""

    def __init__(self, rig: Rig, events: Events, task: "asyncio.Task[None]") -> None:
        self.rig, self.events, self._task = rig, events, task
        self.crashed = False

    async def accept(self, function: str = "hello", body: bytes = b"{}", **options: Any) -> Accepted:
        call = HttpCall("POST", "/", b"content-type: application/json\r\n")
        return await self.events.submit.accept(Submission(f"default/{function}", call, body, **options))

    async def final(self, public_id: str, seconds: float = 20.0) -> Record:
        """The record, once it is final."""
        async with asyncio.timeout(seconds):
            while True:
                try:
                    record = await self.events.results.wait(public_id, 1.0)
                except UnavailableError:
                    await asyncio.sleep(0.05)
                    continue
                assert record is not None
                if record.final:
                    return record

    async def until(self, condition: Callable[[], Any], seconds: float = 20.0) -> None:
        async with asyncio.timeout(seconds):
            while True:
                found = condition()
                if asyncio.iscoroutine(found):
                    found = await found
                if found:
                    return
                await asyncio.sleep(0.005)

    async def stored(self, stream: str = "KAPPA_WORK") -> int:
        """Messages in a stream."""
        info = await self.events.bus.api(f"STREAM.INFO.{stream}")
        return int(info["state"]["messages"])

    async def emptied(self) -> None:
        """All work is done and acknowledged."""

        async def empty() -> bool:
            return await self.stored() == 0

        await self.until(empty)

    async def crash(self) -> None:
        """The process is gone: its connection ends, nothing is said."""
        self.crashed = True
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        transport = self.events.bus.nc._transport
        if transport is not None:
            transport._io_writer.transport.abort()  # type: ignore[attr-defined]
        for feeder, task in self.events._feeders.values():
            task.cancel()
            feeder.abandon()
        self.events._items.clear()
        with suppress(ConnectionError):  # what stood in its buffer cannot be written any more
            await self.events.bus.nc.close()

    async def close(self) -> None:
        if not self.crashed:
            await self.events.drain(1.0)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self.events.close()


MakeEvents = Callable[..., Awaitable[EventsRig]]


@asynccontextmanager
async def events_running(server: NatsServer, **settings: Any) -> AsyncIterator[EventsRig]:
    """A gateway whose streams are there. `settings`: fields of EventSettings."""
    base = EventSettings(
        urls=tuple(server.url.split(",")), token=server.token, allow_loopback=True, work_bytes=256 * 1024**2
    )
    chosen = replace(base, **settings)
    async with running(events=chosen) as rig:
        gateway = rig.gateway
        gateway.ready = True
        events = gateway.events = Events(chosen, gateway)
        task = asyncio.get_running_loop().create_task(events.run())
        found = EventsRig(rig, events, task)
        try:
            ready = asyncio.ensure_future(events.ready.wait())
            async with asyncio.timeout(20):
                await asyncio.wait([ready, task], return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
            yield found
        finally:
            await found.close()


def answers(*given: Any) -> Callable[..., Any]:
    """An instance that gives these answers, one after the other, the last one for ever. Bytes are sent as they are;
    what is callable is awaited first, with the request."""
    left = list(given)

    async def behave(seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if callable(answer):
            answer = await answer(seen)
        if answer is None:
            writer.transport.abort()
        else:
            writer.write(answer)

    return behave


def failure(error: str = "ValueError", message: str = "no") -> bytes:
    """What a runtime answers when the handler raised."""
    body = json.dumps({"errorType": error, "errorMessage": message}).encode()
    return reply(500, body, f"kappa-error: {error}")
