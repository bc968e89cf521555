"""ASGI over WebSocket: the app's messages on its loop, the frames on the server's.

    connecting --accept--> open --close from either side--> closing --> closed
             \\--close--> 403

A WebSocket is one invocation for its whole life. The deadline covers the time until the app accepts or rejects; an open
WebSocket has none. On SIGTERM the client is told to come back elsewhere (close code 1012).
"""

from collections import deque
from typing import Any

from kappa_runtime import emitting
from kappa_runtime import websocket as ws
from kappa_runtime.asgi_flow import AsgiFlow, ClientGoneError
from kappa_runtime.asgi_scope import Message, header_pairs, make_scope
from kappa_runtime.exchange import Exchange, Headers, Request
from kappa_runtime.function import Function
from kappa_runtime.invoke import Call, Floor, failed
from kappa_runtime.logs import current
from kappa_runtime.replies import ReplyError, clean_headers

#: What a message costs beyond its bytes, so that many empty ones count, too.
_MESSAGE = 64


def wants_websocket(request: Request) -> bool:
    return request.upgrade and request.header(b"upgrade").lower() == "websocket"


class WebSocketInvocation(AsgiFlow):
    """One WebSocket connection to an ASGI app."""

    def __init__(self, floor: Floor, function: Function, exchange: Exchange, call: Call) -> None:
        super().__init__(floor, function, exchange, call)
        # On the server's side:
        self._reader = ws.FrameReader(floor.settings.max_message_bytes)
        self._open = self._close_sent = self._told = self._deaf = False
        # On the function's side:
        self._inbox: deque[tuple[Message, int]] = deque([({"type": "websocket.connect"}, 0)])
        self._accepted = self._closed = False
        self._outcome: tuple[int, Headers, bytes] | None = None

    # --- on the server's loop ---------------------------------------------------------------------------------------
    def begin(self) -> None:
        super().begin()
        if problem := ws.handshake_problem(self.exchange.request):
            headers = [(b"sec-websocket-version", b"13")] if problem[0] == 426 else []
            self.exchange.fail(problem[0], "bad_request", problem[1], headers)
            self.finished()
            return
        self.exchange.waits_for_tunnel = True
        self.submit()

    def body(self, data: bytes) -> None:
        if self._deaf:
            return
        try:
            events = self._reader.feed(data)
        except ws.ProtocolError as error:
            self._end(error.code, error.reason)
            self._hang_up(linger=True)
            return
        for event in events:
            self._event(event)

    def gone(self) -> None:
        self._told_app(ws.ABNORMAL, "")

    def go_away(self) -> None:
        """The process ends: closes the WebSocket in an orderly way."""
        if self._open and not self._close_sent:
            self._end(ws.SERVICE_RESTART, "the instance ends")
        elif not self._open:
            self.stop_if_running()

    def conclude(self) -> None:
        exchange = self.exchange
        if self._open:
            if not self._close_sent:
                self._end(ws.INTERNAL_ERROR if self._outcome else ws.NORMAL, "")
            return
        exchange.waits_for_tunnel = False
        if self._outcome is not None:
            exchange.reply(*self._outcome)
        elif not self.timed_out:
            exchange.fail(403, "rejected", "the app did not accept the WebSocket")

    def _event(self, event: ws.Event) -> None:
        if self._close_sent and not isinstance(event, ws.Close):
            return
        if isinstance(event, ws.Ping):
            self.exchange.connection.send(ws.frame(ws.PONG, event.data))
        elif isinstance(event, ws.Close):
            if not self._close_sent:
                self._close_sent = True
                self.exchange.connection.send(ws.close_frame(event.code))
            self._told_app(event.code, event.reason)
            self._hang_up()
        elif isinstance(event, ws.Text):
            self._pass_on({"type": "websocket.receive", "text": event.text}, len(event.text))
        elif isinstance(event, ws.Binary):
            self._pass_on({"type": "websocket.receive", "bytes": event.data}, len(event.data))

    def _pass_on(self, message: Message, size: int) -> None:
        self.incoming(size + _MESSAGE)
        self.user_loop.call_soon_threadsafe(self._deliver, message, size + _MESSAGE)

    def _accept(self, headers: Headers) -> None:
        exchange = self.exchange
        if exchange.finished or self.timed_out:
            return
        self.stop_clock()
        token = ws.accept_token(exchange.request.header(b"sec-websocket-key"))
        headers = [(b"upgrade", b"websocket"), (b"connection", b"Upgrade"), (b"sec-websocket-accept", token), *headers]
        exchange.started = self._open = True
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        exchange.connection.send(b"HTTP/1.1 101 Switching Protocols\r\n" + lines + b"\r\n")
        exchange.waits_for_tunnel = False
        exchange.connection.enter_tunnel(self)
        if exchange.after_head:
            early, exchange.after_head = exchange.after_head, b""
            self.body(early)

    def _write(self, data: bytes) -> None:
        if not self._close_sent and self._open:
            self.exchange.connection.send(data)
        self.outgoing(len(data))

    def _end(self, code: int, reason: str) -> None:
        """Sends a close frame; the connection ends when the client's comes, or a little later."""
        if self._close_sent or not self._open:
            return
        self._close_sent = True
        self.exchange.connection.send(ws.close_frame(code, reason))
        self.floor.loop.call_later(self.floor.settings.linger_seconds, self._hang_up)
        if not self.has_finished:
            self._told_app(code, reason)

    def _hang_up(self, linger: bool = False) -> None:
        self._deaf = self.exchange.finished = True
        self.exchange.connection.close(linger)

    def _told_app(self, code: int, reason: str) -> None:
        if self._told:
            return
        self._told = True
        message = {"type": "websocket.disconnect", "code": code, "reason": reason}
        if not self.has_finished:
            self.user_loop.call_soon_threadsafe(self._disconnect, message)
            self.look_after()

    # --- on the function's loop -------------------------------------------------------------------------------------
    async def run_async(self) -> None:
        current.set(self.scope)
        emitting.current.set(self.call.origin)
        request = self.exchange.request
        scope = make_scope("websocket", request, self.function, self.call)
        scope["subprotocols"] = ws.subprotocols(request)
        try:
            await self.function.loaded.handler(scope, self.receive, self.send)
        except BaseException as error:
            if isinstance(error, GeneratorExit):
                raise
            if not self.interrupted and not (self.is_gone and isinstance(error, OSError)):
                self._outcome = failed(error, self.function, self.call, self.floor.sink)

    async def receive(self) -> Message:
        while not self._inbox:
            await self.wait()
        message, size = self._inbox[0]
        if message["type"] != "websocket.disconnect":  # which is repeated for as long as it is asked for
            self._inbox.popleft()
        self.took(size)
        return message

    async def send(self, message: Message) -> None:
        kind = message.get("type")
        if self.is_gone:
            raise ClientGoneError("the client has left")
        if kind == "websocket.accept" and not self._accepted and not self._closed:
            headers = accept_headers(message)
            self._accepted = True
            self.floor.loop.call_soon_threadsafe(self._accept, headers)
        elif kind == "websocket.send" and self._accepted and not self._closed:
            data = _frame(message)
            self.floor.loop.call_soon_threadsafe(self._write, data)
            await self.gave(len(data))
        elif kind == "websocket.close" and not self._closed:
            self._closed = True
            if self._accepted:
                code, reason = int(message.get("code") or ws.NORMAL), str(message.get("reason") or "")
                self.floor.loop.call_soon_threadsafe(self._end, code, reason)
        else:
            raise RuntimeError(f"{kind!r} is not expected now")

    def _deliver(self, message: Message, size: int) -> None:
        if not self.is_gone:
            self._inbox.append((message, size))
            self.wake()

    def _disconnect(self, message: Message) -> None:
        if not self.is_gone:
            self._inbox.append((message, 0))
            self.leave()


def accept_headers(message: dict[str, Any]) -> Headers:
    """The headers that an accept message adds to the 101. Raises ReplyError."""
    pairs = header_pairs(message)
    if any(name.lower().startswith(b"sec-websocket-") for name, _ in pairs):
        raise ReplyError("headers: Sec-WebSocket-* belong to the server; use subprotocol")
    chosen = message.get("subprotocol")
    if chosen is not None:
        pairs.append((b"sec-websocket-protocol", str(chosen).encode()))
    return [header for header in clean_headers(pairs) if header[0] != b"content-length"]


def _frame(message: dict[str, Any]) -> bytes:
    data, text = message.get("bytes"), message.get("text")
    if data is not None:
        return ws.frame(ws.BINARY, bytes(data))
    if not isinstance(text, str):
        raise TypeError("websocket.send: needs text (str) or bytes")
    return ws.frame(ws.TEXT, text.encode())
