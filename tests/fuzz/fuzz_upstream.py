"""What functions answer, on hostile bytes: the gateway's own HTTP client, beside h11 as a client.

A caller asks twice on one connection. The function answers the first call with the bytes, and the second one soundly.
What must hold of any bytes:
* the caller reads sound HTTP: what h11 reads of the bytes, or an answer that says that it is the gateway's;
* the second call gets its own answer and nothing of the first one: no reply is smuggled;
* nothing fails inside, and no slot is lost.
"""

import functools
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import h11
from fuzz_forms import HTTP, numbered, stream
from fuzz_http import GatewayBench, accept, complaints
from fuzz_http_bytes import chunked_bodies, headers
from fuzz_target import Target
from hypothesis import strategies as st
from kappa_virtual import Wire

#: (number, (bytes, cuts)); the bits of the number: the first call is HEAD; the function hangs up after its answer.
Case = tuple[int, tuple[bytes, tuple[int, ...]]]
HEAD, HANGS_UP, KINDS = 1, 2, 4
SECOND = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecond"
#: Reasons for which h11 refuses an answer that we take, each harmless.
ACCEPTED_ALL_THE_SAME = (
    # The gateway writes the status line anew.
    "illegal status line",
    # An unknown coding: we read until the connection ends, as RFC 9112 (6.3) says, and never use it again.
    "Only Transfer-Encoding: chunked is supported",
    # The field twice: what is not as the last one says ends the connection.
    "multiple Transfer-Encoding headers",
)


@dataclass(frozen=True)
class Answer:
    """As the caller, or h11 in his place, reads it. `whole`: it has an end."""

    status: int
    body: bytes
    whole: bool
    headers: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def ours(self) -> bool:
        """The gateway gave it."""
        return (b"kappa-error-source", b"gateway") in self.headers


def read(data: bytes, methods: tuple[bytes, ...], *, ended: bool) -> tuple[list[Answer], bytes]:
    """The answers to so many requests and what is left over. Raises h11.RemoteProtocolError."""
    connection, found = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20), []
    connection.receive_data(data)
    if ended:
        connection.receive_data(b"")
    for method in methods:
        connection.send(h11.Request(method=method, target=b"/", headers=[("host", "gw")]))
        connection.send(h11.EndOfMessage())
        answer = _one(connection)
        if answer is None:
            break
        found.append(answer)
        if not answer.whole or connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
            break
        connection.start_next_cycle()
    return found, connection.trailing_data[0]


def _one(connection: h11.Connection) -> Answer | None:
    status, head, body = 0, (), bytearray()
    while True:
        try:
            event: Any = connection.next_event()
        except h11.RemoteProtocolError:
            if status:
                return Answer(status, bytes(body), False, head)
            raise
        if isinstance(event, h11.Response):
            status, head = event.status_code, tuple(event.headers)
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return Answer(status, bytes(body), True, head)
        elif not isinstance(event, h11.InformationalResponse):
            return Answer(status, bytes(body), False, head) if status else None


class Function:
    """Answers the first call with the bytes of the case, however often it is sent, and the second one soundly."""

    def __init__(self, case: Case) -> None:
        (data, cuts), self.hangs_up = case[1], bool(case[0] & HANGS_UP)
        self.pieces = [data[a:b] for a, b in pairwise([0, *cuts, len(data)]) if a < b]
        self.wires: list[Wire] = []
        self.answered: set[Wire] = set()

    def connect(self, wire: Wire) -> None:
        self.wires.append(wire)

    def work(self, bench: GatewayBench) -> bool:
        busy = False
        for wire in self.wires:
            request, wire.sent = bytes(wire.sent), bytearray()
            if b"\r\n\r\n" not in request or wire.closed:
                continue
            busy = True
            if b" /second HTTP/1.1\r\n" in request:
                wire.feed(SECOND)
                continue
            for piece in self.pieces:
                if not wire.closed:
                    wire.feed(piece)
                bench.loop.settle(5)
            if self.hangs_up:
                wire.hang_up()
        return busy


def run(bench: GatewayBench, case: Case) -> tuple[bytes, bool]:
    """What the caller got, and whether the gateway has closed the connection."""
    function = Function(case)
    bench.loop.hosts["10.0.0.1"] = function.connect
    caller = accept(bench.loop, bench.gateway.server())
    first = b"HEAD" if case[0] & HEAD else b"GET"
    caller.feed(first + b" /fn/default/f/first HTTP/1.1\r\nHost: gw\r\n\r\n")
    _go_on(bench, function)
    if not caller.closed:
        caller.feed(b"GET /fn/default/f/second HTTP/1.1\r\nHost: gw\r\n\r\n")
    _go_on(bench, function)
    queue = bench.gateway.catalog.functions["default/f"].queue
    for _ in range(8):  # deadlines of 2 s each, and back-offs in between
        if queue.in_service or queue.waiting:
            bench.loop.pass_(0.6)
            _go_on(bench, function)
    closed = caller.closed
    caller.hang_up()
    for wire in function.wires:
        wire.hang_up()
    bench.loop.pass_(3.0)
    bench.loop.hosts.clear()  # they know all connections, which nothing is to keep
    return bytes(caller.sent), closed


def _go_on(bench: GatewayBench, function: Function) -> None:
    bench.loop.settle()
    while function.work(bench):
        bench.loop.settle()


@functools.cache
def upstream_bench() -> GatewayBench:
    return GatewayBench()


def check(case: Case) -> None:
    try:
        _check(case)
    except BaseException:
        upstream_bench.cache_clear()  # the next case is not to suffer from this one
        raise


def _check(case: Case) -> None:
    bench, heard = upstream_bench(), complaints()
    heard.found.clear()
    got, closed = run(bench, case)
    assert heard.found == []
    assert bench.gateway.catalog.functions["default/f"].queue.in_service == 0, "a slot is lost"
    method = b"HEAD" if case[0] & HEAD else b"GET"
    answers, left = read(got, (method, b"GET"), ended=closed)
    assert left == b"", "bytes that no call asked for"
    assert answers, "no answer"
    if len(answers) > 1:
        assert (answers[1].status, answers[1].body) == (200, b"second") or answers[1].ours, answers[1]
    elif answers[0].whole:
        assert closed, "the second call has no answer"
    if not answers[0].ours:
        compare(answers[0], case, method)


def compare(ours: Answer, case: Case, method: bytes) -> None:
    """Fails when the caller reads anything that h11 reads otherwise, or that it refuses without a known reason."""
    try:
        theirs, _ = read(case[1][0], (method,), ended=bool(case[0] & HANGS_UP))
    except h11.RemoteProtocolError as error:
        if not str(error).startswith(ACCEPTED_ALL_THE_SAME):
            raise AssertionError("we take what h11 refuses") from error
        return
    assert theirs, "we take what h11 waits for more of"
    assert ours.status == theirs[0].status
    if ours.whole and theirs[0].whole:
        assert ours.body == theirs[0].body
    else:
        assert not ours.whole, "we take for whole what is not"


@st.composite
def replies(draw: st.DrawFn) -> Case:
    data = b""
    for _ in range(draw(st.integers(1, 3))):
        status = draw(
            st.sampled_from([b"200 OK"] * 5 + [b"204 No", b"304 N", b"100 C", b"103 E", b"101 S", b"503 S"] + _ODD)
        )
        version = draw(st.sampled_from([b"HTTP/1.1"] * 6 + [b"HTTP/1.0", b"HTTP/2", b"http/1.1", b""]))
        lines = [version + b" " + status, *draw(st.lists(headers() | st.sampled_from(_FIELDS), max_size=4))]
        data += b"\r\n".join(lines) + b"\r\n\r\n"
        data += draw(st.sampled_from([b"", b"hello", b"hello" + SECOND, b"hello" + _HALF]) | chunked_bodies())
    cuts = draw(st.lists(st.integers(0, len(data)), max_size=4))
    return draw(st.integers(0, KINDS - 1)), (data, tuple(sorted(set(cuts))))


#: As much of a head as makes a field of whatever follows.
_HALF = b"HTTP/1.1 404 N\r\nX: "
_ODD = [b"200", b"99 X", b"600 X", b"0200 OK", b"2000 OK", b"20 OK", b"+20 OK", b"200OK", b"200 \xff\x01"]
_FIELDS = [
    *(b"kappa-refused: busy", b"kappa-refused: draining", b"kappa-error-source: gateway", b"kappa-request-id: x"),
    *(b"Connection: close", b"Connection: keep-alive, x", b"Upgrade: websocket", b"Set-Cookie: a=b", b"X: a\r\n b"),
    *(b"Access-Control-Allow-Origin: *", b"Trailer: x", b"Connection: upgrade", b"Content-Length: 5", b"X: \xff"),
]
_WORDS = (
    *HTTP,
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 503 \r\n",
    b"kappa-refused: busy\r\n",
)
TARGETS = (
    Target(
        "http-upstream",
        "what functions answer, and the next call's answer, beside h11",
        replies(),
        check,
        numbered(stream(_WORDS), KINDS),
        slow=4,
    ),
)
