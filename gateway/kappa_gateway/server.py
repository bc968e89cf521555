"""The data port's server side: aiohttp's `web.Server` and its parser, with our own loop over a connection's requests.

aiohttp's loop makes a task, a request object and a stream writer for each request, and prepares a `Response`: half of
the cost of a proxied call (measured: 22 of 45 microseconds). `Client.start` replaces that loop and hands the parsed
message to the gateway, which writes bytes itself. The rest is aiohttp's: parsing, flow control, keep-alive timer.

What is added to it: caps of connections (`door.py`), errors of parsing as our JSON, a limit to the time of sending a
head, a body that turns out to be malformed wakes its reader, and connections are closed so that the last reply arrives
(RFC 9112 section 9.6).
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, cast

from aiohttp import web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import BadHttpMethod, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from kappa_gateway import caller_keys, door
from kappa_gateway.errors import GatewayError, render
from kappa_gateway.settings import Limits

#: How long a closing connection still swallows what its client sends, so that the reply is not destroyed by a reset.
LINGER_SECONDS: Final = 2.0
#: Connections turned away that may linger at the same time (fewer where few may stay); beyond, they are closed at once.
LINGERING: Final = 100

#: So many refusals (429) in a row are answered as fast as they come. After that the connection rests before its next
#: request is looked at, longer each time, so that whoever calls in a loop does not get the core that others need.
FREE_REFUSALS: Final = 5
REST_SECONDS: Final = 0.01
LONGEST_REST: Final = 0.1
#: How long they do: a reply that was sent before the request came is soon read.
TURN_AWAY_SECONDS: Final = 0.5

#: Serves one request; returns whether the connection can carry another.
Handler = Callable[["Client", RawRequestMessage, StreamReader], Awaitable[bool]]


class Relayed(Protocol):
    """What took the connection over (a WebSocket)."""

    def client_ready(self) -> None: ...


class ClientGoneError(ConnectionError):
    """The caller left, or does not take its reply."""


class Client(RequestHandler):
    """One connection of a caller."""

    __slots__ = (
        "_body",
        "_head_timer",
        "_inside",
        "_refusals",
        "_server",
        "address",
        "caller",
        "forwarded",
        "forwarded_host",
        "late_expiry",
        "refused",
        "relay",
        "served",
    )

    def __init__(self, server: "DataServer", **options: Any) -> None:
        super().__init__(server, **options)
        self._server = server
        self._body: StreamReader = EMPTY_PAYLOAD
        self._head_timer: asyncio.TimerHandle | None = None
        self._inside = False  # the door counts this connection
        self.address = b""  # the caller's, as text
        self.caller = caller_keys.UNKNOWN  # the key of that address
        self.forwarded = b""  # header lines that tell of this caller, for requests to `forwarded_host`
        self.forwarded_host: bytes | None = None
        self.relay: Relayed | None = None
        self.served = 0
        self.refused = False  # a limit was exceeded by the request that was served last
        self._refusals = 0  # in a row
        self.late_expiry = False  # a deadline cancelled this task after its request was done

    # --- what the gateway uses ----------------------------------------------------------------------------------------
    @property
    def task(self) -> "asyncio.Task[None] | None":
        return self._task_handler

    @property
    def full(self) -> bool:
        """The caller does not keep up: `drain` before sending more."""
        return self._paused

    def send(self, data: bytes) -> None:
        """Raises ClientGoneError."""
        transport = self.transport
        if transport is None:
            raise ClientGoneError("the client closed the connection")
        transport.write(data)

    async def drain(self) -> None:
        """Waits until the caller took enough. Raises ClientGoneError when it took nothing for too long."""
        try:
            async with asyncio.timeout(self._server.limits.send_idle_seconds):
                await self._drain_helper()
        except (TimeoutError, ConnectionError) as error:
            self.abort()
            raise ClientGoneError("the client does not read its reply") from error

    def abort(self) -> None:
        """Ends the connection so that the caller sees a broken reply, not a short one."""
        if self.transport is not None:
            self.transport.abort()

    # --- the loop over requests ---------------------------------------------------------------------------------------
    async def start(self) -> None:
        loop, handle = self._loop, self._server.handle
        keep = True
        while keep and not self._force_close:
            if not self._messages:
                if self._close:
                    break
                self._waiter = loop.create_future()
                try:
                    await self._waiter
                except asyncio.CancelledError:
                    if self.late_expiry and not self._force_close:
                        self.late_expiry = False
                        continue
                    raise
                finally:
                    self._waiter = None
            message, payload = self._messages.popleft()
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None
            if self._parser is not None:
                self._parser.message_consumed()
            if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
                self._resume_reading_if_drained()
            if isinstance(message, _ErrInfo):
                self._refuse(_failure(message, self._server.limits))
                self._end(linger=True)
                return
            self._body = payload
            self.served += 1
            self._server.requests_count += 1
            keep = await handle(self, message, payload) and (payload.is_eof() or await self._swallow(payload))
            if self.refused:
                self.refused = False
                self._refusals += 1
                if self._refusals > FREE_REFUSALS and keep and self._server.per_address:
                    await self._rest()
            elif self._refusals:
                self._refusals = 0
            if keep:
                self._body = EMPTY_PAYLOAD
                self._next_keepalive_close_time = close_time = loop.time() + self._keepalive_timeout
                if self._keepalive_handle is None:
                    self._keepalive_handle = loop.call_at(close_time, self._process_keepalive)
        self._end(linger=bool(self._messages) or self._upgraded or not self._body.is_eof())

    async def _rest(self) -> None:
        self._server.rests += 1
        try:
            await asyncio.sleep(min(LONGEST_REST, REST_SECONDS * (self._refusals - FREE_REFUSALS)))
        except asyncio.CancelledError:
            if not self.late_expiry or self._force_close:
                raise
            self.late_expiry = False

    async def _swallow(self, payload: StreamReader) -> bool:
        """Throws away the rest of a body that nobody wants, so that the connection can carry the next request."""
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while not payload.at_eof():
                    await payload.readany()
        except (TimeoutError, GatewayError, web.RequestPayloadError):
            return False
        return True

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages:
            if isinstance(self._messages[-1][0], _ErrInfo) and not self._body.is_eof():
                # aiohttp forgets the body that was being read when what followed could not be parsed
                self._body.set_exception(GatewayError("bad_request", "the body is malformed", close=True))
        elif self._waiter is not None and self._head_timer is None and data:
            self._head_timer = self._loop.call_later(self._server.limits.head_seconds, self._head_too_slow)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = transport.get_extra_info("peername")
        self.address = peer[0].encode() if isinstance(peer, tuple) else b"unknown"
        self.caller = caller_keys.by_address(self.address)
        if not self._server.door.enter(self.caller):
            self._close = True  # nothing that comes is read
            self._server.turn_away(transport, door.ADDRESS)
            return
        self._inside = True
        super().connection_made(transport)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.relay is not None:
            self.relay.client_ready()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        self._leave()
        super().connection_lost(exc)

    # --- ending -------------------------------------------------------------------------------------------------------
    @property
    def idle(self) -> bool:
        """Between two requests, with nothing of the next one received."""
        return self._waiter is not None and not self._messages and self._head_timer is None

    @property
    def idle_since(self) -> float:
        """When it became idle, in the loop's time; infinity while it is not."""
        return self._next_keepalive_close_time - self._keepalive_timeout if self.idle else float("inf")

    def retire(self) -> None:
        """Closes the connection if it is idle; otherwise it ends with the current request."""
        if self.idle:
            self._leave()
            self.force_close()

    def _leave(self) -> None:
        if self._inside:
            self._inside = False
            self._server.door.leave(self.caller)

    def _head_too_slow(self) -> None:
        self._head_timer = None
        if self._waiter is not None and not self._messages:
            self._refuse(GatewayError("request_timeout", "the head of the request took too long", close=True))
            self._end(linger=True)

    def _refuse(self, failure: GatewayError) -> None:
        if self.transport is not None:
            self.transport.write(render(failure, self._server.new_request_id(), keep=False))
        self._server.count_refused(failure)

    def _end(self, *, linger: bool) -> None:
        """Closes the connection. `linger`: the caller may still be sending; a reset would destroy the reply it has not
        read yet, so our side closes first and what comes is thrown away until the caller hangs up."""
        self._close = True
        if self._waiter is not None:
            self._waiter.cancel()
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if not linger or not transport.can_write_eof():
            transport.close()
            return
        if self._reading_paused or self._buffer_paused:
            transport.resume_reading()
        transport.write_eof()
        self._loop.call_later(LINGER_SECONDS, transport.abort)


class TurnedAway(asyncio.Protocol):
    """A connection beyond the cap: it is told so, and costs as little as can be."""

    def __init__(self, server: "DataServer") -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._server.turn_away(transport, door.TOTAL)


class DataServer(web.Server):
    """Makes a Client per connection. `handle` is the gateway's request chain; `per_address` False: all connections are
    those of a few proxies, so what one of them carries too much of must not be held against it."""

    def __init__(
        self,
        handle: Handler,
        limits: Limits,
        *,
        new_request_id: Callable[[], bytes],
        count_refused: Callable[[GatewayError], None],
        per_address: bool = True,
    ) -> None:
        super().__init__(_unused, handler_cancellation=True)
        self.handle, self.limits = handle, limits
        self.new_request_id, self.count_refused = new_request_id, count_refused
        each = limits.connections_per_address or max(1, limits.connections // 2)
        self.per_address = per_address
        self.rests = 0  # pauses of connections that were refused in a loop
        self.door = door.Door(limits.connections, each if per_address else 0, lambda: self.clients)
        self._lingering, self._most_lingering = 0, min(LINGERING, max(4, limits.connections // 4))

    def turn_away(self, made: asyncio.BaseTransport, reason: str) -> None:
        """Answers a connection that may not stay, and closes it."""
        self.door.turned_away[reason] += 1
        transport = cast(asyncio.Transport, made)  # uvloop's is none by its class
        if self._lingering >= self._most_lingering:
            transport.abort()
            return
        whose = "this address has" if reason == door.ADDRESS else "there are"
        failure = GatewayError("too_many_connections", f"{whose} too many connections to this gateway", close=True)
        transport.write(render(failure, self.new_request_id(), keep=False))
        transport.write_eof()
        self._lingering += 1
        self._loop.call_later(TURN_AWAY_SECONDS, self._turned_away, transport)

    def _turned_away(self, transport: asyncio.Transport) -> None:
        self._lingering -= 1
        transport.abort()

    def __call__(self) -> asyncio.Protocol:  # type: ignore[override]
        if self.door.full(self._loop.time()):
            return TurnedAway(self)
        return Client(
            self,
            loop=self._loop,
            access_log=None,
            keepalive_timeout=self.limits.idle_seconds,
            max_line_size=self.limits.url_bytes,
            max_field_size=self.limits.header_bytes,
            max_headers=self.limits.header_count,
            read_bufsize=self.limits.held_bytes,
            auto_decompress=False,
        )

    @property
    def clients(self) -> list[Client]:
        return [connection for connection in self.connections if isinstance(connection, Client)]


async def _unused(request: web.BaseRequest) -> web.StreamResponse:
    raise NotImplementedError("Client.start does not make requests of aiohttp's kind")


def _failure(info: _ErrInfo, limits: Limits) -> GatewayError:
    """What aiohttp's parser said, in our words. It says 400 to everything; the limit tells which line was too long."""
    error = info.exc
    if isinstance(error, LineTooLong):
        if error.args[1] == limits.url_bytes:
            return GatewayError("url_too_long", f"the URL is longer than {limits.url_bytes} bytes", close=True)
        return GatewayError("headers_too_large", f"a header is longer than {limits.header_bytes} bytes", close=True)
    if "Too many headers" in info.message:
        return GatewayError("headers_too_large", f"more than {limits.header_count} headers", close=True)
    if isinstance(error, BadHttpMethod):
        return GatewayError("bad_request", "this is not an HTTP/1.1 request", close=True)
    return GatewayError("bad_request", "the request is malformed", close=True)
