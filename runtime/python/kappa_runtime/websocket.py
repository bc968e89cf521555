"""The WebSocket protocol (RFC 6455), server side, without I/O: the opening handshake and frames. No extensions."""

import base64
import binascii
import hashlib
from dataclasses import dataclass

from kappa_runtime.exchange import Request

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_OPCODES = frozenset((CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_MAX_CONTROL = 125

NORMAL, GOING_AWAY, PROTOCOL_ERROR, NO_STATUS, ABNORMAL = 1000, 1001, 1002, 1005, 1006
INVALID_TEXT, TOO_BIG, INTERNAL_ERROR, SERVICE_RESTART = 1007, 1009, 1011, 1012


class ProtocolError(Exception):
    """The peer broke the protocol; the connection ends with close code `code`."""

    def __init__(self, code: int, reason: str) -> None:
        self.code, self.reason = code, reason
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Binary:
    data: bytes


@dataclass(frozen=True, slots=True)
class Ping:
    data: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    data: bytes


@dataclass(frozen=True, slots=True)
class Close:
    code: int
    reason: str


Event = Text | Binary | Ping | Pong | Close


def handshake_problem(request: Request) -> tuple[int, str] | None:
    """Status and reason when the request is no proper opening handshake (section 4.2.1)."""
    if request.method != "GET" or request.version != "1.1" or request.length or request.chunked:
        return 400, "a WebSocket begins with a GET request of HTTP/1.1 without a body"
    if request.header(b"sec-websocket-version") != "13":
        return 426, "the WebSocket version must be 13"
    try:
        key = base64.b64decode(request.header(b"sec-websocket-key"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    return None if len(key) == 16 else (400, "Sec-WebSocket-Key must be 16 bytes in base64")


def accept_token(key: str) -> bytes:
    """The value of Sec-WebSocket-Accept (section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key.encode("latin-1") + _GUID, usedforsecurity=False).digest())


def subprotocols(request: Request) -> list[str]:
    """What the client offers, in its order."""
    lines = [value.decode("latin-1") for name, value in request.headers if name == b"sec-websocket-protocol"]
    return [item.strip() for item in ",".join(lines).split(",") if item.strip()]


def frame(opcode: int, payload: bytes) -> bytes:
    """One unmasked, final frame."""
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    if size < 1 << 16:
        return bytes((0x80 | opcode, 126)) + size.to_bytes(2) + payload
    return bytes((0x80 | opcode, 127)) + size.to_bytes(8) + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """A close frame; codes that may not be sent (1005, 1006) make an empty one."""
    if not may_send(code):
        return frame(CLOSE, b"")
    return frame(CLOSE, code.to_bytes(2) + _short(reason))


def may_send(code: int) -> bool:
    """Whether a close code may stand in a frame (section 7.4 and the IANA registry)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


class FrameReader:
    """Bytes of the client in, whole messages out. `max_bytes` bounds a message, however it is fragmented."""

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._buffer = bytearray()
        self._parts: list[bytes] = []
        self._size = 0
        self._opcode = CONTINUATION
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"message of {self._size} bytes" if self._opcode else "idle"
        return f"<FrameReader {state}, {len(self._buffer)} bytes buffered>"

    def feed(self, data: bytes) -> list[Event]:
        """Events that are complete now. Raises ProtocolError; what came before the fault is then lost. Nothing
        comes after a Close."""
        self._buffer += data
        events: list[Event] = []
        while not self._closed and self._frame(events):
            pass
        return events

    def _frame(self, events: list[Event]) -> bool:
        """Reads one frame, and adds the event that it completes. False when bytes are missing."""
        buffer = self._buffer
        if len(buffer) < 2:
            return False
        first, second = buffer[0], buffer[1]
        final, opcode, size = bool(first & 0x80), first & 0x0F, second & 0x7F
        self._check_head(first, second, final, opcode, size)
        start = 2
        if size == 126:
            if len(buffer) < 4:
                return False
            size, start = int.from_bytes(buffer[2:4]), 4
            if size < 126:
                raise ProtocolError(PROTOCOL_ERROR, "a length is not in its shortest form")
        elif size == 127:
            if len(buffer) < 10:
                return False
            size, start = int.from_bytes(buffer[2:10]), 10
            if size < 1 << 16 or size >> 63:
                raise ProtocolError(PROTOCOL_ERROR, "a length is not in its shortest form")
        if opcode < CLOSE and self._size + size > self._max:
            raise ProtocolError(TOO_BIG, f"a message may have {self._max} bytes")
        end = start + 4 + size
        if len(buffer) < end:
            return False
        payload = _unmask(bytes(buffer[start + 4 : end]), bytes(buffer[start : start + 4]))
        del buffer[:end]
        event = self._control(opcode, payload) if opcode >= CLOSE else self._data(opcode, payload, final)
        if event is not None:
            events.append(event)
        return True

    def _check_head(self, first: int, second: int, final: bool, opcode: int, size: int) -> None:
        if first & 0x70:
            raise ProtocolError(PROTOCOL_ERROR, "reserved bits are set")
        if opcode not in _OPCODES:
            raise ProtocolError(PROTOCOL_ERROR, f"unknown opcode {opcode}")
        if not second & 0x80:
            raise ProtocolError(PROTOCOL_ERROR, "a client's frames must be masked")
        if opcode >= CLOSE and (not final or size > _MAX_CONTROL):
            raise ProtocolError(PROTOCOL_ERROR, "a control frame must be short and whole")
        if opcode == CONTINUATION and not self._opcode:
            raise ProtocolError(PROTOCOL_ERROR, "a continuation without a beginning")
        if opcode in (TEXT, BINARY) and self._opcode:
            raise ProtocolError(PROTOCOL_ERROR, "a message begins inside another")

    def _data(self, opcode: int, payload: bytes, final: bool) -> Event | None:
        self._opcode = opcode or self._opcode
        self._parts.append(payload)
        self._size += len(payload)
        if not final:
            if len(self._parts) > 1024:  # frames of one byte: keep the list short
                self._parts = [b"".join(self._parts)]
            return None
        whole, kind = b"".join(self._parts), self._opcode
        self._parts, self._size, self._opcode = [], 0, CONTINUATION
        return Text(_decode(whole)) if kind == TEXT else Binary(whole)

    def _control(self, opcode: int, payload: bytes) -> Event:
        if opcode == PING:
            return Ping(payload)
        if opcode == PONG:
            return Pong(payload)
        self._closed = True
        if not payload:
            return Close(NO_STATUS, "")
        code = int.from_bytes(payload[:2])
        if len(payload) == 1 or not may_send(code):
            raise ProtocolError(PROTOCOL_ERROR, "not a close code")
        return Close(code, _decode(payload[2:]))


def _unmask(data: bytes, mask: bytes) -> bytes:
    size = len(data)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")


def _decode(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ProtocolError(INVALID_TEXT, "text is not UTF-8") from error


def _short(reason: str) -> bytes:
    """At most 123 bytes of UTF-8, cut between characters."""
    return reason.encode("utf-8", "replace")[: _MAX_CONTROL - 2].decode("utf-8", "ignore").encode()
