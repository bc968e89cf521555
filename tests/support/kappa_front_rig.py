"""A gateway in this process with its events on: what tests of the HTTP front of events stand on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from kappa_gateway_rig import Rig, running
from kappa_nats import TOKEN

from kappa_gateway.events.engine import Events
from kappa_gateway.events.settings import EventSettings


@asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[Rig]:
    """A gateway whose events are on; `options`: of the gateway's settings, and `events` for those of events."""
    given = {"allow_loopback": True, "work_bytes": 256 * 1024**2, **options.pop("events", {})}
    events = EventSettings(urls=(url,), token=TOKEN, **given)
    async with running(events=events, **options) as rig:
        gateway = rig.gateway
        gateway.events = Events(events, gateway)
        task = asyncio.get_running_loop().create_task(gateway.events.run())
        try:
            yield rig
        finally:
            await gateway.events.drain(0.1)
            await gateway.events.close()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
