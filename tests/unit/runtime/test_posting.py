"""How emitted events get to the gateway: against an HTTP server on the loopback interface, in virtual time."""

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from kappa_runtime.posting import Clock, EmitError, poster

HOST = "127.91.0.2"


class Gateway(ThreadingHTTPServer):
    """Answers with `answers`, in order, then with 202. An answer of None closes the connection instead."""

    daemon_threads = True

    def __init__(self):
        super().__init__((HOST, 0), Handler)
        self.answers, self.requests, self.connections = [], [], 0

    @property
    def url(self):
        return f"http://{HOST}:{self.server_port}"

    def process_request(self, request, client_address):
        self.connections += 1
        super().process_request(request, client_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        answer = self.server.answers.pop(0) if self.server.answers else (202, {}, {"accepted": 1})
        if answer is None:
            self.close_connection = True
            return
        status, headers, value = answer
        content = json.dumps(value).encode()
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name, text)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


class Time:
    """Seconds that pass only when somebody sleeps."""

    def __init__(self):
        self.now, self.pauses = 0.0, []

    def clock(self):
        return Clock(lambda: self.now, self.sleep)

    def sleep(self, seconds):
        self.pauses.append(seconds)
        self.now += seconds


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
def time():
    return Time()


def error(status, code="unavailable", **headers):
    return status, headers, {"error": {"code": code, "message": "not now", "requestId": "r"}}


def test_what_is_sent(gateway, time):
    post = poster(gateway.url + "/", "the-token", "default", "pod-1", time.clock())
    post(b'{"id": "1"}', {"X-Request-Id": "r-1", "kappa-hops": "3"}, 10.0)
    ((path, headers, body),) = gateway.requests
    assert (path, body) == ("/events/default", b'{"id": "1"}')
    expected = {
        "authorization": "Bearer the-token",
        "kappa-pod": "default/pod-1",
        "content-type": "application/cloudevents+json",
        "x-request-id": "r-1",
        "kappa-hops": "3",
    }
    assert {name: headers[name] for name in expected} == expected


def test_connections_stay_open(gateway, time):
    post = poster(gateway.url, "t", "default", "pod-1", time.clock())
    for _ in range(5):
        post(b"{}", {}, 10.0)
    assert (len(gateway.requests), gateway.connections) == (5, 1)


def test_one_that_the_gateway_has_closed_costs_no_pause(gateway, time):
    post = poster(gateway.url, "t", "default", "pod-1", time.clock())
    post(b"{}", {}, 10.0)
    gateway.answers = [None]
    post(b"{}", {}, 10.0)
    assert (gateway.connections, time.pauses) == (2, [])


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_may_pass_is_tried_again(gateway, time, status):
    gateway.answers = [error(status), error(status), error(status)]
    poster(gateway.url, "t", "default", "pod-1", time.clock())(b"{}", {}, 10.0)
    assert (len(gateway.requests), time.pauses) == (4, [0.1, 0.2, 0.4])


def test_retry_after_is_heeded(gateway, time):
    gateway.answers = [error(503, **{"Retry-After": "3"})]
    poster(gateway.url, "t", "default", "pod-1", time.clock())(b"{}", {}, 10.0)
    assert time.pauses == [3.0]


def test_when_there_is_no_time_left_the_last_refusal_is_raised(gateway, time):
    gateway.answers = [error(503)] * 100
    with pytest.raises(EmitError, match="the gateway answered 503: not now") as caught:
        poster(gateway.url, "t", "default", "pod-1", time.clock())(b"{}", {}, 5.0)
    assert (caught.value.status, caught.value.code) == (503, "unavailable")
    assert 3.0 < time.now <= 5.0


@pytest.mark.parametrize("status", [400, 401, 404, 413])
def test_what_will_not_pass_is_raised_at_once(gateway, time, status):
    gateway.answers = [error(status, "bad_event")]
    with pytest.raises(EmitError, match=f"answered {status}: not now") as caught:
        poster(gateway.url, "t", "default", "pod-1", time.clock())(b"{}", {}, 10.0)
    assert (caught.value.status, caught.value.code, time.pauses) == (status, "bad_event", [])


def test_an_answer_that_is_not_the_gateways(gateway, time):
    gateway.answers = [(404, {}, ["what"])]
    with pytest.raises(EmitError, match=r"answered 404: \[\"what\"\]"):
        poster(gateway.url, "t", "default", "pod-1", time.clock())(b"{}", {}, 10.0)


def test_nobody_listens(time):
    with socket.create_server((HOST, 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(EmitError, match="cannot be reached") as caught:
        poster(f"http://{HOST}:{port}", "t", "default", "pod-1", time.clock())(b"{}", {}, 3.0)
    assert caught.value.status == 0
    assert time.pauses == [0.1, 0.2, 0.4, 0.8]


def test_the_deadline_has_passed(gateway, time):
    with pytest.raises(EmitError, match="deadline"):
        poster(gateway.url, "t", "default", "pod-1", time.clock())(b"{}", {}, -1.0)
    assert gateway.requests == []


def test_the_token_is_no_attribute(gateway, time):
    assert "secret-token" not in repr(vars(poster(gateway.url, "secret-token", "default", "pod-1", time.clock())))
