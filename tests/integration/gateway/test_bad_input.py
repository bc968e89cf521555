"""What callers and functions may throw at the gateway: malformed, too large, too slow, ambiguous."""

import asyncio
import random
from typing import Any

import pytest
from kappa_gateway_rig import reply

from kappa_gateway.settings import Limits

HELLO = "/fn/default/hello"
OK_HEAD = f"POST {HELLO} HTTP/1.1\r\nhost: gw\r\n"
SECRET = f"GET {HELLO}/smuggled HTTP/1.1\r\nhost: gw\r\n\r\n"

MALFORMED = {
    "length and chunks": OK_HEAD + "content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + SECRET,
    "chunks and length": OK_HEAD + "transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n" + SECRET,
    "two lengths": OK_HEAD + "content-length: 5\r\ncontent-length: 6\r\n\r\nhello" + SECRET,
    "two equal lengths": OK_HEAD + "content-length: 5\r\ncontent-length: 5\r\n\r\nhello",
    "length list": OK_HEAD + "content-length: 5, 5\r\n\r\nhello",
    "negative length": OK_HEAD + "content-length: -1\r\n\r\n",
    "signed length": OK_HEAD + "content-length: +5\r\n\r\nhello",
    "hex length": OK_HEAD + "content-length: 0x5\r\n\r\nhello",
    "underscored length": OK_HEAD + "content-length: 1_0\r\n\r\nhellohello",
    "huge length": OK_HEAD + "content-length: 99999999999999999999999\r\n\r\n",
    "xchunked": OK_HEAD + "transfer-encoding: xchunked\r\n\r\n0\r\n\r\n" + SECRET,
    "chunked twice": OK_HEAD + "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked, identity": OK_HEAD + "transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SECRET,
    "identity, chunked": OK_HEAD + "transfer-encoding: identity, chunked\r\n\r\n0\r\n\r\n" + SECRET,
    "gzip, chunked": OK_HEAD + "transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "identity": OK_HEAD + "transfer-encoding: identity\r\n\r\n" + SECRET,
    "encoding with a tab": OK_HEAD + "transfer-encoding:\tchunked\x0b\r\n\r\n0\r\n\r\n" + SECRET,
    "space before colon": OK_HEAD + "transfer-encoding : chunked\r\n\r\n0\r\n\r\n" + SECRET,
    "folded": OK_HEAD + "transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + SECRET,
    "folded other": OK_HEAD + "x-a: b\r\n c: d\r\ncontent-length: 0\r\n\r\n",
    "bare line feeds": OK_HEAD.replace("\r\n", "\n") + "content-length: 0\n\n",
    "bare line feed in a header": OK_HEAD + "x-a: b\ncontent-length: 5\r\n\r\nhello",
    "bare carriage return": OK_HEAD + "x-a: b\rcontent-length: 5\r\n\r\nhello",
    "nul in a header": OK_HEAD + "x-a: b\0c\r\ncontent-length: 0\r\n\r\n",
    "name with a space": OK_HEAD + "x a: b\r\ncontent-length: 0\r\n\r\n",
    "name with a colon only": OK_HEAD + ": b\r\ncontent-length: 0\r\n\r\n",
    "line without a colon": OK_HEAD + "nonsense\r\ncontent-length: 0\r\n\r\n",
    "chunks in HTTP/1.0": f"POST {HELLO} HTTP/1.0\r\nhost: gw\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + SECRET,
    "bad chunk size": OK_HEAD + "transfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
    "chunk size with a sign": OK_HEAD + "transfer-encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n",
    "chunk size with 0x": OK_HEAD + "transfer-encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
    "chunk size too large": OK_HEAD + "transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "chunk longer than said": OK_HEAD + "transfer-encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n",
    "chunk ended by line feed": OK_HEAD + "transfer-encoding: chunked\r\n\r\n5\nhello\n0\n\n",
    "no host": f"GET {HELLO} HTTP/1.1\r\n\r\n",
    "two hosts": f"GET {HELLO} HTTP/1.1\r\nhost: gw\r\nhost: other\r\n\r\n",
    "strange host": f"GET {HELLO} HTTP/1.1\r\nhost: gw/../x\r\n\r\n",
    "host removed by connection": f"GET {HELLO} HTTP/1.1\r\nhost: gw\r\nconnection: host\r\n\r\n",
    "space in the path": f"GET {HELLO}/a b HTTP/1.1\r\nhost: gw\r\n\r\n",
    "no version": f"GET {HELLO}\r\nhost: gw\r\n\r\n",
    "version 2": f"GET {HELLO} HTTP/2.0\r\nhost: gw\r\n\r\n",
    "version 9": f"GET {HELLO} HTTP/9.9\r\nhost: gw\r\n\r\n",
    "HTTP/2 preface": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "garbage": "\x00\x01\x02\x03\r\n\r\n",
    "connect": "CONNECT example.org:443 HTTP/1.1\r\nhost: example.org\r\n\r\n",
    "WebSocket with a body": f"GET {HELLO} HTTP/1.1\r\nhost: gw\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    "transfer-encoding: chunked\r\n\r\n0\r\n\r\n" + SECRET,
    "WebSocket by POST": OK_HEAD + "connection: upgrade\r\nupgrade: websocket\r\ncontent-length: 0\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
async def test_malformed_and_ambiguous_requests(rig: Any, case: str) -> None:
    """Refused with an error, the connection closed, and nothing after them is taken for a request."""
    rig.function(concurrency=10)
    upstream = await rig.instance(concurrency=10)
    caller = await rig.caller()
    caller.send(MALFORMED[case])
    answer = await caller.answer()
    assert answer.status in (400, 405, 413, 505), answer
    assert answer.headers["connection"] == "close"
    assert answer.headers["kappa-error-source"] == "gateway"
    assert answer.error["message"]
    assert await caller.closed() == b""
    assert upstream.seen == []
    assert rig.queue().in_service == rig.queue().waiting == 0


async def test_an_upgrade_that_is_not_taken(rig: Any) -> None:
    """Answered as if it were not there (RFC 9110 section 7.8), and the connection is not used for more."""
    rig.function()
    upstream = await rig.instance()
    caller = await rig.caller()
    caller.send(
        f"GET {HELLO} HTTP/1.1\r\nhost: gw\r\nconnection: upgrade, http2-settings\r\n"
        "upgrade: h2c\r\nhttp2-settings: x\r\n\r\n" + SECRET
    )
    answer = await caller.answer()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert await caller.closed() == b""
    (seen,) = upstream.seen
    assert [name for name, _ in seen.headers if name in ("upgrade", "connection", "http2-settings")] == []


TOO_LARGE = {
    "url": (414, "url_too_long", f"GET {HELLO}/{'x' * 9000} HTTP/1.1\r\nhost: gw\r\n\r\n"),
    "query": (414, "url_too_long", f"GET {HELLO}?{'/' * 9000} HTTP/1.1\r\nhost: gw\r\n\r\n"),
    "one header": (431, "headers_too_large", f"GET {HELLO} HTTP/1.1\r\nhost: gw\r\nx-a: {'/' * 20000}\r\n\r\n"),
    "header name": (431, "headers_too_large", f"GET {HELLO} HTTP/1.1\r\nhost: gw\r\n{'x' * 20000}: a\r\n\r\n"),
    "many headers": (
        431,
        "headers_too_large",
        f"GET {HELLO} HTTP/1.1\r\nhost: gw\r\n" + "".join(f"x-{n}: a\r\n" for n in range(200)) + "\r\n",
    ),
    "all headers": (
        431,
        "headers_too_large",
        f"GET {HELLO} HTTP/1.1\r\nhost: gw\r\n" + "".join(f"x-{n}: {'a' * 9000}\r\n" for n in range(9)) + "\r\n",
    ),
}


@pytest.mark.parametrize("case", TOO_LARGE)
async def test_too_large_heads(rig: Any, case: str) -> None:
    rig.function()
    upstream = await rig.instance()
    status, code, data = TOO_LARGE[case]
    caller = await rig.caller()
    answer = await caller.ask(data)
    assert (answer.status, answer.error["code"]) == (status, code)
    assert await caller.closed() == b""
    assert upstream.seen == []


async def test_too_large_bodies(make_rig: Any) -> None:
    rig = await make_rig(limits=Limits(body_bytes=500_000))
    rig.function(concurrency=5)
    rig.function("small", http={"maxBodyBytes": 10}, concurrency=5)
    upstream = await rig.instance(concurrency=5)
    for path, size in ((HELLO, 500_001), (HELLO, 10**15), ("/fn/default/small", 11)):
        caller = await rig.caller()
        caller.send(f"POST {path} HTTP/1.1\r\nhost: gw\r\ncontent-length: {size}\r\n\r\n")
        answer = await caller.answer()
        assert (answer.status, answer.error["code"]) == (413, "body_too_large")
        assert await caller.closed() == b""
    assert upstream.seen == []
    assert (await rig.get(HELLO, method="POST", body=bytes(500_000))).status == 200


async def test_chunks_beyond_the_limit(make_rig: Any) -> None:
    """Held or streaming: the sum counts, and the caller reads the refusal although it is still sending."""
    rig = await make_rig(limits=Limits(body_bytes=500_000))
    rig.function(concurrency=5)
    await rig.instance("small", concurrency=5)
    rig.function("small", http={"maxBodyBytes": 10})
    await rig.instance(concurrency=5)
    for path in ("/fn/default/small", HELLO):
        caller = await rig.caller()
        caller.send(f"POST {path} HTTP/1.1\r\nhost: gw\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(60):
            caller.send(b"2710\r\n" + bytes(10_000) + b"\r\n")
        answer = await caller.answer()
        assert (answer.status, answer.error["code"]) == (413, "body_too_large"), path
    await rig.settled()
    await rig.until(lambda: rig.gateway.pools.counts() == (0, 0))


async def test_slow_heads(make_rig: Any) -> None:
    rig = await make_rig(limits=Limits(head_seconds=0.1))
    rig.function()
    await rig.instance()
    caller = await rig.caller()
    assert (await caller.ask(f"GET {HELLO} HTTP/1.1\r\nhost: gw\r\n\r\n")).status == 200
    caller.send(f"GET {HELLO} HTTP/1.1\r\nx-a")
    answer = await caller.answer()
    assert (answer.status, answer.error["code"]) == (408, "request_timeout")
    assert await caller.closed() == b""


async def test_idle_connections_are_closed(make_rig: Any) -> None:
    rig = await make_rig(limits=Limits(idle_seconds=0.1))
    rig.function()
    await rig.instance()
    silent, caller = await rig.caller(), await rig.caller()
    assert (await caller.ask(f"GET {HELLO} HTTP/1.1\r\nhost: gw\r\n\r\n")).status == 200
    assert await caller.closed() == b""
    assert await silent.closed() == b""


@pytest.mark.parametrize("sent", [10, 200_000])
async def test_slow_bodies(make_rig: Any, sent: int) -> None:
    rig = await make_rig(limits=Limits(body_idle_seconds=0.1))
    rig.function()
    await rig.instance()
    caller = await rig.caller()
    caller.send(f"POST {HELLO} HTTP/1.1\r\nhost: gw\r\ncontent-length: 300000\r\n\r\n".encode() + bytes(sent))
    answer = await caller.answer()
    assert (answer.status, answer.error["code"]) == (408, "request_timeout")
    assert await caller.closed() == b""
    await rig.settled()


async def test_a_body_that_becomes_malformed_on_the_way(rig: Any) -> None:
    rig.function()
    await rig.instance()
    caller = await rig.caller()
    caller.send(OK_HEAD + "transfer-encoding: chunked\r\n\r\n")
    caller.send(b"186a0\r\n" + bytes(100_000) + b"\r\n")
    await rig.until(lambda: rig.queue().in_service == 1)
    caller.send("broken\r\n")
    answer = await caller.answer()
    assert (answer.status, answer.error["code"]) == (400, "bad_request")
    await rig.settled()


async def test_a_caller_that_reads_nothing(make_rig: Any) -> None:
    rig = await make_rig(limits=Limits(send_idle_seconds=0.2))
    rig.function()

    async def endless(seen: Any, reader: Any, writer: Any) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + bytes(65536) + b"\r\n")
            await writer.drain()

    upstream = await rig.instance(behave=endless)
    caller = await rig.caller()
    caller.writer.transport.pause_reading()
    caller.send(f"GET {HELLO} HTTP/1.1\r\nhost: gw\r\n\r\n")
    await upstream.left.wait()
    await rig.settled()


GARBAGE = {
    "text": b"hello, I am not HTTP\r\n\r\n",
    "binary": bytes(range(256)) * 10,
    "nothing but a line end": b"\r\n\r\n\r\n\r\nxxx",
    "length and chunks": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc",
    "header without a name": b"HTTP/1.1 200 OK\r\n: x\r\n\r\n",
    "split header": b"HTTP/1.1 200 OK\r\nx-a: b\rset-cookie: c\r\ncontent-length: 0\r\n\r\n",
    "nul in a header": b"HTTP/1.1 200 OK\r\nx-a: b\0\r\ncontent-length: 0\r\n\r\n",
    "status too long": b"HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n",
    "status zero": b"HTTP/1.1 000 OK\r\ncontent-length: 0\r\n\r\n",
    "unasked upgrade": b"HTTP/1.1 101 Switching\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nxx",
    "head too large": b"HTTP/1.1 200 OK\r\n"
    + b"".join(b"x-%d: %b\r\n" % (n, b"a" * 1000) for n in range(100))
    + b"\r\n",
    "endless header": b"HTTP/1.1 200 OK\r\nx-a: " + b"a" * 300_000,
    "endless status": b"HTTP/1.1 200 " + b"a" * 300_000,
}


@pytest.mark.parametrize("case", GARBAGE)
async def test_functions_that_write_garbage(rig: Any, case: str) -> None:
    rig.function()

    async def garbage(seen: Any, reader: Any, writer: Any) -> None:
        writer.write(GARBAGE[case])

    upstream = await rig.instance(behave=garbage)
    answer = await rig.get(HELLO)
    assert (answer.status, answer.error["code"]) == (502, "bad_response")
    assert len(upstream.seen) == 1
    await rig.settled()
    await rig.until(lambda: rig.gateway.pools.counts() == (0, 0))


async def test_garbage_in_the_middle_of_a_stream(rig: Any) -> None:
    rig.function()

    async def garbage(seen: Any, reader: Any, writer: Any) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\ngood\r\n")
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.write(b"not a chunk\r\n")

    await rig.instance(behave=garbage)
    caller = await rig.caller()
    caller.send(f"GET {HELLO} HTTP/1.1\r\nhost: gw\r\n\r\n")
    await caller.head()
    assert await caller.closed() == b"4\r\ngood\r\n"
    await rig.settled()


@pytest.mark.parametrize("late", [False, True])
async def test_a_second_reply_reaches_nobody(rig: Any, late: bool) -> None:
    rig.function()

    async def twice(seen: Any, reader: Any, writer: Any) -> None:
        writer.write(reply(200, b"mine"))
        if late:
            await writer.drain()
            await asyncio.sleep(0.02)
        writer.write(reply(200, b"poison"))

    upstream = await rig.instance(behave=twice)
    for _ in range(3):
        assert (await rig.get(HELLO)).body == b"mine"
        await rig.until(lambda: rig.gateway.pools.counts() == (0, 0))
    assert upstream.connections == 3


async def test_a_reply_to_head_with_a_body(rig: Any) -> None:
    rig.function()

    async def body(seen: Any, reader: Any, writer: Any) -> None:
        writer.write(reply(200, b"poison"))

    await rig.instance(behave=body)
    caller = await rig.caller()
    caller.send(f"HEAD {HELLO} HTTP/1.1\r\nhost: gw\r\n\r\n")
    assert (await caller.answer(head_only=True)).headers["content-length"] == "6"
    assert (await caller.ask(f"GET {HELLO} HTTP/1.1\r\nhost: gw\r\n\r\n")).body == b"poison"


async def test_an_early_reply_to_a_large_body(rig: Any) -> None:
    """The function answers before it read everything: the caller gets the answer, then the end."""
    rig.function()

    async def early(seen: Any, reader: Any, writer: Any) -> None:
        writer.write(reply(403, b"no"))
        while await reader.read(65536):
            pass
        writer.close()

    await rig.instance(behave=early, read_body=False)
    caller = await rig.caller()
    caller.send(OK_HEAD.encode() + b"content-length: 50000000\r\n\r\n" + bytes(1_000_000))
    answer = await caller.answer()
    assert (answer.status, answer.headers["connection"]) == (403, "close")
    await rig.settled()


async def test_noise(rig: Any) -> None:
    """Requests with random damage: an answer or a closed connection, never a 5xx of ours, and the gateway lives on."""
    rig.function(concurrency=100)
    await rig.instance(concurrency=100)
    dice = random.Random(7)
    good = OK_HEAD + "x-a: b\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    for _ in range(300):
        data = bytearray(good.encode())
        for _ in range(dice.randint(1, 4)):
            at = dice.randrange(len(data))
            match dice.randrange(4):
                case 0:
                    data[at] = dice.randrange(256)
                case 1:
                    del data[at : at + dice.randint(1, 10)]
                case 2:
                    data[at:at] = dice.randbytes(dice.randint(1, 5))
                case _:
                    data[at:at] = data[: dice.randrange(len(data))]
        caller = await rig.caller()
        caller.send(bytes(data))
        caller.writer.write_eof()
        answer = await caller.closed()
        for line in answer.split(b"\r\n"):
            if line.startswith(b"HTTP/1.1 "):
                assert int(line[9:12]) in (100, 200, 400, 404, 405, 408, 413, 414, 417, 431, 505), (bytes(data), line)
        caller.close()
    assert (await rig.get(HELLO)).status == 200
    await rig.settled()


async def test_a_bug_of_ours_is_a_500(
    rig: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rig.function()
    await rig.instance()

    async def broken(call: Any) -> bool:
        raise RuntimeError("boom")

    monkeypatch.setattr(rig.gateway.proxy, "serve", broken)
    answer = await rig.get(HELLO)
    assert (answer.status, answer.error["code"]) == (500, "internal")
    assert "boom" in caplog.text
    await rig.settled()
