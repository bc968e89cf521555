"""`front`: a gateway in this process that is connected to a real NATS server, which all tests of a module share.

`away`: one whose NATS is not there. Triggers are put straight into the registry.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import uvloop
from kappa_front_rig import connected
from kappa_gateway_rig import Rig
from kappa_nats import NatsServer
from kappa_ports import free_port


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that the program runs on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="module")
def nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server for the whole module: what tests put there has names of their own."""
    folder: Path = tmp_path_factory.mktemp("nats")
    loop = asyncio.new_event_loop()
    server = NatsServer(folder)
    loop.run_until_complete(server.start())
    yield server.url
    loop.run_until_complete(server.stop())
    loop.close()


Front = Callable[..., Any]


@pytest_asyncio.fixture
async def make_front(nats_url: str) -> AsyncIterator[Front]:
    async with AsyncExitStack() as stack:

        async def make(**options: Any) -> Rig:
            rig = await stack.enter_async_context(connected(nats_url, **options))
            async with asyncio.timeout(10):
                await rig.gateway.events.ready.wait()  # type: ignore[union-attr]
            rig.gateway.ready = True
            return rig

        yield make


@pytest_asyncio.fixture
async def front(make_front: Front) -> Rig:
    found: Rig = await make_front()
    return found


@pytest_asyncio.fixture
async def away() -> AsyncIterator[Rig]:
    """NATS is configured, and nobody listens there."""
    async with connected(f"nats://127.0.0.1:{free_port()}") as rig:
        yield rig
