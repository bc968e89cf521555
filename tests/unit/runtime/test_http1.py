"""The connection without a network: however the bytes are cut, the requests are the same."""

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kappa_runtime.exchange import Consumer
from kappa_runtime.http1 import Connection
from kappa_runtime.settings import Settings


class Transport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written, self.closed, self.reading, self.eof = b"", False, True, False

    def write(self, data: Any) -> None:
        assert not self.closed
        self.written += bytes(data)

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def write_eof(self) -> None:
        self.eof = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int) -> None:
        pass


class Echo(Consumer):
    """Replies with method, target and body once the request is complete."""

    def __init__(self, exchange: Any) -> None:
        self.exchange, self.data = exchange, b""

    def body(self, data: bytes) -> None:
        self.data += data

    def complete(self) -> None:
        request = self.exchange.request
        self.exchange.reply(200, [], b"%b %b %b|" % (request.method.encode(), request.target, self.data))


class Host:
    def __init__(self, **settings: Any) -> None:
        self.settings, self.connections, self.closing = Settings(**settings), set(), False

    def begin(self, exchange: Any) -> None:
        exchange.consumer = Echo(exchange)


class Loop:
    now = 1.0

    def time(self) -> float:
        return self.now


def connection(**settings: Any) -> tuple[Any, Transport, Loop]:
    loop, transport = Loop(), Transport()
    made: Any = Connection(Host(**settings), loop)  # type: ignore[arg-type]
    made.connection_made(transport)
    return made, transport, loop


STREAM = (
    b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
    b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
    b"\r\nPUT /c?d HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 50 + b"\r\n\r\n"
    b"POST /e HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: 1\r\n\r\n"
)


@given(st.lists(st.integers(0, len(STREAM)), max_size=30))
def test_any_cut_gives_the_same_requests(cuts):
    conn, transport, _ = connection()
    for start, end in pairwise([0, *sorted(cuts), len(STREAM)]):
        if end > start:
            conn.data_received(STREAM[start:end])
    bodies = [part.rpartition(b"\r\n")[2] for part in transport.written.split(b"|")]
    assert bodies == [b"GET /a ", b"POST /b hello", b"PUT /c?d ", b"POST /e abcde", b""]
    assert repr(conn) == "<Connection open, 0 requests>"
    assert not transport.closed


@given(st.binary(max_size=300))
def test_garbage_is_answered_with_an_error_or_waited_for(data):
    conn, transport, _ = connection()
    conn.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n" + data)
    assert transport.written[:12] in (b"", b"HTTP/1.1 200", b"HTTP/1.1 400", b"HTTP/1.1 431")


@given(st.integers(0, len(STREAM)), st.binary(min_size=1, max_size=5))
def test_damage_anywhere_never_breaks_the_connection_object(position, damage):
    conn, _, loop = connection()
    conn.data_received(STREAM[:position] + damage + STREAM[position + len(damage) :])
    loop.now = 1000.0
    conn.sweep(loop.now)
    conn.connection_lost(None)
    assert repr(conn).startswith("<Connection closed")


def test_reading_stops_while_a_pipelined_request_waits():
    conn, transport, _ = connection()
    held: list[Any] = []
    conn.host.begin = held.append
    request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    conn.data_received(request * 3)
    assert (len(held), transport.reading) == (1, False)
    held[0].reply(200, [], b"")
    assert (len(held), transport.reading) == (2, False)
    held[1].reply(200, [], b"")
    assert (len(held), transport.reading) == (3, True)


@pytest.mark.parametrize(
    ("data", "seconds", "outcome"),
    [
        (b"", 89, "open"),
        (b"", 91, "left"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 89, "open"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 91, "left"),
        (b"GET / HTTP/1.1\r\nHo", 29, "open"),
        (b"GET / HTTP/1.1\r\nHo", 31, "408"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n", 1000, "open"),  # the invocation has its deadline
    ],
)
def test_slow_clients(data, seconds, outcome):
    conn, transport, loop = connection()
    if data:
        conn.data_received(data)
    loop.now += seconds
    conn.sweep(loop.now)
    left = transport.eof and b"kappa-refused: draining" in transport.written
    found = "408" if b" 408 " in transport.written else "left" if left else "open"
    assert found == outcome


def test_after_an_error_what_follows_is_dropped_for_a_while():
    conn, transport, loop = connection(linger_bytes=100, linger_seconds=2.0)
    conn.data_received(b"nonsense\r\n\r\n")
    written = transport.written
    assert (written[:12], transport.eof, transport.closed) == (b"HTTP/1.1 400", True, False)
    conn.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert transport.written == written
    conn.data_received(b"x" * 100)
    assert transport.closed
    conn, transport, loop = connection()
    conn.data_received(b"nonsense\r\n\r\n")
    loop.now += 3.0
    conn.sweep(loop.now)
    assert transport.closed


def test_it_is_an_asyncio_protocol():
    assert issubclass(Connection, asyncio.Protocol)
