"""Containers of other objects: namespaces get their service account, and empty themselves when deleted, as CRDs do."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from kappa_local.errors import ApiError
from kappa_local.resources import Resource
from kappa_local.rest import CRD_FINALIZER, DeleteOptions, Rest
from kappa_local.store import Event
from kappa_local.types import Key
from kappa_local.writes import WriteOptions

_NAMESPACES = "namespaces."
_CRDS = "customresourcedefinitions.apiextensions.k8s.io"


@dataclass
class Contents:
    rest: Rest
    _ending_namespaces: set[str] = field(default_factory=set)
    _ending_crds: dict[str, str] = field(default_factory=dict)
    _queue: dict[tuple[str, str], None] = field(default_factory=dict)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def observe(self, table: str, event: Event) -> None:
        """A store listener. Never writes."""
        (namespace, name), obj = event.entry.key, event.entry.obj
        if table == _NAMESPACES:
            if event.type == "DELETED":
                self._ending_namespaces.discard(name)
            elif obj["metadata"].get("deletionTimestamp"):
                self._ending_namespaces.add(name)
                self._push("empty namespace", name)
            elif event.type == "ADDED":
                self._push("furnish", name)
        elif table == _CRDS:
            objects = f"{obj['spec']['names']['plural']}.{obj['spec']['group']}"
            if event.type == "DELETED":
                self._ending_crds.pop(objects, None)
            elif obj["metadata"].get("deletionTimestamp") and CRD_FINALIZER in (
                obj["metadata"].get("finalizers") or ()
            ):
                self._ending_crds[objects] = name
                self._push("empty crd", objects)
        elif event.type == "DELETED":
            if namespace in self._ending_namespaces:
                self._push("empty namespace", namespace)
            if table in self._ending_crds:
                self._push("empty crd", table)

    def _push(self, what: str, name: str) -> None:
        self._queue[what, name] = None
        self._wake.set()

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                what, name = next(iter(self._queue))
                del self._queue[what, name]
                match what:
                    case "furnish":
                        self._furnish(name)
                    case "empty namespace":
                        self._empty_namespace(name)
                    case _:
                        self._empty_crd(name)
                await asyncio.sleep(0)

    def _furnish(self, namespace: str) -> None:
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        try:
            self.rest.create(self.rest.builtin("serviceaccounts"), namespace, account, WriteOptions("kappa-local"))
        except ApiError as e:
            if e.code not in (403, 404, 409):
                raise

    def _empty_namespace(self, namespace: str) -> None:
        left = 0
        for resource in self._namespaced():
            for entry in self.rest.store.table(resource.table).entries(namespace):
                left += not self._delete(resource, entry.key)
        if not left:
            self.rest.finalize_namespace(namespace)

    def _namespaced(self) -> list[Resource]:
        found = {
            r.table: r
            for r in self.rest.registry.everything()
            if r.namespaced and "delete" in r.verbs and r.stored_as is None
        }
        return list(found.values())

    def _empty_crd(self, objects: str) -> None:
        plural, _, group = objects.partition(".")
        resource = self.rest.registry.any_version(group, plural)
        left = 0
        if resource is not None:
            for entry in self.rest.store.table(objects).entries():
                left += not self._delete(resource, entry.key)
        crd_name = self._ending_crds.get(objects)
        if not left and crd_name is not None:
            crd = self.rest.store.table(_CRDS).get(("", crd_name))
            if crd is not None:
                kept = [name for name in crd.obj["metadata"].get("finalizers") or () if name != CRD_FINALIZER]
                self.rest.set_finalizers(_CRDS, ("", crd_name), kept)

    def _delete(self, resource: Resource, key: Key) -> bool:
        """True when the object is gone now."""
        entry = self.rest.store.table(resource.table).get(key)
        if entry is None:
            return True
        if entry.obj["metadata"].get("deletionTimestamp"):
            return False
        return self.rest.delete(resource, key, DeleteOptions()).gone
