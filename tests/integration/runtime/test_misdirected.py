"""An invocation that names another function is refused, whatever the instance is doing; nothing of it is run."""

import pytest

SEEN = "seen = []\ndef handler(event, context):\n    seen.append(event['headers'])\n    return seen\n"


def call(pod, function, method="GET", body=None, **headers):
    named = {"kappa-function": function, "kappa-request-id": "id-1"}
    return pod.request(method, "/", body, {**named, **headers})


def test_only_calls_for_this_function_run(pod):
    pod.load(SEEN)
    for function in ("default/other", "shop/hello", "default/hell", "default/hello/", "default/hello,default/hello"):
        reply = call(pod, function, "POST", "abc")
        assert (reply.status, reply.headers["kappa-refused"]) == (503, "misdirected")
        assert reply.json()["error"] == {
            "code": "misdirected",
            "message": "refused: misdirected",
            "requestId": "id-1",
        }
        assert "kappa-duration-ms" not in reply.headers
    assert pod.health()["inFlight"] == 0
    (headers,) = call(pod, "default/hello").json()
    assert "kappa-function" not in headers
    assert len(pod.get().json()) == 2  # who is no gateway names none


def test_a_refusal_comes_before_anything_else_that_this_function_would_say(pod):
    pod.load(SEEN, concurrency=1)
    late = {"kappa-deadline-ms": "1000"}
    assert call(pod, "default/hello", **late).status == 504
    assert call(pod, "default/other", **late).headers["kappa-refused"] == "misdirected"
    pod.drain()
    assert call(pod, "default/hello").headers["kappa-refused"] == "draining"
    assert call(pod, "default/other").headers["kappa-refused"] == "misdirected"


def test_it_is_refused_at_once_while_the_code_loads(pod, gate, wait_at_gate, background):
    loading = background(lambda: pod.specialize(wait_at_gate + "wait_at_gate()\n" + SEEN, env=gate.env))
    gate.arrived()
    assert call(pod, "default/other").headers["kappa-refused"] == "misdirected"
    waiting = background(lambda: call(pod, "default/hello"))
    gate.open()
    assert loading.result().status == 200
    assert len(waiting.result().json()) == 1


def test_a_pod_without_code_is_empty_for_everybody(pod):
    assert call(pod, "default/hello").headers["kappa-refused"] == "empty"
    assert pod.specialize("raise ValueError('no')\n").status == 422
    assert call(pod, "default/hello").headers["kappa-refused"] == "empty"
    assert call(pod, "default/other").headers["kappa-refused"] == "empty"


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 100000\r\nExpect: 100-continue\r\n",
        b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n",
    ],
)
def test_no_byte_of_a_large_body_is_asked_for(pod, until, lines):
    pod.load(SEEN)
    with pod.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nkappa-function: default/other\r\n" + lines + b"\r\n")
        reply = until(client, b"\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 503 ")
    assert b"kappa-refused: misdirected" in reply


def test_an_application_sees_neither_the_call_nor_the_header(pod):
    pod.load(
        "async def app(scope, receive, send):\n"
        "    if scope['type'] == 'lifespan': return\n"
        "    names = b' '.join(sorted(name for name, _ in scope['headers']))\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "    await send({'type': 'http.response.body', 'body': names})\n",
        "main.app",
        signature="asgi",
    )
    assert b"kappa-" not in call(pod, "default/hello").body
    handshake = (
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nkappa-function: default/other\r\n\r\n"
    )
    reply = pod.exchange(handshake)
    assert reply.startswith(b"HTTP/1.1 503 ")
    assert b"kappa-refused: misdirected" in reply
