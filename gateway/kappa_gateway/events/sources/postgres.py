"""The source `postgres`: row changes by logical decoding, or notifications.

One gateway reads the slot. What is confirmed to the server has been kept by JetStream, so after a crash the server
sends the rest again, and the ids of what was kept already are the same. Of a transaction that is given out in pieces
the last kept change is remembered, so that a crash in the middle of a million rows does not repeat the first half.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import psycopg

from kappa_api.cloudevents import CloudEvent
from kappa_api.sources.postgres import Postgres
from kappa_api.trigger import Trigger
from kappa_gateway.events.bus import UnavailableError
from kappa_gateway.events.source import Place, Source, SourceError, Surroundings, Trace
from kappa_gateway.events.sources import postgres_setup as setup
from kappa_gateway.events.sources.emitting import emit
from kappa_gateway.events.sources.pgoutput import Alive, Commit, ProtocolError, decode
from kappa_gateway.events.sources.postgres_connect import connect, read_secret, told
from kappa_gateway.events.sources.postgres_events import Origin, Position, Translator
from kappa_gateway.events.sources.postgres_notify import Notifications
from kappa_gateway.events.sources.postgres_stream import ReplicationStream, Stream, stream_problem

PLACE: Final = Place.ONE

log = logging.getLogger(__name__)

#: Changes handed over in one piece.
CHUNK: Final = 500
POSITION: Final = "position"
TIMELINE: Final = "IDENTIFY_SYSTEM"


def shape(trigger: Trigger) -> str:
    """A notification is no row."""
    return "cloudevent" if trigger.source.channels else "dynamodb"


def trace(trigger: Trigger, surroundings: Surroundings) -> Trace | None:
    """See `source.Source`."""
    name = trigger.source.secret
    try:
        server = read_secret(surroundings.secret(name), name).source
    except SourceError:
        server = ""
    return setup.trace(trigger, server)


def make(trigger: Trigger, surroundings: Surroundings) -> Source:
    """The Trigger's source."""
    if trigger.source.channels:
        return Notifications(trigger, surroundings)
    return Changes(trigger, surroundings)


class Changes:
    """Row changes of the Trigger's tables."""

    def __init__(self, trigger: Trigger, surroundings: Surroundings) -> None:
        self._trigger, self._around = trigger, surroundings
        self._source: Postgres = trigger.source
        self._names = setup.names_of(trigger)

    async def run(self) -> None:
        names = self._names
        async with self._connected() as control:
            prepared = await setup.prepare(control, self._source, names)
        if prepared.made_slot:
            log.info("%s: changes are followed from now on, by the new slot %s", self._trigger.key, names.slot)
        async with self._streaming() as (stream, line):
            origin = Origin(names.slot, self._server().source, self._source.operations, prepared.primary_keys)
            after = None if prepared.made_slot else await self._load(line)
            self._around.sink.connected()
            await self._pump(stream, Translator(origin, after), line)

    async def forget(self) -> None:
        """The Trigger is gone: a slot that nobody reads would keep the server's log for ever."""
        async with self._connected() as control:
            await setup.forget(control, self._names)

    async def where(self) -> str:
        async with self._connected() as control:
            return await setup.where(control)

    async def _pump(self, stream: Stream, translator: Translator, line: str) -> None:
        events: list[CloudEvent] = []
        while True:
            safe = 0
            for frame in await stream.frames():
                if isinstance(frame, Alive):
                    # Nothing before `end` is on its way any more; that it changed nothing here is as good as kept.
                    safe = safe if translator.position else frame.end
                    continue
                message = decode(frame)
                events += translator.feed(message)
                if isinstance(message, Commit):
                    safe = message.end
                if len(events) >= CHUNK:
                    await emit(self._around.sink, events)
                    events = []
            await emit(self._around.sink, events)
            if events and translator.position:
                await self._save(line, translator.position)
            events = []
            if safe:
                stream.confirm(safe)

    async def _load(self, line: str) -> Position | None:
        saved = await self._around.state.load(POSITION)
        if not saved:
            return None
        slot, where, text = saved.decode().split(" ")
        return Position.of(text) if (slot, where) == (self._names.slot, line) else None

    async def _save(self, line: str, position: Position) -> None:
        try:
            await self._around.state.save(POSITION, f"{self._names.slot} {line} {position.text()}".encode())
        except UnavailableError:
            pass  # then more is repeated after a crash, with the same ids

    def _server(self) -> Any:
        return read_secret(self._around.secret(self._source.secret), self._source.secret)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        application = self._names.own + "-setup"
        connection = await connect(self._server(), self._around.check_address, application=application[:63])
        try:
            yield connection
        finally:
            await connection.close()

    @asynccontextmanager
    async def _streaming(self) -> AsyncIterator[tuple[Stream, str]]:
        """The running stream, and which line of history it belongs to: positions mean something in one line only."""
        names = self._names
        connection = await connect(
            self._server(), self._around.check_address, application=names.own, replication="database"
        )
        stream = ReplicationStream(connection, most=CHUNK)
        try:
            system = await (await connection.execute(TIMELINE)).fetchone()
            await stream.start(names.slot, names.publication)
            yield stream, f"{system[0]}/{system[1]}" if system else "?"
        except psycopg.Error as error:
            raise SourceError(stream_problem(error, names.slot, names.publication)) from error
        except ProtocolError as error:
            raise SourceError(f"the slot {names.slot} sends what is not pgoutput's: {told(error)}") from error
        finally:
            await stream.close()
