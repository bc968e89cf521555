"""Making an event fit: the bucket of bodies takes 100 MiB of one, and a row or entry of a database may hold far more.

An event that can never be kept would stop its source for ever, so what is largest is left out and named instead.
"""

from collections.abc import Sequence
from typing import Any, Final

from kappa_gateway.events.stored_data import json_pieces

Json = Any

#: Less than `EventSettings.stored_bytes`: names, keys and what else the event tells need room, too.
MAX_DATA_BYTES: Final = 99 * 1024 * 1024


def shrink(images: Sequence[dict[str, Json]], keep: Sequence[str] = (), limit: int = 0) -> list[str]:
    """Takes the largest values out of all `images` until the rest is at most `limit` bytes of JSON (0: MAX_DATA_BYTES);
    those named in `keep` last. Returns the names of what is out, sorted."""
    limit = limit or MAX_DATA_BYTES
    sizes = {name: 0 for image in images for name in image}
    for image in images:
        for name, value in image.items():
            sizes[name] += _worst(value) + _worst(name)
    if sum(sizes.values()) <= limit:
        return []
    sizes = {name: sum(_measured(image[name], name) for image in images if name in image) for name in sizes}
    total = sum(sizes.values())
    omitted: list[str] = []
    for name in sorted(sizes, key=lambda name: (name in keep, -sizes[name], name)):
        if total <= limit:
            break
        total -= sizes[name]
        omitted.append(name)
        for image in images:
            image.pop(name, None)
    return sorted(omitted)


def _worst(value: Json) -> int:
    """Never less than the bytes of the value in JSON. Strings are not looked at."""
    if value is None or isinstance(value, float) or (isinstance(value, int) and value.bit_length() <= 64):
        return 26
    return 6 * len(value) + 4 if isinstance(value, str) else _measured(value, "")


def _measured(value: Json, name: str) -> int:
    """The bytes that the value takes in JSON under this name."""
    return sum(map(len, json_pieces(value))) + 6 * len(name) + 4
