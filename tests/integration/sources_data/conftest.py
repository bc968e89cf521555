"""Real servers, one for each module of tests."""

from collections.abc import AsyncIterator

import pytest_asyncio
from kappa_postgres import PostgresServer, postgres
from kappa_redis import RedisServer, redis_server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def database() -> AsyncIterator[PostgresServer]:
    async with postgres() as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def store() -> AsyncIterator[RedisServer]:
    async with redis_server() as server:
        yield server
