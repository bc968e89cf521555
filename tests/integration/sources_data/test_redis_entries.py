"""Entries of a real Redis stream become events: none is lost, whoever dies, and each has its entry's id."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import trustme
from kappa_ports import free_port
from kappa_redis import PASSWORD, RedisServer, redis_server
from kappa_source_world import World, a_trigger, failure, running

from kappa_api.sources.redis import Redis
from kappa_gateway.events.source import SourceError
from kappa_gateway.events.sources import redis as source_module

pytestmark = pytest.mark.asyncio(loop_scope="module")
_numbers = itertools.count(1)


@pytest_asyncio.fixture(loop_scope="module")
async def world(store: RedisServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    # What waits for others to have died must not make the tests slow.
    monkeypatch.setattr(source_module, "BLOCK_MS", 50)
    monkeypatch.setattr(source_module, "CLAIM_SECONDS", 0.05)
    monkeypatch.setattr(source_module, "CLAIM_IDLE_MS", 300)
    name = f"orders{next(_numbers)}"
    yield World(a_trigger("redis", Redis("credentials", name), name), {"url": store.url.encode()})


def source_of(world: World, gateway: str = "first") -> Any:
    return source_module.make(world.trigger, world.surroundings(gateway))


async def add(store: RedisServer, world: World, *numbers: int) -> list[str]:
    async with store.client() as client:
        return [await client.xadd(world.trigger.source.stream, {"n": str(number)}) for number in numbers]


async def groups(store: RedisServer, world: World) -> list[Any]:
    async with store.client() as client:
        return await client.xinfo_groups(world.trigger.source.stream)


def taken(world: World) -> list[int]:
    return [int(event.data["n"]) for event in world.sink.unique]


async def test_an_entry_is_an_event(store: RedisServer, world: World) -> None:
    async with running(source_of(world), world.sink):
        async with store.client() as client:
            name = await client.xadd(world.trigger.source.stream, {"text": "é", b"raw": b"\xff\x00"})
        await world.sink.until_unique(1)
    (event,) = world.sink.events
    assert (event.id, event.type, event.subject) == (name, "dev.kappa.redis.entry", world.trigger.source.stream)
    assert event.source == f"redis://127.0.0.1:{store.port}/0/{world.trigger.source.stream}"
    assert event.data == {"text": "é", "raw_base64": "/wA="}
    assert event.time.endswith("Z")


async def test_new_entries_or_all_of_them(store: RedisServer, world: World) -> None:
    await add(store, world, 1, 2)
    async with running(source_of(world), world.sink):
        await add(store, world, 3)
        await world.sink.until_unique(1)
    assert taken(world) == [3]
    await source_of(world).forget()
    world.change(start="all")
    async with running(source_of(world), world.sink):
        await world.sink.until_unique(3)
    assert sorted(taken(world)) == [1, 2, 3]


async def test_the_group_goes_with_the_trigger(store: RedisServer, world: World) -> None:
    async with running(source_of(world), world.sink):
        assert [group["name"] for group in await groups(store, world)] == [source_of(world)._group]
    await source_of(world).forget()
    assert await groups(store, world) == []
    await source_of(world).forget()
    world.change(group="theirs")
    async with running(source_of(world), world.sink):
        pass
    await source_of(world).forget()
    assert [group["name"] for group in await groups(store, world)] == ["theirs"]


async def test_nothing_is_acknowledged_before_jetstream_has_it(store: RedisServer, world: World) -> None:
    world.sink.away = True
    async with running(source_of(world), world.sink):
        await add(store, world, *range(20))
        await world.sink.until(lambda sink: sink.refusals > 0)
    assert (await groups(store, world))[0]["pending"] > 0
    world.sink.away = False
    async with running(source_of(world), world.sink):
        await world.sink.until_unique(20)
    assert taken(world) == list(range(20))


async def test_gateways_share_and_take_over_from_one_that_died(store: RedisServer, world: World) -> None:
    dying = World(world.trigger, world.secret)
    dying.sink.away = True  # it reads, and never gets to the acknowledgement
    async with running(source_of(dying, "dying"), dying.sink):
        await add(store, world, *range(10))
        await dying.sink.until(lambda sink: sink.refusals > 0)
    held = (await groups(store, world))[0]["pending"]
    assert held > 0
    async with running(source_of(world, "second"), world.sink):
        await add(store, world, *range(10, 20))
        await world.sink.until_unique(20)
    assert sorted(taken(world)) == list(range(20))
    assert (await groups(store, world))[0]["pending"] == 0


async def test_consumers_that_are_gone_are_removed(
    store: RedisServer, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(source_of(world, "old"), world.sink):
        await add(store, world, 1)
        await world.sink.until_unique(1)
    monkeypatch.setattr(source_module, "GONE_MS", 0)
    async with running(source_of(world, "new"), world.sink), asyncio.timeout(60):
        await add(store, world, 2)
        await world.sink.until_unique(2)
        while True:
            async with store.client() as client:
                stream = world.trigger.source.stream
                found = await client.xinfo_consumers(stream, source_of(world)._group)
            if [consumer["name"] for consumer in found] == ["kappa-new"]:
                break
            await asyncio.sleep(0.05)


async def test_entries_that_were_trimmed_while_they_were_pending(store: RedisServer, world: World) -> None:
    world.sink.away = True
    async with running(source_of(world), world.sink):
        await add(store, world, 1, 2, 3)
        await world.sink.until(lambda sink: sink.refusals > 0)
    async with store.client() as client:
        await client.xtrim(world.trigger.source.stream, maxlen=1, approximate=False)
    world.sink.away = False
    async with running(source_of(world), world.sink):
        await world.sink.until_unique(1)
        await add(store, world, 4)
        await world.sink.until_unique(2)
    assert taken(world) == [3, 4]
    assert (await groups(store, world))[0]["pending"] == 0


async def test_a_stream_that_is_deleted_and_made_anew(store: RedisServer, world: World) -> None:
    stream = world.trigger.source.stream
    async with running(source_of(world), world.sink):
        await add(store, world, 1)
        await world.sink.until_unique(1)
        async with store.client() as client, client.pipeline(transaction=True) as both:
            both.delete(stream)
            both.xadd(stream, {"n": "2"})  # before the group is there again
            await both.execute()
        await world.sink.until_unique(2)
        async with store.client() as client, client.pipeline(transaction=True) as both:
            both.delete(stream)
            both.xadd(stream, {"n": "3"}, id="5-1")  # ids chosen by hand, lower than before
            await both.execute()
        await world.sink.until_unique(3)
    assert taken(world) == [1, 2, 3]


async def test_a_group_that_was_destroyed_goes_on_where_it_was(store: RedisServer, world: World) -> None:
    async with running(source_of(world), world.sink):
        await add(store, world, 1)
        await world.sink.until_unique(1)
        async with store.client() as client, client.pipeline(transaction=True) as both:
            both.xgroup_destroy(world.trigger.source.stream, source_of(world)._group)
            both.xadd(world.trigger.source.stream, {"n": "2"})
            await both.execute()
        await world.sink.until_unique(2)
    assert [event.data["n"] for event in world.sink.events] == ["1", "2"]


async def test_the_server_is_killed_and_comes_back(store: RedisServer, world: World) -> None:
    async with running(source_of(world), world.sink) as task:
        await add(store, world, *range(50))
        await world.sink.until(lambda sink: len(sink.events) > 0)
        await store.kill()
        with pytest.raises(SourceError, match="redis://"):
            await task
    await store.start()
    await add(store, world, *range(50, 60))
    async with running(source_of(world), world.sink):
        await world.sink.until_unique(60)
    assert sorted(taken(world)) == list(range(60))


async def test_nothing_is_lost_when_the_source_is_cancelled_again_and_again(store: RedisServer, world: World) -> None:
    source = source_of(world)
    async with running(source, world.sink):
        pass
    async with store.client() as client, client.pipeline() as all_:
        for number in range(3000):
            all_.xadd(world.trigger.source.stream, {"n": str(number)})
        await all_.execute()
    for _ in range(5):
        world.sink.room, before = 333, world.sink.refusals
        async with running(source, world.sink):
            await world.sink.until(lambda sink, before=before: sink.refusals > before)  # type: ignore[misc]
    world.sink.room = None
    async with running(source, world.sink):
        await world.sink.until_unique(3000)
    assert taken(world) == list(range(3000))


async def told(world: World) -> str:
    error = await failure(source_of(world))
    assert isinstance(error, SourceError), repr(error)
    assert PASSWORD not in str(error)
    return str(error)


async def test_what_is_wrong_is_said(store: RedisServer, world: World) -> None:
    async with store.client() as client:
        await client.set(world.trigger.source.stream, "x")
    assert "is not a stream" in await told(world)
    world.secret = {"url": store.url.replace(PASSWORD, "other-word").encode()}
    message = await told(world)
    assert "invalid username-password pair" in message
    assert "other-word" not in message
    async with store.client() as client:
        await client.acl_setuser("weak", enabled=True, passwords=["+w"], keys=["*"], commands=["+ping", "+xgroup"])
    world.secret = {"url": f"redis://weak:w@127.0.0.1:{store.port}/0".encode()}
    world.change(stream=f"{world.trigger.source.stream}-2")
    assert "lacks a right" in await told(world)
    world.secret = {"url": b"redis://127.0.0.1:1/0"}
    assert "redis://127.0.0.1:1/0: " in await told(world)


async def test_the_rights_that_the_docs_name_are_enough(store: RedisServer, world: World) -> None:
    page = (Path(__file__).parents[3] / "docs" / "events-data.md").read_text()
    rules = next(line for line in page.splitlines() if line.startswith("ACL SETUSER kappa")).split()[2:]
    async with store.client() as client:
        await client.execute_command("ACL", "SETUSER", *(rule.replace("~images", "~*") for rule in rules))
    world.secret = {"url": f"redis://kappa:change-me@127.0.0.1:{store.port}/0".encode()}
    async with running(source_of(world), world.sink):
        await add(store, world, 1)
        await world.sink.until_unique(1)
        async with store.client() as client:
            await client.delete(world.trigger.source.stream)
        await add(store, world, 2)
        await world.sink.until_unique(2)
    await source_of(world).forget()


async def test_tls(tmp_path: Path, world: World) -> None:
    authority, other = trustme.CA(), trustme.CA()
    certificate = authority.issue_cert("localhost")
    paths = {name: tmp_path / name for name in ("ca", "crt", "key")}
    authority.cert_pem.write_to_path(paths["ca"])
    certificate.cert_chain_pems[0].write_to_path(paths["crt"])
    certificate.private_key_pem.write_to_path(paths["key"])
    port = str(free_port())
    options = ("--tls-port", port, "--tls-cert-file", str(paths["crt"]), "--tls-key-file", str(paths["key"]))
    async with redis_server(options=(*options, "--tls-ca-cert-file", str(paths["ca"]))) as server:
        client = authority.issue_cert("client")
        world.secret = {
            "url": f"rediss://:{PASSWORD}@localhost:{port}/0".encode(),
            "ca.crt": authority.cert_pem.bytes(),
            "tls.crt": client.cert_chain_pems[0].bytes(),
            "tls.key": client.private_key_pem.bytes(),
        }
        async with running(source_of(world), world.sink):
            await add(server, world, 1)
            await world.sink.until_unique(1)
        assert {host for host, _ in world.checked} == {"localhost"}
        trusted, world.secret = world.secret, {**world.secret, "ca.crt": other.cert_pem.bytes()}
        assert "certificate verify failed" in await told(world)
        # The certificate is for the name, not for the address behind it.
        world.secret = {**trusted, "url": f"rediss://:{PASSWORD}@127.0.0.1:{port}/0".encode()}
        assert "certificate verify failed" in await told(world)
