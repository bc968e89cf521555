"""The ordinary path: what arrives at the instance, what comes back, and where streams go."""

import asyncio
import json
from typing import Any

from kappa_gateway_rig import reply

HELLO = "/fn/default/hello"


async def test_a_call_reaches_the_instance_and_the_reply_comes_back(rig: Any) -> None:
    rig.function()
    upstream = await rig.instance(
        behave=lambda seen, r, w: _write(w, reply(201, b"hi", "x-mine: 1", "kappa-duration-ms: 3", "kappa-secret: no"))
    )
    caller = await rig.caller()
    caller.send(
        "POST /fn/default/hello/a%2Fb/c?x=1&y=%20 HTTP/1.1\r\nHost: Example.org:80\r\nContent-Length: 4\r\n"
        "X-A: 1\r\nX-A: 2\r\nConnection: keep-alive, x-hop\r\nX-Hop: gone\r\nTE: trailers\r\nKappa-Request-Id: no\r\n"
        "Kappa-Function: default/other\r\nkappa_function: default/other\r\n"
        "kappa_deadline_ms: 1\r\nX-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Request-Id: abc-1\r\n\r\nbody"
    )
    answer = await caller.answer()
    assert (answer.status, answer.body) == (201, b"hi")
    assert answer.headers == {
        "x-mine": "1",
        "kappa-duration-ms": "3",
        "kappa-request-id": "abc-1",
        "content-length": "2",
    }
    (seen,) = upstream.seen
    assert (seen.method, seen.target, seen.body) == ("POST", "/a%2Fb/c?x=1&y=%20", b"body")
    deadline = int(seen.get("kappa-deadline-ms"))
    assert seen.headers == [
        ("host", "Example.org:80"),
        ("X-A", "1"),
        ("X-A", "2"),
        ("content-length", "4"),
        ("x-forwarded-prefix", "/fn/default/hello"),
        ("kappa-function", "default/hello"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "Example.org:80"),
        ("kappa-request-id", "abc-1"),
        ("kappa-deadline-ms", str(deadline)),
    ]
    await rig.settled()


async def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)


async def test_paths(rig: Any) -> None:
    rig.function()
    upstream = await rig.instance()
    for path, expected in {
        "/fn/default/hello": "/",
        "/fn/default/hello/": "/",
        "/fn/default/hello?a=/b": "/?a=/b",
        "/fn/default/hello//x": "//x",
        "/fn/default/hello/a/b?c#": None,
        "http://gw/fn/default/hello/z": "/z",
        "/fn/default%2Fhello": None,
        "/fn//hello": None,
        "/fn/default/hell": None,
        "/fn/default": None,
        "/fn/": None,
        "/": None,
        "/fn/default/hello/../other": None,
        "/fn/default/hello/%2e%2e/other": None,
        "/fn/default/hello/_kappa/drain": None,
        "/fn/default/hello//_kappa/drain": None,
        "/fn/default/hello/%5Fkappa/health": None,
        "/fn/default/hello/x/_kappa": "/x/_kappa",
    }.items():
        upstream.seen.clear()
        answer = await rig.get(path)
        if expected is None:
            assert answer.status in (400, 404), path
            assert answer.headers["kappa-error-source"] == "gateway"
            assert answer.error["code"] in ("bad_request", "not_found")
            assert not upstream.seen, path
        else:
            assert answer.status == 200, path
            assert upstream.seen[0].target == expected


async def test_connections_are_kept_on_both_sides(rig: Any) -> None:
    rig.function()
    upstream = await rig.instance()
    caller = await rig.caller()
    for _ in range(5):
        answer = await caller.ask(f"GET {HELLO} HTTP/1.1\r\nhost: gw\r\n\r\n")
        assert answer.status == 200
        assert "connection" not in answer.headers
    assert upstream.connections == 1
    answer = await caller.ask(f"GET {HELLO} HTTP/1.1\r\nhost: gw\r\nconnection: close\r\n\r\n")
    assert answer.headers["connection"] == "close"
    assert await caller.closed() == b""


async def test_pipelined_requests_are_answered_in_order(rig: Any) -> None:
    rig.function()

    async def echo(seen: Any, reader: Any, writer: Any) -> None:
        writer.write(reply(200, seen.target.encode()))

    await rig.instance(behave=echo)
    caller = await rig.caller()
    caller.send("".join(f"GET {HELLO}/{n} HTTP/1.1\r\nhost: gw\r\n\r\n" for n in range(50)))
    assert [(await caller.answer()).body for _ in range(50)] == [f"/{n}".encode() for n in range(50)]


async def test_head_204_304_and_informational_replies(rig: Any) -> None:
    rig.function()

    async def behave(seen: Any, reader: Any, writer: Any) -> None:
        if seen.method == "HEAD":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n")
        elif seen.target == "/204":
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        elif seen.target == "/304":
            writer.write(b"HTTP/1.1 304 Not Modified\r\netag: x\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + reply())

    upstream = await rig.instance(behave=behave)
    head = await rig.get(HELLO, method="HEAD")
    assert (head.status, head.headers["content-length"]) == (200, "500")
    assert (await rig.get(HELLO)).body == b"ok"
    no_content = await rig.get(HELLO + "/204")
    assert (no_content.status, "content-length" in no_content.headers) == (204, False)
    assert (await rig.get(HELLO + "/304")).headers["etag"] == "x"
    hinted = await rig.get(HELLO + "/103")
    assert (hinted.status, "link" in hinted.headers) == (200, False)
    assert upstream.connections == 1


async def test_errors_of_functions_are_marked(rig: Any) -> None:
    rig.function()
    await rig.instance(behave=lambda s, r, w: _write(w, reply(500, b"{}", "kappa-error: ValueError")))
    answer = await rig.get(HELLO)
    assert answer.headers["kappa-error-source"] == "function"
    assert answer.headers["kappa-error"] == "ValueError"
    assert rig.gateway.stats().functions["default/hello"].errors == 1


async def test_replies_stream_as_they_come(rig: Any) -> None:
    rig.function()
    go = asyncio.Event()

    async def events(seen: Any, reader: Any, writer: Any) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        writer.write(b"9\r\ndata: 1\n\n\r\n")
        await go.wait()
        writer.write(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")

    upstream = await rig.instance(behave=events)
    caller = await rig.caller()
    caller.send(f"GET {HELLO} HTTP/1.1\r\nhost: gw\r\n\r\n")
    status, headers = await caller.head()
    assert (status, headers["transfer-encoding"]) == (200, "chunked")
    assert await caller.reader.readexactly(14) == b"9\r\ndata: 1\n\n\r\n"
    assert rig.queue().in_service == 1
    go.set()
    assert await caller.reader.readexactly(19) == b"9\r\ndata: 2\n\n\r\n0\r\n\r\n"
    await rig.settled()
    assert (await caller.ask(f"GET {HELLO} HTTP/1.1\r\nhost: gw\r\n\r\n")).body == b"data: 1\n\ndata: 2\n\n"
    assert upstream.connections == 1


async def test_a_reply_that_ends_with_the_connection(rig: Any) -> None:
    rig.function()

    async def old(seen: Any, reader: Any, writer: Any) -> None:
        writer.write(b"HTTP/1.0 200 OK\r\n\r\npart one, ")
        await writer.drain()
        writer.write(b"part two")
        await writer.drain()
        writer.close()

    await rig.instance(behave=old)
    for _ in range(2):
        assert (await rig.get(HELLO)).body == b"part one, part two"


async def test_http_1_0_callers_get_no_chunks(rig: Any) -> None:
    rig.function()

    async def chunks(seen: Any, reader: Any, writer: Any) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n")
        await writer.drain()
        await asyncio.sleep(0.01)
        writer.write(b"2\r\ncd\r\n0\r\n\r\n")

    await rig.instance(behave=chunks)
    caller = await rig.caller()
    answer = await caller.ask(f"GET {HELLO} HTTP/1.0\r\n\r\n")
    assert answer.body == b"abcd"
    assert "transfer-encoding" not in answer.headers
    assert answer.headers["connection"] == "close"


async def test_large_replies_obey_back_pressure(rig: Any) -> None:
    rig.function()
    size = 32 * 1024 * 1024
    sent = 0

    async def big(seen: Any, reader: Any, writer: Any) -> None:
        nonlocal sent
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n".encode())
        piece = bytes(64 * 1024)
        while sent < size:
            writer.write(piece)
            sent += len(piece)
            await writer.drain()

    await rig.instance(behave=big)
    caller = await rig.caller()
    caller.send(f"GET {HELLO} HTTP/1.1\r\nhost: gw\r\n\r\n")
    await caller.head()
    before = -1
    while sent != before:  # until nothing moves: what is under way fills the buffers on the way, and no more
        before = sent
        await asyncio.sleep(0.1)
    assert sent < size * 3 // 4
    got = 0
    while got < size:
        got += len(await caller.reader.read(1 << 20))
    assert got == size
    await rig.settled()


async def test_large_bodies_stream_with_and_without_length(rig: Any) -> None:
    rig.function(concurrency=2)

    async def count(seen: Any, reader: Any, writer: Any) -> None:
        writer.write(reply(200, json.dumps([len(seen.body), seen.get("transfer-encoding")]).encode()))

    upstream = await rig.instance(behave=count)
    body = bytes(3_000_000)
    assert json.loads((await rig.get(HELLO, method="POST", body=body)).body) == [len(body), ""]
    caller = await rig.caller()
    caller.send(f"POST {HELLO} HTTP/1.1\r\nhost: gw\r\ntransfer-encoding: chunked\r\n\r\n")
    for start in range(0, len(body), 100_000):
        piece = body[start : start + 100_000]
        caller.send(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        await caller.writer.drain()
    caller.send(b"0\r\n\r\n")
    assert json.loads((await caller.answer()).body) == [len(body), "chunked"]
    small = await rig.ask(
        f"POST {HELLO} HTTP/1.1\r\nhost: gw\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    )
    assert json.loads(small.body) == [3, ""]
    assert upstream.connections == 1
    await rig.settled()


async def test_both_directions_stream_at_once(rig: Any) -> None:
    rig.function()

    async def echo(seen: Any, reader: Any, writer: Any) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while size := int(await reader.readline(), 16):
            piece = await reader.readexactly(size)
            await reader.readexactly(2)
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        await reader.readline()
        writer.write(b"0\r\n\r\n")

    await rig.instance(behave=echo, read_body=False)
    caller = await rig.caller()
    first = b"x" * 70_000
    caller.send(f"POST {HELLO} HTTP/1.1\r\nhost: gw\r\ntransfer-encoding: chunked\r\n\r\n".encode())
    caller.send(f"{len(first):x}\r\n".encode() + first + b"\r\n")
    status, headers = await caller.head()
    assert (status, headers["transfer-encoding"]) == (200, "chunked")
    got = b""
    while len(got) < len(first):
        size = int(await caller.reader.readline(), 16)
        got += await caller.reader.readexactly(size)
        await caller.reader.readexactly(2)
    caller.send(b"4\r\nlast\r\n0\r\n\r\n")
    assert await caller.reader.readexactly(9) == b"4\r\nlast\r\n"


async def test_expect_continue(rig: Any) -> None:
    rig.function(http={"maxBodyBytes": 1000})
    upstream = await rig.instance()
    caller = await rig.caller()
    caller.send(f"POST {HELLO} HTTP/1.1\r\nhost: gw\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n")
    assert (await caller.head())[0] == 100
    assert (await caller.ask("body")).status == 200
    assert upstream.seen[0].body == b"body"
    assert upstream.seen[0].get("expect") == ""
    refused = await caller.ask(
        f"POST {HELLO} HTTP/1.1\r\nhost: gw\r\ncontent-length: 2000\r\nexpect: 100-continue\r\n\r\n"
    )
    assert refused.error["code"] == "body_too_large"
    other = await rig.ask(f"POST {HELLO} HTTP/1.1\r\nhost: gw\r\ncontent-length: 4\r\nexpect: tea\r\n\r\n")
    assert other.status == 417


async def test_host_routes(rig: Any) -> None:
    rig.function("old", http={"routes": [{"host": "api.example.org", "path": "/items/{id}", "methods": ["GET"]}]})
    rig.function(
        "new", created="2025-01-01T00:00:00Z", http={"routes": [{"host": "api.example.org", "path": "/items/{key}"}]}
    )
    await rig.until(lambda: "api.example.org" in repr(rig.gateway.catalog.routes))
    upstream = await rig.instance("old")
    answer = await rig.ask("GET /items/a%20b%2Fc?q=1 HTTP/1.1\r\nHost: API.example.org:8080\r\nkappa-route: x\r\n\r\n")
    assert answer.status == 200
    (seen,) = upstream.seen
    assert seen.target == "/items/a%20b%2Fc?q=1"
    assert seen.get("kappa-route") == "/items/{id}"
    assert seen.get("kappa-function") == "default/old"
    assert seen.get("kappa-path-parameters") == "id=a+b%2Fc"
    assert seen.get("x-forwarded-prefix") == ""
    refused = await rig.ask("POST /items/1 HTTP/1.1\r\nHost: api.example.org\r\ncontent-length: 0\r\n\r\n")
    assert (refused.status, refused.headers["allow"]) == (405, "GET")
    assert (await rig.ask("GET /items/1 HTTP/1.1\r\nHost: other.example.org\r\n\r\n")).status == 404


async def test_forwarded_fields_of_a_trusted_proxy(make_rig: Any) -> None:
    rig = await make_rig(trust_forwarded=True)
    rig.function()
    upstream = await rig.instance()
    await rig.get(HELLO, "X-Forwarded-For: 1.1.1.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: shop.example.org")
    (seen,) = upstream.seen
    assert seen.get("x-forwarded-for") == "1.1.1.1, 127.0.0.1"
    assert seen.get("x-forwarded-proto") == "https"
    assert [v for k, v in seen.headers if k.lower() == "x-forwarded-host"] == ["shop.example.org"]
