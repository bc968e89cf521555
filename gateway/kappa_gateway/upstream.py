"""Our own HTTP/1.1 client to instances: one connection, parsed by httptools. `pool.py` keeps them.

A `Connection` carries one exchange at a time. `send` writes head and body in one piece; `head` waits for the reply's
head, or for the whole reply when it is short and of known length (so that one write answers the caller, and an instance
that dies half-way can still become a clean 502); `read` gives the rest piece by piece and stops reading from the socket
while nobody takes them. The reply's head is already in the form the caller gets it, without hop-by-hop fields.

Trust: a function may send anything. A reply that is not HTTP, a head beyond `MAX_HEAD`, bytes nobody asked for: the
exchange fails or the connection is not used again, and nothing of it reaches another invocation.
"""

import asyncio
from http import HTTPStatus
from typing import Final, Protocol, cast

import httptools

from kappa_gateway.headers import CONNECTION_OPTIONS, PLAIN_CONNECTION, Field, Memo, listed, response_memo
from kappa_gateway.retry import Outcome

#: Replies up to this size and of known length are collected before the caller gets the first byte.
HELD_REPLY: Final = 64 * 1024
#: The largest head of a reply.
MAX_HEAD: Final = 64 * 1024
#: Above this many unread bytes, reading from the instance stops.
HIGH_WATER: Final = 128 * 1024

_STATUS_LINES: Final = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}
_RESPONSE_FIELDS: Final[Memo] = response_memo()


#: Stands for the parser of a connection that is not open yet, or no more.
_SPENT: Final = httptools.HttpResponseParser(object())


def status_line(status: int) -> bytes:
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


class UpstreamError(Exception):
    """An exchange that did not bring a reply; `outcome` says how."""

    def __init__(self, outcome: Outcome, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome


class TruncatedError(Exception):
    """The reply ended before its end: after the head was given to the reader."""


class Owner(Protocol):
    """What a connection belongs to: `pool.Pool`. `open` counts the connections that are not closed."""

    address: str
    open: int

    def forget(self, connection: "Connection") -> None:
        """The connection is closed."""


class Connection(asyncio.Protocol):
    """One TCP connection to one instance."""

    __slots__ = (
        "_body",
        "_buffered",
        "_chunked",
        "_connection_field",
        "_dirty",
        "_drain_waiter",
        "_error",
        "_go",
        "_head_bytes",
        "_head_only",
        "_informational",
        "_keep",
        "_loop",
        "_parser",
        "_paused_reading",
        "_paused_writing",
        "_waiter",
        "_wants_upgrade",
        "busy",
        "complete",
        "continued",
        "head_done",
        "idle_since",
        "length",
        "lines",
        "peer",
        "pool",
        "refused",
        "status",
        "tail",
        "transport",
        "upgraded",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, pool: "Owner") -> None:
        self._loop, self.pool = loop, pool
        self.transport: asyncio.Transport | None = None
        self.peer: Peer | None = None  # takes the raw bytes after an upgrade
        self.tail = b""  # raw bytes that came before there was a peer
        self.idle_since = 0.0
        self.busy = self.upgraded = False
        self._parser = _SPENT
        self._waiter: asyncio.Future[None] | None = None
        self._go: asyncio.Future[None] | None = None
        self._drain_waiter: asyncio.Future[None] | None = None
        self._paused_reading = self._paused_writing = self._dirty = False
        self._reset(False, False)

    def _reset(self, head_only: bool, wants_upgrade: bool) -> None:
        self.lines: list[bytes] = []
        self.status = 0
        self.length = -1  # of the body as announced; -1: not announced
        self.refused = b""
        self.head_done = self.complete = self.continued = False
        self._head_only, self._wants_upgrade = head_only, wants_upgrade
        self._head_bytes = 0
        self._body: list[bytes] = []
        self._buffered = 0
        self._connection_field = b""
        self._chunked = self._informational = False
        self._keep = True
        self._error: UpstreamError | None = None

    # --- the exchange -------------------------------------------------------------------------------------------------
    def send(self, data: bytes, *, head_only: bool = False, wants_upgrade: bool = False) -> None:
        """Starts an exchange: `data` is the request's head with as much of the body as is there."""
        self._reset(head_only, wants_upgrade)
        self.busy = True
        if self.transport is None:
            raise UpstreamError(Outcome.UNREACHABLE, "the connection was already closed")
        self.transport.write(data)

    def write(self, data: bytes) -> None:
        """More of the request's body, already framed; or raw bytes after an upgrade."""
        if self.transport is not None:
            self.transport.write(data)

    async def drain(self) -> None:
        """Waits until the instance takes more."""
        if self._paused_writing and self.transport is not None:
            self._drain_waiter = self._loop.create_future()
            await self._drain_waiter

    async def go_ahead(self, seconds: float) -> None:
        """Waits until the instance says that it wants the body (100 Continue), answers, or is lost; at most `seconds`:
        nobody has to say so (RFC 9110 section 10.1.1)."""
        if not (self.continued or self.head_done or self._error is not None):
            self._go = self._loop.create_future()
            try:
                await asyncio.wait_for(self._go, seconds)
            except TimeoutError:
                pass
            finally:
                self._go = None

    async def head(self) -> None:
        """Waits for the head, and for the rest when the reply is short and of known length. Raises UpstreamError."""
        while True:
            if self._error is not None:
                raise self._error
            if self.complete or (self.head_done and not 0 <= self.length <= HELD_REPLY):
                return
            await self._wait()

    def take(self) -> bytes:
        """What has arrived of the body."""
        body = self._body
        if not body:
            return b""
        data = body[0] if len(body) == 1 else b"".join(body)
        self._body, self._buffered = [], 0
        self.resume_reading()
        return data

    async def read(self) -> bytes:
        """The next piece of the body; empty at its end. Raises TruncatedError."""
        while not self._body:
            if self.complete:
                return b""
            if self._error is not None:
                raise TruncatedError(str(self._error)) from self._error
            await self._wait()
        return self.take()

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    @property
    def reusable(self) -> bool:
        return (
            self.complete
            and self._keep
            and not self._dirty
            and not self.upgraded
            and self.transport is not None
            and not self.transport.is_closing()
        )

    def abort(self) -> None:
        """Ends the connection at once."""
        if self.transport is not None:
            self.transport.abort()

    def pause_reading(self) -> None:
        if not self._paused_reading and self.transport is not None:
            self._paused_reading = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self._paused_reading:
            self._paused_reading = False
            if self.transport is not None:
                self.transport.resume_reading()

    # --- asyncio ------------------------------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpResponseParser(self)
        self.pool.open += 1

    def data_received(self, data: bytes) -> None:
        if self.upgraded:
            if self.peer is not None:
                self.peer.upstream_data(data)
            else:
                self.tail += data
                if len(self.tail) > HIGH_WATER:
                    self.pause_reading()
            return
        if not self.busy or self.complete:  # nobody asked: whatever this is, no other exchange may see it
            self._dirty = True
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.upgraded = self.complete = True
            self.tail = data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            self._dirty = True
            self._fail(Outcome.GARBAGE, f"the reply is not HTTP: {error}")
            self.abort()
            return
        if not self.head_done:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD:
                self._fail(Outcome.GARBAGE, "the head of the reply is too large")
                self.abort()
        elif len(data) > MAX_HEAD and sum(map(len, self.lines)) > MAX_HEAD:
            self.complete = False
            self._fail(Outcome.GARBAGE, "the head of the reply is too large")
            self.abort()
        elif self.complete or not 0 <= self.length <= HELD_REPLY:
            self._wake()
            if self._buffered > HIGH_WATER:
                self.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        # The parser knows us as we know it. Nothing else is in such a circle, and collections of garbage are rare.
        self._parser = _SPENT
        if self.busy and not self.complete:
            # RFC 9112 section 6.3: without a length, the end of the connection is the end of the body
            if self.head_done and self.length < 0 and not self._chunked and exc is None:
                self.complete, self._keep = True, False
                self._wake()
            else:
                self._fail(Outcome.LOST, "the instance closed the connection")
        waiter, self._drain_waiter = self._drain_waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        self.pool.forget(self)
        if self.peer is not None:
            self.peer.upstream_lost()

    def pause_writing(self) -> None:
        self._paused_writing = True
        if self.peer is not None:
            self.peer.upstream_full()

    def resume_writing(self) -> None:
        self._paused_writing = False
        waiter, self._drain_waiter = self._drain_waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        if self.peer is not None:
            self.peer.upstream_ready()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _fail(self, outcome: Outcome, message: str) -> None:
        if self._error is None and not self.complete:
            self._error = UpstreamError(outcome, message)
            self._wake()
            self._proceed()

    def _proceed(self) -> None:
        if self._go is not None and not self._go.done():
            self._go.set_result(None)

    # --- httptools ----------------------------------------------------------------------------------------------------
    def on_message_begin(self) -> None:
        if self.complete:
            self._dirty = True  # a second reply to one request

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head_done:  # trailers are not passed on
            return
        kind = _RESPONSE_FIELDS[name]
        if not kind:
            self.lines.append(b"%b: %b\r\n" % (name, value))
        elif kind is Field.CONTENT_LENGTH:
            self.length = int(value)
        elif kind is Field.REFUSED:
            self.refused = value.strip()
        elif kind is Field.CONNECTION:
            if value not in PLAIN_CONNECTION:
                self._connection_field += b"," + value
        elif kind is Field.TRANSFER_ENCODING:
            self._chunked = True
        elif kind is Field.UPGRADE and self._wants_upgrade:
            self.lines.append(b"%b: %b\r\n" % (name, value))

    def on_headers_complete(self) -> None:
        if self.complete:
            self._dirty = True
            return
        self.status = status = self._parser.get_status_code()
        if not 100 <= status <= 599:
            raise ValueError("not a status of HTTP")
        if status == 101 and not (self._wants_upgrade and self._parser.should_upgrade()):
            raise ValueError("the function switched protocols without being asked")
        if status < 200 and status != 101:
            self._informational = True
            self.lines, self.length = [], -1
            return
        self._keep = self._parser.should_keep_alive()
        if self._connection_field:
            unwanted = listed(self._connection_field) - CONNECTION_OPTIONS
            if unwanted:
                self.lines = [line for line in self.lines if line.split(b":", 1)[0].lower() not in unwanted]
        self.head_done = True
        self._proceed()
        if self._head_only:
            # The parser cannot be told that this reply has no body; it would take the next reply for it.
            self.complete = True
            self._parser = httptools.HttpResponseParser(self)

    def on_body(self, data: bytes) -> None:
        if self.complete:
            self._dirty = True
            return
        self._body.append(data)
        self._buffered += len(data)

    def on_message_complete(self) -> None:
        if self._informational:
            self._informational = False
            if self.status == 100:
                self.continued = True
                self._proceed()
        else:
            self.complete = True

    def __repr__(self) -> str:
        state = "closed" if self.transport is None else "upgraded" if self.upgraded else "busy" if self.busy else "idle"
        return f"<Connection {self.pool.address} {state} status={self.status} buffered={self._buffered}>"


class Peer(Protocol):
    """The other end of an upgraded connection."""

    def upstream_data(self, data: bytes) -> None: ...
    def upstream_lost(self) -> None: ...
    def upstream_full(self) -> None: ...
    def upstream_ready(self) -> None: ...
