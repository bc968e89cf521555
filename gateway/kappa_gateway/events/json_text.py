"""Reading JSON that somebody posted, however large, without holding up calls or filling the gateway's memory.

The standard library's scanner in C holds the interpreter until it is done, 10 ms per MiB. For larger texts its twin in
Python is used, which is slower but lets the event loop go on beside it when it runs in a thread (`aside`). What a text
makes of memory follows its values more than its bytes: an empty list takes two bytes there, and sixty here.
"""

import asyncio
import json
import math
from collections.abc import Callable
from json.scanner import py_make_scanner  # type: ignore[attr-defined]
from typing import Any, Final, TypeVar

Json = Any
T = TypeVar("T")
#: Of one posted body. As much again may be taken by what is made of it.
MOST_BYTES: Final = 32 * 1024 * 1024
#: Up to so many bytes a body is read at once, on the loop.
SMALL_BYTES: Final = 1024 * 1024
#: Values of a larger text: they take up to 100 bytes each.
MOST_VALUES: Final = 500_000
#: Levels of data: who reads or writes it after us may recurse with less room than we have.
MAX_DEPTH: Final = 200


class TooManyError(Exception):
    """A large text with too many values: 413."""

    def __init__(self) -> None:
        super().__init__(f"JSON of more than {SMALL_BYTES} bytes has at most {MOST_VALUES} values and commas")


def loads(text: str) -> Json:
    """As `json.loads`, but refuses NaN and its like, which are no JSON, and numbers that would be written as such.
    Raises ValueError, RecursionError and TooManyError."""
    if len(text) <= SMALL_BYTES:
        return json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    if sum(map(text.count, ",[{")) > MOST_VALUES:
        raise TooManyError
    decoder = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)
    decoder.scan_once = py_make_scanner(decoder)  # type: ignore[attr-defined]
    return decoder.decode(text)


def deep(value: Json) -> bool:
    """Whether data has more than MAX_DEPTH levels. Does not recurse itself."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
        if not level:
            return False
    return True


class Aside:
    """Runs what reads a body: a small one here and now, larger ones in a thread, one after the other."""

    def __init__(self) -> None:
        self._one = asyncio.Lock()

    async def run(self, size: int, read: Callable[[], T]) -> T:
        if size <= SMALL_BYTES:
            return read()
        async with self._one:
            return await asyncio.to_thread(read)


def _no_constant(name: str) -> Json:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    if math.isfinite(value := float(text)):
        return value
    raise ValueError(f"{text[:40]} is larger than numbers can be here")
