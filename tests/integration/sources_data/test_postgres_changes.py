"""Row changes of a real PostgreSQL become events: what they hold, and that none is lost whatever is interrupted."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from kappa_postgres import PostgresServer
from kappa_source_world import MemorySink, World, a_trigger, running

from kappa_api.sources.postgres import OPERATIONS, Postgres
from kappa_gateway.events.source import SourceError
from kappa_gateway.events.sources import postgres, postgres_stream, sizes

pytestmark = pytest.mark.asyncio(loop_scope="module")
_numbers = itertools.count(1)


@pytest_asyncio.fixture(loop_scope="module")
async def world(database: PostgresServer) -> AsyncIterator[World]:
    """A table of its own, `public.<trigger's name>`."""
    name = f"orders{next(_numbers)}"
    await database.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, name text, amount numeric)")
    source = Postgres("credentials", tables=(("public", name),), operations=OPERATIONS)
    found = World(a_trigger("postgres", source, name), {"url": database.url().encode()})
    yield found
    await postgres.make(found.trigger, found.surroundings()).forget()  # type: ignore[attr-defined]


def source_of(world: World) -> Any:
    return postgres.make(world.trigger, world.surroundings())


def brief(world: World) -> list[tuple[Any, ...]]:
    """Operation, key, old, new of each event, once."""
    return [tuple(event.data[key] for key in ("operation", "key", "old", "new")) for event in world.sink.unique]


async def test_every_operation_has_its_event(database: PostgresServer, world: World) -> None:
    table = world.trigger.name
    async with running(source_of(world), world.sink):
        await database.execute(
            f"INSERT INTO {table} VALUES (1, 'é', 12.340)",
            f"UPDATE {table} SET name = NULL WHERE id = 1",
            f"UPDATE {table} SET id = 2",
            f"DELETE FROM {table}",
            f"TRUNCATE {table}",
        )
        await world.sink.until_unique(5)
    assert brief(world) == [
        ("insert", {"id": 1}, None, {"id": 1, "name": "é", "amount": "12.340"}),
        ("update", {"id": 1}, None, {"id": 1, "name": None, "amount": "12.340"}),
        ("update", {"id": 2}, {"id": 1}, {"id": 2, "name": None, "amount": "12.340"}),
        ("delete", {"id": 2}, {"id": 2}, None),
        ("truncate", {}, None, None),
    ]
    event = world.sink.events[0]
    assert (event.type, event.subject) == ("dev.kappa.postgres.insert", f"public.{table}")
    assert event.source == f"postgresql://127.0.0.1:{database.port}/shop"
    assert event.time == event.data["committedAt"]
    assert len(set(world.sink.ids)) == len(world.sink.ids) == 5
    assert world.checked
    assert {host for host, _ in world.checked} == {"127.0.0.1"}


async def test_full_identity_gives_the_whole_old_row(database: PostgresServer, world: World) -> None:
    table = world.trigger.name
    await database.execute(
        f"ALTER TABLE {table} REPLICA IDENTITY FULL",
        f"ALTER TABLE {table} ADD COLUMN big text",
        f"ALTER TABLE {table} ALTER COLUMN big SET STORAGE EXTERNAL",
    )
    async with running(source_of(world), world.sink):
        await database.execute(
            f"INSERT INTO {table} VALUES (1, 'a', 1, repeat('x', 20000))", f"UPDATE {table} SET name = 'b'"
        )
        await world.sink.until_unique(2)
    data = world.sink.events[1].data
    assert data["key"] == {"id": 1}
    assert (data["old"]["name"], data["new"]["name"]) == ("a", "b")
    # The large value is not sent with the new row; it is taken from the old one.
    assert data["new"]["big"] == data["old"]["big"] == "x" * 20000
    assert "unchanged" not in data


async def test_a_large_unchanged_value_is_named_and_not_invented(database: PostgresServer, world: World) -> None:
    table = world.trigger.name
    await database.execute(
        f"ALTER TABLE {table} ADD COLUMN big text", f"ALTER TABLE {table} ALTER COLUMN big SET STORAGE EXTERNAL"
    )
    async with running(source_of(world), world.sink):
        await database.execute(
            f"INSERT INTO {table} VALUES (1, 'a', 1, repeat('x', 20000))", f"UPDATE {table} SET name = 'b'"
        )
        await world.sink.until_unique(2)
    data = world.sink.events[1].data
    assert "big" not in data["new"]
    assert data["unchanged"] == ["big"]


async def test_a_row_that_is_larger_than_an_event_may_be(
    database: PostgresServer, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizes, "MAX_DATA_BYTES", 2_000_000)
    table = world.trigger.name
    async with running(source_of(world), world.sink):
        await database.execute(f"INSERT INTO {table} VALUES (1, repeat('x', 3000000), 1)")
        await world.sink.until_unique(1)
    assert world.sink.events[0].data["new"] == {"id": 1, "amount": "1"}
    assert world.sink.events[0].data["omitted"] == ["name"]


async def test_altered_tables(database: PostgresServer, world: World) -> None:
    table = world.trigger.name
    async with running(source_of(world), world.sink):
        await database.execute(
            f"INSERT INTO {table} VALUES (1, 'a', 1)",
            f"ALTER TABLE {table} ADD COLUMN at timestamptz, DROP COLUMN amount",
            f"INSERT INTO {table} VALUES (2, 'b', '2024-05-01 12:00:00.25+02')",
            f"ALTER TABLE {table} RENAME COLUMN name TO title",
            f"INSERT INTO {table} VALUES (3, 'c', NULL)",
        )
        await world.sink.until_unique(3)
    assert [event.data["new"] for event in world.sink.events] == [
        {"id": 1, "name": "a", "amount": "1"},
        {"id": 2, "name": "b", "at": "2024-05-01T10:00:00.25Z"},
        {"id": 3, "title": "c", "at": None},
    ]


async def test_only_wanted_operations_and_tables(database: PostgresServer, world: World) -> None:
    table = world.trigger.name
    await database.execute(f"CREATE TABLE {table}_other (id int PRIMARY KEY)")
    world.change(operations=("delete",))
    async with running(source_of(world), world.sink):
        await database.execute(
            f"INSERT INTO {table}_other VALUES (1)",
            f"INSERT INTO {table} VALUES (1, 'a', 1)",
            f"UPDATE {table} SET name = 'b'",
            f"DELETE FROM {table}_other",
            f"DELETE FROM {table}",
        )
        await world.sink.until_unique(1)
    assert brief(world) == [("delete", {"id": 1}, {"id": 1}, None)]


async def test_a_changed_trigger_goes_on_where_it_was(database: PostgresServer, world: World) -> None:
    """More tables and more operations: the publication is altered, the slot stays, nothing between is lost."""
    table = world.trigger.name
    await database.execute(f"CREATE TABLE {table}_more (id int PRIMARY KEY)")
    world.change(operations=("insert",))
    async with running(source_of(world), world.sink):
        await database.execute(f"INSERT INTO {table} VALUES (1, 'a', 1)")
        await world.sink.until_unique(1)
    await database.execute(f"INSERT INTO {table} VALUES (2, 'between', 1)")
    world.change(tables=(("public", table), ("public", f"{table}_more")), operations=("insert", "delete"))
    async with running(source_of(world), world.sink):
        await database.execute(f"INSERT INTO {table}_more VALUES (7)", f"DELETE FROM {table} WHERE id = 1")
        await world.sink.until_unique(4)
    assert [(row[0], row[1]) for row in brief(world)] == [
        ("insert", {"id": 1}),
        ("insert", {"id": 2}),
        ("insert", {"id": 7}),
        ("delete", {"id": 1}),
    ]


async def test_partitions_are_told_under_their_tables_name(database: PostgresServer, world: World) -> None:
    table = f"{world.trigger.name}_parted"
    await database.execute(
        f"CREATE TABLE {table} (id int PRIMARY KEY, name text) PARTITION BY RANGE (id)",
        f"CREATE TABLE {table}_1 PARTITION OF {table} FOR VALUES FROM (0) TO (10)",
        f"CREATE TABLE {table}_2 PARTITION OF {table} FOR VALUES FROM (10) TO (20)",
    )
    world.change(tables=(("public", table),))
    async with running(source_of(world), world.sink):
        await database.execute(f"INSERT INTO {table} VALUES (1, 'a'), (11, 'b')")
        await world.sink.until_unique(2)
    assert {event.subject for event in world.sink.events} == {f"public.{table}"}


async def test_names_that_need_quotes(database: PostgresServer, world: World) -> None:
    schema, table = f"{world.trigger.name} Schema", "My Tablé's"
    await database.execute(f'CREATE SCHEMA "{schema}"', f'CREATE TABLE "{schema}"."{table}" ("Id" int PRIMARY KEY)')
    world.change(tables=((schema, table),))
    async with running(source_of(world), world.sink):
        await database.execute(f'INSERT INTO "{schema}"."{table}" VALUES (5)')
        await world.sink.until_unique(1)
    assert world.sink.events[0].data["key"] == {"Id": 5}


async def test_nothing_is_lost_when_the_source_is_cancelled_again_and_again(
    database: PostgresServer, world: World
) -> None:
    """Each time in the middle of a transaction that is given out in pieces, with JetStream going away as well."""
    table, rows = world.trigger.name, 5000
    async with running(source_of(world), world.sink):
        pass
    await database.execute(f"INSERT INTO {table} SELECT g, 'n', g FROM generate_series(1, {rows}) g")
    await database.execute(f"UPDATE {table} SET name = 'm' WHERE id <= 100")
    for _ in range(6):
        world.sink.room, before = 777, world.sink.refusals
        async with running(source_of(world), world.sink):
            await world.sink.until(lambda sink, before=before: sink.refusals > before)  # type: ignore[misc]
    world.sink.room = None
    async with running(source_of(world), world.sink):
        await world.sink.until_unique(rows + 100)
    assert [event.data["key"]["id"] for event in world.sink.unique] == [*range(1, rows + 1), *range(1, 101)]
    contents = {event.id: event.data for event in world.sink.events}
    assert all(contents[event.id] == event.data for event in world.sink.events)
    # What was kept in whole pieces is not sent again, although the transaction as a whole is.
    assert len(world.sink.events) < 1.5 * rows


async def test_only_what_is_kept_is_confirmed(database: PostgresServer, world: World) -> None:
    """Many transactions come in one piece, of which JetStream takes a part before both it and the gateway go."""
    table, rows = world.trigger.name, 60
    async with running(source_of(world), world.sink):
        pass
    await database.execute(*[f"INSERT INTO {table} VALUES ({n}, 'n', 1)" for n in range(rows)])
    for _ in range(4):
        world.sink.room, before = 7, world.sink.refusals
        async with running(source_of(world), world.sink):
            await world.sink.until(lambda sink, before=before: sink.refusals > before)  # type: ignore[misc]
    world.sink.room = None
    async with running(source_of(world), world.sink):
        await world.sink.until_unique(rows)
    assert [event.data["key"]["id"] for event in world.sink.unique] == list(range(rows))


async def test_a_transaction_is_never_held_whole(database: PostgresServer, world: World) -> None:
    """While JetStream is away the source stops reading; the largest piece it hands over is bounded."""
    largest = 0

    class Counting(MemorySink):
        async def emit(self, events: Any) -> None:
            nonlocal largest
            largest = max(largest, len(events))
            await super().emit(events)

    world.sink = Counting()
    table = world.trigger.name
    async with running(source_of(world), world.sink):
        await database.execute(f"INSERT INTO {table} SELECT g, 'n', g FROM generate_series(1, 30000) g")
        await world.sink.until_unique(30000)
    assert 0 < largest <= postgres.CHUNK


async def test_the_server_is_killed_and_comes_back(database: PostgresServer, world: World) -> None:
    table = world.trigger.name
    async with running(source_of(world), world.sink) as task:
        await database.execute(*[f"INSERT INTO {table} VALUES ({n}, 'before', 1)" for n in range(50)])
        await world.sink.until_unique(20)
        await database.kill()
        with pytest.raises(SourceError, match="the stream of the slot"):
            await task
    await database.start()
    await database.execute(*[f"INSERT INTO {table} VALUES ({n}, 'after', 1)" for n in range(50, 60)])
    async with running(source_of(world), world.sink):
        await world.sink.until_unique(60)
    assert [event.data["key"]["id"] for event in world.sink.unique] == list(range(60))


async def test_while_jetstream_is_away_the_server_hears_that_we_live(
    database: PostgresServer, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is read then, for longer than the server waits for a reader that is silent."""
    monkeypatch.setattr(postgres_stream, "TIMEOUT", "1500ms")
    monkeypatch.setattr(postgres_stream, "STATUS_SECONDS", 0.1)
    table = world.trigger.name
    async with running(source_of(world), world.sink):
        world.sink.away = True
        # Far more than the sockets' buffers hold: the server has to wait for us.
        await database.execute(f"INSERT INTO {table} SELECT g, repeat('x', 500), g FROM generate_series(1, 40000) g")
        await world.sink.until(lambda sink: sink.refusals >= 7)  # five seconds of them
        world.sink.away = False
        await world.sink.until_unique(40000)


async def test_a_reader_that_the_server_still_believes_in_is_ended(database: PostgresServer, world: World) -> None:
    """The lease went to another gateway, and the old one's connection is still open."""
    table = world.trigger.name
    async with running(source_of(world), world.sink) as old:
        later = MemorySink()
        successor = World(world.trigger, world.secret, later, world.state)
        async with running(source_of(successor), later):
            await database.execute(f"INSERT INTO {table} VALUES (1, 'a', 1)")
            await later.until_unique(1)
            with pytest.raises(SourceError):
                await old


async def test_the_log_is_released_while_only_other_tables_change(database: PostgresServer, world: World) -> None:
    """Otherwise a quiet table would keep the whole database's log."""
    table = world.trigger.name
    await database.execute(f"CREATE TABLE {table}_noise (id int)")
    async with running(source_of(world), world.sink):
        await database.execute(f"INSERT INTO {table}_noise SELECT generate_series(1, 1000)")
        (end,) = (await database.execute("SELECT pg_current_wal_lsn()"))[0]
        async with asyncio.timeout(60):
            while True:
                query = f"SELECT confirmed_flush_lsn >= '{end}' FROM pg_replication_slots WHERE active"
                if await database.execute(query) == [(True,)]:
                    break
                await asyncio.sleep(0.1)
    assert world.sink.events == []
