"""One platform for all tests of this folder; each test uses Functions of its own and removes them."""

from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio
from kappa_platform import System, free_place

from kappa_local.platform.lifecycle import start, stop


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    place = free_place(tmp_path_factory.mktemp("kappa") / "state")
    kubectl = await start(place, print)
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
            yield System(kubectl, session, place.gateway_url)
    finally:
        stop(place)
