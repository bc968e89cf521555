"""WebSockets (RFC 6455): once the instance agreed to the upgrade, bytes go both ways as they come, until one side ends.

The frames are not parsed, only their borders towards the caller are followed, so that the gateway can put a close frame
of its own between two of the function's: 1001 (going away) when it shuts down, 1014 (bad gateway) when the instance
died.
"""

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from kappa_api import names
from kappa_gateway.server import Client
from kappa_gateway.upstream import Connection

if TYPE_CHECKING:
    from kappa_gateway.app import Gateway
    from kappa_gateway.call import Call

log = logging.getLogger(__name__)

#: An unmasked close frame with code 1001.
GOING_AWAY: Final = b"\x88\x02\x03\xe9"
_DIED: Final = b"the instance ended the connection"
#: One with code 1014: what 502 is for an ordinary call.
INSTANCE_DIED: Final = b"\x88" + bytes([2 + len(_DIED)]) + b"\x03\xf6" + _DIED
_CLOSE: Final = 0x8
_HIGH_WATER: Final = 128 * 1024


class FrameBorder:
    """Follows a stream of frames (RFC 6455 section 5.2). `between`: the last byte fed ended one. `closed`: there was a
    close frame, after which nothing may follow.
    """

    def __init__(self) -> None:
        self._head = b""
        self._left = 0
        self.closed = False

    @property
    def between(self) -> bool:
        return not self._head and not self._left

    def feed(self, data: bytes) -> None:
        at, end = 0, len(data)
        while at < end:
            if self._left:
                step = min(self._left, end - at)
                self._left -= step
                at += step
                continue
            self._head += data[at : at + 1]
            at += 1
            head = self._head
            if len(head) < 2:
                continue
            short = head[1] & 0x7F
            extra = {126: 2, 127: 8}.get(short, 0)
            mask = 4 if head[1] & 0x80 else 0
            if len(head) == 2 + extra + mask:
                self._left = int.from_bytes(head[2 : 2 + extra]) if extra else short
                self._head = b""
                self.closed |= head[0] & 0x0F == _CLOSE


class Relay:
    """Joins a caller's connection to an instance's: the parser of the one, the peer of the other."""

    def __init__(self, client: Client, connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
        self._client, self._connection, self._loop = client, connection, loop
        self._border = FrameBorder()
        self._instance_full = False
        self.broken = False  # the instance ended the connection without a close frame
        self.done: asyncio.Future[None] = loop.create_future()
        self.last = loop.time()

    # --- the caller's side: what aiohttp asks of a payload parser -----------------------------------------------------
    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.last = self._loop.time()
        self._connection.write(data)
        if self._instance_full and self._client.transport is not None:
            self._client.transport.pause_reading()
        return False, b""

    def feed_eof(self) -> None:
        self._finish()

    # --- the instance's side ------------------------------------------------------------------------------------------
    def upstream_data(self, data: bytes) -> None:
        self.last = self._loop.time()
        transport = self._client.transport
        if transport is None:
            return
        self._border.feed(data)
        transport.write(data)
        if transport.get_write_buffer_size() > _HIGH_WATER:
            self._connection.pause_reading()

    def upstream_lost(self) -> None:
        if not self._border.closed and not self.done.done():
            self.broken = True
            self._say(INSTANCE_DIED)
        self._finish()

    def upstream_full(self) -> None:
        self._instance_full = True

    def upstream_ready(self) -> None:
        self._instance_full = False
        if self._client.transport is not None:
            self._client.transport.resume_reading()

    # --- both ---------------------------------------------------------------------------------------------------------
    def client_ready(self) -> None:
        """The caller took what was waiting for it."""
        self._connection.resume_reading()

    def go_away(self) -> None:
        """The gateway stops: tells the caller, where the stream allows it, and ends."""
        self._say(GOING_AWAY)
        self._finish()

    def _say(self, close: bytes) -> None:
        transport = self._client.transport
        if transport is not None and self._border.between and not self._border.closed:
            transport.write(close)

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def relay(gateway: "Gateway", call: "Call", connection: Connection) -> bool:
    """Answers 101 and carries bytes until either side ends, or nothing was said for too long."""
    client = call.client
    loop = asyncio.get_running_loop()
    call.status = 101
    call.replied = True
    gateway.deadlines.discard(call)  # the deadline was for the handshake: a WebSocket lives as long as it is used
    joined = Relay(client, connection, loop)
    gateway.relays.add(joined)
    connection.lines.append(b"connection: Upgrade\r\n%b: %b\r\n" % (names.HEADER_REQUEST_ID.encode(), call.request_id))
    client.send(b"HTTP/1.1 101 Switching Protocols\r\n%b\r\n" % b"".join(connection.lines))
    try:
        client.relay = joined
        connection.peer = joined
        client.set_parser(joined)  # type: ignore[arg-type]  # asks for feed_data and feed_eof only
        if connection.tail:
            joined.upstream_data(connection.tail)
        connection.resume_reading()
        idle = gateway.settings.limits.websocket_idle_seconds
        while not joined.done.done() and connection.transport is not None:
            await asyncio.wait([joined.done], timeout=max(0.1, joined.last + idle - loop.time()))
            if loop.time() - joined.last >= idle:
                break
    finally:
        if joined.broken:
            call.failed = True
            extra = {"requestId": call.request_id.decode("latin-1")}
            log.warning("%s of a WebSocket", _DIED.decode(), extra=extra)
        gateway.relays.discard(joined)
        connection.peer = client.relay = None
        if connection.transport is not None:
            connection.transport.close()
    return False
