"""Load for one URL: wrk where it is installed, a small client of our own where it is not. Prints requests per second.

python load.py URL CONNECTIONS SECONDS [HEADER]
"""

import asyncio
import re
import shutil
import subprocess
import sys
from typing import cast
from urllib.parse import urlsplit


class LoadError(RuntimeError):
    """The load did not run, or replies were not 200."""


def load(url: str, connections: int, seconds: float, core: int | None, header: str = "") -> float:
    """Requests per second of `connections` kept connections, each sending the next request when it has its reply.
    `header`: one more line of each request."""
    pin = ["taskset", "-c", str(core)] if core is not None else []
    if wrk := shutil.which("wrk"):
        more = ["-H", header] if header else []
        command = [wrk, "-t1", f"-c{connections}", f"-d{seconds:g}s", *more, url]
        pattern = r"Requests/sec:\s+([\d.]+)"
    else:
        command = [sys.executable, __file__, url, str(connections), str(seconds), header]
        pattern = r"([\d.]+) requests per second"
    done = subprocess.run(pin + command, capture_output=True, text=True, timeout=seconds + 30)
    found = re.search(pattern, done.stdout)
    if found is None or "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise LoadError(f"{url}: {done.stdout}{done.stderr}")
    return float(found[1])


class Client(asyncio.Protocol):
    """One connection. Knows just enough HTTP for short replies with a Content-Length."""

    def __init__(self, request: bytes) -> None:
        self.request, self.buffer, self.count, self.bad = request, b"", 0, 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if length is None or len(body) < int(length[1]):
            self.bad += length is None
            return
        self.count += 1
        self.bad += b" 200 " not in head[:15]
        self.buffer = b""
        self.transport.write(self.request)


async def main(url: str, connections: int, seconds: float, header: str = "") -> None:
    parts = urlsplit(url)
    more = f"{header}\r\n" if header else ""
    request = f"GET {parts.path or '/'} HTTP/1.1\r\nhost: {parts.netloc}\r\n{more}\r\n".encode()
    loop = asyncio.get_running_loop()
    clients = [
        (await loop.create_connection(lambda: Client(request), parts.hostname or "", parts.port or 80))[1]
        for _ in range(connections)
    ]
    await asyncio.sleep(seconds)
    if any(client.bad for client in clients):
        print("Non-2xx")
    print(f"{sum(client.count for client in clients) / seconds:.1f} requests per second")


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), *sys.argv[4:]))
