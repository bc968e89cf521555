"""HTTP/1.1 on the wire: what is served, what is refused, and how a connection ends."""

import json
import re
import socket
from pathlib import Path

import pytest

ECHO = """
def handler(event, context):
    http = event["requestContext"]["http"]
    return {
        "method": http["method"], "path": event["rawPath"], "body": event.get("body"), "headers": event["headers"],
        "query": event["rawQueryString"],
    }
"""
HOST = b"Host: x\r\n"


@pytest.fixture(scope="module")
def echo(module_pods):
    return module_pods(head_seconds=0.2, linger_seconds=0.5, sweep_seconds=0.05, max_event_bytes=300_000).load(ECHO)


def bodies(data):
    """The JSON bodies of all replies in `data`."""
    found = []
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head)[1])
        found.append(json.loads(rest[:length] or b"null"))
        data = rest[length:]
    return found


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/", None),
        ("POST", "/a/b", "text"),
        ("PUT", "/%2F%C3%A9?x=%20", "text"),
        ("DELETE", "/", None),
        ("PATCH", "/", "x"),
        ("OPTIONS", "/", None),
    ],
)
def test_methods_and_targets(echo, method, path, body):
    found = echo.request(method, path, body, {"content-type": "text/plain"}).json()
    target, _, query = path.partition("?")
    assert (found["method"], found["path"], found["query"], found["body"]) == (method, target, query, body)


def test_one_connection_serves_many(echo, until):
    with echo.connect() as client:
        for number in range(5):
            client.sendall(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number)
            assert b'"path":"/%d"' % number in until(client, b"}")


def test_pipelined_requests_are_answered_in_order(echo):
    request = b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nabc"
    data = echo.raw(b"".join(request % number for number in range(20)))
    assert [(body["path"], body["body"]) for body in bodies(data)] == [(f"/{n}", "abc") for n in range(20)]


def test_a_request_in_single_bytes(echo, until):
    with echo.connect() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi":
            client.sendall(bytes((byte,)))
        assert b'"body":"hi"' in until(client, b'"}')


def test_chunked_bodies(echo):
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
    data = echo.raw(head + b"3;name=value\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    assert bodies(data)[0]["body"] == "abcde"


def test_trailers_never_become_headers_of_this_request_or_the_next(echo, until):
    with echo.connect() as client:
        client.sendall(
            b"POST /1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"1\r\na\r\n0\r\nX-Evil: 1\r\nX-Worse: 2\r\n\r\n"
        )
        first = until(client, b'"}')
        client.sendall(b"GET /2 HTTP/1.1\r\nHost: x\r\n\r\n")
        second = until(client, b'"}')
        assert b'"path":"/2"' in second
        assert b"x-evil" not in first + second
        assert b"x-worse" not in first + second


def test_nothing_may_be_pipelined_behind_a_chunked_request(echo):
    chunked = b"POST /1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Evil: 1\r\n\r\n"
    data = echo.exchange(chunked + b"GET /2 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b'"path":"/1"' in data
    assert b"x-evil" not in data
    assert data.count(b"HTTP/1.1 400") == 1


def test_head_has_the_headers_and_no_body(echo):
    data = echo.raw(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, body = data.partition(b"\r\n\r\n")
    assert re.search(rb"content-length: [1-9]", head)
    assert body == b""


def test_a_probe_that_closes_gets_its_answer_and_leaves_no_trace(pod):
    """The health answer is given at the head's end, before the parser has seen the message's."""
    pod.load("def handler(event, context):\n    print('afterwards')\n")
    for _ in range(3):
        reply = pod.exchange(b"GET /_kappa/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert reply.startswith(b"HTTP/1.1 200 OK\r\n")
        assert json.loads(reply.partition(b"\r\n\r\n")[2])["state"] == "serving"
    pod.get()
    pod.logs.message("afterwards")
    assert not [line for line in pod.logs.lines if line["level"] == "ERROR"]


def test_http_1_0(echo):
    data = echo.exchange(b"GET / HTTP/1.0\r\n\r\n")
    assert b"connection: close" in data
    assert bodies(data)[0]["path"] == "/"
    with echo.connect() as client:
        for _ in range(2):
            client.sendall(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert b"connection: keep-alive" in client.recv(10000)


def test_expect_100_continue(echo, until):
    with echo.connect() as client:
        client.sendall(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n"
            b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        )
        assert until(client, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"abc")
        assert b'"body":"abc"' in until(client, b'"}')


def test_expect_100_continue_when_the_body_is_there_already(echo):
    data = echo.raw(
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n"
        b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\nabc"
    )
    assert b'"body":"abc"' in data


SMUGGLING = {
    "length and chunked": b"POST / HTTP/1.1\r\n"
    + HOST
    + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": b"POST / HTTP/1.1\r\n"
    + HOST
    + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "zero length and chunked": b"POST / HTTP/1.1\r\n"
    + HOST
    + b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "the same length twice": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a length twice, first zero": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\nContent-Length: 3\r\n\r\nabc",
    "a list of lengths": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3, 3\r\n\r\nabc",
    "a signed length": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: +3\r\n\r\nabc",
    "a negative length": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: -3\r\n\r\nabc",
    "a hexadecimal length": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 0x3\r\n\r\nabc",
    "an empty length": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: \r\n\r\nabc",
    "a huge length": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 99999999999999999999999\r\n\r\nabc",
    "chunked twice": b"POST / HTTP/1.1\r\n"
    + HOST
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked not last": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "gzip before chunked": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "an unknown coding": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length : 3\r\n\r\nabc",
    "a folded header": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a bad chunk size": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n0\r\n\r\n",
    "a signed chunk size": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n+1\r\na\r\n0\r\n\r\n",
    "a chunk size of 0x1": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
    "a huge chunk size": b"POST / HTTP/1.1\r\n"
    + HOST
    + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\na\r\n",
    "a chunk longer than its size": b"POST / HTTP/1.1\r\n"
    + HOST
    + b"Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
    "a chunk without line end": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n1\r\na0\r\n\r\n",
    "bare line feeds in chunks": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n1\na\n0\n\n",
    "a NUL in a header": b"GET / HTTP/1.1\r\n" + HOST + b"X: a\0b\r\n\r\n",
    "a bare CR in a header": b"GET / HTTP/1.1\r\n" + HOST + b"X: a\rb\r\n\r\n",
    "a header without a colon": b"GET / HTTP/1.1\r\n" + HOST + b"nonsense\r\n\r\n",
    "a header without a name": b"GET / HTTP/1.1\r\n" + HOST + b": x\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "version 2.0": b"GET / HTTP/2.0\r\n" + HOST + b"\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "an unknown method": b"BREW / HTTP/1.1\r\n" + HOST + b"\r\n",
    "CONNECT": b"CONNECT x:443 HTTP/1.1\r\n" + HOST + b"\r\n",
    "an absolute target": b"GET http://x/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "an asterisk": b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
    "a fragment": b"GET /a#b HTTP/1.1\r\n" + HOST + b"\r\n",
    "a space in the target": b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n",
}


@pytest.mark.parametrize("name", SMUGGLING)
def test_what_is_not_sound_gets_400_and_nothing_after_it_is_read(echo, name):
    data = echo.exchange(SMUGGLING[name] + b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
    assert data.startswith(b"HTTP/1.1 400 "), data
    assert len(re.findall(rb"HTTP/1.1 \d", data)) == 1, data
    assert b"connection: close" in data
    assert b"smuggled" not in data
    assert echo.health()["inFlight"] == 0


def test_a_sound_request_before_a_bad_one_is_answered(echo):
    data = echo.exchange(b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\n\r\n")
    assert data.startswith(b"HTTP/1.1 200 ")
    assert data.count(b"HTTP/1.1 400 ") == 1


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: a\r\n" * 300 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 2_000_000, 431),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"a" * 2_000_000, 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"a" * 2_000_000, 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n61a80\r\n" + b"a" * 400_000, 413),
    ],
)
def test_what_is_too_large(echo, request_head, status):
    with echo.connect() as client:
        try:
            client.sendall(request_head)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert client.recv(10_000).startswith(b"HTTP/1.1 %d " % status)
    assert echo.get("/after").json()["path"] == "/after"


def test_a_header_section_that_does_not_end(echo, everything):
    with echo.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX: ")
        assert everything(client).startswith(b"HTTP/1.1 408 ")


def test_an_idle_connection_is_closed(pods, everything):
    pod = pods(keep_alive_seconds=0.1, sweep_seconds=0.05)
    with pod.connect() as client:
        client.sendall(b"GET /_kappa/health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert everything(client).startswith(b"HTTP/1.1 200 ")


def test_a_body_that_does_not_arrive(pods, everything):
    pod = pods(linger_seconds=0.1, sweep_seconds=0.05).load(ECHO, timeoutSeconds=1)
    with pod.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
        assert everything(client).startswith(b"HTTP/1.1 408 ")
    assert pod.health()["inFlight"] == 0


@pytest.mark.parametrize("data", [b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc", b"GET / HT", b""])
def test_a_client_that_leaves_early_costs_nothing(echo, data):
    for _ in range(20):
        with echo.connect() as client:
            client.sendall(data)
    while echo.health()["inFlight"]:
        pass
    assert echo.get("/x").json()["path"] == "/x"


def test_an_upgrade_that_is_not_known_is_ignored(echo):
    data = echo.exchange(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
    assert data.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in data


BIG = """
def handler(event, context):
    return "x" * int(event["rawPath"][1:])
"""


def test_a_reply_of_ten_megabytes(pod):
    pod.load(BIG)
    assert pod.get("/10000000").body == b'"' + b"x" * 10_000_000 + b'"'


def test_a_client_that_reads_slowly_gets_it_all(pod):
    pod.load(BIG)
    with pod.connect() as client:
        client.sendall(b"GET /20000000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        size = 0
        while part := client.recv(50_000):
            size += len(part)
            if size < 500_000:
                assert pod.get("/1").body == b'"x"'  # its slot is free, the server is not held up
    assert size > 20_000_000


def test_a_client_that_reads_nothing_is_cut_off(pods, everything):
    pod = pods(stall_seconds=0.2, sweep_seconds=0.05).load(BIG)
    with pod.connect() as client:
        client.sendall(b"GET /30000000 HTTP/1.1\r\nHost: x\r\n\r\n")
        client.recv(1)
        while _tcp_state(pod.port, client.getsockname()[1]) == b"01":
            pass
        assert len(everything(client)) < 30_000_000


def test_clients_that_leave_mid_reply(pod):
    pod.load(BIG)
    for _ in range(10):
        with pod.connect() as client:
            client.sendall(b"GET /10000000 HTTP/1.1\r\nHost: x\r\n\r\n")
            client.recv(1000)
    while pod.health()["inFlight"]:
        pass
    assert pod.get("/1").body == b'"x"'


def _tcp_state(local, remote):
    """The runtime's side of a connection, as /proc/net/tcp has it: 01 is established; empty when it is gone."""
    for line in Path("/proc/net/tcp").read_bytes().splitlines():
        fields = line.split()
        if fields[1].endswith(b":%04X" % local) and fields[2].endswith(b":%04X" % remote):
            return fields[3]
    return b""
