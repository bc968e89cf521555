"""A WebSocket caller (RFC 6455), small enough to see every byte: opens, sends numbered messages, checks each echo.

A session that is told to go elsewhere (close 1001 or 1012) between two messages connects again and goes on with the
first message that was not echoed, as WebSocket clients do; each such move is counted as a retry.
"""

import asyncio
import base64
import os
import struct
from dataclasses import dataclass
from typing import Any

from chaos_answer import OK, Answer, Finding, judge, judge_close
from chaos_client import Ask, Client, Connection

GO_ELSEWHERE = frozenset({1001, 1012})
#: Longer than a hung instance may last: its end is told to the caller.
ECHO_SECONDS = 55.0
MOST_MOVES = 5


@dataclass(frozen=True, slots=True)
class Session:
    """`count` messages, one every `pause` seconds."""

    path: str
    ident: str
    count: int = 5
    pause: float = 0.1


class _Frames:
    """Takes bytes, gives messages. `closed` is the code of a close frame, -1 before there is one."""

    def __init__(self) -> None:
        self._buffer = b""
        self.texts: asyncio.Queue[str] = asyncio.Queue()
        self.closed = -1
        self.ended = asyncio.Event()

    def feed(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= 2:
            length, head = self._buffer[1] & 0x7F, 2
            if length == 126:
                head = 4
                if len(self._buffer) < head:
                    return
                length = int(struct.unpack("!H", self._buffer[2:4])[0])
            if len(self._buffer) < head + length:
                return
            kind, payload = self._buffer[0] & 0x0F, self._buffer[head : head + length]
            self._buffer = self._buffer[head + length :]
            if kind == 1:
                self.texts.put_nowait(payload.decode())
            elif kind == 8:
                self.closed = int(struct.unpack("!H", payload[:2])[0]) if len(payload) >= 2 else 1005
                self.ended.set()


def frame(kind: int, payload: bytes) -> bytes:
    """A masked frame of up to 125 bytes."""
    mask = os.urandom(4)
    return bytes([0x80 | kind, 0x80 | len(payload)]) + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload))


async def converse(client: Client, session: Session) -> tuple[Finding, Answer]:
    """The whole session. The answer carries the endpoint, the retries and the request id."""
    done, retries = 0, 0
    while True:
        answer = Answer(retries=retries)
        connection = await _open(client, session, answer)
        if connection is None:
            return judge(answer, "the WebSocket was not opened"), answer
        try:
            done, code = await _talk(connection, session, done)
        finally:
            connection.close()
        if done == session.count:
            return OK, answer
        if code == -2:
            return Finding("lost", f"message {done} was not echoed rightly"), answer
        if code not in GO_ELSEWHERE or answer.retries >= MOST_MOVES:
            return judge_close(max(code, 0), answer.endpoint), answer
        retries = answer.retries + 1


async def _open(client: Client, session: Session, answer: Answer) -> Connection | None:
    key = base64.b64encode(os.urandom(16)).decode()
    headers = (("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-version", "13"))
    ask = Ask("GET", session.path, headers=(*headers, ("sec-websocket-key", key)))
    try:
        async with asyncio.timeout(ask.seconds):
            while True:
                connection = await client.connect(answer)
                if connection is None:
                    return None
                try:
                    await connection.exchange(ask.wire(connection.endpoint), answer)
                except asyncio.CancelledError:
                    connection.close()
                    raise
                if answer.status == 101:
                    return connection
                connection.close()
                if answer.begun or answer.retries > MOST_MOVES:
                    return None
                answer.retries += 1  # a handshake is a GET: it may be repeated
    except TimeoutError:
        answer.trouble = "no answer to the handshake"
        return None


async def _talk(connection: Connection, session: Session, done: int) -> tuple[int, int]:
    """(messages echoed in all, how it ended): the close code, -1 without one, -2 for a wrong echo."""
    frames = _Frames()
    connection.raw = frames.feed
    frames.feed(connection.tail)
    while done < session.count:
        text = f"{session.ident}-{done}"
        connection.write(frame(1, text.encode()))
        got = await _next(connection, frames)
        if got is None:
            return done, frames.closed
        if got != f"echo: {text}":
            return done, -2
        done += 1
        await asyncio.sleep(session.pause)
    connection.write(frame(8, struct.pack("!H", 1000)))
    return done, 1000


async def _next(connection: Connection, frames: _Frames) -> str | None:
    """The next message; None when the connection was closed first. A silence of ECHO_SECONDS counts as closed."""
    text = asyncio.ensure_future(frames.texts.get())
    others: list[asyncio.Future[Any]] = [asyncio.ensure_future(frames.ended.wait()), connection.lost]
    try:
        await asyncio.wait([text, *others], timeout=ECHO_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        return text.result() if text.done() else None
    finally:
        text.cancel()
        others[0].cancel()
