"""Garbage collection by owner references: background, foreground and orphan, as the real collector does it.

It keeps two indexes from the store's events (uid -> where, owner uid -> dependents), so that no write and no deletion
ever looks at unrelated objects.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from kappa_local.errors import ApiError
from kappa_local.rest import DeleteOptions, Rest
from kappa_local.store import Event
from kappa_local.types import Key, Obj

Place = tuple[str, Key]
"""(table, key)"""

BATCH = 100
"""Deletions between two turns of the event loop."""


def owners(obj: Obj) -> list[Obj]:
    return obj["metadata"].get("ownerReferences") or []


@dataclass
class GarbageCollector:
    rest: Rest
    _places: dict[str, Place] = field(default_factory=dict)
    _dependents: dict[str, dict[Place, None]] = field(default_factory=dict)
    _queue: deque[Place] = field(default_factory=deque)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def observe(self, table: str, event: Event) -> None:
        """A store listener: keeps the indexes and queues what may have become garbage. Never writes."""
        place = (table, event.entry.key)
        obj = event.entry.obj
        uid = obj["metadata"]["uid"]
        before = {owner["uid"] for owner in owners(event.before.obj)} if event.before is not None else set()
        now = {owner["uid"] for owner in owners(obj)} if event.type != "DELETED" else set()
        for gone in before - now:
            self._unlink(gone, place)
        for new in now - before:
            self._dependents.setdefault(new, {})[place] = None
        if event.type == "DELETED":
            self._places.pop(uid, None)
            self._push(*self._dependents.get(uid, ()))
            return
        self._places[uid] = place
        if now - before:
            self._push(place)
        if obj["metadata"].get("deletionTimestamp"):
            self._push(place)

    def _unlink(self, uid: str, place: Place) -> None:
        places = self._dependents.get(uid)
        if places is None:
            return
        places.pop(place, None)
        if not places:
            del self._dependents[uid]
        owner = self._places.get(uid)
        if owner is not None:
            self._push(owner)

    def _push(self, *places: Place) -> None:
        self._queue.extend(places)
        if self._queue:
            self._wake.set()

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            done = 0
            while self._queue:
                self._collect(self._queue.popleft())
                done += 1
                if done % BATCH == 0:
                    await asyncio.sleep(0)

    def _collect(self, place: Place) -> None:
        table, key = place
        entry = self.rest.store.table(table).get(key)
        if entry is None:
            return
        obj = entry.obj
        finalizers = obj["metadata"].get("finalizers") or []
        if obj["metadata"].get("deletionTimestamp"):
            if "orphan" in finalizers:
                self._orphan(place, obj)
            elif "foregroundDeletion" in finalizers:
                self._delete_dependents_first(place, obj)
            return
        refs = owners(obj)
        if not refs:
            return
        solid: list[Obj] = []
        waiting: list[Obj] = []
        for ref in refs:
            owner = self._owner(ref["uid"], key[0])
            if owner is None:
                continue
            foreground = "foregroundDeletion" in (owner["metadata"].get("finalizers") or ())
            (waiting if owner["metadata"].get("deletionTimestamp") and foreground else solid).append(ref)
        if solid:
            if len(solid) < len(refs):
                self._write_owners(place, obj, solid)
            return
        policy = "Foreground" if waiting and self._dependents.get(obj["metadata"]["uid"]) else None
        self._delete(place, policy)

    def _owner(self, uid: str, namespace: str) -> Obj | None:
        place = self._places.get(uid)
        if place is None or place[1][0] not in ("", namespace):
            return None
        entry = self.rest.store.table(place[0]).get(place[1])
        return entry.obj if entry is not None else None

    def _orphan(self, place: Place, obj: Obj) -> None:
        uid = obj["metadata"]["uid"]
        for dependent in tuple(self._dependents.get(uid, ())):
            entry = self.rest.store.table(dependent[0]).get(dependent[1])
            if entry is not None:
                self._write_owners(dependent, entry.obj, [ref for ref in owners(entry.obj) if ref["uid"] != uid])
        self._drop_finalizer(place, obj, "orphan")

    def _delete_dependents_first(self, place: Place, obj: Obj) -> None:
        uid = obj["metadata"]["uid"]
        blocked = False
        for dependent in tuple(self._dependents.get(uid, ())):
            entry = self.rest.store.table(dependent[0]).get(dependent[1])
            if entry is None:
                continue
            blocked = blocked or any(ref["uid"] == uid and ref.get("blockOwnerDeletion") for ref in owners(entry.obj))
            if not entry.obj["metadata"].get("deletionTimestamp"):
                self._push(dependent)
        if not blocked:
            self._drop_finalizer(place, obj, "foregroundDeletion")

    def _drop_finalizer(self, place: Place, obj: Obj, name: str) -> None:
        kept = [finalizer for finalizer in obj["metadata"].get("finalizers") or () if finalizer != name]
        self.rest.set_finalizers(*place, kept)

    def _write_owners(self, place: Place, obj: Obj, refs: list[Obj]) -> None:
        meta = {name: value for name, value in obj["metadata"].items() if name != "ownerReferences"}
        if refs:
            meta["ownerReferences"] = refs
        self.rest.store.put(*place, {**obj, "metadata": meta})

    def _delete(self, place: Place, policy: str | None) -> None:
        plural, _, group = place[0].partition(".")
        resource = self.rest.registry.any_version(group, plural)
        if resource is None:
            return
        try:
            self.rest.delete(resource, place[1], DeleteOptions(propagation=policy))
        except ApiError as e:
            if e.code != 404:
                raise
