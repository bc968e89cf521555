"""WebSockets, checked with the `websockets` library as an independent client, and with raw frames."""

import os
import time

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

ECHO = """
import asyncio
async def app(scope, receive, send):
    if scope["type"] != "websocket":
        return
    path = scope["path"]
    assert (await receive())["type"] == "websocket.connect"
    if path == "/reject":
        return await send({"type": "websocket.close", "code": 4000})
    if path == "/raise-early":
        raise ValueError("early")
    if path == "/slow":
        await asyncio.sleep(100)
    offered = scope["subprotocols"]
    await send({"type": "websocket.accept", "subprotocol": offered[-1] if offered else None,
                "headers": [(b"x-one", b"1")]})
    if path == "/close":
        return await send({"type": "websocket.close", "code": 4001, "reason": "enough"})
    if path == "/raise":
        raise ValueError("late")
    if path == "/return":
        return
    if path == "/flood":
        try:
            while True:
                await send({"type": "websocket.send", "bytes": b"x" * 10_000})
        except OSError as error:
            print("flood ends:", error)
            return
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            print("disconnect", message["code"], message["reason"])
            return
        if message.get("text") is not None:
            await send({"type": "websocket.send", "text": message["text"]})
        else:
            await send({"type": "websocket.send", "bytes": message["bytes"]})
"""


@pytest.fixture
def echo(pods):
    pod = pods(grace_seconds=5, leave_seconds=0.2, linger_seconds=0.5, sweep_seconds=0.05)
    return pod.load(ECHO, "main.app", signature="asgi", concurrency=10)


def ws(pod, path="/", **more):
    return connect(f"ws://{pod.address}{path}", compression=None, **more)


def idle(pod):
    while pod.health()["inFlight"]:
        pass


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 1 << 20])
def test_messages_come_back_whole(echo, size):
    with ws(echo, max_size=None) as client:
        for message in ("é" * (size // 2), os.urandom(size)):
            client.send(message)
            assert client.recv() == message


def test_fragments_pings_and_a_clean_end(echo):
    with ws(echo, subprotocols=["one", "two"]) as client:
        assert client.subprotocol == "two"
        assert client.response.headers["x-one"] == "1"
        client.send(["a", "b", "c"])
        assert client.recv() == "abc"
        assert client.ping().wait(20)
        client.close(4321, "bye")
    assert echo.logs.message("disconnect")["message"] == "disconnect 4321 bye"
    idle(echo)


def test_many_messages(echo):
    with ws(echo) as client:
        for n in range(2000):
            client.send(f"{n}")
        assert [client.recv() for _ in range(2000)] == [f"{n}" for n in range(2000)]


@pytest.mark.parametrize(("path", "status", "kind"), [("/reject", 403, None), ("/raise-early", 500, "ValueError")])
def test_rejections(echo, path, status, kind):
    with pytest.raises(InvalidStatus) as caught:
        ws(echo, path)
    assert (caught.value.response.status_code, caught.value.response.headers.get("kappa-error")) == (status, kind)
    idle(echo)


def test_the_deadline_counts_until_it_is_accepted(echo):
    with pytest.raises(InvalidStatus) as caught:
        ws(echo, "/slow", additional_headers={"kappa-deadline-ms": str(int(time.time() * 1000) + 200)})
    assert caught.value.response.status_code == 504
    idle(echo)


def test_no_deadline_afterwards(echo):
    with ws(echo, additional_headers={"kappa-deadline-ms": str(int(time.time() * 1000) + 200)}) as client:
        while time.time() * 1000 < int(client.request.headers["kappa-deadline-ms"]) + 100:
            client.send("x")
            assert client.recv() == "x"


@pytest.mark.parametrize(("path", "code"), [("/close", 4001), ("/raise", 1011), ("/return", 1000)])
def test_the_apps_end(echo, path, code):
    with ws(echo, path) as client:
        with pytest.raises(ConnectionClosed) as caught:
            client.recv()
        assert caught.value.rcvd.code == code
    idle(echo)


def test_a_client_that_vanishes(echo):
    with ws(echo) as client:
        client.socket.close()
    assert "1006" in echo.logs.message("disconnect")["message"]
    idle(echo)


def test_a_flood_stops_with_back_pressure_and_with_its_client(echo):
    before = echo.rss_kib()
    with ws(echo, "/flood", max_size=None, max_queue=1) as client:
        for _ in range(200):
            client.recv()
        assert echo.rss_kib() - before < 8_000
        client.socket.close()
    echo.logs.message("flood ends")
    idle(echo)


def test_it_is_an_invocation_for_its_whole_life(pods):
    pod = pods().load(ECHO, "main.app", signature="asgi", concurrency=1)
    with ws(pod) as client:
        assert pod.health()["inFlight"] == 1
        assert pod.get().headers["kappa-refused"] == "busy"
        with pytest.raises(InvalidStatus) as caught:
            ws(pod)
        assert caught.value.response.headers["kappa-refused"] == "busy"
        client.send("x")
        assert client.recv() == "x"
    idle(pod)


def test_sigterm_sends_clients_elsewhere(echo):
    with ws(echo) as client:
        echo.terminate()
        with pytest.raises(ConnectionClosed) as caught:
            client.recv()
        assert caught.value.rcvd.code == 1012
    assert echo.wait() == 0


def test_a_drain_leaves_them_open(echo, background):
    with ws(echo) as client:
        drain = background(echo.drain)
        while echo.health()["state"] != "draining":
            pass
        client.send("x")
        assert client.recv() == "x"
    assert drain.result().json()["inFlight"] == 0


HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def masked(first, payload, length=None):
    size = len(payload)
    head = bytes((0x80 | size,)) if size < 126 else bytes((0xFE,)) + size.to_bytes(2, "big")
    return bytes((first,)) + (length or head) + b"\0\0\0\0" + payload


def test_the_handshakes_token_is_that_of_the_rfc(echo, until):
    with echo.connect() as client:
        client.sendall(HANDSHAKE)
        head = until(client, b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head


def test_frames_sent_before_the_answer_are_not_lost(echo, until):
    with echo.connect() as client:
        client.sendall(HANDSHAKE + masked(0x81, b"early"))
        assert until(client, b"early").endswith(b"\x81\x05early")


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        (b"Version: 13", b"Version: 8", 426),
        (b"dGhlIHNhbXBsZSBub25jZQ==", b"c2hvcnQ=", 400),
        (b"dGhlIHNhbXBsZSBub25jZQ==", b"%%%%", 400),
        (b"GET /", b"POST /", 400),
    ],
)
def test_a_handshake_that_is_wrong(echo, old, new, status):
    data = echo.exchange(HANDSHAKE.replace(old, new))
    assert data.startswith(b"HTTP/1.1 %d " % status)
    idle(echo)


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (b"\x81\x05hello", 1002),  # not masked
        (masked(0xC1, b"x"), 1002),  # a reserved bit
        (masked(0x83, b"x"), 1002),  # an unknown opcode
        (masked(0x80, b"x"), 1002),  # a continuation of nothing
        (masked(0x01, b"x") + masked(0x81, b"y"), 1002),  # a message inside a message
        (masked(0x09, b"x"), 1002),  # a ping in fragments
        (masked(0x89, b"x" * 126), 1002),  # a ping that is too long
        (masked(0x88, b"x"), 1002),  # half a close code
        (masked(0x88, (1005).to_bytes(2, "big")), 1002),  # a close code that may not be sent
        (masked(0x81, b"x", b"\xfe\x00\x01"), 1002),  # a length in too many bytes
        (masked(0x81, b"\xff"), 1007),  # not UTF-8
        (masked(0x88, (1000).to_bytes(2, "big") + b"\xff"), 1007),
        (masked(0x82, b"", b"\xff" + (1 << 62).to_bytes(8, "big")), 1009),  # larger than allowed, and not there
        (masked(0x02, b"x" * 60_000) * 1 + masked(0x00, b"x" * 60_000) * 20, 1009),  # in fragments
    ],
)
def test_frames_that_are_wrong(echo, until, everything, frames, code):
    with echo.connect() as client:
        client.sendall(HANDSHAKE)
        until(client, b"\r\n\r\n")
        try:
            client.sendall(frames)
        except OSError:
            pass
        data = everything(client)
        assert data[0] == 0x88, data
        assert int.from_bytes(data[2:4], "big") == code
    idle(echo)


def test_an_event_function_answers_a_websocket_client_as_any_other(pod):
    pod.load("def handler(event, context): return 'plain'\n")
    data = pod.exchange(HANDSHAKE)
    assert data.startswith(b"HTTP/1.1 200 ")
    assert data.endswith(b'"plain"')
