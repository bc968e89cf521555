"""Making an event fit: a message of NATS holds 1 MiB, and one row or entry of a database may hold far more.

An event that can never be kept would stop its source for ever, so what is largest is left out and named instead.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

Json = Any

MAX_DATA_BYTES: Final = 600 * 1024
#: Up to this many characters a string's size in JSON is not measured but taken at its worst: six bytes each.
SHORT: Final = 1024


def shrink(images: Sequence[dict[str, Json]], keep: Sequence[str] = (), limit: int = MAX_DATA_BYTES) -> list[str]:
    """Takes the largest values out of all `images` until the rest is at most `limit` bytes of JSON; those named in
    `keep` last. Returns the names of what is out, sorted."""
    sizes = {name: 0 for image in images for name in image}
    for image in images:
        for name, value in image.items():
            sizes[name] += _size(value) + _size(name)
    total = sum(sizes.values())
    omitted: list[str] = []
    if total <= limit:
        return omitted
    for name in sorted(sizes, key=lambda name: (name in keep, -sizes[name], name)):
        if total <= limit:
            break
        total -= sizes[name]
        omitted.append(name)
        for image in images:
            image.pop(name, None)
    return sorted(omitted)


def _size(value: Json) -> int:
    """About the bytes of the value in JSON, and never less."""
    if value is None or isinstance(value, bool | float):
        return 26
    if isinstance(value, str) and len(value) < SHORT:
        return 6 * len(value) + 4
    return len(json.dumps(value)) + 2
