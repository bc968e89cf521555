"""The data of an event that is too large for a message, as it stands in the bucket of bodies. Pure.

It is written and read piece by piece, so nothing here makes a second copy of what a source holds. It is kept in the
form that both ways to an instance can be made of: as a part of the JSON format, and as the body of a request whose
headers are the attributes.

| form | the data is | in the bucket | in the JSON format |
|---|---|---|---|
| json | a JSON value | its JSON text | the same, as `data` |
| text | a string | UTF-8 | the same with escapes, as `data` |
| bytes | bytes | as they are | base64, as `data_base64` |
"""

import codecs
import json
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from kappa_api.cloudevents import CloudEvent

Json = Any
Turner = Callable[[bytes, bool], bytes]
JSON, TEXT, BYTES = "json", "text", "bytes"
#: Characters, or bytes, that are turned at a time.
SLICE: Final = 64 * 1024
#: By these a handler may name one change of a table in `batchItemFailures`.
IDENTIFIERS: Final = ("sequence", "lsn")
_MOST_IDENTIFIER: Final = 100
#: Elements of a list that are encoded at once where they are small.
_ROW: Final = 256


@dataclass(frozen=True, slots=True)
class StoredData:
    """What is known of data in the bucket. `size`: bytes there; `inline`: bytes as a part of the JSON format, without
    quotes; `names`: what else the event may be called (IDENTIFIERS)."""

    form: str
    size: int
    inline: int
    names: tuple[str, ...] = ()

    def text(self) -> str:
        """For a header: ASCII."""
        return json.dumps([self.form, self.size, self.inline, *self.names])

    @classmethod
    def read(cls, text: str) -> "StoredData":
        """Raises ValueError for what `text` did not write."""
        found = json.loads(text)
        if not isinstance(found, list) or len(found) < 3 or found[0] not in (JSON, TEXT, BYTES):
            raise ValueError(f"not what is known of stored data: {text[:100]}")
        return cls(str(found[0]), int(found[1]), int(found[2]), tuple(map(str, found[3:])))

    @property
    def opening(self) -> bytes:
        """What comes before the data in the JSON format, behind the attributes."""
        return {JSON: b',"data":', TEXT: b',"data":"', BYTES: b',"data_base64":"'}[self.form]

    @property
    def closing(self) -> bytes:
        return b"}" if self.form == JSON else b'"}'

    def turner(self) -> Turner:
        """Makes of the bucket's pieces, one after the other, those of the JSON format; the flag says: the last."""
        if self.form == TEXT:
            return _Escaped()
        return _Base64() if self.form == BYTES else as_it_is


def heavy(data: Json | bytes, limit: int) -> bool:
    """Whether the data needs more than `limit` bytes in JSON; False: it may well be more, but not by much. Stops as
    soon as it is known, and copies nothing."""
    left, level = limit, [data]
    while level:
        value = level.pop()
        if isinstance(value, str | bytes):
            left -= len(value)
        elif isinstance(value, dict):
            left -= sum(map(len, value)) + 5 * len(value)
            if left >= 0:
                level.extend(value.values())
        elif isinstance(value, list | tuple):
            left -= 2 * len(value)
            if left >= 0:
                level.extend(value)
        if left < 0:
            return True
    return False


def pieces_of(event: CloudEvent) -> tuple[str, Iterable[bytes]]:
    """The form, and what goes to the bucket in it."""
    data = event.data
    if isinstance(data, bytes):
        view = memoryview(data)
        return BYTES, (bytes(view[at : at + SLICE]) for at in range(0, len(data), SLICE))
    kind = event.datacontenttype
    if isinstance(data, str) and kind and "json" not in kind and not _halved(data):
        return TEXT, (part.encode() for part in _slices(data))
    return JSON, _gathered(json_pieces(data))


def _halved(text: str) -> bool:
    """Whether it holds half a character: JSON may, UTF-8 may not."""
    try:
        for part in _slices(text):
            part.encode()
    except UnicodeEncodeError:
        return True
    return False


def json_pieces(value: Json) -> Iterator[bytes]:
    """The JSON text of a value, in UTF-8, without ever having all of it."""
    if not heavy(value, SLICE):
        yield _encoded(value)
    elif isinstance(value, dict):
        mark = b"{"
        for name, content in value.items():
            yield mark + _encoded(str(name)) + b":"
            yield from json_pieces(content)
            mark = b","
        yield b"}"
    elif isinstance(value, list | tuple):
        mark = b"["
        for at in range(0, len(value), _ROW):
            row = value[at : at + _ROW]
            if not heavy(row, SLICE):  # many small things: the encoder in C is worth it
                yield mark + _encoded(row)[1:-1]
                mark = b","
                continue
            for content in row:
                yield mark
                yield from json_pieces(content)
                mark = b","
        yield b"]"
    elif isinstance(value, str):
        yield b'"'
        for part in _slices(value):
            yield _encoded(part)[1:-1]
        yield b'"'
    else:
        yield _encoded(value)


def _gathered(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same in pieces that are worth a step each."""
    held = bytearray()
    for piece in pieces:
        held += piece
        if len(held) >= SLICE:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)


def _slices(text: str) -> Iterator[str]:
    return (text[at : at + SLICE] for at in range(0, len(text), SLICE))


def _encoded(value: Json) -> bytes:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    try:
        return text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def names_of(data: Json | bytes) -> tuple[str, ...]:
    if not isinstance(data, dict):
        return ()
    return tuple(str(data[name])[:_MOST_IDENTIFIER] for name in IDENTIFIERS if isinstance(data.get(name), str | int))


def as_it_is(piece: bytes, last: bool) -> bytes:
    """The Turner that turns nothing."""
    return piece


class _Escaped:
    """UTF-8 as the inside of a JSON string."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def __call__(self, piece: bytes, last: bool) -> bytes:
        return _encoded(self._decoder.decode(piece, last))[1:-1]


class _Base64:
    """Bytes as base64: three become four."""

    def __init__(self) -> None:
        self._rest = b""

    def __call__(self, piece: bytes, last: bool) -> bytes:
        data = self._rest + piece
        cut = len(data) if last else len(data) - len(data) % 3
        self._rest = data[cut:]
        return b64encode(data[:cut])
