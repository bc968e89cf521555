"""The caller: one HTTP request on a connection of its own, timed from connecting until the whole answer is there.

`call_once` blocks, so nothing else of the measuring process runs meanwhile; `call` is for many callers at a time.
"""

import asyncio
import socket
import time
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Reply:
    """`status` is 0 when there was no answer. `begun` and `seconds` are by the monotonic clock."""

    status: int
    begun: float
    seconds: float
    body: bytes = b""

    @property
    def ok(self) -> bool:
        return self.status == 200


def call_once(url: str, timeout: float = 30.0) -> Reply:
    """One request, blocking."""
    host, port, request = _request(url)
    begun = time.perf_counter()
    raw = b""
    try:
        with socket.create_connection((host, port), timeout=timeout) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(request)
            while part := connection.recv(65536):
                raw += part
    except OSError as error:
        return Reply(0, begun, time.perf_counter() - begun, repr(error).encode())
    return _reply(raw, begun)


async def call(url: str, timeout: float = 30.0) -> Reply:
    """One request."""
    host, port, request = _request(url)
    begun = time.perf_counter()
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(request)
                return _reply(await reader.read(), begun)
            finally:
                writer.close()
    except (OSError, TimeoutError) as error:
        return Reply(0, begun, time.perf_counter() - begun, repr(error).encode())


def _request(url: str) -> tuple[str, int, bytes]:
    parts = urlsplit(url)
    request = f"GET {parts.path or '/'} HTTP/1.1\r\nhost: {parts.netloc}\r\nconnection: close\r\n\r\n".encode()
    return parts.hostname or "", parts.port or 80, request


def _reply(raw: bytes, begun: float) -> Reply:
    seconds = time.perf_counter() - begun
    head, _, body = raw.partition(b"\r\n\r\n")
    words = head.split(maxsplit=2)
    return Reply(int(words[1]) if len(words) > 1 and words[1].isdigit() else 0, begun, seconds, body)
