"""RFC 6455 frames without I/O: any cut of the bytes gives the same messages."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kappa_runtime import websocket as ws
from kappa_runtime.exchange import Request


def masked(opcode, payload, final=True, mask=b"abcd"):
    head = bytes(((0x80 if final else 0) | opcode,))
    size = len(payload)
    if size < 126:
        head += bytes((0x80 | size,))
    elif size < 65536:
        head += b"\xfe" + size.to_bytes(2, "big")
    else:
        head += b"\xff" + size.to_bytes(8, "big")
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


STREAM = (
    masked(ws.TEXT, "é€".encode())
    + masked(ws.BINARY, b"x" * 300, final=False)
    + masked(ws.PING, b"ping")
    + masked(ws.CONTINUATION, b"", final=False)
    + masked(ws.CONTINUATION, b"y")
    + masked(ws.TEXT, b"", mask=b"\0\0\0\0")
    + masked(ws.PONG, b"")
    + masked(ws.BINARY, b"z" * 70_000)
    + masked(ws.CLOSE, (4000).to_bytes(2, "big") + b"bye")
)
EVENTS = [
    ws.Text("é€"),
    ws.Ping(b"ping"),
    ws.Binary(b"x" * 300 + b"y"),
    ws.Text(""),
    ws.Pong(b""),
    ws.Binary(b"z" * 70_000),
    ws.Close(4000, "bye"),
]


@given(st.lists(st.integers(0, len(STREAM)), max_size=40))
def test_any_cut_gives_the_same_messages(cuts):
    reader = ws.FrameReader(1 << 20)
    found = []
    for start, end in pairwise([0, *sorted(cuts), len(STREAM)]):
        found += reader.feed(STREAM[start:end])
    assert found == EVENTS
    assert reader.feed(STREAM) == []  # nothing comes after a close
    assert repr(reader).startswith("<FrameReader closed, ")


@given(st.binary(max_size=200))
def test_garbage_is_messages_or_a_protocol_error(data):
    reader = ws.FrameReader(1000)
    code = 0
    try:
        reader.feed(data)
    except ws.ProtocolError as error:
        code = error.code
    assert code in (0, ws.PROTOCOL_ERROR, ws.TOO_BIG, ws.INVALID_TEXT)


def test_one_byte_fragments_do_not_pile_up():
    reader = ws.FrameReader(10_000)
    reader.feed(masked(ws.BINARY, b"x", final=False))
    for _ in range(9_998):
        reader.feed(masked(ws.CONTINUATION, b"x", final=False))
    assert reader.feed(masked(ws.CONTINUATION, b"x")) == [ws.Binary(b"x" * 10_000)]


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_own_frames_are_in_the_shortest_form(size):
    frame = ws.frame(ws.BINARY, b"x" * size)
    assert len(frame) == size + (2 if size < 126 else 4 if size < 65536 else 10)


@pytest.mark.parametrize(
    ("code", "reason", "payload"),
    [
        (1000, "", b"\x03\xe8"),
        (4999, "é" * 100, b"\x13\x87" + ("é" * 61).encode()),
        (1005, "x", b""),
        (1006, "", b""),
        (999, "", b""),
    ],
)
def test_close_frames(code, reason, payload):
    assert ws.close_frame(code, reason) == ws.frame(ws.CLOSE, payload)


def test_subprotocols():
    request = Request()
    request.headers = [(b"sec-websocket-protocol", b"a, b"), (b"sec-websocket-protocol", b"c")]
    assert ws.subprotocols(request) == ["a", "b", "c"]
    assert ws.subprotocols(Request()) == []
