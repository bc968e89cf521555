"""What a Trigger delivers, as handlers see it, and what becomes of what they return and emit."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

HOST, TOKEN = "127.91.0.1", "a-pod-token"
SEEN = """{define} handler(event, context):
    one = context.cloud_event
    return {{
        "event": event, "attempt": context.attempt, "ids": [each.id for each in context.cloud_events],
        "one": one and [one.type, one["type"], one.data],
    }}
"""


def events(*data, **more):
    given = {"specversion": "1.0", "source": "/triggers/default/t", "type": "com.example.x"} | more
    return json.dumps([given | {"id": f"e-{number}", "data": one} for number, one in enumerate(data)])


def deliver(pod, body, shape="cloudevent", attempt=0):
    headers = {
        "content-type": "application/cloudevents-batch+json",
        "kappa-event-shape": shape,
        "kappa-attempt": str(attempt),
        "kappa-request-id": "req-1",
    }
    return pod.request("POST", "/", body, headers)


@pytest.mark.parametrize("define", ["def", "async def"])
def test_one_event(pod, define):
    pod.load(SEEN.format(define=define))
    found = deliver(pod, events({"n": 1}), attempt=2).json()
    assert found == {
        "event": {
            "specversion": "1.0",
            "id": "e-0",
            "source": "/triggers/default/t",
            "type": "com.example.x",
            "data": {"n": 1},
        },
        "attempt": 2,
        "ids": ["e-0"],
        "one": ["com.example.x", "com.example.x", {"n": 1}],
    }


def test_shapes_and_batches(pod):
    pod.load(SEEN.format(define="def"))
    found = deliver(pod, events("a", "b"), "sqs; batch").json()
    assert [record["body"] for record in found["event"]["Records"]] == ["a", "b"]
    assert found["ids"] == ["e-0", "e-1"]
    found = deliver(pod, events("a"), "cloudevent; batch").json()
    assert [record["data"] for record in found["event"]["Records"]] == ["a"]


def test_a_plain_call_has_no_events_and_no_attempts(pod):
    pod.load(SEEN.format(define="def"))
    found = pod.get("/").json()
    assert (found["attempt"], found["ids"], found["one"], found["event"]["version"]) == (0, [], None, "2.0")


@pytest.mark.parametrize(
    "result",
    [
        {"batchItemFailures": [{"itemIdentifier": "e-0"}]},
        {"statusCode": 500, "body": "this is data", "headers": {"x": 1}},
        None,
        [1],
    ],
)
def test_what_is_returned_is_data(pod, result):
    pod.load(f"def handler(event, context):\n    return {result!r}\n")
    reply = deliver(pod, events(1))
    assert (reply.status, reply.json(), reply.headers["content-type"]) == (200, result, "application/json")


def test_an_exception_is_a_failure(pod):
    pod.load("def handler(event, context):\n    raise ValueError(event['data'])\n")
    reply = deliver(pod, events("bad"))
    assert (reply.status, reply.headers["kappa-error"], reply.json()["errorMessage"]) == (500, "ValueError", "bad")


def test_a_result_that_is_no_data(pod):
    pod.load("def handler(event, context):\n    return {1}\n")
    reply = deliver(pod, events(1))
    assert (reply.status, reply.headers["kappa-error"]) == (500, "Runtime.InvalidReply")


@pytest.mark.parametrize(("body", "shape"), [("{", "sqs"), ("[]", "sqs"), (events(1), "s3"), (events(1), "kafka")])
def test_what_is_no_event_does_not_run(pod, body, shape):
    pod.load("def handler(event, context):\n    print('it runs')\n")
    reply = deliver(pod, body, shape)
    assert (reply.status, reply.headers["kappa-error"]) == (500, "Runtime.InvalidEvent")
    pod.stop()
    assert not [line for line in pod.logs.lines if line["message"] == "it runs"]


def test_asgi_apps_see_the_attempt(pod):
    code = """
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(scope["kappa.context"].attempt).encode()})
"""
    pod.load(code, "main.app", signature="asgi")
    assert pod.request("POST", "/", b"", {"kappa-attempt": "3"}).body == b"3"


# --- emitting ---------------------------------------------------------------------------------------------------------
class Gateway(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__((HOST, 0), Handler)
        self.events, self.paths, self.status = [], [], 202


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        event = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.paths.append((self.path, self.headers["authorization"], self.headers["kappa-pod"]))
        self.server.events.append(event)
        error = {"error": {"code": "bad_event", "message": "no such thing", "requestId": ""}}
        content = json.dumps(error if self.server.status >= 400 else {}).encode()
        self.send_response(self.server.status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def gateway():
    gateway = Gateway()
    thread = threading.Thread(target=gateway.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield gateway
    gateway.shutdown()
    thread.join()
    gateway.server_close()


@pytest.fixture
def emitting_pod(pods, gateway):
    return pods(gateway_url=f"http://{HOST}:{gateway.server_port}")


SYNC = """
def handler(event, context):
    return [context.emit("a", {"n": n}, subject="s") for n in range(2)]
"""
ASYNC = """
import asyncio
import kappa_runtime

async def handler(event, context):
    return await asyncio.gather(*(kappa_runtime.emit("a", {"n": n}, subject="s") for n in range(2)))
"""


@pytest.mark.parametrize("code", [SYNC, ASYNC])
def test_a_function_emits(emitting_pod, gateway, code):
    emitting_pod.load(code)
    ids = emitting_pod.get("/").json()
    assert sorted(event["id"] for event in gateway.events) == sorted(ids)
    assert gateway.paths == [("/events/default", f"Bearer {TOKEN}", "default/pod-1")] * 2
    assert {event["source"] for event in gateway.events} == {"/fn/default/hello"}


@pytest.mark.parametrize("code", [SYNC, ASYNC])
def test_an_event_that_is_delivered_again_emits_the_same_events(emitting_pod, gateway, code):
    emitting_pod.load(code)
    first = deliver(emitting_pod, events(1)).json()
    assert deliver(emitting_pod, events(1), attempt=1).json() == first
    both = deliver(emitting_pod, events(1, 2), "sqs; batch").json()
    assert both != first
    turned = json.dumps(json.loads(events(1, 2))[::-1])
    assert deliver(emitting_pod, turned, "sqs; batch", attempt=1).json() == both


def test_an_asgi_app_emits(emitting_pod, gateway):
    code = """
from kappa_runtime import EmitError, emit

async def app(scope, receive, send):
    if scope["type"] == "http":
        try:
            body = await emit("a")
        except EmitError as error:
            body = f"{error.status} {error.code} {error}"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body.encode()})
"""
    emitting_pod.load(code, "main.app", signature="asgi")
    assert emitting_pod.get("/").body.decode() == gateway.events[0]["id"]
    gateway.status = 400
    assert emitting_pod.get("/").body == b"400 bad_event the gateway answered 400: no such thing"


def test_an_asgi_app_emits_the_same_event_for_the_same_event(emitting_pod, gateway):
    code = """
from kappa_runtime import emit

async def app(scope, receive, send):
    if scope["type"] == "http":
        body = await emit("a")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body.encode()})
"""
    emitting_pod.load(code, "main.app", signature="asgi")

    def emitted(event, attempt):
        headers = {"ce-id": event, "ce-source": "/s", "kappa-attempt": attempt} if attempt else {"ce-id": event}
        return emitting_pod.request("POST", "/", b"", headers).body

    assert emitted("1", "0") == emitted("1", "1") != emitted("2", "0")
    assert emitted("1", None) != emitted("1", None)


def test_what_is_not_accepted_fails_the_handler(emitting_pod, gateway):
    gateway.status = 403
    reply = emitting_pod.load(SYNC).get("/")
    assert (reply.status, reply.headers["kappa-error"]) == (500, "EmitError")


def test_without_a_gateway(pod):
    reply = pod.load(SYNC).get("/")
    assert "only inside an instance" in reply.json()["errorMessage"]


def test_modules_of_the_functions_own_do_not_get_into_the_way(emitting_pod, gateway):
    shadows = {"json.py": "x = 1", "http.py": "x = 1", "ssl.py": "x = 1", "main.py": "import http, json" + SYNC}
    assert len(emitting_pod.load(shadows).get("/").json()) == 2


def test_the_token_is_not_in_the_environment(emitting_pod):
    emitting_pod.load("import os\ndef handler(event, context):\n    return dict(os.environ)\n")
    assert TOKEN not in emitting_pod.get("/").body.decode()
