"""ASGI 3 over HTTP: an app's `receive` and `send` on its own loop, the connection on the server's.

The slot of an invocation is free when its reply is complete; code that runs on behind it (background tasks) is still
under the deadline, and a drain waits for it. The deadline covers the whole reply, streamed ones too: one that is under
way is then cut off. An app whose client leaves gets `http.disconnect` from `receive` and an OSError from `send`; one
that does not end by itself is cancelled a little later.
"""

import time
from collections import deque

from kappa_runtime import emitting
from kappa_runtime.asgi_flow import AsgiFlow, ClientGoneError
from kappa_runtime.asgi_scope import Message, header_pairs, make_scope
from kappa_runtime.exchange import Exchange, Headers, Request
from kappa_runtime.function import Function
from kappa_runtime.invoke import Call, Floor, duration_header, failed
from kappa_runtime.logs import current
from kappa_runtime.replies import Reply, ReplyError, clean_headers


class AsgiInvocation(AsgiFlow):
    """One HTTP request to an ASGI app."""

    def __init__(self, floor: Floor, function: Function, exchange: Exchange, call: Call) -> None:
        super().__init__(floor, function, exchange, call)
        # On the server's side:
        self._batch: list[bytes] = []
        self._batch_end = False
        self._began = time.perf_counter()
        # On the function's side:
        self._chunks: deque[bytes] = deque()
        self._ended = self._end_told = self._started = self._reply_complete = False
        self._start: tuple[int, Headers, int] | None = None
        self._outcome: Reply | None = None

    # --- on the server's loop ---------------------------------------------------------------------------------------
    def body(self, data: bytes) -> None:
        self._batch.append(data)
        self.incoming(len(data))

    def complete(self) -> None:
        self._batch_end = True

    def flush(self) -> None:
        if not self.submitted:
            self._chunks.extend(self._batch)
            self._ended = self._batch_end
            self.submit()
        elif self._batch or self._batch_end:
            self.user_loop.call_soon_threadsafe(self._deliver, self._batch, self._batch_end)
        else:
            return
        self._batch, self._batch_end = [], False

    def gone(self) -> None:
        if self.has_finished:
            return
        if not self.submitted:
            self.finished()
            return
        self.user_loop.call_soon_threadsafe(self.leave)
        self.look_after()

    def on_timeout(self) -> None:
        if not self.exchange.started:
            super().on_timeout()
        elif not self.exchange.finished:
            self.exchange.cut()
        self.user_loop.call_soon_threadsafe(self.leave)

    def conclude(self) -> None:
        exchange, outcome = self.exchange, self._outcome
        if exchange.finished or self.timed_out:
            return
        if exchange.started:
            if outcome is None:
                self.floor.sink.record("ERROR", "the app ended before its reply was complete", self.call.request_id)
            exchange.cut()
        elif outcome is not None:
            status, headers, body = outcome
            exchange.reply(status, [*headers, duration_header(time.perf_counter() - self._began)], body)

    def _write(self, start: tuple[int, Headers, int] | None, data: bytes, more: bool) -> None:
        exchange = self.exchange
        if exchange.finished or self.timed_out:
            return
        if not more:
            self.release()
        if start is not None:
            status, headers, length = start
            headers.append(duration_header(time.perf_counter() - self._began))
            if not more and length in (-1, len(data)):
                exchange.reply(status, headers, data)
                return
            exchange.start(status, headers, length)
        if not exchange.write(data, last=not more):
            self.floor.sink.record("ERROR", "the reply is not as long as its content-length says", self.call.request_id)
        self.outgoing(len(data))

    # --- on the function's loop -------------------------------------------------------------------------------------
    async def run_async(self) -> None:
        current.set(self.scope)
        request = self.exchange.request
        emitting.current.set(_origin(self.call, request))
        scope = make_scope("http", request, self.function, self.call)
        scope["method"] = request.method
        error: BaseException | None = None
        try:
            await self.function.loaded.handler(scope, self.receive, self.send)
        except GeneratorExit:
            raise
        except BaseException as raised:
            error = raised
        if self.interrupted or (self.is_gone and (error is None or isinstance(error, OSError))):
            return
        if error is None and not self._started:
            error = ReplyError("the app returned without a reply")
        if error is not None:
            self._outcome = failed(error, self.function, self.call, self.floor.sink)

    async def receive(self) -> Message:
        while True:
            if self._chunks or (self._ended and not self._end_told):
                data = b"".join(self._chunks)
                self._chunks.clear()
                self._end_told = self._ended
                self.took(len(data))
                return {"type": "http.request", "body": data, "more_body": not self._ended}
            if self.is_gone or self._reply_complete:
                return {"type": "http.disconnect"}
            if self.exchange.request.expects:
                self.floor.loop.call_soon_threadsafe(self.exchange.proceed)
            await self.wait()

    async def send(self, message: Message) -> None:
        kind = message.get("type")
        if self.is_gone:
            raise ClientGoneError("the client has left")
        if kind == "http.response.start" and not self._started and self._start is None:
            self._start = _start(message)
        elif kind == "http.response.body" and (self._started or self._start is not None) and not self._reply_complete:
            await self._send_body(message)
        else:
            raise RuntimeError(f"{kind!r} is not expected now")

    async def _send_body(self, message: Message) -> None:
        data, more = message.get("body", b""), bool(message.get("more_body", False))
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"http.response.body: body must be bytes, not {type(data).__name__}")
        data = bytes(data)
        start = self._start
        if start is not None and not more and self.exchange.request.method != "HEAD":
            status, _, length = start
            if length not in (-1, len(data)) and status != 304:
                raise ReplyError(f"headers[content-length] is {length}, but the body has {len(data)} bytes")
        self._start, self._started = None, True
        self.floor.loop.call_soon_threadsafe(self._write, start, data, more)
        if more:
            await self.gave(len(data))
        else:
            self._reply_complete = True
            self.wake()

    def _deliver(self, chunks: list[bytes], end: bool) -> None:
        self._chunks.extend(chunks)
        self._ended = self._ended or end
        self.wake()


def _origin(call: Call, request: Request) -> emitting.Origin:
    """An event that is delivered has its id in a header (binary mode); its request's id is another at each attempt."""
    event = request.header(b"ce-id")
    if call.attempt < 0 or not event:
        return call.origin
    return call.origin_of(f"{request.header(b'ce-source')} {event}")


def _start(message: Message) -> tuple[int, Headers, int]:
    """Status, clean headers, and the declared length or -1. Raises ReplyError."""
    status = message.get("status")
    if not isinstance(status, int) or not 200 <= status <= 599:
        raise ReplyError(f"http.response.start: status must be a number from 200 to 599, not {status!r}")
    headers, length = [], -1
    for name, value in clean_headers(header_pairs(message)):
        if name == b"content-length":
            if not value.isdigit():
                raise ReplyError(f"headers[content-length] is not a number: {value[:80]!r}")
            length = int(value)
        else:
            headers.append((name, value))
    return int(status), headers, length
