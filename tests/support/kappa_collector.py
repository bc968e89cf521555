"""Where functions under test tell that they ran: a line to a socket of the test's own process, answered when it counts.

What counts as run is what stands here, whatever the platform believes. A line is `<word> <word> ...`; its answer is one
byte, so a handler that goes on knows that its line was heard.
"""

import asyncio
from collections.abc import Callable
from typing import cast

#: Called with the words of each line.
Hear = Callable[[list[str]], None]


class Collector:
    """`async with Collector(hear) as collector: ...  # collector.port`"""

    def __init__(self, hear: Hear) -> None:
        self._hear = hear
        self._server: asyncio.Server | None = None
        self.port = 0

    async def __aenter__(self) -> "Collector":
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Lines(self._hear), "127.0.0.1", 0, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._server is not None:
            self._server.close()


class _Lines(asyncio.Protocol):
    def __init__(self, hear: Hear) -> None:
        self._hear = hear
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._hear(line.decode().split(" "))
        if lines:
            self._transport.write(b"." * len(lines))


#: Source text for handlers: `await tell("a", "b")` returns when the test has heard it. PORT is put in by `client`.
_CLIENT = '''\
import asyncio

_lines = {"at": None, "lock": asyncio.Lock()}


async def tell(*words):
    """One line to whoever tests this; again over a new connection when the old one broke."""
    async with _lines["lock"]:
        for again in (True, False):
            try:
                if _lines["at"] is None:
                    _lines["at"] = await asyncio.open_connection("127.0.0.1", PORT)
                reader, writer = _lines["at"]
                writer.write((" ".join(words) + "\\n").encode())
                await reader.readexactly(1)
                return
            except (OSError, asyncio.IncompleteReadError):
                _lines["at"] = None
                if not again:
                    raise
'''


def client(port: int) -> str:
    """Source text that defines `tell`, for the top of a function's code."""
    return _CLIENT.replace("PORT", str(port))
