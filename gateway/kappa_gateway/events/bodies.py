"""Bodies too large for a message: in an object bucket, in chunks, as NATS object stores keep them (ADR-20).

They are written as they come and read as the instance takes them, so no gateway ever holds one whole. nats-py's object
store reads from and writes to blocking files only.
"""

import hashlib
import json
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from aiohttp.streams import EMPTY_PAYLOAD

from kappa_gateway.bodies import Body
from kappa_gateway.errors import GatewayError
from kappa_gateway.events.bus import Bus, UnavailableError
from kappa_gateway.events.streams import BODIES

CHUNK: Final = 128 * 1024
_STREAM: Final = f"OBJ_{BODIES}"
_CHUNKS: Final = f"$O.{BODIES}.C."
_META: Final = f"$O.{BODIES}.M."


@dataclass(frozen=True, slots=True)
class StoredBody:
    """`name`: what is written down with the work. `digest`: of the content, SHA-256."""

    name: str
    size: int
    digest: str


class StoredBodies:
    """The bucket. Raises UnavailableError."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def put(self, name: str, pieces: AsyncIterator[bytes]) -> StoredBody:
        """Returns when all of it is stored. What was stored is thrown away when it does not come to its end."""
        digest, size, held = hashlib.sha256(), 0, bytearray()
        chunks = 0
        try:
            async for piece in pieces:
                digest.update(piece)
                size += len(piece)
                held += piece
                while len(held) >= CHUNK:
                    await self._bus.publish(_CHUNKS + name, bytes(held[:CHUNK]))
                    del held[:CHUNK]
                    chunks += 1
            if held:
                await self._bus.publish(_CHUNKS + name, bytes(held))
                chunks += 1
            told = {"name": name, "bucket": BODIES, "nuid": name, "size": size, "chunks": chunks}
            meta = {**told, "digest": "SHA-256=" + urlsafe_b64encode(digest.digest()).decode()}
            await self._bus.publish(_meta(name), json.dumps(meta).encode(), {"Nats-Rollup": "sub"})
        except BaseException:
            await self.drop(name)
            raise
        return StoredBody(name, size, digest.hexdigest())

    async def open(self, name: str) -> "FetchedBody | None":
        """None: it is gone."""
        found = await self._bus.newest(_STREAM, last_of=_meta(name))
        if found is None:
            return None
        body = FetchedBody(self._bus, name, int(json.loads(found.data)["size"]))
        await body.begin()
        return body

    async def has(self, name: str) -> bool:
        return await self._bus.newest(_STREAM, last_of=_meta(name)) is not None

    async def any(self) -> bool:
        """Whether there is one at all."""
        return bool((await self._bus.api(f"STREAM.INFO.{_STREAM}"))["state"]["messages"])

    async def drop(self, name: str) -> None:
        """Frees the room; what cannot be freed now runs out by itself."""
        for subject in (_CHUNKS + name, _meta(name)):
            try:
                await self._bus.api(f"STREAM.PURGE.{_STREAM}", {"filter": subject})
            except UnavailableError:
                return


class FetchedBody(Body):
    """A stored body as the proxy sends it: the first chunk is held, the rest is fetched as the instance takes it."""

    __slots__ = ("_bus", "_name", "_next", "_read", "total")

    def __init__(self, bus: Bus, name: str, total: int) -> None:
        super().__init__(EMPTY_PAYLOAD, 0, 0)
        self._bus, self._name, self.total = bus, name, total
        self._next = 1  # the sequence from which the next chunk is looked for
        self._read = 0

    async def begin(self) -> None:
        self.held = await self._fetch()
        self.whole = self._read >= self.total

    async def read(self, latest: float = float("inf")) -> bytes:
        try:
            return await self.more()
        except UnavailableError as error:
            raise GatewayError("overloaded", f"the stored body cannot be read: {error}") from error

    async def more(self) -> bytes:
        """The next chunk, empty at the end. Raises UnavailableError."""
        return await self._fetch() if self._read < self.total else b""

    async def _fetch(self) -> bytes:
        if not self.total:
            return b""
        found = await self._bus.get(_STREAM, seq=self._next, next_of=_CHUNKS + self._name)
        if found is None:
            raise UnavailableError("a chunk is missing")
        self._next = found.seq + 1
        self._read += len(found.data)
        self.size += len(found.data)
        return found.data


def _meta(name: str) -> str:
    return _META + urlsafe_b64encode(name.encode()).decode()
