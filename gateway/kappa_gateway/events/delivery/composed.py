"""A request's body that is put together while it is sent: events whose data is in the bucket of bodies, others between.

`parts_of_*` are pure and say what comes after what; `ComposedBody` fetches as the instance takes it. A gateway holds a
chunk of it, however many large events make a batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from aiohttp.streams import EMPTY_PAYLOAD

from kappa_gateway.bodies import Body
from kappa_gateway.errors import GatewayError
from kappa_gateway.events.bodies import FetchedBody, StoredBodies
from kappa_gateway.events.bus import UnavailableError
from kappa_gateway.events.stored_data import StoredData, Turner, as_it_is
from kappa_gateway.events.work import Work

#: With less than this at the beginning a request is not begun: head and body leave in one piece.
FIRST: Final = 1024


@dataclass(frozen=True, slots=True)
class Part:
    """Data from the bucket. `inline`: as a part of the JSON format, without quotes; else as it is."""

    name: str
    data: StoredData
    inline: bool

    @property
    def size(self) -> int:
        return self.data.inline if self.inline else self.data.size


Parts = list[bytes | Part]


def parts_of_event(work: Work) -> Parts:
    """One event in the JSON format."""
    if work.data is None:
        return [work.body]
    return [work.body[:-1] + work.data.opening, Part(work.stored, work.data, inline=True), work.data.closing]


def parts_of_batch(works: Sequence[Work]) -> Parts:
    """All of them as a JSON list."""
    found: Parts = [b"["]
    for index, work in enumerate(works):
        found += [b","] * (index > 0) + parts_of_event(work)
    return [*found, b"]"]


def parts_of_data(work: Work) -> Parts:
    """The data alone, as in the binary mode of HTTP."""
    assert work.data is not None
    return [Part(work.stored, work.data, inline=False)]


class ComposedBody(Body):
    """`total`: bytes of all parts. `begin` first. Raises UnavailableError there, GatewayError later."""

    __slots__ = ("_bodies", "_fetched", "_left", "_turner", "total")

    def __init__(self, bodies: StoredBodies, parts: Parts) -> None:
        super().__init__(EMPTY_PAYLOAD, 0, 0)
        self._bodies, self._left = bodies, parts[::-1]
        self._fetched: FetchedBody | None = None
        self._turner: Turner = as_it_is
        self.total = sum(part.size if isinstance(part, Part) else len(part) for part in parts)

    async def begin(self) -> None:
        while len(self.held) < FIRST and (piece := await self._next()):
            self.held += piece
        self.whole = len(self.held) == self.total

    async def read(self, latest: float = float("inf")) -> bytes:
        try:
            return await self._next()
        except UnavailableError as error:
            raise GatewayError("overloaded", f"the stored data cannot be read: {error}") from error

    async def _next(self) -> bytes:
        """Empty at the end."""
        piece = b""
        while not piece and self._left:
            part = self._left[-1]
            if isinstance(part, bytes):
                self._left.pop()
                piece = part
            elif self._fetched is None:
                piece = await self._open(part)
            elif chunk := await self._fetched.more():
                piece = self._turner(chunk, False)
            else:
                piece = self._turner(b"", True)
                self._left.pop()
                self._fetched = None
        self.size += len(piece)
        return piece

    async def _open(self, part: Part) -> bytes:
        fetched = await self._bodies.open(part.name)
        if fetched is None or fetched.total != part.data.size:
            raise UnavailableError(f"{part.name} is not there, or not whole")
        self._fetched = fetched
        self._turner = part.data.turner() if part.inline else as_it_is
        return self._turner(fetched.held, False)
