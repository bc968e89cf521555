"""Changing JSON as JSON: of a document of which a byte is changed, most readers see nothing but that it is broken."""

import json
import random
from typing import Any

Json = Any
_DECODER = json.JSONDecoder()
_SCALARS: list[Json] = [
    None,
    True,
    False,
    0,
    -1,
    1,
    0.5,
    1 << 70,
    1e300,
    "",
    "a",
    "é",
    "\ud800",
    "\n",
    [],
    {},
    [[]],
    "1Gi",
]
#: Where in the input a document may begin.
_OPEN = b"{["


def change(data: bytes, source: random.Random, words: list[str]) -> bytes | None:
    """The input with one of the documents in it changed at one place; None: there is none. `words`: keys and texts."""
    text = data.decode("latin-1")
    starts = [at for at, byte in enumerate(data[:4096]) if byte in _OPEN][:3]
    source.shuffle(starts)
    for start in starts:
        try:
            value, end = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        return data[:start] + json.dumps(_changed(value, source, words)).encode() + data[end:]
    return None


def _changed(value: Json, source: random.Random, words: list[str]) -> Json:
    places = _places(value)
    path = source.choice(places)
    match source.randrange(6):
        case 0:  # what stands at another place
            new = _at(value, source.choice(places))
        case 1:
            new = [_at(value, path)]
        case 2:
            new = {source.choice(words or ["a"]): _at(value, path)}
        case 3:
            new = source.choice(words or ["a"])
        case 4:
            new = _grown(_at(value, path), source, words)
        case _:
            new = source.choice(_SCALARS)
    return _with(value, path, new, gone=bool(path) and source.randrange(6) == 0)


def _grown(value: Json, source: random.Random, words: list[str]) -> Json:
    if isinstance(value, dict):
        return value | {source.choice(words or ["a"]): source.choice(_SCALARS)}
    if isinstance(value, list):
        return [*value, *value[-1:], source.choice(_SCALARS)][: source.randint(1, len(value) + 2)]
    return value + value if isinstance(value, str) else value


def _places(value: Json) -> list[tuple[Any, ...]]:
    """The paths of a document, without recursion: it may be deep. Not all of a large one."""
    found: list[tuple[Any, ...]] = [()]
    for path in found:
        below = _at(value, path)
        keys = below if isinstance(below, dict) else range(len(below)) if isinstance(below, list) else ()
        found += [(*path, key) for key in keys]
        if len(found) > 200 or len(path) > 50:
            break
    return found


def _at(value: Json, path: tuple[Any, ...]) -> Json:
    for key in path:
        value = value[key]
    return value


def _with(value: Json, path: tuple[Any, ...], new: Json, *, gone: bool) -> Json:
    if not path:
        return new
    key, *rest = path
    if not rest and gone:
        if isinstance(value, dict):
            return {name: child for name, child in value.items() if name != key}
        return value[:key] + value[key + 1 :]
    below = _with(value[key], tuple(rest), new, gone=gone)
    return {**value, key: below} if isinstance(value, dict) else [*value[:key], below, *value[key + 1 :]]
