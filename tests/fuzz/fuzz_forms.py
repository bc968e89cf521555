"""How cases of the common kinds are written as bytes, so that changing a byte makes a case that is nearly the same."""

import json
from collections.abc import Callable, Iterable
from typing import Any

from fuzz_target import Form

Json = Any
#: The most places at which a stream is cut into pieces.
MOST_CUTS = 4
HTTP = (
    *(b"\r\n", b"\r\n\r\n", b"HTTP/1.1", b"HTTP/1.0", b"chunked", b"0\r\n\r\n", b"5\r\nhello\r\n", b";ext", b": "),
    *(b"Content-Length: ", b"Transfer-Encoding: ", b"Connection: ", b"Host: gw\r\n", b"Upgrade: websocket\r\n"),
    *(b"Expect: 100-continue\r\n", b"GET ", b"POST ", b"HEAD ", b"CONNECT ", b"/fn/default/f", b"http://", b"close"),
    *(b"gzip", b"Trailer: "),
)
JSON = (b"null", b"true", b"NaN", b"-Infinity", b"1e999", b'"\\ud800"', b'{"', b'":', b"[[", b'"a"')


def plain(words: tuple[bytes, ...] = ()) -> Form:
    """A case that is bytes."""
    return Form(bytes, bytes, words)


def document(*words: str, fits: Callable[[Json], bool] = lambda value: True) -> Form:
    """A case that is JSON; `fits` tells whether it has the shape that the check takes for granted."""

    def read(data: bytes) -> Json:
        try:
            value = json.loads(data)
        except RecursionError as error:
            raise ValueError("deeper than any reader goes") from error
        if not fits(value):
            raise ValueError("not of this shape")
        return value

    return Form(read, lambda case: json.dumps(case).encode(), (*JSON, *(f'"{word}"'.encode() for word in words)))


def numbered(form: Form, count: int) -> Form:
    """A number below `count`, and a case of another form."""
    return Form(
        lambda data: (_byte(data) % count, form.read(data[1:])),
        lambda case: bytes([case[0]]) + form.write(case[1]),
        form.words,
    )


def stream(words: tuple[bytes, ...] = ()) -> Form:
    """Bytes, and where they are cut: the cuts stand in front, so that they move little when the bytes change."""

    def read(data: bytes) -> tuple[bytes, tuple[int, ...]]:
        count = _byte(data) % (MOST_CUTS + 1)
        end = 1 + 2 * count
        rest = data[end:]
        places = {int.from_bytes(data[at : at + 2]) % (len(rest) + 1) for at in range(1, end, 2)}
        return rest, tuple(sorted(places))

    def write(case: tuple[bytes, tuple[int, ...]]) -> bytes:
        data, cuts = case[0], [cut for cut in case[1] if cut < 1 << 16]
        return bytes([len(cuts)]) + b"".join(cut.to_bytes(2) for cut in cuts) + data

    return Form(read, write, words)


def message(words: tuple[bytes, ...] = ()) -> Form:
    """Header lines with their ends, and a body."""

    def read(data: bytes) -> tuple[list[bytes], bytes]:
        head, _, body = data.partition(b"\r\n\r\n")
        return [line + b"\r\n" for line in head.split(b"\r\n") if line], body

    return Form(read, lambda case: b"".join(case[0]) + b"\r\n" * (2 - bool(case[0])) + case[1], words)


def texts(count: int, words: tuple[bytes, ...] = ()) -> Form:
    """So many lines of text, and bytes."""

    def read(data: bytes) -> tuple[Any, ...]:
        *lines, rest = [*(parts := data.split(b"\n", count)), *[b""] * (count + 1 - len(parts))]
        return (*(line.decode("utf-8", "surrogateescape") for line in lines), rest)

    def write(case: Iterable[Any]) -> bytes:
        *lines, rest = case
        return b"".join(line.replace("\n", " ").encode("utf-8", "surrogateescape") + b"\n" for line in lines) + rest

    return Form(read, write, words)


def frames(words: tuple[bytes, ...] = ()) -> Form:
    """A list of frames, each behind its length in two bytes; the last may be shorter than it says."""

    def read(data: bytes) -> list[bytes]:
        found, at = [], 0
        while at + 2 <= len(data):
            size = int.from_bytes(data[at : at + 2])
            found.append(data[at + 2 : at + 2 + size])
            at += 2 + size
        return found

    return Form(read, lambda case: b"".join(len(frame).to_bytes(2) + frame for frame in case), words)


def _byte(data: bytes) -> int:
    return data[0] if data else 0
