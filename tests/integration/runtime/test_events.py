"""Event handlers as a caller sees them: events, replies, context, and every way a handler can fail."""

import json
import re
import time

import pytest

BOTH = ["def", "async def"]
EVENT = "{define} handler(event, context):\n    return event\n"


def call(pod, body, define="def", **request):
    """Loads a handler with this body and calls it."""
    return pod.load(f"{define} handler(event, context):\n    {body}\n").get("/", **request)


@pytest.mark.parametrize("define", BOTH)
def test_the_event(pod, define):
    pod.load(EVENT.format(define=define))
    before = time.time()
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        "Cookie": "a=1; b=2",
        "User-Agent": "test/1",
        "X-Forwarded-For": "192.0.2.1, 10.0.0.1",
        "X-Forwarded-Host": "api.example.org",
        "kappa-request-id": "req-1",
        "kappa-route": "/hello/{name}",
        "kappa-path-parameters": "name=Ada+L&x=%C3%A9",
        "kappa-secret": "no",
    }
    event = pod.request("POST", "/hello/Ada%20L?a=1&a=2&b=%20&c", '{"x": 1}', headers).json()
    context = event.pop("requestContext")
    assert event == {
        "version": "2.0",
        "routeKey": "POST /hello/{name}",
        "rawPath": "/hello/Ada%20L",
        "rawQueryString": "a=1&a=2&b=%20&c",
        "cookies": ["a=1", "b=2"],
        "headers": {
            "accept-encoding": "identity",
            "content-length": "8",
            "content-type": "application/json; charset=utf-8",
            "host": pod.address,
            "user-agent": "test/1",
            "x-forwarded-for": "192.0.2.1, 10.0.0.1",
            "x-forwarded-host": "api.example.org",
        },
        "queryStringParameters": {"a": "1,2", "b": " ", "c": ""},
        "pathParameters": {"name": "Ada L", "x": "é"},
        "body": '{"x": 1}',
        "isBase64Encoded": False,
    }
    assert before - 1 <= context.pop("timeEpoch") / 1000 <= time.time()
    context.pop("time")
    assert context == {
        "accountId": "kappa",
        "apiId": "default/hello",
        "authentication": None,
        "domainName": "api.example.org",
        "domainPrefix": "api",
        "http": {
            "method": "POST",
            "path": "/hello/Ada%20L",
            "protocol": "HTTP/1.1",
            "sourceIp": "192.0.2.1",
            "userAgent": "test/1",
        },
        "requestId": "req-1",
        "routeKey": "POST /hello/{name}",
        "stage": "$default",
    }


def test_the_context(pod):
    code = """
def handler(event, context):
    left = context.get_remaining_time_in_millis()
    assert 0 < left <= 7000, left
    assert abs(context.deadline_ms - context.get_remaining_time_in_millis() - __import__("time").time() * 1000) < 1000
    names = ("request_id aws_request_id function_name namespace revision function_version memory_limit_in_mb "
             "invoked_function_arn log_stream_name log_group_name client_context identity")
    return {name: getattr(context, name) for name in names.split()}
"""
    pod.load(code, memoryMb=256, timeoutSeconds=7)
    assert pod.get(kappa_request_id="req-7").json() == {
        "request_id": "req-7",
        "aws_request_id": "req-7",
        "function_name": "hello",
        "namespace": "default",
        "revision": "rev1",
        "function_version": "rev1",
        "memory_limit_in_mb": 256,
        "invoked_function_arn": "kappa:default/hello",
        "log_stream_name": "pod-1",
        "log_group_name": "default/hello",
        "client_context": None,
        "identity": None,
    }


def test_the_gateways_deadline_counts_when_it_is_earlier(pod):
    pod.load("def handler(event, context):\n    return context.deadline_ms\n", timeoutSeconds=30)
    deadline = int(time.time() * 1000) + 5000
    assert pod.get(kappa_deadline_ms=str(deadline)).json() == deadline
    late = pod.get(kappa_deadline_ms=str(deadline + 1_000_000)).json()
    assert late < deadline + 30_000


def test_what_arrives_after_its_deadline_does_not_run(pod):
    pod.load("def handler(event, context):\n    print('ran')\n")
    assert pod.get(kappa_deadline_ms="1000").status == 504
    pod.get()
    assert sum(line["message"] == "ran" for line in pod.logs.lines) <= 1


@pytest.mark.parametrize("define", BOTH)
def test_a_full_reply(pod, define):
    code = """return {"statusCode": 201, "headers": {"X-One": "1", "X-Many": ["a", "b"], "kappa-error": "no",
        "Transfer-Encoding": "chunked", "Content-Length": "999"}, "body": "text",
        "cookies": ["a=1; HttpOnly", "b=2"]}"""
    pod.load(f"{define} handler(event, context):\n    {code}\n")
    data = pod.exchange(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    duration = lines.pop(lines.index(next(x for x in lines if x.startswith(b"kappa-duration-ms: "))))
    assert float(duration.split()[1]) >= 0
    assert (lines, body) == (
        [
            b"HTTP/1.1 201 Created",
            b"x-one: 1",
            b"x-many: a",
            b"x-many: b",
            b"set-cookie: a=1; HttpOnly",
            b"set-cookie: b=2",
            b"content-type: text/plain; charset=utf-8",
            b"content-length: 4",
            b"connection: close",
        ],
        b"text",
    )


@pytest.mark.parametrize("define", BOTH)
@pytest.mark.parametrize(
    ("statement", "kind", "text"),
    [
        ("raise ValueError('a bad value')", "ValueError", "a bad value"),
        ("raise BaseException('odd')", "BaseException", "odd"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt", ""),
        ("import sys; sys.exit(3)", "Runtime.ExitError", "the handler called sys.exit(3)"),
        ("import asyncio; raise asyncio.CancelledError('x')", "CancelledError", "x"),
        ("return {'statusCode': 200, 'body': object()}", "Runtime.InvalidReply", "body cannot be written as JSON"),
        ("import datetime; return datetime.datetime.now()", "Runtime.InvalidReply", "datetime"),
        ("return {'statusCode': 99}", "Runtime.InvalidReply", "statusCode 99"),
        ("return {'statusCode': 200, 'headers': {'a': 'b\\r\\nc: d'}}", "Runtime.InvalidReply", "headers[a]"),
        ("return float('nan')", "Runtime.InvalidReply", "JSON"),
        ("f = lambda: f(); return f()", "RecursionError", "maximum recursion"),
        ("return context.nothing", "AttributeError", "nothing"),
    ],
)
def test_a_handler_that_fails_does_not_take_the_instance_with_it(pod, define, statement, kind, text):
    reply = call(pod, f"if event['rawPath'] == '/ok': return 'ok'\n    {statement}", define, kappa_request_id="req-1")
    error = reply.json()
    assert (reply.status, reply.headers["kappa-error"], reply.headers["kappa-error-source"]) == (500, kind, "function")
    assert (error["errorType"], text in error["errorMessage"], error["requestId"]) == (kind, True, "req-1")
    assert "kappa-duration-ms" in reply.headers
    line = pod.logs.wait(lambda line: line["level"] == "ERROR" and line["message"].startswith(kind))
    assert line["requestId"] == "req-1"
    assert pod.get("/ok").json() == "ok"
    assert pod.health()["inFlight"] == 0


def test_the_stack_trace_has_the_functions_frames_only(pod):
    code = "import lib\ndef handler(event, context):\n    return lib.inner()\n"
    pod.load({"main.py": code, "lib.py": "def inner():\n    raise KeyError('k')\n"})
    error = pod.get().json()
    marks = re.compile(r"\n[ ~^]+(?=\n)")
    assert [marks.sub("", frame) for frame in error["stackTrace"]] == [
        '  File "main.py", line 3, in handler\n    return lib.inner()\n',
        "  File \"lib.py\", line 2, in inner\n    raise KeyError('k')\n",
    ]
    line = pod.logs.message("KeyError")
    assert 'File "lib.py", line 2, in inner' in line["exception"]
    assert "kappa_runtime" not in line["exception"]


def test_exceptions_that_cannot_be_shown(pod):
    code = """
class Bad(Exception):
    def __str__(self):
        raise RuntimeError("no")
def handler(event, context):
    raise Bad
"""
    reply = pod.load(code).get()
    assert (reply.status, reply.json()["errorType"]) == (500, "Bad")


@pytest.mark.parametrize("define", BOTH)
def test_a_timeout(pods, define, gate, wait_at_gate):
    pod = pods(grace_seconds=30)
    wait = "wait_at_gate()" if define == "def" else "await wait_at_gate_async()"
    code = (
        wait_at_gate + f"{define} handler(event, context):\n    if event['rawPath'] == '/ok': return 'ok'\n    {wait}\n"
    )
    pod.load(code, timeoutSeconds=1, env=gate.env)
    reply = pod.get(kappa_request_id="req-1")
    assert (reply.status, reply.headers["kappa-error"], reply.headers["kappa-error-source"]) == (
        504,
        "Timeout",
        "function",
    )
    assert reply.json() == {
        "errorType": "Timeout",
        "errorMessage": "hello timed out after 1.00 seconds",
        "requestId": "req-1",
        "stackTrace": [],
    }
    assert pod.logs.message("timed out after")["requestId"] == "req-1"
    assert pod.logs.message("timed out after")["stack"].startswith('  File "main.py", line ')
    if define == "def":
        # Nothing can stop code that waits in C: it keeps its slot until it returns.
        assert pod.logs.message("timed out after")["stack"].count("wait_at_gate") >= 1
        assert pod.get("/ok").headers["kappa-refused"] == "busy"
        gate.arrived()
        gate.open()
    while pod.health()["inFlight"]:
        pass
    assert pod.get("/ok").json() == "ok"


def test_a_loop_in_python_is_stopped_and_the_instance_lives(pods):
    pod = pods(grace_seconds=10)
    pod.load(
        "def handler(event, context):\n    while event['rawPath'] == '/loop': pass\n    return 'ok'\n", timeoutSeconds=1
    )
    assert pod.get("/loop").status == 504
    while pod.health()["inFlight"]:
        pass
    assert pod.get().json() == "ok"
    assert pod.health()["state"] == "serving"


@pytest.mark.parametrize(
    ("define", "body"),
    [
        ("def", "import time; time.sleep(1000)"),  # in C: no exception gets there
        ("async def", "import time; time.sleep(1000)"),
        ("async def", "while True: pass"),
        ("async def", "import asyncio\n    while True:\n        try: await asyncio.sleep(1)\n        except BaseException: pass"),  # noqa: E501
    ],
)  # fmt: skip
def test_a_handler_that_cannot_be_stopped_ends_the_process(pods, define, body):
    pod = pods(grace_seconds=0.2).load(f"{define} handler(event, context):\n    {body}\n", timeoutSeconds=1)
    assert pod.get().status == 504
    assert pod.wait() == 1
    pod.logs.message("does not stop after its timeout")


def test_a_stuck_handler_lets_the_others_finish(pods, gate, wait_at_gate, background):
    code = (
        wait_at_gate
        + """
import time
def handler(event, context):
    if event["rawPath"] != "/wait":
        time.sleep(1000)
    wait_at_gate()
    return "ok"
"""
    )
    pod = pods(grace_seconds=0.1).load(code, timeoutSeconds=20, concurrency=2, env=gate.env)
    other = background(lambda: pod.get("/wait"))
    gate.arrived()
    assert pod.get(kappa_deadline_ms=str(int(time.time() * 1000) + 300)).status == 504
    pod.logs.message("does not stop after its timeout")
    assert pod.health()["state"] == "draining"
    assert pod.get().headers["kappa-refused"] == "draining"
    gate.open()
    assert other.result().json() == "ok"
    assert pod.wait() == 1


def test_a_blocked_event_loop_does_not_hold_up_the_server(pod, gate, wait_at_gate, background):
    pod.load(wait_at_gate + "async def handler(event, context):\n    wait_at_gate()\n    return 'ok'\n", env=gate.env)
    call = background(pod.get)
    gate.arrived()
    assert pod.health()["inFlight"] == 1
    assert pod.get().headers["kappa-refused"] == "busy"
    gate.open()
    assert call.result().json() == "ok"


def test_os_exit_ends_the_connection(pod):
    pod.load("import os\ndef handler(event, context):\n    os._exit(7)\n")
    assert pod.exchange(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") in (b"", b"<reset>")
    assert pod.wait() == 7


def test_a_task_that_calls_sys_exit_does_not_stop_the_loop(pod):
    code = """
import asyncio, sys
async def exits():
    sys.exit(1)
async def handler(event, context):
    if event["rawPath"] == "/exit":
        task = asyncio.create_task(exits())
        await asyncio.sleep(0)
    if event["rawPath"] == "/stop":
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0)
    return "ok"
"""
    pod.load(code)
    assert [pod.get(path).json() for path in ("/exit", "/", "/stop", "/")] == ["ok"] * 4


def test_async_invocations_overlap(pod, gate, wait_at_gate, background):
    code = (
        wait_at_gate
        + "async def handler(event, context):\n    await wait_at_gate_async()\n    return event['rawPath']\n"
    )
    pod.load(code, concurrency=50, env=gate.env)
    calls = [background(lambda n=n: pod.get(f"/{n}")) for n in range(50)]
    gate.arrived(50)
    assert pod.get().headers["kappa-refused"] == "busy"
    gate.open()
    assert [call.result().json() for call in calls] == [f"/{n}" for n in range(50)]


def test_an_event_handler_runs_on_although_its_client_left(pod, gate, wait_at_gate):
    pod.load(wait_at_gate + "def handler(event, context):\n    wait_at_gate()\n    print('to the end')\n", env=gate.env)
    with pod.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        gate.arrived()
    assert pod.health()["inFlight"] == 1
    gate.open()
    pod.logs.message("to the end")


def test_code_of_aws_lambda_finds_what_it_is_used_to(pod):
    code = """
import asyncio, sqlite3, os
loop = asyncio.get_event_loop()
database = sqlite3.connect(":memory:")  # used on this thread only
async def work():
    return "worked"
def handler(event, context):
    database.execute("select 1")
    assert open("data.txt").read() == "data"
    assert asyncio.get_event_loop() is loop
    return loop.run_until_complete(work())
"""
    pod.load({"main.py": code, "data.txt": "data"})
    assert [pod.get().json() for _ in range(3)] == ["worked"] * 3


def test_a_handler_whose_decorator_hides_that_it_is_async(pod):
    code = """
def plain(function):
    return lambda event, context: function(event, context)
@plain
async def handler(event, context):
    return "ok"
"""
    assert pod.load(code).get().json() == "ok"


def test_binary_bodies(pod):
    code = """
import base64
def handler(event, context):
    data = base64.b64decode(event["body"]) if event["isBase64Encoded"] else event["body"].encode()
    return data[::-1]
"""
    pod.load(code)
    data = bytes(range(256))
    reply = pod.request("POST", "/", data, {"content-type": "image/png"})
    assert (reply.body, reply.headers["content-type"]) == (data[::-1], "application/octet-stream")


def test_invocations_of_threads_keep_their_context_apart(pod, background):
    pod.load("def handler(event, context):\n    return [event['rawPath'], context.request_id]\n", concurrency=8)

    def many(worker):
        return [pod.get(f"/{worker}/{n}", kappa_request_id=f"{worker}-{n}").json() for n in range(30)]

    found = [call.result() for call in [background(lambda w=w: many(w)) for w in range(8)]]
    assert found == [[[f"/{w}/{n}", f"{w}-{n}"] for n in range(30)] for w in range(8)]


def test_a_reply_that_is_too_large(pods):
    pod = pods(max_reply_bytes=1000).load("def handler(event, context):\n    return 'x' * int(event['rawPath'][1:])\n")
    assert pod.get("/998").status == 200
    reply = pod.get("/999")
    assert (reply.status, reply.headers["kappa-error"]) == (500, "Runtime.InvalidReply")
    assert "at most 1000" in json.loads(reply.body)["errorMessage"]
