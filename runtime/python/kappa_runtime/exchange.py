"""One HTTP request and its reply: what the code above the connection sees.

Replies come in two kinds: `reply` for one whose body is known, `start` + `write` for one that is made while it is sent.
Both frame the body as the client's HTTP version needs it and leave it out where it may not be (HEAD, 204, 304).
"""

import json
from http import HTTPStatus
from typing import TYPE_CHECKING

from kappa_api.names import HEADER_REFUSED, HEADER_REQUEST_ID, REFUSED_DRAINING

if TYPE_CHECKING:
    from kappa_runtime.http1 import Connection

Headers = list[tuple[bytes, bytes]]

STATUS_LINES = {int(s): f"HTTP/1.1 {int(s)} {s.phrase}\r\n".encode() for s in HTTPStatus}
#: Bodies up to here go out in one write with their head.
ONE_PIECE = 64 << 10
#: Sent before a connection is closed that its client was told it may keep: a request that crosses with it has its
#: answer.
FAREWELL = b"%b%b: %b\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % (
    STATUS_LINES[503],
    HEADER_REFUSED.encode(),
    REFUSED_DRAINING.encode(),
)


class Request:
    """What the client sent, header names in lower case. `length` is the Content-Length, 0 without one."""

    __slots__ = ("chunked", "expects", "headers", "length", "method", "target", "upgrade", "version")

    def __init__(self) -> None:
        self.method, self.target, self.version = "", b"", "1.1"
        self.headers: Headers = []
        self.length = 0
        self.chunked = self.expects = self.upgrade = False

    def header(self, name: bytes) -> str:
        """The first value of a header, or an empty string."""
        for key, value in self.headers:
            if key == name:
                return value.decode("latin-1")
        return ""


class Consumer:
    """Takes what a request brings after its header section. The base class drops it all.

    `needs_client`: a client that closes its half of the connection counts as gone. (TCP does not tell a client that has
    left from one that only has nothing more to send.)
    """

    needs_client = False

    def body(self, data: bytes) -> None:
        """A part of the body."""

    def complete(self) -> None:
        """The body is complete."""

    def flush(self) -> None:
        """The bytes that came in one read are all delivered."""

    def writable(self) -> None:
        """The client has taken what was written: more may be."""

    def gone(self) -> None:
        """The client has left, or its request broke off, before the reply was complete."""


NOBODY = Consumer()


class Exchange:
    """One request and its reply on a connection. `started`: the reply's head is written; `finished`: all of it is."""

    __slots__ = (
        "_chunked",
        "_no_body",
        "_remaining",
        "after_head",
        "complete",
        "connection",
        "consumer",
        "early",
        "finished",
        "keep_alive",
        "request",
        "started",
        "waits_for_tunnel",
    )

    def __init__(self, connection: "Connection", request: Request) -> None:
        self.connection, self.request = connection, request
        self.consumer = NOBODY
        self.early: list[bytes] = []
        self.after_head = b""
        self.complete = self.started = self.finished = self.waits_for_tunnel = False
        self.keep_alive = True
        self._chunked = self._no_body = False
        self._remaining = -1

    def __repr__(self) -> str:
        state = "finished" if self.finished else "replying" if self.started else "waiting"
        return f"<Exchange {self.request.method} {self.request.target.decode('latin-1')[:80]} {state}>"

    @property
    def writable(self) -> bool:
        return self.connection.writable

    def proceed(self) -> None:
        """The body is wanted: says so to a client that waits to be told (RFC 9110, 10.1.1)."""
        if self.request.expects and not self.complete and not self.started:
            self.request.expects = False
            if self.request.version == "1.1":
                self.connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def reply(self, status: int, headers: Headers, body: bytes) -> None:
        """The whole reply. `headers` must be clean: no framing headers, no line breaks."""
        if self.started or self.finished:
            return
        size = len(body)
        if status == 204 or status == 304:
            body = b""
        else:
            headers = [*headers, (b"content-length", b"%d" % size)]
        head = self._head(status, headers)
        if self.request.method == "HEAD":
            body = b""
        if len(body) <= ONE_PIECE:
            self.connection.send(head + body)
            self.end()
        else:
            self.connection.send(head)
            self.connection.send_large(self, body)

    def start(self, status: int, headers: Headers, length: int = -1) -> None:
        """The head of a reply whose body follows by `write`; `length` is -1 when it is not known before."""
        self._no_body = self.request.method == "HEAD" or status in (204, 304)
        if length >= 0:
            headers = [*headers, (b"content-length", b"%d" % length)]
        elif status in (204, 304):
            pass
        elif self.request.version == "1.1":
            self._chunked = True
            headers = [*headers, (b"transfer-encoding", b"chunked")]
        else:
            self.keep_alive = False
        self._remaining = length
        self.connection.send(self._head(status, headers))

    def write(self, data: bytes, last: bool) -> bool:
        """A part of the body. False when it does not fit the declared length: the reply is then cut off."""
        if self.finished or not self.started:
            return True
        if not self._no_body:
            if self._remaining >= 0:
                self._remaining -= len(data)
                if self._remaining < 0 or (last and self._remaining):
                    self.cut()
                    return False
            if self._chunked:
                data = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
                if last:
                    data += b"0\r\n\r\n"
            if data:
                self.connection.send(data)
        if last:
            self.end()
        return True

    def fail(self, status: int, code: str, message: str, headers: Headers | None = None) -> None:
        """A reply of the runtime's own, in the platform's error form."""
        request_id = self.request.header(HEADER_REQUEST_ID.encode())
        error = {"error": {"code": code, "message": message, "requestId": request_id}}
        self.reply(status, [JSON, *(headers or [])], json.dumps(error).encode())

    def refuse(self, reason: str) -> None:
        """503 before anything ran: safe to send elsewhere. An unread body costs the connection only if it is large."""
        if not self.complete and (self.request.expects or self.request.length > ONE_PIECE or self.request.chunked):
            self.keep_alive = False
        self.fail(503, reason, f"refused: {reason}", [(HEADER_REFUSED.encode(), reason.encode())])

    def cut(self) -> None:
        """Ends a reply that cannot be completed, so that the client can tell."""
        self.finished = True
        self.connection.abort()

    def end(self) -> None:
        self.finished = True
        self.consumer = NOBODY
        self.connection.done(self)

    def lost(self) -> None:
        consumer, self.consumer = self.consumer, NOBODY
        self.finished = True
        consumer.gone()

    def _head(self, status: int, headers: Headers) -> bytes:
        self.started = True
        lines = [STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
        lines += [b"%b: %b\r\n" % header for header in headers]
        if not self.keep_alive or self.connection.host.closing:
            self.keep_alive = False
            lines.append(b"connection: close\r\n")
        elif self.request.version == "1.0":
            lines.append(b"connection: keep-alive\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)


JSON = (b"content-type", b"application/json")
