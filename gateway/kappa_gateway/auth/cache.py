"""A bounded memory of answers that end at a time. Keys are salted digests: a credential is never kept.

When it is full, what was put in first goes: entries are put in only by verified callers (or, for refusals, into a
memory of their own), so that strangers cannot push others out.
"""

import hashlib
import os
from typing import Generic, TypeVar

V = TypeVar("V")


class Cache(Generic[V]):
    """`get` and `put` take the time, in whichever clock the owner keeps."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: dict[bytes, tuple[V, float]] = {}

    def get(self, key: bytes, now: float) -> V | None:
        found = self._entries.get(key)
        if found is None:
            return None
        if found[1] > now:
            return found[0]
        del self._entries[key]
        return None

    def put(self, key: bytes, value: V, until: float) -> None:
        entries = self._entries
        entries.pop(key, None)
        if len(entries) >= self._size:
            del entries[next(iter(entries))]
        entries[key] = (value, until)

    def discard(self, key: bytes) -> None:
        self._entries.pop(key, None)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<Cache {len(self)} of {self._size}>"


class Digests:
    """Keys for a Cache: SHA-256 with a salt of this owner: no two owners share a key, and nobody can guess one."""

    def __init__(self) -> None:
        self._salt = os.urandom(32)

    def of(self, secret: bytes) -> bytes:
        return hashlib.sha256(self._salt + secret).digest()
