"""The operations of the API on the store: get, create, update, patch, delete. Synchronous, so each one is atomic.

The HTTP layer, the controllers and the kubelet all go through here; nobody else writes to the store.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from kappa_local import crd, errors, metadata, patch
from kappa_local.apply import apply
from kappa_local.errors import ApiError
from kappa_local.quota import refused
from kappa_local.resources import Registry, Resource
from kappa_local.selectors import Selector
from kappa_local.store import Entry, Store
from kappa_local.types import Key, Obj
from kappa_local.writes import WriteOptions, coerce, created, precondition_fault, updated

CRD_FINALIZER = "customresourcecleanup.apiextensions.k8s.io"
_GC_FINALIZERS = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}


@dataclass
class DeleteOptions:
    """`grace` None means the object's own period; `propagation` None means Background."""

    grace: int | None = None
    propagation: str | None = None
    preconditions: Obj = field(default_factory=dict)
    dry_run: bool = False


@dataclass(frozen=True)
class Deletion:
    """What a delete did. `gone` is False when finalizers or a grace period keep the object for now."""

    entry: Entry
    gone: bool


class Rest:
    def __init__(self, store: Store, registry: Registry, clock: Callable[[], str] = metadata.now) -> None:
        self.store = store
        self.registry = registry
        self._clock = clock
        #: Signs the tokens of service accounts.
        self.token_key = os.urandom(32)

    def builtin(self, plural: str, group: str = "", version: str = "v1") -> Resource:
        found = self.registry.find(group, version, plural)
        assert found is not None, plural
        return found

    # -- reading

    def get(self, resource: Resource, key: Key) -> Entry:
        entry = self.store.table(resource.table).get(key)
        if entry is None:
            raise errors.not_found(resource.group, resource.plural, key[1])
        return entry

    def select(self, resource: Resource, namespace: str | None, selector: Selector) -> list[Entry]:
        table = self.store.table(resource.table)
        name = selector.exact("metadata.name")
        if name is not None and (namespace is not None or not resource.namespaced):
            entry = table.get((namespace or "", name))
            entries = [entry] if entry is not None else []
        else:
            entries = table.entries(namespace)
        return [entry for entry in entries if selector.matches(entry.obj)] if selector else entries

    # -- writing

    def create(self, resource: Resource, namespace: str, given: Any, options: WriteOptions) -> Entry:
        options.now = self._clock()
        obj = coerce(resource, given, options)
        return self._insert(resource, namespace, obj, options)

    def _insert(self, resource: Resource, namespace: str, obj: Obj, options: WriteOptions) -> Entry:
        given = obj["metadata"]
        if given.get("namespace") and given["namespace"] != namespace:
            what = "the namespace of the provided object does not match the namespace sent on the request"
            raise errors.bad_request(what)
        if resource.namespaced:
            self._check_namespace(resource, namespace, given.get("name") or given.get("generateName") or "")
        if given.get("resourceVersion"):
            raise ApiError(500, "", "resourceVersion should not be set on objects to be created")
        obj = created(resource, obj, namespace=namespace, uid=str(uuid.uuid4()), options=options)
        key = (namespace, obj["metadata"]["name"])
        if self.store.table(resource.table).get(key) is not None:
            raise errors.already_exists(resource.group, resource.plural, key[1])
        if resource.kind == "CustomResourceDefinition":
            obj["metadata"].setdefault("finalizers", [CRD_FINALIZER])
        if resource.kind == "Pod":
            self._check_quota(resource, key)
        if options.dry_run:
            return Entry(key, obj, 0)
        entry = self.store.put(resource.table, key, obj)
        self._served(resource, entry)
        return entry

    def _check_namespace(self, resource: Resource, namespace: str, name: str) -> None:
        found = self.store.table("namespaces.").get(("", namespace))
        if found is None:
            raise errors.not_found("", "namespaces", namespace)
        if found.obj["metadata"].get("deletionTimestamp"):
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            error = errors.forbidden(resource.group, resource.plural, name, why)
            cause = {
                "reason": "NamespaceTerminating",
                "message": f"namespace {namespace} is being terminated",
                "field": "metadata.namespace",
            }
            error.details = {**(error.details or {}), "causes": [cause]}
            raise error

    def _check_quota(self, resource: Resource, key: Key) -> None:
        quotas = self.store.table("resourcequotas.").entries(key[0])
        if not quotas:
            return
        pods = (entry.obj for entry in self.store.table(resource.table).entries(key[0]))
        if why := refused((quota.obj for quota in quotas), pods):
            raise errors.forbidden(resource.group, resource.plural, key[1], why)

    def update(self, resource: Resource, key: Key, given: Any, options: WriteOptions, subresource: str = "") -> Entry:
        options.now = self._clock()
        obj = coerce(resource, given, options)
        name = obj["metadata"].get("name") or key[1]
        if name != key[1]:
            raise errors.bad_request(f"the name of the object ({name}) does not match the name on the URL ({key[1]})")
        return self._replace(resource, self.get(resource, key), obj, options, subresource)

    def patch(
        self, resource: Resource, key: Key, content_type: str, body: Any, options: WriteOptions, subresource: str = ""
    ) -> tuple[Entry, bool]:
        """(the new version, whether the patch created the object: an apply may)."""
        options.now = self._clock()
        entry = self.store.table(resource.table).get(key)
        if content_type == patch.APPLY:
            return self._apply(resource, key, entry, body, options, subresource)
        if entry is None:
            raise errors.not_found(resource.group, resource.plural, key[1])
        live = {**entry.obj, "apiVersion": resource.api_version}
        if content_type == patch.JSON:
            changed = patch.json_patch(live, body)
        elif not isinstance(body, dict):
            raise errors.bad_request(
                "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"
            )
        elif content_type == patch.STRATEGIC and not resource.custom:
            changed = patch.strategic_patch(live, body, resource.schema)
        elif content_type == patch.MERGE:
            changed = patch.merge_patch(live, body)
        else:
            raise errors.unsupported_media_type((patch.JSON, patch.MERGE, patch.APPLY))
        if not isinstance(changed.get("metadata"), dict):
            raise errors.bad_request("metadata must be an object")
        obj = coerce(resource, changed, options, patched=True)
        return self._replace(resource, entry, obj, options, subresource, patched=True), False

    def _apply(
        self, resource: Resource, key: Key, entry: Entry | None, body: Any, options: WriteOptions, subresource: str
    ) -> tuple[Entry, bool]:
        if not isinstance(body, dict):
            raise errors.bad_request("error decoding YAML: the object provided is not an object")
        meta = body.get("metadata") or {}
        if meta.get("managedFields"):
            raise errors.bad_request("metadata.managedFields must be nil")
        if meta.get("name") not in (None, key[1]):
            raise errors.bad_request(f"name in URL does not match name in object ({key[1]} != {meta['name']})")
        if entry is None and meta.get("uid"):
            why = f"uid mismatch: the provided object specified uid {meta['uid']}, and no existing object was found"
            raise errors.conflict(resource.group, resource.plural, key[1], why)
        # Defaults are not the applier's fields: only what it wrote is checked for unknown fields and owned.
        config = self._checked_config(resource, {**body, "metadata": {**meta, "name": key[1]}}, options)
        live = None if entry is None else {**entry.obj, "apiVersion": resource.api_version}
        merged = apply(live, config, resource.schema, options.entry(resource, subresource), force=options.force)
        if entry is None:
            merged["metadata"].setdefault("name", key[1])
            quiet = WriteOptions(options.manager, options.dry_run, "Ignore", now=options.now)
            return self._insert(resource, key[0], coerce(resource, merged, quiet), options), True
        quiet = WriteOptions(options.manager, options.dry_run, "Ignore", now=options.now)
        obj = coerce(resource, merged, quiet)
        return self._replace(resource, entry, obj, options, subresource, patched=True), False

    def _checked_config(self, resource: Resource, body: Obj, options: WriteOptions) -> Obj:
        from kappa_local.schema import prune

        coerce(resource, body, options)
        pruned: Obj = prune(body, resource.schema, root=True)
        return pruned

    def _replace(
        self,
        resource: Resource,
        old: Entry,
        obj: Obj,
        options: WriteOptions,
        subresource: str,
        *,
        patched: bool = False,
    ) -> Entry:
        out = updated(resource, obj, old.obj, options, subresource, patched=patched)
        if out == old.obj:
            return old
        if options.dry_run:
            return Entry(old.key, out, old.rv)
        if _released(out["metadata"]) and (resource.kind != "Namespace" or resource.custom):
            return self._remove(resource, old.key, out)
        entry = self.store.put(resource.table, old.key, out)
        self._served(resource, entry)
        return entry

    def scale(
        self, resource: Resource, key: Key, replicas: int, options: WriteOptions, version: str | None = None
    ) -> Entry:
        """Sets the replicas of an object that has a scale subresource."""
        assert resource.scale is not None
        entry = self.get(resource, key)
        if version and version != entry.obj["metadata"]["resourceVersion"]:
            raise errors.conflict(resource.group, resource.plural, key[1])
        body: Any = replicas
        for part in reversed(resource.scale.spec_replicas.split(".")):
            body = {part: body}
        return self.patch(resource, key, patch.MERGE, body, options)[0]

    # -- deleting

    def delete(self, resource: Resource, key: Key, options: DeleteOptions) -> Deletion:
        entry = self.get(resource, key)
        if (fault := precondition_fault(resource, entry.obj, options.preconditions)) is not None:
            raise fault
        meta = dict(entry.obj["metadata"])
        finalizers = self._finalizers(meta, options)
        grace = self._grace(resource, entry.obj, options)
        waits = bool(finalizers) or grace > 0 or (resource.kind == "Namespace" and not resource.custom)
        if options.dry_run:
            return Deletion(entry, not waits)
        if not waits:
            return Deletion(self._remove(resource, key, {**entry.obj, "metadata": meta}), True)
        if meta.get("deletionTimestamp"):
            shorter = grace < meta.get("deletionGracePeriodSeconds", 0)
            if not shorter and finalizers == list(meta.get("finalizers") or ()):
                return Deletion(entry, False)
        elif meta.get("generation"):
            meta["generation"] += 1
        due = datetime.now(UTC) + timedelta(seconds=grace)
        meta["deletionTimestamp"] = due.strftime("%Y-%m-%dT%H:%M:%SZ")
        meta["deletionGracePeriodSeconds"] = grace
        meta.pop("finalizers", None)
        if finalizers:
            meta["finalizers"] = finalizers
        obj = {**entry.obj, "metadata": meta}
        if resource.kind == "Namespace" and not resource.custom:
            obj["status"] = {**(obj.get("status") or {}), "phase": "Terminating"}
        return Deletion(self.store.put(resource.table, key, obj), False)

    def _finalizers(self, meta: Obj, options: DeleteOptions) -> list[str]:
        finalizers = list(meta.get("finalizers") or ())
        if options.propagation is None:
            return finalizers
        kept = [name for name in finalizers if name not in _GC_FINALIZERS.values()]
        extra = _GC_FINALIZERS.get(options.propagation)
        return [*kept, extra] if extra else kept

    def _grace(self, resource: Resource, obj: Obj, options: DeleteOptions) -> int:
        """Seconds that a pod gets to stop. One that does not run anywhere needs none."""
        if resource.kind != "Pod" or resource.custom:
            return 0
        if not obj["spec"].get("nodeName") or obj.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            return 0
        if options.grace is not None:
            grace = options.grace
        elif "deletionGracePeriodSeconds" in obj["metadata"]:
            grace = obj["metadata"]["deletionGracePeriodSeconds"]
        else:
            grace = obj["spec"].get("terminationGracePeriodSeconds", 30)
        return max(0, int(grace))

    def release(self, resource: Resource, key: Key, obj: Obj) -> None:
        """For the kubelet: the pod has stopped; removes the object unless a finalizer holds it."""
        if obj["metadata"].get("finalizers"):
            self.store.put(resource.table, key, obj)
        else:
            self._remove(resource, key, obj)

    def finalize_namespace(self, name: str) -> None:
        """Removes an emptied namespace."""
        resource = self.builtin("namespaces")
        entry = self.store.table(resource.table).get(("", name))
        if entry is not None and not entry.obj["metadata"].get("finalizers"):
            self._remove(resource, ("", name), {**entry.obj, "metadata": dict(entry.obj["metadata"])})

    def set_finalizers(self, table: str, key: Key, finalizers: list[str]) -> None:
        """For controllers: writes the finalizers of an object and removes it when the last one is gone."""
        entry = self.store.table(table).get(key)
        if entry is None:
            return
        meta = {name: value for name, value in entry.obj["metadata"].items() if name != "finalizers"}
        if finalizers:
            meta["finalizers"] = finalizers
        obj = {**entry.obj, "metadata": meta}
        if _released(meta):
            plural, _, group = table.partition(".")
            resource = self.registry.any_version(group, plural)
            if resource is not None:
                self._remove(resource, key, obj)
            else:
                self.store.remove(table, key, obj)
        else:
            self.store.put(table, key, obj)

    def _remove(self, resource: Resource, key: Key, obj: Obj) -> Entry:
        obj["metadata"] = dict(obj["metadata"])
        entry = self.store.remove(resource.table, key, obj)
        if resource.kind == "CustomResourceDefinition":
            spec = obj["spec"]
            self.registry.replace(spec["group"], spec["names"]["plural"], ())
            self.store.drop(f"{spec['names']['plural']}.{spec['group']}")
        return entry

    def _served(self, resource: Resource, entry: Entry) -> None:
        if resource.kind == "CustomResourceDefinition":
            spec = entry.obj["spec"]
            self.registry.replace(spec["group"], spec["names"]["plural"], crd.resources(entry.obj))


def _released(meta: Obj) -> bool:
    """Whether a deleted object is held by nothing any more: neither a finalizer nor a grace period."""
    return bool(
        meta.get("deletionTimestamp") and not meta.get("finalizers") and not meta.get("deletionGracePeriodSeconds")
    )
