"""Answers for instances that have no process: each address says that it serves the revision it is said to hold.

Reads one JSON object from standard input, {address: health answer}, listens on all of them and prints `ready`.
"""

import asyncio
import json
import sys
from typing import Any, cast

from kappa_api import names


class Instance(asyncio.Protocol):
    """Short requests only: one per segment, whatever they ask for."""

    def __init__(self, health: dict[str, Any]) -> None:
        body = json.dumps(health).encode()
        self.reply = (
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(self.reply)


async def main() -> None:
    loop = asyncio.get_running_loop()
    for address, health in json.load(sys.stdin).items():
        await loop.create_server(lambda h=health: Instance(h), address, names.INSTANCE_PORT, backlog=8)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
