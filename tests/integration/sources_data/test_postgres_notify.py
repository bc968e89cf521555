"""LISTEN/NOTIFY on a real PostgreSQL."""

from typing import Any

import pytest
from kappa_postgres import PostgresServer
from kappa_source_world import World, a_trigger, running

from kappa_api.sources.postgres import Postgres
from kappa_gateway.events.source import SourceError
from kappa_gateway.events.sources import postgres, postgres_notify

pytestmark = pytest.mark.asyncio(loop_scope="module")


def a_world(database: PostgresServer) -> World:
    source = Postgres("credentials", channels=("orders", "Odd Name"))
    return World(a_trigger("postgres", source, "listener"), {"url": database.url().encode()})


def source_of(world: World) -> Any:
    return postgres.make(world.trigger, world.surroundings())


async def test_what_is_sent_is_an_event(database: PostgresServer) -> None:
    world = a_world(database)
    async with running(source_of(world), world.sink):
        await database.execute("NOTIFY orders, 'one'", 'NOTIFY "Odd Name"', "NOTIFY other, 'x'", "NOTIFY orders, 'two'")
        await world.sink.until_unique(3)
    told = [(event.type, event.subject, event.data["payload"]) for event in world.sink.events]
    kind = "dev.kappa.postgres.notify"
    assert told == [(kind, "orders", "one"), (kind, "Odd Name", ""), (kind, "orders", "two")]


async def test_a_long_silence_is_no_end(database: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is asked now and then; what is sent meanwhile is not lost."""
    monkeypatch.setattr(postgres_notify, "ASK_SECONDS", 0.005)
    world = a_world(database)
    async with running(source_of(world), world.sink):
        for number in range(200):
            await database.execute(f"NOTIFY orders, '{number}'")
        await world.sink.until_unique(200)
    assert [event.data["payload"] for event in world.sink.events] == [str(number) for number in range(200)]


async def test_while_jetstream_is_away_notifications_wait(database: PostgresServer) -> None:
    world = a_world(database)
    world.sink.away = True
    async with running(source_of(world), world.sink):
        await database.execute("NOTIFY orders, 'a'")
        await world.sink.until(lambda sink: sink.refusals > 0)
        await database.execute("NOTIFY orders, 'b'")
        world.sink.away = False
        await world.sink.until_unique(2)
    assert [event.data["payload"] for event in world.sink.unique] == ["a", "b"]


async def test_the_server_ends_the_connection(database: PostgresServer) -> None:
    world = a_world(database)
    async with running(source_of(world), world.sink) as task:
        await database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'kappa_default_list%'"
        )
        with pytest.raises(SourceError, match="has ended the connection"):
            await task
    async with running(source_of(world), world.sink):
        await database.execute("NOTIFY orders, 'again'")
        await world.sink.until_unique(1)
