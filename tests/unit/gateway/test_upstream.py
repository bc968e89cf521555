"""A connection to an instance as a state machine, fed by hand; and the pool's order."""

import asyncio
import gc
from typing import Any

import pytest

from kappa_gateway.pool import Pool, Pools
from kappa_gateway.retry import Outcome
from kappa_gateway.upstream import HIGH_WATER, Connection, TruncatedError, UpstreamError

REPLY = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Transport:
    """Remembers what was done to it."""

    def __init__(self, connection: Connection) -> None:
        self.connection, self.written, self.closing, self.reading = connection, b"", False, True

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            self.connection.connection_lost(None)

    abort = close


async def connected(pool: Pool | None = None) -> Any:
    pool = pool or Pool("10.0.0.1", 8080, asyncio.get_running_loop())
    connection = Connection(asyncio.get_running_loop(), pool)
    connection.connection_made(Transport(connection))  # type: ignore[arg-type]
    return connection


async def test_a_short_reply_arrives_whole_however_it_is_cut() -> None:
    for cut in range(1, len(REPLY)):
        connection = await connected()
        connection.send(b"GET")
        waiting = asyncio.create_task(connection.head())
        await asyncio.sleep(0)
        connection.data_received(REPLY[:cut])
        await asyncio.sleep(0)
        assert not waiting.done()
        connection.data_received(REPLY[cut:])
        await waiting
        assert (connection.status, connection.take(), connection.complete) == (200, b"ok", True)
        assert connection.reusable


async def test_a_stream_is_given_piece_by_piece() -> None:
    connection = await connected()
    connection.send(b"GET")
    connection.data_received(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    await connection.head()
    assert (connection.complete, connection.take()) == (False, b"")
    reading = asyncio.create_task(connection.read())
    await asyncio.sleep(0)
    connection.data_received(b"3\r\nabc\r\n1\r\nd\r\n")
    assert await reading == b"abcd"
    connection.data_received(b"0\r\n\r\n")
    assert await connection.read() == b""
    assert connection.reusable


async def test_reading_stops_while_nobody_takes() -> None:
    connection = await connected()
    connection.send(b"GET")
    connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n" + bytes(HIGH_WATER + 1))
    assert not connection.transport.reading
    assert len(connection.take()) == HIGH_WATER + 1
    assert connection.transport.reading


@pytest.mark.parametrize(
    ("received", "outcome"),
    [
        (b"", Outcome.LOST),
        (b"HTTP/1.1 200 OK\r\ncontent-le", Outcome.LOST),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc", Outcome.LOST),
        (b"garbage\r\n\r\n", Outcome.GARBAGE),
        (b"HTTP/1.1 999 X\r\ncontent-length: 0\r\n\r\n", Outcome.GARBAGE),
    ],
)
async def test_exchanges_that_fail(received: bytes, outcome: Outcome) -> None:
    connection = await connected()
    connection.send(b"GET")
    if received:
        connection.data_received(received)
    connection.transport.close() if connection.transport else None
    with pytest.raises(UpstreamError) as failed:
        await connection.head()
    assert failed.value.outcome is outcome
    assert not connection.reusable


async def test_a_stream_that_breaks_gives_what_came_and_then_says_so() -> None:
    connection = await connected()
    connection.send(b"GET")
    connection.data_received(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
    await connection.head()
    connection.connection_lost(ConnectionResetError())
    assert await connection.read() == b"abc"
    with pytest.raises(TruncatedError):
        await connection.read()


async def test_unasked_bytes_end_the_connection() -> None:
    pool = Pool("10.0.0.1", 8080, asyncio.get_running_loop())
    connection = await connected(pool)
    connection.send(b"GET")
    connection.data_received(REPLY)
    pool.put_back(connection, 0.0)
    assert pool.idle == 1
    connection.data_received(REPLY)
    assert (pool.idle, pool.open, pool.get()) == (0, 0, None)


async def test_the_pool_uses_the_last_first_and_closes_the_oldest() -> None:
    pool = Pool("10.0.0.1", 8080, asyncio.get_running_loop())
    connections = [await connected(pool) for _ in range(3)]
    for now, connection in enumerate(connections):
        connection.send(b"GET")
        connection.data_received(REPLY)
        pool.put_back(connection, float(now))
    assert repr(pool) == "<Pool 10.0.0.1 open=3 idle=3>"
    pool.sweep(before=1.0)
    assert (pool.open, pool.get(), pool.get(), pool.get()) == (2, connections[2], connections[1], None)
    connections[1].send(b"GET")
    assert repr(connections[1]) == "<Connection 10.0.0.1 busy status=0 buffered=0>"
    connections[1].data_received(REPLY)
    pool.close()
    pool.put_back(connections[1], 9.0)
    assert repr(pool) == "<Pool 10.0.0.1 open=1 idle=0 closed>"


async def test_pools_follow_addresses() -> None:
    pools = Pools(asyncio.get_running_loop(), 8080)
    first = pools.of("default/a", "10.0.0.1")
    assert pools.of("default/a", "10.0.0.1") is first
    second = pools.of("default/a", "10.0.0.2")
    assert (second is first, repr(first)) == (False, "<Pool 10.0.0.1 open=0 idle=0 closed>")
    pools.drop("default/a")
    assert pools.counts() == (0, 0)


async def test_a_closed_connection_is_gone_without_a_collection_of_garbage() -> None:
    """The program's collections are so rare that what waits for them looks like a leak."""
    gc.collect()
    gc.disable()
    try:
        connection = await connected()
        connection.send(b"GET")
        connection.data_received(REPLY)
        connection.transport.close()
        del connection
        assert not [kept for kept in gc.get_objects() if isinstance(kept, Connection)]
    finally:
        gc.enable()
