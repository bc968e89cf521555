"""The stream of a replication slot: COPY BOTH of PostgreSQL's streaming replication protocol, on libpq's own calls.

psycopg has no interface for it, but it has libpq's: `get_copy_data`, `put_copy_data` (docs/decisions/0022).
Reading is pulled: while nobody asks, the server fills the socket's buffers and then waits, so nothing piles up here.
"""

import asyncio
import time
from typing import Any, Final, Protocol

import psycopg
from psycopg import sql
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus

from kappa_gateway.events.source import SourceError
from kappa_gateway.events.sources.pgoutput import Alive, lsn_text, status, unwrap
from kappa_gateway.events.sources.postgres_connect import told
from kappa_gateway.events.sources.postgres_values import SESSION

#: More often than any server's wal_sender_timeout that makes sense (its default is a minute).
STATUS_SECONDS: Final = 5.0
#: One call of `frames` gives no more than this and one row.
MOST_BYTES: Final = 4 * 1024 * 1024
#: From PostgreSQL 12 on each connection sets its own: how long the server keeps a reader that says nothing.
TIMEOUT_VERSION: Final = 120_000
TIMEOUT: Final = "30s"


class Stream(Protocol):
    """What the source needs of a stream; tests give it another one."""

    async def frames(self) -> list[bytes | Alive]: ...

    def confirm(self, lsn: int) -> None: ...


class ReplicationStream:
    """`connection`: with the parameter replication=database. It belongs to the stream from `start` on."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], *, most: int) -> None:
        self._connection, self._most = connection, most
        self._confirmed = 0
        self._heart: asyncio.Task[None] | None = None

    async def start(self, slot: str, publication: str) -> None:
        """Begins where the slot stands. Raises psycopg.Error."""
        connection = self._connection
        settings = dict(SESSION)
        if connection.info.server_version >= TIMEOUT_VERSION:
            settings["wal_sender_timeout"] = TIMEOUT
        for name, value in settings.items():
            await connection.execute(sql.SQL("SET {} = {}").format(sql.Identifier(name), sql.Literal(value)))
        publications = sql.Literal(sql.Identifier(publication).as_string(connection))
        command = sql.SQL("START_REPLICATION SLOT {} LOGICAL 0/0 (proto_version '1', publication_names {})").format(
            sql.Identifier(slot), publications
        )
        cursor = await connection.execute(command)
        if cursor.pgresult is None or cursor.pgresult.status != ExecStatus.COPY_BOTH:
            raise SourceError(f"the server does not stream the slot {slot}")
        self._heart = asyncio.create_task(self._beat(), name=f"postgres-{slot}")

    async def frames(self) -> list[bytes | Alive]:
        """What has come, up to `most`; waits for the first one. Raises psycopg.Error when the server ends it."""
        while True:
            if found := self._read():
                return found
            await self._readable()
            self._connection.pgconn.consume_input()

    def confirm(self, lsn: int) -> None:
        """Everything before `lsn` is kept for good: the server may forget it."""
        if lsn > self._confirmed:
            self._confirmed = lsn
            self._tell()

    async def close(self) -> None:
        if self._heart is not None:
            self._heart.cancel()
        await self._connection.close()

    def _read(self) -> list[bytes | Alive]:
        found: list[bytes | Alive] = []
        total = 0
        while len(found) < self._most and total < MOST_BYTES:
            size, data = self._connection.pgconn.get_copy_data(1)
            if size == 0:
                break
            if size < 0:
                raise self._ended()
            total += size
            found.append(unwrap(bytes(data)))
        return found

    def _ended(self) -> psycopg.Error:
        result = self._connection.pgconn.get_result()
        if result is not None and result.status == ExecStatus.FATAL_ERROR:
            return error_from_result(result)
        return psycopg.OperationalError("the server has ended the stream")

    async def _readable(self) -> None:
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        socket = self._connection.pgconn.socket
        loop.add_reader(socket, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(socket)

    async def _beat(self) -> None:
        """While events wait for JetStream nothing is read, and the server must still hear that we live."""
        while True:
            await asyncio.sleep(STATUS_SECONDS)
            self._tell()

    def _tell(self) -> None:
        try:
            self._connection.pgconn.put_copy_data(status(self._confirmed, time.time_ns() // 1000))
            # What the socket does not take now goes with the next status: they are 34 bytes.
            self._connection.pgconn.flush()
        except psycopg.Error:
            pass  # whoever reads learns that the connection has ended


def stream_problem(error: psycopg.Error, slot: str, publication: str, confirmed: int = 0) -> str:
    """What to do about an error of the stream."""
    text, state = told(error), error.sqlstate
    if state == "55006":
        return f"the slot {slot} is in use: {text}"
    if state == "42704" and "publication" in text:
        return (
            f"the publication {publication} did not exist when the changes were made that come next: drop the slot "
            f"with SELECT pg_drop_replication_slot('{slot}'); what was changed until then is not delivered ({text})"
        )
    if state == "55000" or "invalidat" in text or "can no longer get changes" in text:
        return (
            f"the server has given up the slot {slot} and changes are lost: drop it with "
            f"SELECT pg_drop_replication_slot('{slot}') and Kappa begins anew with the next change ({text})"
        )
    where = f" at {lsn_text(confirmed)}" if confirmed else ""
    return f"the stream of the slot {slot} has ended{where}: {text}"
