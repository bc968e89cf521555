"""What flows between an ASGI app and its connection, which live on the loops of two threads.

Both directions are counted: when more than `_HIGH` bytes wait on the way, reading from the client stops, or the app
waits in `send`. Acknowledgements cross in steps of `_STEP` bytes, so that small messages cost no crossing of their own.
"""

import asyncio

from kappa_runtime.exchange import Exchange
from kappa_runtime.function import Function
from kappa_runtime.invoke import Call, Floor, Invocation

_HIGH = 256 << 10
_LOW = 128 << 10
_STEP = 64 << 10


class ClientGoneError(ConnectionResetError):
    """The client has left: there is nobody to send to (ASGI 2.4: `send` raises an OSError)."""


class AsgiFlow(Invocation):
    """An invocation of an ASGI app: the part that HTTP and WebSocket share."""

    needs_client = True

    def __init__(self, floor: Floor, function: Function, exchange: Exchange, call: Call) -> None:
        super().__init__(floor, function, exchange, call)
        assert function.loop is not None
        self.user_loop = function.loop.loop
        self._unread = self._unacked = 0  # server's side
        self._patience: asyncio.TimerHandle | None = None
        self.is_gone = False  # these are the function's side
        self._taken = self._outstanding = 0
        self._waiter: asyncio.Future[None] | None = None
        self._sender: asyncio.Future[None] | None = None

    # --- on the server's loop ---------------------------------------------------------------------------------------
    def writable(self) -> None:
        size, self._unacked = self._unacked, 0
        self.user_loop.call_soon_threadsafe(self._sent, size)

    def incoming(self, size: int) -> None:
        """`size` bytes are on their way to the app."""
        self._unread += size
        if self._unread > _HIGH:
            self.exchange.connection.hold_reading(True)

    def outgoing(self, size: int) -> None:
        """`size` bytes of the app are written."""
        self._unacked += size
        if self._unacked >= _STEP and self.exchange.writable:
            self.writable()

    def look_after(self) -> None:
        """The client has left: the app may end by itself; if it does not, it is told to."""
        if self._patience is None:
            self._patience = self.floor.loop.call_later(self.floor.settings.leave_seconds, self.stop_if_running)

    def finished(self) -> None:
        if self._patience is not None:
            self._patience.cancel()  # or it would keep all of this in memory for as long
            self._patience = None
        super().finished()

    def stop_if_running(self) -> None:
        if not self.has_finished and not self.interrupted:
            self.stop()

    def _read(self, size: int) -> None:
        self._unread -= size
        if self._unread < _LOW and not self.exchange.finished:
            self.exchange.connection.hold_reading(False)

    # --- on the function's loop -------------------------------------------------------------------------------------
    def took(self, size: int) -> None:
        """The app has taken `size` bytes."""
        self._taken += size
        if self._taken >= _STEP:
            size, self._taken = self._taken, 0
            self.floor.loop.call_soon_threadsafe(self._read, size)

    async def gave(self, size: int) -> None:
        """The app has sent `size` bytes: waits while too many are on their way. Raises ClientGoneError."""
        self._outstanding += size
        if self._outstanding > _HIGH:
            self._sender = self.user_loop.create_future()
            await self._sender
            if self.is_gone:
                raise ClientGoneError("the client has left")

    async def wait(self) -> None:
        """Waits for `wake`."""
        self._waiter = self.user_loop.create_future()
        await self._waiter

    def wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def leave(self) -> None:
        """There is no client any more: whatever waits for one goes on."""
        self.is_gone = True
        self.wake()
        self._sent(0)

    def _sent(self, size: int) -> None:
        self._outstanding -= size
        if (self.is_gone or self._outstanding < _LOW) and self._sender is not None:
            sender, self._sender = self._sender, None
            if not sender.done():
                sender.set_result(None)
