"""The server side of HTTP/1.1 (RFC 9112) on httptools: bytes in, `Exchange`s out.

A `Connection` parses, keeps requests that came pipelined in order, and guards against clients that are slow, too large
or malicious (what is refused: `framing.py`). It hands each request to the server with its header section complete
(`Host.begin`), which gives it a `Consumer` for what follows. The reply side is in `exchange.py`.
"""

import asyncio
from collections import deque
from typing import Protocol, cast

import httptools

from kappa_runtime.exchange import FAREWELL, Consumer, Exchange, Request
from kappa_runtime.framing import BadRequestError, check
from kappa_runtime.settings import Settings

MAX_HEADERS = 256
#: Bytes of a chunked body that are neither data nor the start of a chunk (extensions, trailers), in a row.
MAX_CHUNK_OVERHEAD = 16 << 10
WRITE_PIECE = 256 << 10
EARLY_TUNNEL_BYTES = 64 << 10


class Host(Protocol):
    """What a connection needs of the server."""

    settings: Settings
    connections: set["Connection"]
    closing: bool

    def begin(self, exchange: Exchange) -> None:
        """Sets the exchange's consumer, or replies at once."""


class Connection(asyncio.Protocol):
    """One client connection. All of it runs on the server's loop."""

    def __init__(self, host: Host, loop: asyncio.AbstractEventLoop) -> None:
        self.host, self.loop = host, loop
        self.transport: asyncio.Transport
        self.tunnel: Consumer | None = None
        self.writable = True
        self._parser = httptools.HttpRequestParser(self)
        self._queue: deque[Exchange] = deque()
        self._incoming: Exchange | None = None
        self._pending: deque[memoryview] = deque()
        self._pending_done: Exchange | None = None
        self._held = self._paused = False
        self._in_head, self._begun = True, False
        self._head_bytes = self._overhead = self._dropped = 0
        self._chunk_progress = self._after_chunked = False
        self._error: BadRequestError | None = None
        self._deaf = self._lost = False
        self._since = loop.time()
        self._closing_since = 0.0
        self._unsent, self._stalled_since = 0, 0.0

    def __repr__(self) -> str:
        state = "closed" if self._lost else "tunnel" if self.tunnel else "closing" if self._deaf else "open"
        return f"<Connection {state}, {len(self._queue)} requests>"

    @property
    def busy(self) -> bool:
        """Whether a reply is under way."""
        under_way = any(exchange.started and not exchange.finished for exchange in self._queue)
        return bool(under_way or self._pending or self.transport.get_write_buffer_size())

    # --- asyncio.Protocol -------------------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=WRITE_PIECE)
        self.host.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = self._deaf = True
        self._pending.clear()
        self.host.connections.discard(self)
        if self.tunnel:
            self.tunnel.gone()
        queue, self._queue = self._queue, deque()
        for exchange in queue:
            exchange.lost()

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self._pump()
        if self.writable:
            if self.tunnel:
                self.tunnel.writable()
            elif self._queue:
                self._queue[0].consumer.writable()

    def eof_received(self) -> bool:
        queue = self._queue
        if self.tunnel or not queue or not queue[-1].complete or queue[0].consumer.needs_client:
            return False
        self._deaf = True
        queue[-1].keep_alive = False
        return True

    def data_received(self, data: bytes) -> None:
        if self.tunnel:
            self.tunnel.body(data)
            self.tunnel.flush()
            return
        if self._queue and self._queue[0].waits_for_tunnel:
            self._early_tunnel(data)
            return
        if self._deaf:
            self._drop(len(data))
            return
        size = len(data)
        self._chunk_progress = False
        try:
            if self._in_head:
                self._head_bytes += size
                if not self._begun:
                    self._since = self.loop.time()
            self._parser.feed_data(data)
            self._guard(size)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgraded(data[upgrade.args[0] :])
        except BadRequestError as error:
            self._refuse(error)
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(
                cause if isinstance(cause, BadRequestError) else BadRequestError(400, f"not HTTP/1.1: {error}")
            )
            if cause is not None and not isinstance(cause, BadRequestError):
                raise
        if self._queue:
            self._queue[0].consumer.flush()

    # --- parser callbacks -------------------------------------------------------------------------------------------
    def on_message_begin(self) -> None:
        if self._after_chunked:
            # httptools would report a trailer of the chunked request as a header of this one.
            raise BadRequestError(400, "a request may not be pipelined behind a chunked one")
        self._begun = True
        self._incoming = Exchange(self, Request())

    def on_url(self, url: bytes) -> None:
        request = self._request()
        request.target += url
        if len(request.target) > self.host.settings.max_target_bytes:
            raise BadRequestError(414, f"the request target is longer than {self.host.settings.max_target_bytes} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # a trailer: dropped, it must not pass for a header
        headers = self._request().headers
        headers.append((name.lower(), value))
        if len(headers) > MAX_HEADERS:
            raise BadRequestError(431, f"more than {MAX_HEADERS} headers")

    def on_headers_complete(self) -> None:
        exchange = self._incoming
        assert exchange is not None
        request = exchange.request
        request.method = self._parser.get_method().decode()
        request.version = self._parser.get_http_version()
        exchange.keep_alive = self._parser.should_keep_alive() and not self.host.closing
        check(request, self.host.settings.max_head_bytes)
        request.upgrade = self._parser.should_upgrade()
        if request.upgrade:
            exchange.keep_alive = False  # llhttp reads no further request, whatever becomes of this one
        self._in_head = self._begun = False
        self._head_bytes = 0
        self._queue.append(exchange)
        if len(self._queue) == 1:
            self.host.begin(exchange)
        else:
            self._hold()

    def on_body(self, data: bytes) -> None:
        self._chunk_progress = True
        exchange = self._incoming
        if exchange is None or exchange.finished:
            self._drop(len(data))
        elif exchange is self._queue[0]:
            exchange.consumer.body(data)
        else:
            exchange.early.append(data)

    def on_chunk_complete(self) -> None:
        self._chunk_progress = True

    def on_message_complete(self) -> None:
        exchange, self._incoming = self._incoming, None
        self._in_head = True
        self._head_bytes = self._overhead = 0
        self._since = self.loop.time()
        if exchange is None:
            return
        if exchange.request.chunked:
            self._after_chunked = True
        exchange.complete = True
        if exchange.finished and self._deaf:
            self.transport.close()  # it only lingered for the end of this request
        elif exchange.finished:
            self._next()
        elif exchange is self._queue[0]:
            exchange.consumer.complete()

    # --- for Exchange -----------------------------------------------------------------------------------------------
    def send(self, data: bytes) -> None:
        if not self._lost:
            self.transport.write(data)

    def send_large(self, exchange: Exchange, body: bytes) -> None:
        """Writes in pieces, as fast as the client takes them, then ends the exchange."""
        view = memoryview(body)
        self._pending.extend(view[i : i + WRITE_PIECE] for i in range(0, len(view), WRITE_PIECE))
        self._pending_done = exchange
        self._pump()

    def done(self, exchange: Exchange) -> None:
        """The reply is complete. Goes on to the next request, or closes."""
        if self._lost:
            return
        if exchange.keep_alive and exchange.complete and self.host.closing:
            self._queue.clear()
            self.leave()
        elif not exchange.keep_alive or self.host.closing:
            self.close(linger=not exchange.complete)
        elif exchange.complete:
            self._next()
        else:
            self._dropped, self._closing_since = 0, self.loop.time()
            self.hold_reading(False)

    def hold_reading(self, held: bool) -> None:
        """Back-pressure: stops or resumes reading from this client."""
        self._held = held
        self._hold()

    def abort(self) -> None:
        if not self._lost:
            self.transport.abort()

    def close(self, linger: bool) -> None:
        """Closes once everything is written. With `linger`, first reads and drops what the client is still sending."""
        self._deaf = True
        if self._lost or self._closing_since:
            return
        if linger and not self.transport.is_closing():
            self._held = False
            self._queue.clear()
            self._hold()
            self._closing_since = self.loop.time()
            self.transport.write_eof()
        else:
            self.transport.close()

    def leave(self) -> None:
        """Closes a connection whose client may be writing a request at this moment: it finds a refusal as its answer,
        instead of a connection that ended for no reason (RFC 9112, 9.5, knows no other remedy than to repeat)."""
        if not (self._lost or self._deaf or self._queue or self.transport.is_closing()):
            self.transport.write(FAREWELL)
            self.close(linger=True)
        elif not self._closing_since:
            self.close(linger=False)

    def enter_tunnel(self, consumer: Consumer) -> None:
        """From now on all bytes go to `consumer.body`."""
        self.tunnel = consumer

    # --- time -------------------------------------------------------------------------------------------------------
    def sweep(self, now: float) -> None:
        """Called about once a second: cuts what takes too long. `now` is the loop's time."""
        settings = self.host.settings
        unsent = self.transport.get_write_buffer_size() + sum(map(len, self._pending))
        if unsent:
            if unsent != self._unsent or not self._stalled_since:
                self._stalled_since = now
            elif now - self._stalled_since > settings.stall_seconds:
                self.transport.abort()
            self._unsent = unsent
            return
        self._unsent, self._stalled_since = 0, 0.0
        if self._closing_since and now - self._closing_since > settings.linger_seconds:
            self.transport.close()
        elif self.tunnel or self._queue or self._deaf:
            return
        elif self._begun or self._head_bytes:
            if now - self._since > settings.head_seconds:
                self._refuse(BadRequestError(408, "the request took too long to arrive"))
        elif self.host.closing or now - self._since > settings.keep_alive_seconds:
            self.leave()

    # --- inside -----------------------------------------------------------------------------------------------------
    def _request(self) -> Request:
        assert self._incoming is not None
        return self._incoming.request

    def _guard(self, size: int) -> None:
        settings = self.host.settings
        if self._in_head:
            if self._begun and self._head_bytes > settings.max_head_bytes + size:
                raise BadRequestError(431, f"the header section is larger than {settings.max_head_bytes} bytes")
        elif self._incoming and self._incoming.request.chunked:
            self._overhead = 0 if self._chunk_progress else self._overhead + size
            if self._overhead > MAX_CHUNK_OVERHEAD:
                raise BadRequestError(400, "chunk extensions or trailers are too large")
        if self._after_chunked and self._incoming is None:
            # A fresh parser: httptools would report a trailer of this request as a header of the next.
            self._after_chunked = False
            self._parser = httptools.HttpRequestParser(self)

    def _upgraded(self, rest: bytes) -> None:
        """An Upgrade request is complete, and `rest` follows it. What is no WebSocket is served as if it had not
        asked."""
        if self.tunnel:
            if rest:
                self.tunnel.body(rest)
                self.tunnel.flush()
        elif self._queue and self._queue[0].waits_for_tunnel:
            self._early_tunnel(rest)
        else:
            self._deaf = True

    def _early_tunnel(self, data: bytes) -> None:
        """Bytes of a WebSocket client that does not wait for the handshake's answer."""
        exchange = self._queue[0]
        exchange.after_head += data
        if len(exchange.after_head) > EARLY_TUNNEL_BYTES:
            self.transport.abort()

    def _drop(self, size: int) -> None:
        self._dropped += size
        if self._dropped > self.host.settings.linger_bytes:
            self.transport.close()

    def _hold(self) -> None:
        pause = self._held or len(self._queue) > 1
        if pause == self._paused or self._lost or self.transport.is_closing():
            return
        self._paused = pause
        if pause:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def _pump(self) -> None:
        while self._pending and self.writable and not self._lost:
            self.transport.write(self._pending.popleft())
        if not self._pending and self._pending_done:
            exchange, self._pending_done = self._pending_done, None
            exchange.end()

    def _next(self) -> None:
        self._queue.popleft()
        self._closing_since = 0.0
        self._since = self.loop.time()
        self.hold_reading(False)
        if self._queue:
            exchange = self._queue[0]
            self.host.begin(exchange)
            for data in exchange.early:
                exchange.consumer.body(data)
            exchange.early.clear()
            if exchange.complete and not exchange.finished:
                exchange.consumer.complete()
            exchange.consumer.flush()
        elif self._error:
            self._answer_error(self._error)

    def _refuse(self, error: BadRequestError) -> None:
        """Nothing that follows on this connection can be trusted: answers what was sound before, then the error."""
        broken, self._incoming = self._incoming, None
        self._deaf, self._error = True, error
        if not self._queue or broken is None or broken not in self._queue:
            if not self._queue:
                self._answer_error(error)
            return
        if broken is not self._queue[0]:
            self._queue.remove(broken)
            return
        self._queue.popleft()
        broken_reply = broken.started
        broken.lost()
        if broken_reply:
            self.transport.abort()
        else:
            self._answer_error(error)

    def _answer_error(self, error: BadRequestError) -> None:
        reply = Exchange(self, Request())
        reply.keep_alive = False
        reply.fail(error.status, "bad_request", error.message)
