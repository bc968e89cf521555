"""An event loop whose time jumps to the next timer when nothing else can happen, and whose connections are in memory.

Everything that uses the loop's clock, timers, timeouts and `create_connection` runs on it unchanged, a thirty-second
deadline within a millisecond, and in the same order each time.
"""

import asyncio
import selectors
from collections.abc import Callable
from typing import Any

#: The most bytes that arrive at once.
PIECE = 1 << 16


class _Selector(selectors.DefaultSelector):
    """Waits for nobody: the time that asyncio would wait has passed at once."""

    def __init__(self) -> None:
        super().__init__()
        self.passed: Callable[[float], None] = lambda seconds: None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found:
            if timeout is None:
                raise RuntimeError("nothing is left that could happen")
            if timeout > 0:
                self.passed(timeout)
        return found


class Wire(asyncio.Transport):
    """The program's end of a connection. The test sees what was `sent`, and feeds what the other end says."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self.protocol: Any = None
        self.sent = bytearray()
        self.closed = self.paused = self.ended = False
        self._held = bytearray()

    # --- the test's side ----------------------------------------------------------------------------------------------
    def feed(self, data: bytes) -> None:
        """Bytes arrive, in pieces as a socket gives them, now or when the program reads again."""
        self._held += data
        while not self.paused and self._held and not self.closed:
            piece, self._held = bytes(self._held[:PIECE]), self._held[PIECE:]
            self.protocol.data_received(piece)

    def hang_up(self) -> None:
        """The other end closes the connection, or dies."""
        self._lose(None)

    # --- the program's side -------------------------------------------------------------------------------------------
    def write(self, data: Any) -> None:
        if not self.closed:
            self.sent += data

    def writelines(self, list_of_data: Any) -> None:
        for data in list_of_data:
            self.write(data)

    def close(self) -> None:
        self._lose(None)

    def abort(self) -> None:
        self._lose(None)

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False
        if self._held:
            self._loop.call_soon(self.feed, b"")

    def is_reading(self) -> bool:
        return not self.paused

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.9", 4711) if name == "peername" else default

    def _lose(self, error: Exception | None) -> None:
        if not self.closed:
            self.closed = True
            self._loop.call_soon(self.protocol.connection_lost, error)


class VirtualLoop(asyncio.SelectorEventLoop):
    """`hosts`: who takes connections, by address: gets each new Wire, before the program can write to it.

    An address that is not in it refuses; one in `silent` never answers.
    """

    def __init__(self) -> None:
        selector = _Selector()
        super().__init__(selector)
        selector.passed = self._pass
        self._now = 1000.0
        self.hosts: dict[str, Callable[[Wire], None]] = {}
        self.silent: set[str] = set()

    def time(self) -> float:
        return self._now

    def _pass(self, seconds: float) -> None:
        self._now += seconds

    async def create_connection(  # type: ignore[override]
        self, factory: Any, host: Any = None, port: Any = None, **_: Any
    ) -> Any:
        await asyncio.sleep(0)
        if host in self.silent:
            await asyncio.Event().wait()
        if host not in self.hosts:
            raise ConnectionRefusedError(f"{host} refuses")
        wire = Wire(self)
        wire.protocol = factory()
        self.hosts[host](wire)
        wire.protocol.connection_made(wire)
        return wire, wire.protocol

    def accept(self, protocol: Any) -> Wire:
        """A connection to the program: `protocol` is what its server made for it."""
        wire = Wire(self)
        wire.protocol = protocol
        protocol.connection_made(wire)
        return wire

    def settle(self, turns: int = 40) -> None:
        """Lets everything happen that can without time passing."""

        async def turn() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        self.run_until_complete(turn())

    def pass_(self, seconds: float) -> None:
        """Lets time pass, and all that is due in it happen."""
        self.run_until_complete(asyncio.sleep(seconds))
        self.settle()

    def stop_all(self) -> None:
        """Cancels what still runs, and closes the loop."""
        tasks = asyncio.all_tasks(self)
        for task in tasks:
            task.cancel()
        if tasks:
            self.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self.close()
