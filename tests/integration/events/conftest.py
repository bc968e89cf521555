"""`nats`: a real server for all tests of a module. `make`: gateways that use it, each with streams emptied before."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio
import uvloop
from kappa_events_rig import EventsRig, MakeEvents, events_running
from kappa_nats import NatsServer


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that the program runs on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest_asyncio.fixture
async def nats(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture
async def make(nats: NatsServer) -> AsyncIterator[MakeEvents]:
    async with AsyncExitStack() as stack:

        async def make(**settings: Any) -> EventsRig:
            return await stack.enter_async_context(events_running(nats, **settings))

        yield make
