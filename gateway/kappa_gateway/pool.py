"""Connections to instances that are kept for the next exchange: one pool per instance.

There is no limit of its own: a pool never has more connections in use than the instance has slots.
"""

import asyncio

from kappa_gateway.retry import Outcome
from kappa_gateway.upstream import Connection, UpstreamError


class Pool:
    """Connections to one instance. The last one used is used first: the others can grow old and be closed."""

    def __init__(self, address: str, port: int, loop: asyncio.AbstractEventLoop) -> None:
        self.address, self._port, self._loop = address, port, loop
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._closed = False
        self.open = 0

    def get(self) -> Connection | None:
        """A kept connection, or None."""
        while self._idle:
            connection = self._idle.pop()
            if connection.transport is not None and not connection.transport.is_closing():
                return connection
        return None

    async def connect(self, timeout: float) -> Connection:
        """A new connection. Raises UpstreamError (UNREACHABLE, UNTAKEN)."""
        try:
            async with asyncio.timeout(timeout):
                _, connection = await self._loop.create_connection(
                    lambda: Connection(self._loop, self), self.address, self._port
                )
        except TimeoutError as error:
            raise UpstreamError(Outcome.UNTAKEN, f"{self.address}: connect timed out") from error
        except OSError as error:
            raise UpstreamError(Outcome.UNREACHABLE, f"{self.address}: {error}") from error
        self._all.add(connection)
        if connection.transport is None:  # closed again already
            self._all.discard(connection)
        return connection

    def put_back(self, connection: Connection, now: float) -> None:
        """The exchange is over: keeps the connection when it can carry another one."""
        if connection.reusable and not self._closed:
            connection.busy = False
            connection.idle_since = now
            self._idle.append(connection)
        else:
            connection.abort()

    def abort(self) -> None:
        """Ends all connections at once, also those in the middle of an exchange: no answer will come."""
        for connection in list(self._all):
            connection.abort()

    def forget(self, connection: Connection) -> None:
        self.open -= 1
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def sweep(self, before: float) -> None:
        """Closes what has been idle since before that time. The list is in the order of last use."""
        old = [connection for connection in self._idle if connection.idle_since < before]
        for connection in old:
            self._idle.remove(connection)
            if connection.transport is not None:
                connection.transport.close()

    def close(self) -> None:
        """The instance is gone: idle connections are closed, busy ones as soon as their exchange is over."""
        self._closed = True
        self.sweep(float("inf"))

    @property
    def idle(self) -> int:
        return len(self._idle)

    def __repr__(self) -> str:
        return f"<Pool {self.address} open={self.open} idle={self.idle}{' closed' if self._closed else ''}>"


class Pools:
    """The pool of each instance, by the instance's key."""

    def __init__(self, loop: asyncio.AbstractEventLoop, port: int) -> None:
        self._loop, self._port = loop, port
        self._pools: dict[str, Pool] = {}

    def of(self, key: str, address: str) -> Pool:
        pool = self._pools.get(key)
        if pool is None or pool.address != address:
            if pool is not None:
                pool.close()
            pool = self._pools[key] = Pool(address, self._port, self._loop)
        return pool

    def drop(self, key: str) -> None:
        pool = self._pools.pop(key, None)
        if pool is not None:
            pool.close()

    def sweep(self, before: float) -> None:
        for pool in self._pools.values():
            pool.sweep(before)

    def close(self) -> None:
        for key in list(self._pools):
            self.drop(key)

    def counts(self) -> tuple[int, int]:
        """(open, idle) connections."""
        return sum(p.open for p in self._pools.values()), sum(p.idle for p in self._pools.values())
