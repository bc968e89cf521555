"""Events: what controllers and the kubelet tell people (`kubectl describe`, `kubectl get events`)."""

from __future__ import annotations

import asyncio
import time
import uuid

from kappa_local.metadata import now
from kappa_local.rest import Rest
from kappa_local.store import Event
from kappa_local.types import Key, Obj

TABLE = "events."
KEEP = 300
"""Events kept, whoever wrote them; the oldest go first. The real server drops them after an hour, which is no bound."""


class Forgetter:
    """Drops the oldest Events: listens to the store."""

    def __init__(self, rest: Rest, keep: int = KEEP) -> None:
        self._rest, self._keep = rest, keep
        self._keys: dict[Key, None] = {}

    def observe(self, table: str, event: Event) -> None:
        if table != TABLE:
            return
        if event.type == "DELETED":
            self._keys.pop(event.entry.key, None)
        elif event.type == "ADDED":
            self._keys[event.entry.key] = None
            if len(self._keys) > self._keep:
                # Not in the middle of the write that was one too many
                asyncio.get_running_loop().call_soon(self._drop)

    def _drop(self) -> None:
        while len(self._keys) > self._keep:
            oldest = next(iter(self._keys))
            del self._keys[oldest]
            entry = self._rest.store.table(TABLE).get(oldest)
            if entry is not None:
                self._rest.store.remove(TABLE, oldest, {**entry.obj, "metadata": dict(entry.obj["metadata"])})


class Recorder:
    def __init__(self, rest: Rest, component: str, host: str = "") -> None:
        self._rest = rest
        self._component = component
        self._host = host
        self._known: dict[tuple[str, str, str], tuple[str, str]] = {}

    def record(self, about: Obj, kind: str, reason: str, message: str) -> None:
        """Writes an event; the same one again counts up instead. `kind`: Normal or Warning."""
        meta = about["metadata"]
        namespace = meta.get("namespace") or "default"
        table = self._rest.store.table(TABLE)
        same = (meta["uid"], reason, message)
        key = self._known.get(same)
        entry = table.get(key) if key is not None else None
        if key is not None and entry is not None:
            again = {
                **entry.obj,
                "metadata": dict(entry.obj["metadata"]),
                "count": entry.obj.get("count", 1) + 1,
                "lastTimestamp": now(),
            }
            self._rest.store.put(TABLE, key, again)
            return
        key = (namespace, f"{meta['name']}.{time.time_ns():x}")
        self._rest.store.put(TABLE, key, self._event(about, key, kind, reason, message))
        self._known[same] = key
        if len(self._known) > 2 * KEEP:
            self._known = {same: key for same, key in self._known.items() if table.get(key) is not None}

    def _event(self, about: Obj, key: tuple[str, str], kind: str, reason: str, message: str) -> Obj:
        meta = about["metadata"]
        moment = now()
        involved = {
            "kind": about["kind"],
            "namespace": meta.get("namespace", ""),
            "name": meta["name"],
            "uid": meta["uid"],
            "apiVersion": about["apiVersion"],
            "resourceVersion": meta.get("resourceVersion", ""),
        }
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": key[1], "namespace": key[0], "uid": str(uuid.uuid4()), "creationTimestamp": moment},
            "involvedObject": involved,
            "reason": reason,
            "message": message,
            "source": {"component": self._component, **({"host": self._host} if self._host else {})},
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": 1,
            "type": kind,
            "eventTime": None,
            "reportingComponent": self._component,
            "reportingInstance": self._host,
        }
