"""The callers of `make bench-events`: asynchronous invocations over kept connections.

python events_load.py URL CONNECTIONS COUNT RATE

With RATE 0 each connection sends the next call when it has the answer to the last one; otherwise calls begin at their
times, and one that finds no connection free waits for it, which counts. The body holds the time at which the call was
due, so that whoever runs it can tell how late it is. Prints JSON: accepted, others by status, seconds, and the seconds
until the 202 of each call with RATE.
"""

import asyncio
import json
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import cast
from urllib.parse import urlsplit

import uvloop

BODY_BYTES = 256


def request(url: str, due: float) -> bytes:
    parts = urlsplit(url)
    body = json.dumps({"due": due}).encode()
    body = body[:-1] + b', "pad": "' + b"x" * (BODY_BYTES - len(body) - 11) + b'"}'
    head = f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


class Connection(asyncio.Protocol):
    """One call at a time. Knows just enough HTTP for short answers with a Content-Length."""

    def __init__(self, answered: Callable[["Connection", int], None]) -> None:
        self._answered = answered
        self._buffer = b""
        self.due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class

    def connection_lost(self, error: Exception | None) -> None:
        self._answered(self, 0)

    def send(self, url: str, due: float) -> None:
        self.due = due
        self._transport.write(request(url, due))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        lower = head.lower()
        length = int(lower.partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) >= length:
            self._buffer = b""
            self._answered(self, int(head[9:12]))


class Load:
    def __init__(self, url: str, count: int, rate: float) -> None:
        self.url, self.count, self.rate = url, count, rate
        self.begun = 0
        self.statuses: Counter[int] = Counter()
        self.took: list[float] = []
        self.free: deque[Connection] = deque()
        self.waiting: deque[float] = deque()
        self.over = asyncio.Event()

    def answered(self, connection: Connection, status: int) -> None:
        self.statuses[status] += 1
        if status == 202 and self.rate:
            self.took.append(time.monotonic() - connection.due)
        if sum(self.statuses.values()) >= self.count:
            self.over.set()
        elif status == 0:
            return
        elif self.waiting:
            connection.send(self.url, self.waiting.popleft())
        elif not self.rate and self.begun < self.count:
            self.begun += 1
            connection.send(self.url, time.monotonic())
        else:
            self.free.append(connection)

    async def run(self, connections: int) -> float:
        """Seconds that it took."""
        parts, loop = urlsplit(self.url), asyncio.get_running_loop()
        for _ in range(connections):
            made = await loop.create_connection(lambda: Connection(self.answered), parts.hostname, parts.port)
            self.free.append(made[1])
        begun = time.monotonic()
        if not self.rate:
            while self.free and self.begun < self.count:
                self.begun += 1
                self.free.popleft().send(self.url, time.monotonic())
        else:
            await self._on_time(begun)
        await asyncio.wait_for(self.over.wait(), 120)
        return time.monotonic() - begun

    async def _on_time(self, begun: float) -> None:
        for number in range(self.count):
            due = begun + number / self.rate
            if (pause := due - time.monotonic()) > 0.0005:
                await asyncio.sleep(pause)
            if self.free:
                self.free.popleft().send(self.url, due)
            else:
                self.waiting.append(due)


async def main(url: str, connections: int, count: int, rate: float) -> None:
    load = Load(url, count, rate)
    seconds = await load.run(connections)
    accepted = load.statuses.pop(202, 0)
    print(json.dumps({"accepted": accepted, "others": load.statuses, "seconds": seconds, "took": load.took}))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
