"""Bodies of requests: small ones are held whole, larger ones flow, none exceeds its limit, and nobody stalls.

Held: so that they can be sent again and written together with the head. Flowing: the first piece is held as well, so
that an instance which could not be reached costs nothing. What is held comes out of a budget for the whole gateway.
"""

import asyncio
from typing import Final

from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

from kappa_gateway.errors import GatewayError
from kappa_gateway.held import Held, Holder, Purse
from kappa_gateway.request import Request
from kappa_gateway.server import Client
from kappa_gateway.settings import Limits
from kappa_gateway.upstream import Connection

#: How long an instance has to refuse before more of a large body is taken than can be sent again.
REFUSAL_SECONDS: Final = 0.005
#: How long a runtime of ours, which says when it has admitted an invocation, has for that.
ADMISSION_SECONDS: Final = 1.0
#: A body that flows takes up to so many times `held_bytes` in the buffers that it flows through.
_FLOWING: Final = 2
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Body:
    """`held`: what has been read so far; `whole`: that is all of it.

    `started`: more than `held` was taken from `source`; `sent`: everything that was not held went to the instance.
    `purse`: what it takes of the budget; None for no body.
    """

    __slots__ = ("_idle", "_limit", "held", "purse", "sent", "size", "source", "started", "whole")

    def __init__(self, source: StreamReader, limit: int, idle: float, purse: Purse | None = None) -> None:
        self.source, self._limit, self._idle, self.purse = source, limit, idle, purse
        self.held = b""
        self.size = 0
        self.whole = self.started = self.sent = False

    @property
    def resendable(self) -> bool:
        return not self.started

    async def read(self, latest: float = float("inf")) -> bytes:
        """The next piece, empty at the end. Raises GatewayError: 408 when it does not come, 413 when it is too much.

        `latest`: the loop's time at which waiting ends, if that is sooner than usual.
        """
        if self.source.is_eof():
            piece = await self.source.readany()
        else:
            try:
                async with asyncio.timeout_at(min(latest, asyncio.get_running_loop().time() + self._idle)):
                    piece = await self.source.readany()
            except TimeoutError as error:
                raise GatewayError("request_timeout", "the body stopped coming", close=True) from error
        self.size += len(piece)
        if self.size > self._limit:
            raise too_large(self._limit)
        return piece

    async def pump(self, connection: Connection, *, chunked: bool, first: bytes = b"") -> None:
        """Sends what is not held to the instance, as fast as the slower of the two sides goes.

        `first`: what is held, framed, when the instance was asked to say that it wants the body.
        """
        if first:
            await connection.go_ahead(ADMISSION_SECONDS)
        else:
            await asyncio.sleep(REFUSAL_SECONDS)
        if connection.refused:
            return
        if first:
            connection.write(first)
        while piece := await self.read():
            self.started = True
            connection.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            await connection.drain()
        if chunked:
            connection.write(b"0\r\n\r\n")
        self.sent = True
        if self.started:  # it cannot be sent again
            self.held = b""
            self.close()

    def close(self) -> None:
        """Gives back what it took of the budget. May be called again."""
        if self.purse is not None:
            self.purse.close()


def too_large(limit: int) -> GatewayError:
    return GatewayError("body_too_large", f"the body is larger than {limit} bytes", close=True)


NO_BODY: Final = Body(EMPTY_PAYLOAD, 0, 0)
NO_BODY.whole = True


class Bodies:
    """Makes and reads bodies under the gateway's limits, within one budget."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.budget = Held(limits.held_total_bytes)

    def make(self, request: Request, payload: StreamReader, most: int, holder: Holder) -> Body:
        """`most`: the function's own limit in bytes, 0 for none. Raises GatewayError."""
        limit = min(self._limits.body_bytes, most or self._limits.body_bytes)
        if request.length > limit:
            raise too_large(limit)
        return Body(payload, limit, self._limits.body_idle_seconds, Purse(self.budget, holder))

    async def hold(self, body: Body, client: Client, request: Request, most: int = 0) -> None:
        """Reads the body as far as it is to be held: `most` bytes, 0 for the usual. Raises GatewayError."""
        limits, payload = self._limits, body.source
        most = most or limits.held_bytes
        if request.continues and not payload.is_eof() and not payload.total_bytes:
            client.send(_CONTINUE)
        begun = asyncio.get_running_loop().time()
        pieces: list[bytes] = []
        while body.size <= most:
            piece = await body.read(begun + limits.body_idle_seconds + body.size / limits.body_rate)
            if not piece:
                body.whole = True
                break
            self._pay(body, len(piece))
            pieces.append(piece)
            if payload.at_eof():
                body.whole = True
                break
        body.held = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if not body.whole:
            self._pay(body, _FLOWING * limits.held_bytes)

    def _pay(self, body: Body, size: int) -> None:
        if body.purse is not None and not body.purse.take(size):
            message = "the gateway holds too many bodies of waiting calls of this function"
            raise GatewayError("overloaded", message, close=not body.source.is_eof())
