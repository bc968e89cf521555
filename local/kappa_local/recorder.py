"""Events: what controllers and the kubelet tell people (`kubectl describe`, `kubectl get events`)."""

from __future__ import annotations

import time
import uuid

from kappa_local.metadata import now
from kappa_local.rest import Rest
from kappa_local.types import Obj

KEEP = 2_000
"""Events of this recorder kept at most; the oldest go first (the real server drops them after an hour)."""


class Recorder:
    def __init__(self, rest: Rest, component: str, host: str = "") -> None:
        self._rest = rest
        self._component = component
        self._host = host
        self._written: dict[tuple[str, str], None] = {}
        self._known: dict[tuple[str, str, str], tuple[str, str]] = {}

    def record(self, about: Obj, kind: str, reason: str, message: str) -> None:
        """Writes an event; the same one again counts up instead. `kind`: Normal or Warning."""
        meta = about["metadata"]
        namespace = meta.get("namespace") or "default"
        table = self._rest.store.table("events.")
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
            self._rest.store.put("events.", key, again)
            return
        key = (namespace, f"{meta['name']}.{time.time_ns():x}")
        self._rest.store.put("events.", key, self._event(about, key, kind, reason, message))
        self._known[same] = key
        self._written[key] = None
        if len(self._written) > KEEP:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        oldest = next(iter(self._written))
        del self._written[oldest]
        entry = self._rest.store.table("events.").get(oldest)
        if entry is not None:
            self._rest.store.remove("events.", oldest, {**entry.obj, "metadata": dict(entry.obj["metadata"])})
        self._known = (
            {same: key for same, key in self._known.items() if key in self._written}
            if len(self._known) > 2 * KEEP
            else self._known
        )

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
