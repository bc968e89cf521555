"""Stands between Kappa and the API server of the embedded cluster, and is what goes wrong with it.

A TCP relay that can refuse (`down`), take requests and never answer (`silent`), answer late (`delay`), cut watches, and
keep requests back (`hold`). The kubelet and the test itself do not go through it: like a cluster whose API server
is away while its nodes run on.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import cast


class _End(asyncio.Protocol):
    """One of the two connections of a relayed one."""

    def __init__(self, gate: "Gate") -> None:
        self._gate = gate
        self.transport: asyncio.Transport | None = None
        self.other: _End | None = None
        self.watches = False
        self.early: list[bytes] = []  # what came before the other end was there

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()
        self._gate.forget(self)

    def send(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)


class _FromClient(_End):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._gate.opened(self)

    def data_received(self, data: bytes) -> None:
        if b"watch=" in data.split(b"\r\n", 1)[0]:
            self.watches = True
        if self._gate.silent:
            return
        if self._gate.hold(data):
            self._gate.keep(self, data)
        else:
            self.forward(data)

    def forward(self, data: bytes) -> None:
        if self.other is None:
            self.early.append(data)
        else:
            self.other.send(data)


class _FromServer(_End):
    """Answers wait for the gate's delay; their order is kept."""

    def __init__(self, gate: "Gate") -> None:
        super().__init__(gate)
        self._late: deque[bytes] = deque()

    def data_received(self, data: bytes) -> None:
        if self._gate.silent:
            return
        if self._gate.delay or self._late:
            self._late.append(data)
            asyncio.get_running_loop().call_later(self._gate.delay, self._pass)
        elif self.other is not None:
            self.other.send(data)

    def _pass(self) -> None:
        data = self._late.popleft()
        if self.other is not None:
            self.other.send(data)


class Gate:
    """`async with Gate(port) as gate`: listens on `gate.port`, leads to 127.0.0.1:port."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._ends: set[_FromClient] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.delay = 0.0
        self.silent = False
        self.hold: Callable[[bytes], bool] = lambda request: False
        self.held = asyncio.Event()
        self._kept: list[tuple[_FromClient, bytes]] = []

    async def __aenter__(self) -> "Gate":
        await self.up()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.down()

    async def up(self) -> None:
        """Lets connections through (again), on the same port."""
        loop = asyncio.get_running_loop()
        self.silent = False
        if self._server is None:
            self._server = await loop.create_server(lambda: _FromClient(self), "127.0.0.1", self.port, backlog=256)
            self.port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """New connections are refused, open ones are reset."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut(watches_only=False)

    def cut(self, *, watches_only: bool = True) -> int:
        """Resets connections that carry a watch, or all. Returns how many."""
        chosen = [end for end in self._ends if end.watches or not watches_only]
        for end in chosen:
            if end.transport is not None:
                end.transport.abort()
        return len(chosen)

    def keep(self, end: _FromClient, request: bytes) -> None:
        self._kept.append((end, request))
        self.held.set()

    def release(self) -> None:
        """Sends on what was kept back, and holds nothing any more."""
        self.hold = lambda request: False
        kept, self._kept = self._kept, []
        for end, request in kept:
            end.forward(request)

    def opened(self, end: _FromClient) -> None:
        self._ends.add(end)
        task = asyncio.get_running_loop().create_task(self._join(end))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def forget(self, end: _End) -> None:
        self._ends.discard(cast(_FromClient, end))

    async def _join(self, end: _FromClient) -> None:
        try:
            _, server = await asyncio.get_running_loop().create_connection(
                lambda: _FromServer(self), "127.0.0.1", self._target
            )
        except OSError:
            if end.transport is not None:
                end.transport.abort()
            return
        server.other, end.other = end, server
        if end.transport is None:
            if server.transport is not None:
                server.transport.close()
            return
        for data in end.early:
            server.send(data)
        end.early.clear()
