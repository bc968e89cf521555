"""Notifications of PostgreSQL (LISTEN/NOTIFY): the light variant, that keeps nothing.

What is sent while no gateway listens is gone: the server keeps no notification for who is not connected.
"""

import asyncio
import itertools
from typing import Any, Final

import psycopg
from psycopg import sql

from kappa_api.cloudevents import CloudEvent
from kappa_api.sources.postgres import Postgres
from kappa_api.trigger import Trigger
from kappa_gateway.events.source import SourceError, Surroundings
from kappa_gateway.events.sources.emitting import emit
from kappa_gateway.events.sources.postgres_connect import connect, read_secret, told
from kappa_gateway.events.sources.postgres_setup import forget, names_of

TYPE: Final = "dev.kappa.postgres.notify"
#: A connection that a firewall has forgotten is found out by asking now and then.
ASK_SECONDS: Final = 30.0
ANSWER_SECONDS: Final = 10.0


class Notifications:
    """Of the Trigger's channels."""

    def __init__(self, trigger: Trigger, surroundings: Surroundings) -> None:
        self._around = surroundings
        self._source: Postgres = trigger.source
        self._names = names_of(trigger)

    async def run(self) -> None:
        around = self._around
        server = read_secret(around.secret(self._source.secret), self._source.secret)
        connection = await connect(server, around.check_address, application=self._names.own)
        try:
            await forget(connection, self._names)  # the Trigger may have followed tables before
            for channel in self._source.channels:
                await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
            around.sink.connected()
            await self._listen(connection, server.source)
        except (psycopg.Error, TimeoutError) as error:
            raise SourceError(f"{server.source} has ended the connection: {told(error)}") from error
        finally:
            await connection.close()

    async def _listen(self, connection: psycopg.AsyncConnection[Any], source: str) -> None:
        # A notification has no id of its own and is never sent again: ours only have to differ.
        session = f"{int(self._around.wall() * 1000)}/{connection.info.backend_pid}"
        numbers = itertools.count(1)
        while True:
            events = [
                self._event(notice, f"{session}/{next(numbers)}", source)
                async for notice in connection.notifies(timeout=ASK_SECONDS, stop_after=1)
            ]
            if events:
                await emit(self._around.sink, events)
            else:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await connection.execute("SELECT 1")

    def _event(self, notice: psycopg.Notify, unique: str, source: str) -> CloudEvent:
        return CloudEvent(
            id=f"{notice.channel}/{unique}",
            source=source,
            type=TYPE,
            subject=notice.channel,
            datacontenttype="application/json",
            data={"channel": notice.channel, "payload": notice.payload, "pid": notice.pid},
        )
