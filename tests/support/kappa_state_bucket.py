"""The bucket `kappa-state` in memory, with the little of `Bus` that it is used by. `away`: nobody can reach it."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from kappa_gateway.events.bus import Receipt, Stored, UnavailableError

PREFIX = "$KV.kappa-state."
STREAM = "KV_kappa-state"


class StateBus:
    """`kept`: values by key; `writes`: how often something was written."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.away = False
        self.writes = 0
        self.heard: list[Callable[[], None]] = []

    @property
    def up(self) -> bool:
        return not self.away

    async def _reach(self) -> None:
        await asyncio.sleep(0)
        if self.away:
            raise UnavailableError("away")

    async def publish(self, subject: str, body: bytes, headers: Mapping[str, str] | None = None) -> Receipt:
        await self._reach()
        self.writes += 1
        self.kept[subject.removeprefix(PREFIX)] = body
        return Receipt(self.writes)

    async def newest(self, stream: str, *, last_of: str) -> Stored | None:
        await self._reach()
        assert stream == STREAM
        found = self.kept.get(last_of.removeprefix(PREFIX))
        return None if found is None else Stored(1, last_of, found)

    async def api(self, subject: str, request: Any = None, seconds: float = 3.0) -> Any:
        """Pages of two subjects: more than one is the rule."""
        await self._reach()
        if subject == f"STREAM.PURGE.{STREAM}":
            for key in self._fitting(request["filter"]):
                del self.kept[key]
            return {}
        assert subject == f"STREAM.INFO.{STREAM}", subject
        fitting, offset = self._fitting(request["subjects_filter"]), request["offset"]
        page = {PREFIX + key: 1 for key in fitting[offset : offset + 2]}
        return {"state": {"subjects": page} if page else {}, "total": len(fitting)}

    def _fitting(self, pattern: str) -> list[str]:
        return sorted(key for key in self.kept if _fits(pattern.removeprefix(PREFIX).split("."), key.split(".")))


def _fits(pattern: list[str], tokens: list[str]) -> bool:
    for index, piece in enumerate(pattern):
        if piece == ">":
            return len(tokens) > index
        if index >= len(tokens) or piece not in ("*", tokens[index]):
            return False
    return len(pattern) == len(tokens)
