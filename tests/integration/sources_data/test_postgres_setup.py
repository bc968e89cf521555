"""What keeps a source from a PostgreSQL from running is told in words that say what to do, without credentials."""

import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio
import trustme
from kappa_postgres import DATABASE, PASSWORD, PostgresServer, postgres
from kappa_source_world import MemorySink, World, a_trigger, failure, running

from kappa_api.sources.postgres import Postgres
from kappa_gateway.events.source import SourceError
from kappa_gateway.events.sources import postgres as source_module
from kappa_gateway.events.sources import postgres_setup

pytestmark = pytest.mark.asyncio(loop_scope="module")
_numbers = itertools.count(1)

SLOTS = "SELECT slot_name FROM pg_replication_slots"
PUBLICATIONS = "SELECT pubname FROM pg_publication"


@pytest_asyncio.fixture(loop_scope="module")
async def world(database: PostgresServer) -> AsyncIterator[World]:
    name = f"table{next(_numbers)}"
    await database.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, name text)")
    found = a_world(database, name)
    yield found
    found.secret = {"url": database.url().encode()}
    await source_of(found).forget()


def a_world(database: PostgresServer, table: str, **fields: Any) -> World:
    source = Postgres("credentials", tables=(("public", table),), **fields)
    return World(a_trigger("postgres", source, table), {"url": database.url().encode()})


def source_of(world: World) -> Any:
    return source_module.make(world.trigger, world.surroundings())


async def told(world: World) -> str:
    error = await failure(source_of(world))
    assert isinstance(error, SourceError), repr(error)
    assert PASSWORD not in str(error)
    assert "\n" not in str(error)
    return str(error)


async def test_the_slot_and_the_publication_are_made_and_dropped(database: PostgresServer, world: World) -> None:
    async with running(source_of(world), world.sink):
        names = postgres_setup.names_of(world.trigger)
        assert await database.execute(SLOTS) == [(names.slot,)]
        assert await database.execute(PUBLICATIONS) == [(names.publication,)]
    assert await database.execute(SLOTS) == [(names.slot,)]
    await source_of(world).forget()
    assert await database.execute(SLOTS) == await database.execute(PUBLICATIONS) == []
    await source_of(world).forget()  # once more does no harm


async def test_forgetting_while_another_gateway_still_reads(database: PostgresServer, world: World) -> None:
    async with running(source_of(world), world.sink) as task:
        await source_of(world).forget()
        with pytest.raises(SourceError):
            await task
    assert await database.execute(SLOTS) == []


async def test_what_the_admin_made_stays(database: PostgresServer, world: World) -> None:
    table = world.trigger.name
    await database.execute(
        f"CREATE PUBLICATION admins FOR TABLE {table}",
        "SELECT pg_create_logical_replication_slot('admins_slot', 'pgoutput')",
    )
    world.change(publication="admins", slot="admins_slot")
    async with running(source_of(world), world.sink):
        await database.execute(f"INSERT INTO {table} VALUES (1, 'a')")
        await world.sink.until_unique(1)
    assert world.sink.ids[0].startswith("admins_slot/")
    await source_of(world).forget()
    assert await database.execute(SLOTS) == [("admins_slot",)]
    assert await database.execute(PUBLICATIONS) == [("admins",)]
    await database.execute("SELECT pg_drop_replication_slot('admins_slot')", "DROP PUBLICATION admins")
    assert "there is no publication admins" in await told(world)
    world.change(publication="")
    assert "there is no replication slot admins_slot" in await told(world)


async def test_what_an_earlier_spec_left_is_dropped(database: PostgresServer, world: World) -> None:
    """A slot that nobody reads any more would keep the server's log for ever."""
    async with running(source_of(world), world.sink):
        pass
    await database.execute(f"CREATE PUBLICATION admins2 FOR TABLE {world.trigger.name}")
    await database.execute("SELECT pg_create_logical_replication_slot('admins2', 'pgoutput')")
    world.change(publication="admins2", slot="admins2")
    async with running(source_of(world), world.sink):
        assert await database.execute(SLOTS) == await database.execute(PUBLICATIONS) == [("admins2",)]
    await database.execute("SELECT pg_drop_replication_slot('admins2')", "DROP PUBLICATION admins2")
    world.change(publication="", slot="")
    async with running(source_of(world), world.sink):
        assert len(await database.execute(SLOTS)) == 1
    tables = world.trigger.source.tables
    world.change(tables=(), channels=("a",))
    async with running(source_of(world), world.sink):
        assert await database.execute(SLOTS) == await database.execute(PUBLICATIONS) == []
    world.change(tables=tables, channels=())


async def test_tables_that_cannot_be_followed(database: PostgresServer, world: World) -> None:
    table = world.trigger.name
    await database.execute(f"CREATE VIEW {table}_view AS SELECT 1", f"CREATE TABLE {table}_bare (a int)")
    world.change(tables=(("public", "Orders"), ("public", table)))
    assert "there is no table public.Orders" in await told(world)
    world.change(tables=(("public", f"{table}_view"),))
    assert "is not a table" in await told(world)
    world.change(tables=(("public", f"{table}_bare"),))
    message = await told(world)
    assert "no primary key" in message
    assert "REPLICA IDENTITY FULL" in message
    # Had it been published, this would fail in the application.
    await database.execute(f"INSERT INTO {table}_bare VALUES (1)", f"UPDATE {table}_bare SET a = 2")
    world.change(operations=("insert",))
    async with running(source_of(world), world.sink):
        await database.execute(f"INSERT INTO {table}_bare VALUES (3)")
        await world.sink.until_unique(1)


async def test_rights(database: PostgresServer, world: World) -> None:
    admin = {"url": database.admin_url}
    await database.execute(
        "CREATE ROLE weak LOGIN PASSWORD 'w'", f"GRANT CREATE ON DATABASE {DATABASE} TO weak", **admin
    )
    world.secret = {"url": database.url("weak", "w").encode()}
    message = await told(world)
    assert "lacks a right: must be owner of table" in message
    assert "REPLICATION" in message
    await database.execute(f"CREATE PUBLICATION for_weak FOR TABLE {world.trigger.name}")
    world.change(publication="for_weak")
    assert "lacks a right: must be superuser or replication role" in await told(world)
    await database.execute("SELECT pg_create_logical_replication_slot('for_weak', 'pgoutput')")
    world.change(slot="for_weak")
    assert "cannot be connected to" in await told(world)
    await database.execute("SELECT pg_drop_replication_slot('for_weak')", "DROP PUBLICATION for_weak")
    await database.execute(f"REVOKE CREATE ON DATABASE {DATABASE} FROM weak", "DROP ROLE weak", **admin)
    world.change(publication="", slot="")


async def test_the_right_to_replicate_is_enough_where_there_is_a_publication(
    database: PostgresServer, world: World
) -> None:
    """As docs/events-data.md says."""
    await database.execute("CREATE ROLE lean LOGIN REPLICATION PASSWORD 'l'", url=database.admin_url)
    await database.execute(f"CREATE PUBLICATION for_lean FOR TABLE {world.trigger.name}")
    world.change(publication="for_lean")
    world.secret = {"url": database.url("lean", "l").encode()}
    async with running(source_of(world), world.sink):
        await database.execute(f"INSERT INTO {world.trigger.name} VALUES (1, 'a')")
        await world.sink.until_unique(1)
    await source_of(world).forget()
    assert await database.execute(SLOTS) == []
    await database.execute("DROP PUBLICATION for_lean")
    await database.execute("DROP ROLE lean", url=database.admin_url)
    world.change(publication="")


async def test_credentials_that_are_wrong(database: PostgresServer, world: World) -> None:
    world.secret = {"url": database.url(password="other-secret-word").encode()}
    message = await told(world)
    assert "password authentication failed" in message
    assert "other-secret-word" not in message
    world.secret = {"url": database.url(database="nowhere").encode()}
    assert 'database "nowhere" does not exist' in await told(world)


async def test_addresses_are_judged_before_they_are_connected_to(database: PostgresServer, world: World) -> None:
    async def refuse(host: str, port: int) -> None:
        raise SourceError(f"{host} is a loopback address")

    surroundings = replace(world.surroundings(), check_address=refuse)
    error = await failure(source_module.make(world.trigger, surroundings))
    assert str(error) == "127.0.0.1 is a loopback address"


async def test_a_slot_that_somebody_else_reads(database: PostgresServer, world: World) -> None:
    await database.execute("SELECT pg_create_logical_replication_slot('shared', 'pgoutput')")
    first, second = a_world(database, world.trigger.name), a_world(database, world.trigger.name)
    for number, each in enumerate((first, second)):
        each.trigger = replace(each.trigger, uid=f"{number}")
        each.change(slot="shared")
    async with running(source_of(first), first.sink):
        message = await told(second)
        assert "the slot shared is in use by kappa_default_" in message
    for each in (first, second):
        await source_of(each).forget()
    await database.execute("SELECT pg_drop_replication_slot('shared')")


async def test_a_publication_that_was_dropped_by_hand(database: PostgresServer, world: World) -> None:
    table, names = world.trigger.name, postgres_setup.names_of(world.trigger)
    async with running(source_of(world), world.sink):
        pass
    await database.execute(f"DROP PUBLICATION {names.publication}", f"INSERT INTO {table} VALUES (1, 'a')")
    # It is made anew, but the server looks for it as it was at the time of the change.
    error = await failure(source_of(world))
    assert f"SELECT pg_drop_replication_slot('{names.slot}')" in str(error)
    await database.execute(f"SELECT pg_drop_replication_slot('{names.slot}')")
    async with running(source_of(world), world.sink):
        await database.execute(f"INSERT INTO {table} VALUES (2, 'b')")
        await world.sink.until_unique(1)
    assert world.sink.events[-1].data["key"] == {"id": 2}


async def test_a_transaction_that_stays_open(
    database: PostgresServer, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_setup, "STATEMENT_SECONDS", 0.3)
    async with await psycopg.AsyncConnection.connect(database.url()) as other:
        await other.execute("SELECT txid_current()")
        assert "it waits for transactions that were open before" in await told(world)
    assert await database.execute(SLOTS) == []


async def test_a_server_without_logical_decoding() -> None:
    async with postgres(settings=("wal_level=replica",)) as server:
        await server.execute("CREATE TABLE t (id int PRIMARY KEY)")
        message = await told(a_world(server, "t"))
        assert "wal_level is replica: logical decoding needs wal_level = logical" in message
        assert await server.execute(PUBLICATIONS) == []


async def test_a_server_without_slots_left_and_one_that_gives_a_slot_up() -> None:
    settings = ("max_replication_slots=1", "max_slot_wal_keep_size=1MB", "min_wal_size=32MB", "max_wal_size=32MB")
    async with postgres(settings=settings) as server:
        await server.execute("CREATE TABLE t (id int PRIMARY KEY, name text)", "CREATE TABLE noise (t text)")
        first, second = a_world(server, "t"), a_world(server, "t")
        second.trigger = replace(second.trigger, uid="another")
        async with running(source_of(first), first.sink):
            assert "the server has no slot left: raise max_replication_slots" in await told(second)
        for _ in range(4):
            noise = ("INSERT INTO noise VALUES (repeat('x', 1000))", "SELECT pg_switch_wal()")
            await server.execute(*noise, url=server.admin_url)
        await server.execute("CHECKPOINT", url=server.admin_url)
        message = await told(first)
        slot = postgres_setup.names_of(first.trigger).slot
        assert f"the server has given up the slot {slot}" in message
        assert f"SELECT pg_drop_replication_slot('{slot}')" in message
        await server.execute(f"SELECT pg_drop_replication_slot('{slot}')")
        async with running(source_of(first), first.sink):
            await server.execute("INSERT INTO t VALUES (1, 'a')")
            await first.sink.until_unique(1)


async def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority, other = trustme.CA(), trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    async with postgres() as server:
        await server.execute("CREATE TABLE t (id int PRIMARY KEY)")
        await server.stop()
        for name, content in (
            ("server.crt", certificate.cert_chain_pems[0].bytes()),
            ("server.key", certificate.private_key_pem.bytes()),
        ):
            server.place(f"data/{name}", content)
        server.settings = ("ssl=on",)
        await server.start()
        world = a_world(server, "t")
        world.secret = {
            "url": server.url().replace("127.0.0.1", "localhost").encode(),
            "ca.crt": authority.cert_pem.bytes(),
        }
        async with running(source_of(world), world.sink):
            query = "SELECT bool_and(s.ssl) FROM pg_stat_ssl s JOIN pg_stat_replication r USING (pid)"
            assert await server.execute(query) == [(True,)]
        url = world.secret["url"]
        world.secret = {"url": url, "ca.crt": other.cert_pem.bytes()}
        assert "certificate verify failed" in await told(world)
        world.secret = {"url": url + b"?sslmode=verify-full"}  # by whom the system trusts
        assert "certificate verify failed" in await told(world)
        authority.cert_pem.write_to_path(tmp_path / "trusted.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "trusted.pem"))
        async with running(source_of(world), world.sink):
            pass


async def test_a_secret_that_is_not_there() -> None:
    world = World(a_trigger("postgres", Postgres("missing", tables=(("public", "t"),)), "t"), {}, MemorySink())
    assert "the Secret missing of type kappa.dev/source does not exist" in await told(world)
