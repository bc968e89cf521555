"""The same raw bytes to the gateway and to nginx: both take them or both refuse them. Where they differ, the gateway is
the stricter one, for a reason that stands here.

What counts is what reaches a function: how many requests, and with which bodies. A proxy in front of the gateway may be
any server; requests that two servers read differently are how one caller's bytes become another caller's request.
"""

import asyncio
import shutil
import warnings
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from kappa_gateway_rig import Rig, Upstream, running
from kappa_ports import free_port

from kappa_gateway.settings import Limits

NGINX = shutil.which("nginx")
if not NGINX:  # pragma: no cover
    warnings.warn("NGINX IS NOT INSTALLED: request framing is not compared with it", stacklevel=1)

PATH = b"/fn/default/hello"
CHUNKED = b"transfer-encoding: chunked\r\n"


def get(*lines: bytes, end: bytes = b"\r\n") -> bytes:
    return end.join([b"GET " + PATH + b" HTTP/1.1", b"host: gw", *lines, b"connection: close", b"", b""])


def post(framing: bytes, body: bytes, version: bytes = b"1.1") -> bytes:
    return b"POST " + PATH + b" HTTP/" + version + b"\r\nhost: gw\r\nconnection: close\r\n" + framing + b"\r\n" + body


SMUGGLED = b"GET " + PATH + b"/smuggled HTTP/1.1\r\nhost: gw\r\nconnection: close\r\n\r\n"

#: name: (bytes, what reaches the function from the gateway and from nginx: the bodies). None: it is refused.
SAME = {
    "a plain GET": (get(), [b""]),
    "a length": (post(b"content-length: 5\r\n", b"hello"), [b"hello"]),
    "chunks": (post(CHUNKED, b"5\r\nhello\r\n0\r\n\r\n"), [b"hello"]),
    "chunks in pieces": (post(CHUNKED, b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"), [b"hello"]),
    "chunk sizes with zeros in front": (post(CHUNKED, b"0005\r\nhello\r\n0\r\n\r\n"), [b"hello"]),
    "chunk extensions": (post(CHUNKED, b"5;a=b\r\nhello\r\n0;c\r\n\r\n"), [b"hello"]),
    "trailers": (post(CHUNKED, b"5\r\nhello\r\n0\r\nx: y\r\n\r\n"), [b"hello"]),
    "white space around a value": (get(b"x:  \t y \t"), [b""]),
    "HTTP/1.0": (b"GET " + PATH + b" HTTP/1.0\r\nhost: gw\r\n\r\n", [b""]),
    "an absolute target": (b"GET http://gw" + PATH + b" HTTP/1.1\r\nhost: gw\r\nconnection: close\r\n\r\n", [b""]),
    "two requests in one go": (
        post(b"content-length: 5\r\n", b"hello").replace(b"connection: close\r\n", b"") + get(),
        [b"hello", b""],
    ),
    "a length and chunks": (post(b"content-length: 5\r\n" + CHUNKED, b"0\r\n\r\n" + SMUGGLED), None),
    "chunks and a length": (post(CHUNKED + b"content-length: 5\r\n", b"0\r\n\r\n" + SMUGGLED), None),
    "two lengths": (post(b"content-length: 5\r\ncontent-length: 6\r\n", b"hello!"), None),
    "the same length twice": (post(b"content-length: 5\r\ncontent-length: 5\r\n", b"hello"), None),
    "a list of lengths": (post(b"content-length: 5, 5\r\n", b"hello"), None),
    "a negative length": (post(b"content-length: -5\r\n", b"hello"), None),
    "a length with a sign": (post(b"content-length: +5\r\n", b"hello"), None),
    "a length in hexadecimal": (post(b"content-length: 0x5\r\n", b"hello"), None),
    "no length": (post(b"content-length:\r\n", b"hello"), None),
    "a length too large for 64 bits": (post(b"content-length: 99999999999999999999\r\n", b"hello"), None),
    "an unknown coding": (post(b"transfer-encoding: gzip\r\n", b"hello"), None),
    "chunked twice in one line": (post(b"transfer-encoding: chunked, chunked\r\n", b"0\r\n\r\n" + SMUGGLED), None),
    "chunked is not last": (post(b"transfer-encoding: chunked, identity\r\n", b"0\r\n\r\n" + SMUGGLED), None),
    "identity": (post(b"transfer-encoding: identity\r\n", b"hello"), None),
    "chunked in two lines": (post(CHUNKED + CHUNKED, b"0\r\n\r\n" + SMUGGLED), None),
    "something like chunked": (post(b"transfer-encoding: xchunked\r\n", b"0\r\n\r\n" + SMUGGLED), None),
    "chunked behind a control character": (post(b"transfer-encoding: \x0bchunked\r\n", b"0\r\n\r\n" + SMUGGLED), None),
    "chunks in HTTP/1.0": (post(CHUNKED, b"0\r\n\r\n" + SMUGGLED, b"1.0"), None),
    "a chunk size that is none": (post(CHUNKED, b"x\r\nhello\r\n0\r\n\r\n"), None),
    "a chunk size in hexadecimal notation": (post(CHUNKED, b"0x5\r\nhello\r\n0\r\n\r\n"), None),
    "a negative chunk size": (post(CHUNKED, b"-5\r\nhello\r\n0\r\n\r\n"), None),
    "a chunk size of more than 64 bits": (post(CHUNKED, b"10000000000000005\r\nhello\r\n0\r\n\r\n"), None),
    "a chunk longer than it says": (post(CHUNKED, b"4\r\nhello\r\n0\r\n\r\n"), None),
    "no host": (b"GET " + PATH + b" HTTP/1.1\r\nconnection: close\r\n\r\n", None),
    "two hosts": (get(b"host: other"), None),
    "an empty host": (b"GET " + PATH + b" HTTP/1.1\r\nhost:\r\nconnection: close\r\n\r\n", None),
    "a NUL in a value": (get(b"x: a\0b"), None),
    "a version to come": (b"GET " + PATH + b" HTTP/2.0\r\nhost: gw\r\n\r\n", None),
    "no version of HTTP": (b"GET " + PATH + b" HTTX/1.1\r\nhost: gw\r\n\r\n", None),
    "a space in the target": (b"GET " + PATH + b" x HTTP/1.1\r\nhost: gw\r\n\r\n", None),
    "CONNECT": (b"CONNECT gw:80 HTTP/1.1\r\nhost: gw\r\n\r\n", None),
    "CONNECT with a path": (b"CONNECT " + PATH + b" HTTP/1.1\r\nhost: gw\r\n\r\n", None),
    "a colon without a name": (get(b": x"), None),
    "a first line of nothing but a name": (b"GET\r\n\r\n", None),
}

#: What nginx takes and the gateway refuses: (bytes, bodies that nginx passes on, why the gateway does not).
STRICTER = {
    "line feeds alone": (get(end=b"\n"), [b""], "RFC 9112 2.2 allows them; other servers do not take them for the end"),
    "chunk lines that end in a line feed": (
        post(CHUNKED, b"5\nhello\n0\n\n"),
        [b"hello"],
        "not in the grammar of RFC 9112 7.1; the cause of several known smuggling attacks",
    ),
    "a version with zeros": (
        b"GET " + PATH + b" HTTP/1.10\r\nhost: gw\r\nconnection: close\r\n\r\n",
        [b""],
        "RFC 9112 2.3: one digit each",
    ),
}

#: What the gateway refuses, and nginx too since 1.21.1; earlier ones drop the field or pass it on.
BY_VERSION = {
    "a space before the colon": get(b"x : y"),  # RFC 9112 5.1
    "a folded line": get(b"x: a", b" b"),  # RFC 9112 5.2
    "a name with a control character": get(b"x\x01y: z"),  # RFC 9110 5.1
}


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with running(limits=Limits(head_seconds=0.5, body_idle_seconds=0.5)) as found:
        found.function("hello")
        yield found


@pytest.fixture
async def nginx(tmp_path: Path) -> AsyncIterator[tuple[int, Upstream]]:
    """nginx as a proxy before an instance like the gateway's: (port, instance)."""
    upstream = Upstream("127.8.255.1", free_port())
    await upstream.start()
    port = free_port()
    temp = " ".join(
        f"{kind}_temp_path {tmp_path}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    timeouts = "client_header_timeout 1s; client_body_timeout 1s; lingering_timeout 1s;"
    proxy = (
        f"proxy_pass http://{upstream.address}:{upstream.port}; proxy_http_version 1.1; proxy_set_header Connection '';"
    )
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {tmp_path}/nginx.pid; error_log {tmp_path}/error.log;\n"
        f"events {{ worker_connections 64; }}\n"
        f"http {{ access_log off; {temp} {timeouts} server {{ listen 127.0.0.1:{port}; location / {{ {proxy} }} }} }}\n"
    )
    process = await asyncio.create_subprocess_exec(
        NGINX or "nginx", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"), stderr=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(10):
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            await asyncio.sleep(0.02)
    yield port, upstream
    process.terminate()
    await process.wait()
    await upstream.stop()


async def passed_on(port: int, upstream: Upstream, data: bytes) -> tuple[list[bytes] | None, int]:
    """(the bodies that reached the instance, None when the first reply was no 2xx; the first reply's status)."""
    upstream.seen.clear()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    answer = b""
    with suppress(ConnectionError):
        async with asyncio.timeout(10):
            answer = await reader.read()
    writer.close()
    status = int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") and answer[9:12].isdigit() else 0
    bodies = [seen.body for seen in upstream.seen]
    return (bodies if 200 <= status < 300 else None), status


@pytest.mark.skipif(
    not NGINX, reason="NGINX IS NOT INSTALLED: framing is not compared (Debian: apt-get install nginx-light)"
)
async def test_the_gateway_frames_as_nginx_does_or_more_strictly(rig: Rig, nginx: tuple[int, Upstream]) -> None:
    instance = await rig.instance("hello", concurrency=100)
    port, other = nginx
    different: dict[str, object] = {}
    for name, (data, expected) in SAME.items():
        here, there = await passed_on(rig.port, instance, data), await passed_on(port, other, data)
        if (here[0], there[0]) != (expected, expected):
            different[name] = {"gateway": here, "nginx": there, "expected": expected}
        if here[0] is None and instance.seen:
            different[name] = f"refused, yet passed on: {instance.seen}"
    for name, (data, expected, reason) in STRICTER.items():
        here, there = await passed_on(rig.port, instance, data), await passed_on(port, other, data)
        assert reason
        if here[0] is not None or instance.seen or there[0] != expected:
            different[name] = {"gateway": here, "nginx": there, "expected": (None, expected)}
    for name, data in BY_VERSION.items():
        if (await passed_on(rig.port, instance, data))[0] is not None or instance.seen:
            different[name] = "the gateway takes it"
    assert different == {}, "\n".join(f"{name}: {what}" for name, what in different.items())
