"""The idle times of functions in a form that outlives the operator: compact JSON, in shards. Pure.

A shard is a gzipped JSON object: function key -> [start of the function's uid, when it was seen active last (epoch
seconds), count, outside, bins]; a bin is [index, count, low, high, total, squares]. Times
are kept to the millisecond. Which shard a function belongs to depends on its key only.
"""

import gzip
import json
import logging
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kappa_operator.autoscaler.keepalive import Bin, IdleHistogram

Json = Any
logger = logging.getLogger(__name__)

#: 10,000 functions with 20 bins each make shards of about 100 KB; no ConfigMap may have more than 1 MiB.
SHARDS = 32
MOST_BYTES = 900_000
UID_LENGTH = 8
VERSION = 1


@dataclass(frozen=True, slots=True)
class Remembered:
    """One function: its idle times, the `uid` it had, and when it was seen active last (epoch seconds)."""

    uid: str
    idle: IdleHistogram
    active_at: float = 0.0


def shard_of(key: str) -> int:
    """The number of the shard that a function belongs to."""
    return zlib.crc32(key.encode()) % SHARDS


def encode(functions: Mapping[str, Remembered]) -> bytes:
    """One shard. Should it grow too large, the functions that are known least are left out."""
    rows = {key: _row(found) for key, found in sorted(functions.items())}
    while True:
        data = gzip.compress(json.dumps({"v": VERSION, "f": rows}, separators=(",", ":")).encode(), mtime=0)
        if len(data) <= MOST_BYTES or not rows:
            return data
        keep = sorted(rows, key=lambda key: -functions[key].idle.count)[: len(rows) * 3 // 4]
        logger.warning("idle times: a shard is too large, %d functions are left out", len(rows) - len(keep))
        rows = {key: rows[key] for key in sorted(keep)}


def decode(data: bytes) -> dict[str, Remembered]:
    """The inverse. What cannot be read is as good as never known: nothing but some idle time is lost."""
    try:
        value = json.loads(gzip.decompress(data))
        if value["v"] != VERSION:
            return {}
        return {str(key): _remembered(row) for key, row in value["f"].items()}
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        logger.warning("idle times: a shard cannot be read: %r", error)
        return {}


def _row(found: Remembered) -> list[Json]:
    idle = found.idle
    bins = [
        [index, _short(b.count), _short(b.low), _short(b.high), _short(b.total), _short(b.squares)]
        for index, b in sorted(idle.bins.items())
    ]
    return [found.uid[:UID_LENGTH], _short(found.active_at), _short(idle.count), _short(idle.outside), bins]


def _remembered(row: Iterable[Json]) -> Remembered:
    uid, active_at, count, outside, bins = row
    found = {int(index): Bin(*(float(number) for number in numbers)) for index, *numbers in bins}
    return Remembered(str(uid), IdleHistogram(found, float(count), float(outside)), float(active_at))


def _short(number: float) -> float:
    rounded = round(number, 3)
    return int(rounded) if rounded == int(rounded) else rounded
