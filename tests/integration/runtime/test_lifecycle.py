"""Empty, loading, serving, draining: what the platform asks and what it gets."""

import http.client
import json

import pytest

HELLO = "def handler(event, context):\n    return 'hello'\n"
WAITS = """
def handler(event, context):
    wait_at_gate()
    return "done"
"""


def test_health_tells_the_state(pod):
    assert pod.get("/_kappa/health").headers["content-type"] == "application/json"
    health = pod.health()
    assert health.pop("tasks") >= 1
    assert health == {"state": "empty", "function": "", "revision": "", "inFlight": 0}
    reply = pod.specialize(HELLO)
    for health in (reply.json(), pod.health()):
        assert health.pop("tasks") >= 1
        assert health == {"state": "serving", "function": "default/hello", "revision": "rev1", "inFlight": 0}
    assert reply.status == 200
    pod.drain()
    assert pod.health()["state"] == "draining"


@pytest.mark.parametrize("header", [{}, {"authorization": "Bearer wrong"}, {"authorization": "Basic a-pod-token"}])
@pytest.mark.parametrize(("method", "path"), [("PUT", "/_kappa/revision"), ("POST", "/_kappa/drain")])
def test_the_platforms_paths_need_the_token(pod, header, method, path):
    reply = pod.request(method, path, "{}", header)
    assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
    assert pod.health()["state"] == "empty"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/_kappa/nothing", 404),
        ("GET", "/_kappa/", 404),
        ("POST", "/_kappa/health", 405),
        ("GET", "/_kappa/revision", 405),
        ("GET", "/_kappa/drain", 405),
    ],
)
def test_other_platform_paths(pod, method, path, status):
    assert pod.platform(method, path).status == status


def test_the_function_does_not_see_the_token(pod):
    pod.load("import os\ndef handler(event, context):\n    return os.environ.get('KAPPA_POD_TOKEN', 'not there')\n")
    assert pod.get().json() == "not there"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (b"{", "not a specialize message"),
        (b"[]", "not a specialize message"),
        ({"revision": "../x"}, "revision"),
        ({"signature": "wsgi"}, "signature"),
        ({"handler": "main"}, "handler"),
        ({"concurrency": 0}, "concurrency"),
        ({"env": {"A=B": "c"}}, "env"),
        ({"files": {"main.py": "!"}}, "not a specialize message"),
    ],
)
def test_a_specialize_message_that_is_not_one(pod, specialize_message, change, text):
    body = change if isinstance(change, bytes) else json.dumps(specialize_message(HELLO) | change)
    reply = pod.platform("PUT", "/_kappa/revision", body)
    assert (reply.status, text in reply.json()["error"]["message"]) == (400, True)
    assert pod.load(HELLO).get().json() == "hello"  # nothing ran: the pod is as good as new


def test_a_specialized_pod_stays_what_it_is(pod):
    pod.load(HELLO)
    reply = pod.specialize("def handler(event, context):\n    return 'other'\n", revision="rev2")
    assert (reply.status, reply.json()["revision"]) == (409, "rev1")
    assert pod.get().json() == "hello"


def test_code_that_is_too_large(pods):
    pod = pods(max_code_bytes=2000)
    assert pod.specialize({"main.py": HELLO, "data.bin": b"x" * 3000}).status == 413
    assert pod.load(HELLO).get().json() == "hello"


def test_an_empty_pod_refuses(pod):
    reply = pod.get()
    assert (reply.status, reply.headers["kappa-refused"]) == (503, "empty")


def test_at_its_concurrency_it_refuses_at_once(pod, gate, wait_at_gate, background):
    pod.load(wait_at_gate + WAITS, env=gate.env)
    first = background(pod.get)
    gate.arrived()
    assert pod.health()["inFlight"] == 1
    reply = pod.request("POST", "/", b"x" * 1000)
    assert (reply.status, reply.headers["kappa-refused"], reply.headers.get("connection")) == (503, "busy", None)
    gate.open()
    assert first.result().json() == "done"
    assert pod.health()["inFlight"] == 0


def test_a_large_body_is_refused_before_it_is_read(pod, gate, wait_at_gate, background):
    pod.load(wait_at_gate + WAITS, env=gate.env)
    first = background(pod.get)
    gate.arrived()
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\nExpect: 100-continue\r\n\r\n"
    reply = pod.exchange(head)
    assert reply.startswith(b"HTTP/1.1 503 ")
    assert b"kappa-refused: busy" in reply
    gate.open()
    first.result()


def test_several_at_a_time(pod, gate, wait_at_gate, background):
    pod.load(wait_at_gate + WAITS, env=gate.env, concurrency=3)
    calls = [background(pod.get) for _ in range(3)]
    gate.arrived(3)
    assert pod.get().headers["kappa-refused"] == "busy"
    gate.open()
    assert [call.result().json() for call in calls] == ["done"] * 3


def test_invocations_wait_while_the_code_loads(pod, gate, wait_at_gate, background):
    code = wait_at_gate + "wait_at_gate()\n" + HELLO
    loading = background(lambda: pod.specialize(code, env=gate.env))
    gate.arrived()
    assert pod.health()["state"] == "loading"
    with pod.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc")
        gate.open()
        assert loading.result().status == 200
        assert b'"hello"' in client.recv(1000)


SEEN = """
import json
seen = []
def handler(event, context):
    seen.append(event["rawPath"])
    return seen
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    seen.append(scope["path"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(seen).encode()})
"""


@pytest.mark.parametrize(("handler", "signature"), [("main.handler", "event"), ("main.app", "asgi")])
@pytest.mark.parametrize("body", [b"", b"abc"])
def test_a_caller_who_leaves_while_the_code_loads_is_not_served(
    pod, gate, wait_at_gate, background, body, handler, signature
):
    code = wait_at_gate + "wait_at_gate()\n" + SEEN
    loading = background(lambda: pod.specialize(code, handler, signature=signature, env=gate.env))
    gate.arrived()
    with pod.connect() as client:
        client.sendall(b"POST /left HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        pod.health()
        pod.health()  # by now the runtime has read it
    pod.health()
    pod.health()  # and that the connection has ended
    gate.open()
    assert loading.result().status == 200
    assert pod.get("/stayed").json() == ["/stayed"]


def test_invocations_that_waited_for_code_that_does_not_load(pod, gate, wait_at_gate, background):
    code = wait_at_gate + "wait_at_gate()\nraise ValueError('no')\n"
    loading = background(lambda: pod.specialize(code, env=gate.env))
    gate.arrived()
    with pod.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        gate.open()
        assert loading.result().status == 422
        assert b"kappa-refused: empty" in client.recv(1000)


def test_drain_answers_when_nothing_is_in_flight(pod, gate, wait_at_gate, background):
    pod.load(wait_at_gate + WAITS, env=gate.env)
    call = background(pod.get)
    gate.arrived()
    with pod.connect() as client:
        client.sendall(b"POST /_kappa/drain HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a-pod-token\r\n\r\n")
        while pod.health()["state"] != "draining":
            pass
        assert pod.get().headers["kappa-refused"] == "draining"
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(1)
        client.settimeout(20)
        gate.open()
        assert call.result().json() == "done"
        assert json.loads(client.recv(1000).partition(b"\r\n\r\n")[2])["inFlight"] == 0


def test_an_empty_pod_drains_at_once(pod):
    assert pod.drain().json()["state"] == "draining"
    assert pod.specialize(HELLO).status == 409


def test_sigterm_ends_an_idle_pod(pod, everything):
    with pod.connect() as idle:
        pod.terminate()
        assert b"kappa-refused: draining" in everything(idle)
    assert pod.wait() == 0


def test_sigterm_lets_invocations_finish(pod, gate, wait_at_gate, background):
    pod.load(wait_at_gate + WAITS, env=gate.env)
    with pod.connect() as other:
        call = background(pod.get)
        gate.arrived()
        pod.terminate()
        while pod.health()["state"] != "draining":
            pass
        other.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        reply = other.recv(1000)
        assert b"kappa-refused: draining" in reply
        assert b"connection: close" in reply
        gate.open()
        reply = call.result()
        assert (reply.json(), reply.headers["connection"]) == ("done", "close")
    assert pod.wait() == 0


def test_sigterm_runs_exit_handlers_and_leaves_no_files(pod, tmp_path):
    pod.load("import atexit\natexit.register(print, 'bye')\n" + HELLO)
    assert (tmp_path / "kappa/code/rev1/main.py").exists()
    assert pod.stop() == 0
    pod.logs.message("bye")
    assert not list((tmp_path / "kappa/code").iterdir())


def test_a_second_sigterm_does_not_wait(pod, gate, wait_at_gate, background):
    pod.load(wait_at_gate + WAITS, env=gate.env)
    with pod.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        gate.arrived()
        pod.terminate()
        while pod.health()["state"] != "draining":
            pass
        pod.terminate()
        assert pod.wait() == 0


def test_sigterm_while_the_code_loads(pod, gate, wait_at_gate, background):
    loading = background(lambda: pod.specialize(wait_at_gate + "wait_at_gate()\n" + HELLO, env=gate.env))
    gate.arrived()
    pod.terminate()
    assert pod.wait() == 0
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        loading.result()


def test_a_drain_that_waits_for_a_stuck_invocation_ends_with_the_process(pods, gate, wait_at_gate, background):
    pod = pods(grace_seconds=0.1).load(wait_at_gate + WAITS, env=gate.env, timeoutSeconds=1)
    call = background(pod.get)
    gate.arrived()
    drain = background(pod.drain)
    assert call.result().status == 504
    assert drain.result().json()["inFlight"] == 1
    assert pod.wait() == 1
