"""The sources under what runs them: leases, restarts, JetStream; real servers on all sides."""

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from kappa_nats import NatsServer
from kappa_postgres import PostgresServer
from kappa_redis import RedisServer
from kappa_trigger_world import TriggerGateway, TriggerWorld, trigger, trigger_world

pytestmark = pytest.mark.asyncio(loop_scope="module")
SECONDS = 60.0


@pytest_asyncio.fixture(loop_scope="module")
async def world(tmp_path: Path) -> AsyncIterator[TriggerWorld]:
    async with trigger_world(NatsServer(tmp_path / "nats")) as made:
        yield made


def secret(url: str) -> dict[str, Any]:
    """The Secret as the API server has it."""
    data = {"url": base64.b64encode(url.encode()).decode()}
    return {"metadata": {"namespace": "default", "name": "credentials"}, "type": "kappa.dev/source", "data": data}


async def started(world: TriggerWorld, url: str, source: dict[str, Any], *names: str) -> list[TriggerGateway]:
    found = [await world.gateway(name) for name in names]
    for gateway in found:
        gateway.host.secrets.put(secret(url))
        gateway.host.triggers.put(trigger("t", source))
    return found


async def the_owner(gateways: list[TriggerGateway]) -> TriggerGateway:
    async with asyncio.timeout(SECONDS):
        while True:
            for gateway in gateways:
                if gateway.row("t")["connected"]:
                    return gateway
            await asyncio.sleep(0.02)


async def test_rows_outlive_the_gateway_that_read_them(world: TriggerWorld, database: PostgresServer) -> None:
    """Its process stops from one moment to the next, NATS is restarted, and changes go on all the time."""
    await database.execute("CREATE TABLE lasting (id int PRIMARY KEY)")
    source = {"postgres": {"secretRef": {"name": "credentials"}, "tables": ["lasting"]}}
    gateways = await started(world, database.url(), source, "g1", "g2")
    owner = await the_owner(gateways)
    await database.execute(*[f"INSERT INTO lasting VALUES ({n})" for n in range(50)])
    await world.events(10)
    await owner.kill()
    world.gateways.remove(owner)
    gateways.remove(owner)
    await database.execute("INSERT INTO lasting SELECT generate_series(50, 2049)")
    await world.server.kill()
    await world.server.start()
    await the_owner(gateways)
    await database.execute(*[f"INSERT INTO lasting VALUES ({n})" for n in range(2050, 2060)])
    events = await world.events(2060, SECONDS)
    assert sorted(event.data["key"]["id"] for event in events) == list(range(2060))
    assert gateways[0].row("t")["received"] + gateways[0].row("t")["duplicates"] >= 2010


async def test_the_slot_goes_with_the_trigger_even_if_the_secret_went_first(
    world: TriggerWorld, database: PostgresServer
) -> None:
    """`kubectl delete -f` of a file with both. A slot that stays would fill the server's disk."""
    await database.execute("CREATE TABLE leaving (id int PRIMARY KEY)")
    source = {"postgres": {"secretRef": {"name": "credentials"}, "tables": ["leaving"]}}
    (gateway,) = await started(world, database.url(), source, "g1")
    await the_owner([gateway])
    query = "SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'kappa_default_t_%'"
    assert await database.execute(query) == [(1,)]
    gateway.host.secrets.remove("default/credentials")
    gateway.host.triggers.remove("default/t")
    async with asyncio.timeout(SECONDS):
        while await database.execute(query) != [(0,)]:
            await asyncio.sleep(0.05)


async def test_what_is_wrong_is_in_the_report(world: TriggerWorld, database: PostgresServer) -> None:
    source = {"postgres": {"secretRef": {"name": "credentials"}, "tables": ["nowhere"]}}
    (gateway,) = await started(world, database.url(), source, "g1")
    async with asyncio.timeout(SECONDS):
        while "there is no table public.nowhere" not in gateway.row("t")["message"]:
            await asyncio.sleep(0.02)


async def test_gateways_share_a_redis_stream(world: TriggerWorld, store: RedisServer) -> None:
    source = {"redis": {"secretRef": {"name": "credentials"}, "stream": "shared", "start": "all"}}
    gateways = await started(world, store.url, source, "g1", "g2")
    for gateway in gateways:
        await gateway.until("t", connected=True)
    async with store.client() as client, client.pipeline() as all_:
        for number in range(2000):
            all_.xadd("shared", {"n": str(number)})
        await all_.execute()
    events = await world.events(2000, SECONDS)
    assert sorted(int(event.data["n"]) for event in events) == list(range(2000))
    async with store.client() as client, asyncio.timeout(SECONDS):
        while (await client.xinfo_groups("shared"))[0]["pending"]:
            await asyncio.sleep(0.02)
    for gateway in gateways:
        gateway.host.triggers.remove("default/t")
    async with store.client() as client, asyncio.timeout(SECONDS):
        while await client.xinfo_groups("shared"):
            await asyncio.sleep(0.02)
