"""`rig`: a gateway with the usual settings. `make_rig(...)`: one with others."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest_asyncio
import uvloop
from kappa_gateway_rig import Rig, running


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that the program runs on."""
    return {"uvloop": uvloop.new_event_loop}


MakeRig = Callable[..., Awaitable[Rig]]


@pytest_asyncio.fixture
async def make_rig() -> AsyncIterator[MakeRig]:
    async with AsyncExitStack() as stack:

        async def make(**settings: Any) -> Rig:
            return await stack.enter_async_context(running(**settings))

        yield make


@pytest_asyncio.fixture
async def rig(make_rig: MakeRig) -> Rig:
    return await make_rig()
