"""Rows, entries and values that no message could hold: kept whole in the bucket, from real servers."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import redis.asyncio
from kappa_nats import NatsServer
from kappa_postgres import PostgresServer
from kappa_redis import RedisServer
from kappa_trigger_world import TriggerGateway, TriggerWorld, trigger, trigger_world

from kappa_gateway.events import streams
from kappa_gateway.events.bodies import StoredBodies
from kappa_gateway.events.delivery.composed import ComposedBody, parts_of_event
from kappa_gateway.events.work import Work

pytestmark = pytest.mark.asyncio(loop_scope="module")
SECONDS = 60.0
LARGE = 5_000_000


@pytest_asyncio.fixture(loop_scope="module")
async def world(tmp_path: Path) -> AsyncIterator[TriggerWorld]:
    async with trigger_world(NatsServer(tmp_path / "nats")) as made:
        yield made


async def started(world: TriggerWorld, url: str, source: dict[str, Any]) -> TriggerGateway:
    found = await world.gateway("g1")
    data = {"url": base64.b64encode(url.encode()).decode()}
    meta = {"namespace": "default", "name": "credentials"}
    found.host.secrets.put({"metadata": meta, "type": "kappa.dev/source", "data": data})
    found.host.triggers.put(trigger("t", source))
    await found.until("t", connected=True)
    return found


async def events(world: TriggerWorld, gateway: TriggerGateway, count: int) -> list[dict[str, Any]]:
    """All that is in the work stream, with what is in the bucket, once it is so many."""
    bodies = StoredBodies(gateway.bus)
    async with asyncio.timeout(SECONDS):
        while (await world.js.stream_info(streams.WORK)).state.messages < count:
            await asyncio.sleep(0.02)
    found = []
    for seq in range(1, count + 1):
        message = await world.js.get_msg(streams.WORK, seq)
        work = Work.read(message.headers, message.data or b"")
        assert len(message.data) < 10_000
        body = ComposedBody(bodies, parts_of_event(work))
        await body.begin()
        text = body.held
        while not body.whole and (piece := await body.read()):
            text += piece
        assert len(text) == body.total
        found.append(json.loads(text))
    return found


async def test_a_row_with_a_large_column(world: TriggerWorld, database: PostgresServer) -> None:
    await database.execute("CREATE TABLE documents (id int PRIMARY KEY, body text, extra jsonb)")
    await database.execute("ALTER TABLE documents REPLICA IDENTITY FULL")
    source = {"postgres": {"secretRef": {"name": "credentials"}, "tables": ["documents"]}}
    gateway = await started(world, database.url(), source)
    await database.execute(
        f"INSERT INTO documents VALUES (1, repeat('x', {LARGE}), jsonb_build_object('a', repeat('y', 100)))",
        "UPDATE documents SET extra = NULL",
    )
    first, second = await events(world, gateway, 2)
    assert first["data"]["new"] == {"id": 1, "body": "x" * LARGE, "extra": {"a": "y" * 100}}
    assert (second["data"]["old"]["body"], second["data"]["new"]["body"]) == ("x" * LARGE, "x" * LARGE)
    assert "omitted" not in first["data"]
    assert "omitted" not in second["data"]
    assert gateway.row("t")["dropped"] == 0
    gateway.host.triggers.remove("default/t")


async def test_a_large_entry(world: TriggerWorld, store: RedisServer) -> None:
    source = {"redis": {"secretRef": {"name": "credentials"}, "stream": "large"}}
    gateway = await started(world, store.url, source)
    client = redis.asyncio.Redis.from_url(store.url)
    try:
        await client.xadd("large", {"blob": "z" * LARGE, "n": "1"})
        await client.xadd("large", {"n": "2"})
        await client.xadd("large", {"blob": b"\xff" * LARGE})
    finally:
        await client.aclose()
    found = sorted(await events(world, gateway, 3), key=lambda event: event["id"])
    assert found[0]["data"] == {"blob": "z" * LARGE, "n": "1"}
    assert found[1]["data"] == {"n": "2"}
    assert base64.b64decode(found[2]["data"]["blob_base64"]) == b"\xff" * LARGE


async def test_a_large_value_of_a_bucket(world: TriggerWorld) -> None:
    bucket = await world.js.create_key_value(bucket="default_large", history=2)
    gateway = await started(world, "", {"kv": {"bucket": "default_large"}})
    for value in (b"\xff" * 1_000_000, b"\xfe" * 1_000_000):
        await bucket.put("a", value)
    _, second = await events(world, gateway, 2)
    told = [base64.b64decode(second["data"][image]["base64"]) for image in ("old", "new")]
    assert told == [b"\xff" * 1_000_000, b"\xfe" * 1_000_000]
