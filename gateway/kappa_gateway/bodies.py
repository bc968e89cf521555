"""Bodies of requests: small ones are held whole, larger ones flow, none exceeds its limit, and nobody stalls.

Held: so that they can be sent again and written together with the head. Flowing: the first piece is held as well, so
that an instance which could not be reached costs nothing.
"""

import asyncio
from typing import Final

from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

from kappa_gateway.errors import GatewayError
from kappa_gateway.request import Request
from kappa_gateway.server import Client
from kappa_gateway.settings import Limits
from kappa_gateway.upstream import Connection

#: How long an instance has to refuse before more of a large body is taken than can be sent again.
REFUSAL_SECONDS: Final = 0.005
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Body:
    """`held`: what has been read so far; `whole`: that is all of it.

    `started`: more than `held` was taken from `source`; `sent`: everything that was not held went to the instance.
    """

    __slots__ = ("_idle", "_limit", "held", "sent", "size", "source", "started", "whole")

    def __init__(self, source: StreamReader, limit: int, idle: float) -> None:
        self.source, self._limit, self._idle = source, limit, idle
        self.held = b""
        self.size = 0
        self.whole = self.started = self.sent = False

    @property
    def resendable(self) -> bool:
        return not self.started

    async def read(self) -> bytes:
        """The next piece, empty at the end. Raises GatewayError: 408 when it does not come, 413 when it is too much."""
        if self.source.is_eof():
            piece = await self.source.readany()
        else:
            try:
                async with asyncio.timeout(self._idle):
                    piece = await self.source.readany()
            except TimeoutError as error:
                raise GatewayError("request_timeout", "the body stopped coming", close=True) from error
        self.size += len(piece)
        if self.size > self._limit:
            raise too_large(self._limit)
        return piece

    async def pump(self, connection: Connection, *, chunked: bool) -> None:
        """Sends what is not held to the instance, as fast as the slower of the two sides goes."""
        await asyncio.sleep(REFUSAL_SECONDS)
        if connection.refused:
            return
        while piece := await self.read():
            self.started = True
            connection.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            await connection.drain()
        if chunked:
            connection.write(b"0\r\n\r\n")
        self.sent = True


def too_large(limit: int) -> GatewayError:
    return GatewayError("body_too_large", f"the body is larger than {limit} bytes", close=True)


NO_BODY: Final = Body(EMPTY_PAYLOAD, 0, 0)
NO_BODY.whole = True


async def hold(client: Client, request: Request, payload: StreamReader, limits: Limits, limit: int) -> Body:
    """Reads the body as far as it is to be held. `limit`: largest body in bytes. Raises GatewayError."""
    if payload is EMPTY_PAYLOAD:
        return NO_BODY
    if request.length > limit:
        raise too_large(limit)
    body = Body(payload, limit, limits.body_idle_seconds)
    if request.continues and not payload.is_eof() and not payload.total_bytes:
        client.send(_CONTINUE)
    pieces: list[bytes] = []
    while body.size <= limits.held_bytes:
        piece = await body.read()
        if not piece:
            body.whole = True
            break
        pieces.append(piece)
        if payload.at_eof():
            body.whole = True
            break
    body.held = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    return body
