"""The caller: HTTP/1.1 on raw asyncio and httptools, over kept connections to whichever gateways are ready.

It does what every decent client behind a Service does, and no more: a new connection goes to a random ready gateway; a
refused connection is tried at another one; an idempotent request whose connection ends before the first byte of an
answer is sent again. Each such repetition is counted. Nothing else is ever repeated.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import httptools
from chaos_answer import Answer

#: Connections that were not used for this long are closed by us: shorter than any server's patience.
IDLE_SECONDS = 1.5
CONNECT_SECONDS = 3.0
#: For how long a client looks for a gateway that takes connections.
SEEK_SECONDS = 10.0
SEEK_PAUSE = 0.05
MOST_TRIES = 8


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, ready to be written. `idempotent` decides what may be repeated."""

    method: str
    path: str
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    seconds: float = 40.0

    @property
    def idempotent(self) -> bool:
        return self.method in ("GET", "HEAD", "PUT", "DELETE")

    def wire(self, host: str) -> bytes:
        lines = [f"{self.method} {self.path} HTTP/1.1", f"host: {host}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if self.body or self.method == "POST":
            lines.append(f"content-length: {len(self.body)}")
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + self.body


class Connection(asyncio.Protocol):
    """One connection; one exchange at a time."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.used = 0
        self.idle_since = 0.0
        self.transport: asyncio.Transport | None = None
        self.raw: Callable[[bytes], None] | None = None  # takes the bytes after an upgrade
        self.tail = b""  # those that came with the answer
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._answer = Answer()
        self._headers: dict[str, str] = {}
        self._pieces: list[bytes] = []
        self._waiter: asyncio.Future[None] | None = None
        self.keep = True

    async def exchange(self, data: bytes, answer: Answer) -> None:
        """Sends a request and fills `answer` until it is complete or the connection ends."""
        self._answer, self._headers, self._pieces = answer, {}, []
        answer.endpoint = self.endpoint
        self.used += 1
        if self.transport is None:
            answer.trouble = "already closed"
            return
        self._waiter = asyncio.get_running_loop().create_future()
        self.transport.write(data)
        try:
            await self._waiter
        finally:
            self._waiter = None
            answer.headers, answer.body = self._headers, b"".join(self._pieces)

    @property
    def usable(self) -> bool:
        open_ = self.transport is not None and not self.transport.is_closing()
        return self.keep and open_ and self._answer.complete

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def write(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)

    # --- asyncio ------------------------------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.raw is not None:
            self.raw(data)
            return
        if self._waiter is None:  # nobody asked
            self.keep = False
            self.close()
            return
        self._answer.begun = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._answer.complete = True
            self.tail = data[upgrade.args[0] :]
            self._wake()
        except httptools.HttpParserError as error:
            self._answer.trouble = f"not HTTP: {error}"
            self.keep = False
            self.close()
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        trouble = type(exc).__name__ if exc else "the connection was closed"
        if not self._answer.complete:
            self._answer.trouble = self._answer.trouble or trouble
        if not self.lost.done():
            self.lost.set_result(trouble)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- httptools ----------------------------------------------------------------------------------------------------
    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._answer.status = self._parser.get_status_code()
        self.keep = self._parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        self._answer.complete = True
        self._wake()


@dataclass
class Client:
    """`endpoints` gives the gateways that are ready now, as `host:port`; like a Service, it may be late."""

    endpoints: Callable[[], list[str]]
    rng: random.Random = field(default_factory=random.Random)
    opened: int = 0
    _idle: list[Connection] = field(default_factory=list)

    async def call(self, ask: Ask) -> Answer:
        """The answer, whatever it is. Never raises but for cancellation."""
        answer = Answer()
        try:
            async with asyncio.timeout(ask.seconds):
                while True:
                    retries = answer.retries
                    answer = Answer(retries=retries)
                    connection, kept = await self._connection(answer)
                    if connection is None:
                        return answer
                    try:
                        await connection.exchange(ask.wire(connection.endpoint), answer)
                    finally:
                        self._put_back(connection)
                    # A kept connection that ends without a byte: RFC 9112 section 9.3.1
                    again = not answer.begun and ask.idempotent and (kept or answer.trouble)
                    if not again or answer.retries >= MOST_TRIES:
                        return answer
                    answer.retries += 1
        except TimeoutError:
            answer.trouble, answer.complete = f"no answer within {ask.seconds:g} s", False
            return answer

    async def connect(self, answer: Answer) -> Connection | None:
        """A new connection to a ready gateway; None, with the trouble in `answer`, when none takes one."""
        loop = asyncio.get_running_loop()
        end = loop.time() + SEEK_SECONDS
        while True:
            ready = self.endpoints()
            if ready:
                endpoint = self.rng.choice(ready)
                host, _, port = endpoint.rpartition(":")
                try:
                    async with asyncio.timeout(CONNECT_SECONDS):
                        _, connection = await loop.create_connection(partial(Connection, endpoint), host, int(port))
                    self.opened += 1
                    return connection
                except (OSError, TimeoutError) as error:
                    answer.trouble, answer.endpoint = f"{type(error).__name__} at {endpoint}", endpoint
            else:
                answer.trouble = "no gateway is ready"
            if loop.time() > end:
                return None
            answer.retries += 1
            await asyncio.sleep(SEEK_PAUSE)

    async def _connection(self, answer: Answer) -> tuple[Connection | None, bool]:
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and now - connection.idle_since < IDLE_SECONDS:
                return connection, True
            connection.close()
        return await self.connect(answer), False

    def _put_back(self, connection: Connection) -> None:
        if not connection.usable:
            connection.close()
            return
        connection.idle_since = asyncio.get_running_loop().time()
        self._idle.append(connection)

    def sweep(self) -> None:
        """Closes what was not used for a while; to be called every now and then."""
        now = asyncio.get_running_loop().time()
        old = [c for c in self._idle if now - c.idle_since >= IDLE_SECONDS or not c.usable]
        self._idle = [c for c in self._idle if c not in old]
        for connection in old:
            connection.close()

    def close(self) -> None:
        for connection in self._idle:
            connection.close()
        self._idle.clear()
