"""The instance of `make bench-events`: answers every invocation at once, and notes how late after its due time it ran.

python events_upstream.py HOST PORT CONTROL_PORT

A connection to CONTROL_PORT of 127.0.0.1 gets JSON, {"count": n, "late": [seconds, ...]}, and begins anew.
"""

import asyncio
import json
import re
import sys
import time
from typing import cast

import uvloop

REPLY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nkappa-duration-ms: 0.1\r\n\r\n{}"
LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
DUE = re.compile(rb'"due": ([\d.]+)')


class Notes:
    def __init__(self) -> None:
        self.count = 0
        self.late: list[float] = []


class Instance(asyncio.Protocol):
    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while True:
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            length = LENGTH.search(head)
            size = int(length[1]) if length else 0
            if not found or len(rest) < size:
                return
            self._run(rest[:size])
            self._buffer = rest[size:]

    def _run(self, body: bytes) -> None:
        self._notes.count += 1
        if due := DUE.search(body):
            self._notes.late.append(time.monotonic() - float(due[1]))
        self._transport.write(REPLY)


async def main(host: str, port: int, control: int) -> None:
    loop, notes = asyncio.get_running_loop(), Notes()

    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(json.dumps({"count": notes.count, "late": notes.late}).encode())
        notes.count, notes.late = 0, []
        writer.close()

    await asyncio.start_server(tell, "127.0.0.1", control)
    server = await loop.create_server(lambda: Instance(notes), host, port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
