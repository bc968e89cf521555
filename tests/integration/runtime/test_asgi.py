"""ASGI apps over HTTP: scope, streaming both ways, back-pressure, disconnects, lifespan, failures."""

import time

import pytest

PRELUDE = """
import asyncio, json
async def reply(send, value, status=200, headers=()):
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": json.dumps(value).encode()})
def http(function):
    async def app(scope, receive, send):
        if scope["type"] == "http":
            await function(scope, receive, send)
    return app
"""


@pytest.fixture
def asgi(pod, wait_at_gate, gate):
    """Loads an app: `asgi("await reply(send, 1)")` is the body of its `app(scope, receive, send)`."""

    def load(body, pod=pod, **more):
        lines = "".join(f"    {line}\n" for line in body.strip("\n").splitlines())
        code = PRELUDE + wait_at_gate + "@http\nasync def app(scope, receive, send):\n" + lines
        return pod.load(code, "main.app", signature="asgi", env=gate.env, **more)

    return load


def test_the_scope(asgi):
    pod = asgi(
        """
        context = scope.pop("kappa.context")
        scope["headers"] = [[k.decode(), v.decode()] for k, v in scope["headers"]]
        scope["raw_path"], scope["query_string"] = scope["raw_path"].decode(), scope["query_string"].decode()
        await reply(send, {**scope, "request_id": context.request_id})
    """.replace("        ", "")
    )
    headers = {
        "Host": "api.example.org:8443",
        "X-Forwarded-Prefix": "/fn/default/hello",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-For": "192.0.2.1",
        "kappa-request-id": "r1",
    }
    assert pod.request("GET", "/a%20b/%C3%A9?x=%20y", None, headers).json() == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "https",
        "path": "/fn/default/hello/a b/é",
        "raw_path": "/fn/default/hello/a%20b/%C3%A9",
        "query_string": "x=%20y",
        "root_path": "/fn/default/hello",
        "headers": [
            ["accept-encoding", "identity"],
            ["host", "api.example.org:8443"],
            ["x-forwarded-prefix", "/fn/default/hello"],
            ["x-forwarded-proto", "https"],
            ["x-forwarded-for", "192.0.2.1"],
        ],
        "client": ["192.0.2.1", 0],
        "server": ["api.example.org", 8443],
        "extensions": {},
        "state": {},
        "kappa.authorizer": None,
        "request_id": "r1",
    }


def test_a_request_body_in_pieces(asgi, gate, until):
    pod = asgi("""
first = await receive()
await wait_at_gate_async()
rest = b""
more = True
while more:
    message = await receive()
    rest += message["body"]
    more = message["more_body"]
await reply(send, [first["body"].decode(), first["more_body"], rest.decode()])
""")
    with pod.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        gate.arrived()
        client.sendall(b"3\r\ndef\r\n0\r\n\r\n")
        gate.open()
        assert b'["abc", true, "def"]' in until(client, b"]")


def test_a_large_upload_and_download_with_back_pressure(asgi):
    pod = asgi("""
await send({"type": "http.response.start", "status": 200, "headers": []})
more = True
while more:
    message = await receive()
    more = message["more_body"]
    await send({"type": "http.response.body", "body": message["body"], "more_body": more})
""")
    data = bytes(range(256)) * 80_000
    before = pod.rss_kib()
    with pod.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(data))
        client.settimeout(0.2)
        sent = 0
        while sent < len(data):  # until nobody takes any more: nobody reads the reply
            try:
                sent += client.send(data[sent : sent + 100_000])
            except TimeoutError:
                break
        assert 0 < sent < len(data)
        assert pod.rss_kib() - before < 8_000
        client.settimeout(20)
        received = b""
        client.setblocking(False)
        while sent < len(data):
            try:
                received += client.recv(1 << 20)
            except BlockingIOError:
                pass
            try:
                sent += client.send(data[sent : sent + 100_000])
            except BlockingIOError:
                pass
        client.setblocking(True)
        parts = [received]
        while part := client.recv(1 << 20):
            parts.append(part)
    received = b"".join(parts)
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert received.endswith(b"\r\n0\r\n\r\n")
    assert len(received) > len(data)


def test_streaming_passes_as_it_comes(asgi, gate, until):
    pod = asgi("""
await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
for n in range(3):
    await send({"type": "http.response.body", "body": b"data: %d;" % n, "more_body": True})
    await wait_at_gate_async()
await send({"type": "http.response.body", "body": b""})
""")
    with pod.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        head = until(client, b"data: 0;\r\n")
        assert b"transfer-encoding: chunked" in head
        assert b"kappa-duration-ms" in head
        for n in (1, 2):
            gate.arrived()
            gate.open()
            assert until(client, b";\r\n") == b"8\r\ndata: %d;\r\n" % n
        gate.arrived()
        gate.open()
        assert until(client, b"\r\n\r\n") == b"0\r\n\r\n"


def test_streaming_to_http_1_0_ends_with_the_connection(asgi):
    pod = asgi("""
await send({"type": "http.response.start", "status": 200})
await send({"type": "http.response.body", "body": b"abc", "more_body": True})
await send({"type": "http.response.body", "body": b"def"})
""")
    head, _, body = pod.exchange(b"GET / HTTP/1.0\r\n\r\n").partition(b"\r\n\r\n")
    assert (b"transfer-encoding" in head, b"connection: close" in head, body) == (False, True, b"abcdef")


@pytest.mark.parametrize(
    ("status", "headers", "method", "length", "body"),
    [
        (200, [], "GET", b"3", b"abc"),
        (200, [(b"Content-Length", b"3")], "GET", b"3", b"abc"),
        (200, [], "HEAD", b"3", b""),
        (204, [], "GET", None, b""),
        (304, [(b"Content-Length", b"999")], "GET", b"999", b""),
    ],
)
def test_framing(asgi, status, headers, method, length, body, until):
    sent = "b''" if status != 200 else "b'abc'"
    pod = asgi(f"""
await send({{"type": "http.response.start", "status": {status}, "headers": {headers}}})
await send({{"type": "http.response.body", "body": {sent}}})
""")
    with pod.connect() as client:
        for _ in range(2):
            client.sendall(method.encode() + b" / HTTP/1.1\r\nHost: x\r\n\r\n")
            data = until(client, body or b"\r\n\r\n")
            head, _, rest = data.partition(b"\r\n\r\n")
            assert rest == body
            assert (b"content-length: " + length in head) if length else b"content-length" not in head


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        ("raise ValueError('x')", "ValueError", "x"),
        ("import sys; sys.exit(1)", "Runtime.ExitError", "sys.exit(1)"),
        ("pass", "Runtime.InvalidReply", "without a reply"),
        ("await send({'type': 'http.response.start', 'status': 200})", "Runtime.InvalidReply", "without a reply"),
        ("await send({'type': 'http.response.body', 'body': b''})", "RuntimeError", "not expected now"),
        ("await send({'type': 'http.response.start', 'status': 42})", "Runtime.InvalidReply", "status must be"),
        ("await reply(send, 1, headers=[(b'a', b'b\\r\\nc: d')])", "Runtime.InvalidReply", "headers[a]"),
        ("await reply(send, 1, headers=[('a', 'b')])", "Runtime.InvalidReply", "not a pair of bytes"),
        ("await reply(send, 1, headers=[(b'content-length', b'9')])", "Runtime.InvalidReply", "the body has 1 bytes"),
        (
            "await send({'type': 'http.response.start', 'status': 200, 'headers': []}); raise KeyError('x')",
            "KeyError",
            "x",
        ),
    ],
)
def test_failures_before_the_reply(asgi, body, kind, text):
    pod = asgi(f"if scope['path'] == '/ok': return await reply(send, 'ok')\n{body}")
    reply = pod.get("/")
    assert (reply.status, reply.headers["kappa-error"], reply.headers["kappa-error-source"]) == (500, kind, "function")
    assert text in reply.json()["errorMessage"]
    assert pod.get("/ok").json() == "ok"
    while pod.health()["inFlight"]:  # the app's code may end a moment after its reply
        pass


@pytest.mark.parametrize(
    "end",
    [
        "raise ValueError('late')",
        "return",
        "await send({'type': 'http.response.body', 'body': 'text'})",
        "await send({'type': 'http.response.body', 'body': b'xx'})" + " if scope['path'] == '/length' else 1/0",
    ],
)
def test_failures_in_mid_reply_cut_the_connection(asgi, end):
    pod = asgi(f"""
headers = [(b"content-length", b"4")] if scope["path"] == "/length" else []
await send({{"type": "http.response.start", "status": 200, "headers": headers}})
await send({{"type": "http.response.body", "body": b"abc", "more_body": True}})
{end}
""")
    for path in (b"/", b"/length"):
        data = pod.exchange(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"\r\n0\r\n" not in data
        assert b"abcx" not in data
    while pod.health()["inFlight"]:  # the app's code may end a moment after its reply
        pass


def test_a_client_that_leaves(asgi, gate):
    pod = asgi("""
await receive()
await send({"type": "http.response.start", "status": 200})
await send({"type": "http.response.body", "body": b"abc", "more_body": True})
print((await receive())["type"])
try:
    await send({"type": "http.response.body", "body": b"abc", "more_body": True})
except OSError as error:
    print("told:", error)
""")
    with pod.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        client.recv(10_000)
    pod.logs.message("http.disconnect")
    pod.logs.message("told: the client has left")


def test_an_app_that_streams_without_end_stops_when_its_client_leaves(asgi):
    pod = asgi("""
await send({"type": "http.response.start", "status": 200})
while True:
    await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})
""")
    with pod.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        client.recv(10_000)
    while pod.health()["inFlight"]:
        pass
    assert not [line for line in pod.logs.lines if line["level"] == "ERROR"]


def test_an_app_that_does_not_notice_is_cancelled(asgi, gate, pods):
    pod = asgi(
        """
try:
    await wait_at_gate_async()
finally:
    print("cancelled")
""",
        pods(leave_seconds=0.05),
    )
    with pod.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        gate.arrived()
    pod.logs.message("cancelled")
    while pod.health()["inFlight"]:
        pass


def test_timeouts(asgi, gate):
    pod = asgi(
        """
if scope["path"] == "/started":
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"abc", "more_body": True})
elif scope["path"] == "/complete":
    await reply(send, "complete")
await wait_at_gate_async()
""",
        concurrency=9,
    )
    deadline = {"kappa_deadline_ms": str(int(time.time() * 1000) + 300)}
    reply = pod.get("/", **deadline)
    assert (reply.status, reply.headers["kappa-error"]) == (504, "Timeout")
    data = pod.exchange(
        b"GET /started HTTP/1.1\r\nHost: x\r\nkappa-deadline-ms: %d\r\n\r\n" % (time.time() * 1000 + 300)
    )
    assert data.startswith(b"HTTP/1.1 200 ")
    assert b"\r\n0\r\n" not in data
    assert pod.get("/complete", kappa_deadline_ms=str(int(time.time() * 1000) + 300)).json() == "complete"
    while pod.health()["inFlight"]:  # what runs on behind a reply is under the deadline, too
        pass
    assert pod.health()["state"] == "serving"


def test_background_work_takes_no_slot_but_a_drain_waits_for_it(asgi, gate, background):
    pod = asgi(
        "await reply(send, scope['path'])\nawait wait_at_gate_async()\nprint('end of', scope['path'])", concurrency=1
    )
    assert [pod.get(f"/{n}").json() for n in range(3)] == ["/0", "/1", "/2"]
    gate.arrived(3)
    assert pod.health()["inFlight"] == 3
    drain = background(pod.drain)
    while pod.health()["state"] != "draining":
        pass
    gate.open()
    assert drain.result().json()["inFlight"] == 0
    assert sum(line["message"].startswith("end of") for line in pod.logs.lines) == 3


def test_expect_100_continue_waits_for_the_app_to_ask(asgi, until):
    pod = asgi(
        "if scope['path'] == '/no': return await reply(send, 'no', 403)\n"
        "await reply(send, (await receive())['body'].decode())"
    )
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    with pod.connect() as client:
        client.sendall(head % b"/")
        assert until(client, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"abc")
        assert b'"abc"' in until(client, b'abc"')
    with pod.connect() as client:
        client.sendall(head % b"/no")
        assert until(client, b'"no"').startswith(b"HTTP/1.1 403 ")


def test_a_reply_before_the_body_is_read(asgi, until):
    pod = asgi("await reply(send, 'early')")
    with pod.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n")
        until(client, b'"early"')
        client.sendall(b"x" * 200_000 + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert until(client, b'"early"').startswith(b"HTTP/1.1 200 ")
    with pod.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 200000000\r\n\r\n")
        until(client, b'"early"')
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            client.sendall(b"x" * 200_000_000)


LIFESPAN = """
import asyncio
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        assert (await receive())["type"] == "lifespan.startup"
        scope["state"]["started"] = "yes"
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        print("shutting down")
        await send({"type": "lifespan.shutdown.complete"})
    else:
        state = scope["state"]
        state["count"] = state.get("count", 0) + 1
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": f"{state}".encode()})
"""


def test_lifespan(pod):
    pod.load(LIFESPAN, "main.app", signature="asgi")
    assert [pod.get().body for _ in range(2)] == [b"{'started': 'yes', 'count': 1}"] * 2
    assert pod.stop() == 0
    pod.logs.message("shutting down")


@pytest.mark.parametrize(
    ("start", "kind", "text"),
    [
        ("await send({'type': 'lifespan.startup.failed', 'message': 'no database'})", "StartupFailed", "no database"),
        ("await asyncio.Event().wait()", "Timeout", "did not finish loading"),
    ],
)
def test_an_app_that_does_not_start(pods, start, kind, text):
    code = f"import asyncio\nasync def app(scope, receive, send):\n    await receive()\n    {start}\n"
    reply = pods(min_load_seconds=0.2).specialize(code, "main.app", signature="asgi", timeoutSeconds=1)
    assert (reply.status, reply.json()["type"]) == (422, kind)
    assert text in reply.json()["message"]


@pytest.mark.parametrize("start", ["assert scope['type'] == 'http'", "return"])
def test_an_app_without_lifespan(pod, start):
    code = f"""
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        {start}
    await send({{"type": "http.response.start", "status": 200}})
    await send({{"type": "http.response.body", "body": b"ok"}})
"""
    pod.load(code, "main.app", signature="asgi")
    assert pod.get().body == b"ok"
    assert pod.stop() == 0


def test_a_shutdown_that_does_not_end(pods):
    code = LIFESPAN.replace('print("shutting down")', "await asyncio.Event().wait()")
    pod = pods(shutdown_seconds=0.1).load(code, "main.app", signature="asgi")
    assert pod.stop() == 0
    pod.logs.message("shutdown takes too long")


@pytest.mark.parametrize(
    ("handler", "text"),
    [("async def app(scope): 0\n", "called with (scope, receive, send)"), ("app = 'x'\n", "not a function but str")],
)
def test_what_is_no_app(pod, handler, text):
    reply = pod.specialize(handler, "main.app", signature="asgi")
    assert (reply.status, text in reply.json()["message"]) == (422, True)


def test_many_at_a_time_on_one_connection_each(asgi, background):
    pod = asgi(
        "await asyncio.sleep(0)\nawait reply(send, [scope['path'], scope['kappa.context'].request_id])", concurrency=20
    )

    def many(worker):
        return [pod.get(f"/{n}", kappa_request_id=f"{worker}-{n}").json() for n in range(20)]

    found = [call.result() for call in [background(lambda w=w: many(w)) for w in range(10)]]
    assert found == [[[f"/{n}", f"{w}-{n}"] for n in range(20)] for w in range(10)]
