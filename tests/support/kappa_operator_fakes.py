"""Fakes for the operator's unit tests: an API server in a dict, and time that passes when nothing else happens."""

import asyncio
import heapq
from collections.abc import Callable
from typing import Any

import jsonpatch

from kappa_operator.clock import Clock
from kappa_operator.kube import ApiError, ConflictError, NotFoundError

Json = Any


class FakeKube:
    """Objects by path. `before` is called with (method, path, body) of every write, and may raise."""

    def __init__(self) -> None:
        self.objects: dict[str, Json] = {}
        self.calls: list[tuple[str, str]] = []
        self.before: Callable[[str, str, Json], None] = lambda method, path, body: None
        self.logs: dict[str, str] = {}
        self._version = 100

    def put(self, path: str, body: Json) -> Json:
        """What another client writes."""
        self._version += 1
        old = self.objects.get(path, {"metadata": {}})
        meta = {
            "uid": f"uid-{self._version}",
            **old["metadata"],
            **body["metadata"],
            "resourceVersion": str(self._version),
        }
        self.objects[path] = {**body, "metadata": meta}
        return self.objects[path]

    async def get(self, path: str) -> Json:
        self.calls.append(("GET", path))
        if path not in self.objects:
            raise NotFoundError(404, "NotFound", path)
        return self.objects[path]

    async def text(self, path: str, params: object) -> str:
        if path not in self.logs:
            raise NotFoundError(404, "NotFound", path)
        return self.logs[path]

    async def create(self, path: str, body: Json) -> Json:
        self._note("POST", path, body)
        target = f"{path}/{body['metadata']['name']}"
        if target in self.objects:
            raise ConflictError(409, "AlreadyExists", target)
        return self.put(target, body)

    async def replace(self, path: str, body: Json) -> Json:
        self._note("PUT", path, body)
        if path not in self.objects:
            raise NotFoundError(404, "NotFound", path)
        version = body["metadata"].get("resourceVersion")
        if version and version != self.objects[path]["metadata"]["resourceVersion"]:
            raise ConflictError(409, "Conflict", path)
        return self.put(path, body)

    async def merge(self, path: str, body: Json) -> Json:
        self._note("PATCH", path, body)
        target = path.removesuffix("/status")
        if target not in self.objects:
            raise NotFoundError(404, "NotFound", path)
        uid = self.objects[target]["metadata"].get("uid")
        if (body.get("metadata") or {}).get("uid", uid) != uid:
            raise ConflictError(409, "Conflict", path)  # another object of this name
        return self.put(target, _merged(self.objects[target], body))

    async def patch(self, path: str, operations: list[Json]) -> Json:
        self._note("PATCH", path, operations)
        if path not in self.objects:
            raise NotFoundError(404, "NotFound", path)
        try:
            return self.put(path, jsonpatch.apply_patch(self.objects[path], operations))
        except jsonpatch.JsonPatchException as error:
            raise ConflictError(422, "Invalid", str(error)) from error

    async def delete(self, path: str, *, uid: str = "", grace: int | None = None) -> None:
        self._note("DELETE", path, None)
        if path in self.objects and uid in ("", self.objects[path]["metadata"]["uid"]):
            del self.objects[path]

    def written(self) -> list[tuple[str, str]]:
        return [call for call in self.calls if call[0] != "GET"]

    def _note(self, method: str, path: str, body: Json) -> None:
        self.calls.append((method, path))
        self.before(method, path, body)


def _merged(old: Json, patch: Json) -> Json:
    if not isinstance(patch, dict):
        return patch
    new = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            new.pop(key, None)
        else:
            new[key] = _merged(new.get(key), value)
    return new


class Time:
    """Virtual time: `sleep` returns when every task has had its turns and this is the earliest that is due."""

    def __init__(self, start: float = 1_000_000.0) -> None:
        self.now = start
        self._sleepers: list[tuple[float, int, asyncio.Event]] = []
        self._count = 0

    def clock(self) -> Clock:
        return Clock(monotonic=lambda: self.now, wall=lambda: self.now, sleep=self.sleep)

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.Event()
        self._count += 1
        heapq.heappush(self._sleepers, (self.now + seconds, self._count, woken))
        await woken.wait()

    async def settle(self) -> None:
        """Lets every task go as far as it can without time passing."""
        for _ in range(50):
            await asyncio.sleep(0)

    async def pass_(self, seconds: float) -> None:
        """Lets time pass, waking the sleepers in order."""
        end = self.now + seconds
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            due, _, woken = heapq.heappop(self._sleepers)
            self.now = max(self.now, due)
            woken.set()
            await self.settle()
        self.now = end
        await self.settle()


__all__ = ["ApiError", "FakeKube", "Time"]
