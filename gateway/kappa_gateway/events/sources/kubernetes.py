"""The source `kubernetes`: changes of the resources of one kind in the Trigger's namespace, by list and watch.

It goes on after the last change that it took (`resourceVersion`, kept with the Trigger). Where the API server has
forgotten that one (410), the objects are listed and compared with those that were known: what changed in between is
told, of several changes of an object the last one.

The gateway reads with its own rights, which the admin extends for this (RBAC). What it may read for its own work is not
for Triggers, or who may make Triggers could read Secrets.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from kappa_api.cloudevents import CloudEvent
from kappa_api.sources.kubernetes import Kubernetes
from kappa_api.trigger import Trigger
from kappa_gateway.events.source import Place, Source, SourceError, Surroundings
from kappa_gateway.events.sources.nats_messages import rfc3339
from kappa_gateway.kube import ApiError

Json = Any
PLACE: Final = Place.ONE
SHAPE: Final = "cloudevent"
TYPE: Final = "dev.kappa.kubernetes."
#: What the gateway may read for its own work; KAPPA_KUBERNETES_SOURCES names what Triggers may read of it all the same.
OWN: Final = frozenset({"secrets", "pods", "functions.kappa.dev", "triggers.kappa.dev"})
WATCH_SECONDS: Final = 240
#: The known objects, which matter only after a 410, are saved with each change while they are few, later this often.
FEW: Final = 500
SNAPSHOT_SECONDS: Final = 30.0
#: Changes that are held while JetStream takes those before them.
MOST_CHANGES: Final = 256
#: More objects than this are not remembered: after a 410, changes of that time are then lost.
MOST_KNOWN: Final = 10_000
Change = tuple[str, Json]
_POSITION: Final = "position"
_SNAPSHOT: Final = "snapshot"


def make(trigger: Trigger, surroundings: Surroundings) -> Source:
    return KubernetesSource(trigger, surroundings)


@dataclass(frozen=True, slots=True)
class Resource:
    """`name`: as RBAC and kubectl have it, `plural` or `plural.group`. `path`: of the collection."""

    name: str
    path: str


class KubernetesSource:
    """See the module."""

    def __init__(self, trigger: Trigger, given: Surroundings) -> None:
        self._trigger, self._given = trigger, given
        self._spec: Kubernetes = trigger.source
        selectors = {"labelSelector": self._spec.label_selector, "fieldSelector": self._spec.field_selector}
        self._query = {name: value for name, value in selectors.items() if value}
        self._known: dict[str, tuple[str, str]] = {}  # (name, resource version) by uid
        self._saved_at = 0.0

    async def run(self) -> None:
        """See `source.Source`."""
        resource: Resource | None = None
        try:
            resource = await self._discover()
            version = await self._begin(resource)
            while True:
                version = version or await self._list(resource)
                self._given.sink.connected()
                version = await self._watch(resource, version)
        except ApiError as error:
            raise SourceError(self._refusal(error, resource)) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise SourceError(f"no word from the Kubernetes API: {error!r}") from error

    # --- where --------------------------------------------------------------------------------------------------------
    async def _discover(self) -> Resource:
        """The resource of the kind. Raises SourceError, ApiError."""
        spec, namespace = self._spec, self._trigger.namespace
        group, slash, _ = spec.api_version.rpartition("/")
        root = f"/apis/{spec.api_version}" if slash else f"/api/{spec.api_version}"
        try:
            listed = (await self._given.kube.get(root)).get("resources") or []
        except ApiError as error:
            if error.status == 404:
                raise SourceError(f"the API server has no apiVersion {spec.api_version}") from error
            raise
        found = next((r for r in listed if r.get("kind") == spec.kind and "/" not in r.get("name", "/")), None)
        if found is None:
            raise SourceError(f"the API server has no kind {spec.kind} in {spec.api_version}")
        if not found.get("namespaced"):
            raise SourceError(f"{spec.kind} is not in namespaces: a Trigger sees what is in its own only")
        name = f"{found['name']}.{group}" if group else str(found["name"])
        if name in OWN and name not in self._given.resources:
            raise SourceError(
                f"{name} are not for Triggers (the admin's setting KAPPA_KUBERNETES_SOURCES may allow it)"
            )
        return Resource(name, f"{root}/namespaces/{namespace}/{found['name']}")

    def _refusal(self, error: ApiError, resource: Resource | None) -> str:
        if error.status in (401, 403) and resource is not None:
            return (
                f"the gateway may not list and watch {resource.name} in namespace {self._trigger.namespace}: the admin "
                "allows it with the chart value gateway.events.kubernetes.rules"
            )
        return f"the Kubernetes API answered {error}"

    # --- what happened ------------------------------------------------------------------------------------------------
    async def _begin(self, resource: Resource) -> str:
        """The resource version to go on from; empty: list."""
        saved = await self._given.state.load(_POSITION)
        position = json.loads(saved) if saved else {}
        if position.get("path") != resource.path or position.get("query") != self._query:
            return await self._first(resource)
        snapshot = await self._given.state.load(_SNAPSHOT)
        self._known = {uid: (name, version) for uid, (name, version) in json.loads(snapshot or b"{}").items()}
        return str(position.get("version", ""))

    async def _first(self, resource: Resource) -> str:
        """The first list: what is there is told only if the Trigger wants it."""
        self._known = {}
        version, events = "", []
        async for items, version in self._given.kube.pages(resource.path, self._query):  # noqa: B007
            for item in items:
                self._remember(item)
                if self._spec.start == "all":
                    events.append(self._event("ADDED", item))
        await self._emit(events)
        await self._save(resource, version, snapshot=True)
        return version

    async def _list(self, resource: Resource) -> str:
        """After a gap: what is different now."""
        before, version, events = dict(self._known), "", []
        async for items, version in self._given.kube.pages(resource.path, self._query):  # noqa: B007
            for item in items:
                _, uid, at = _identity(item)
                known = before.pop(uid, None)
                if known is None or known[1] != at:
                    events.append(self._event("MODIFIED" if known else "ADDED", item))
                self._remember(item)
        for uid, (name, at) in before.items():
            meta = {"namespace": self._trigger.namespace, "name": name, "uid": uid, "resourceVersion": at}
            gone = {"apiVersion": self._spec.api_version, "kind": self._spec.kind, "metadata": meta}
            events.append(self._event("DELETED", gone))
            self._known.pop(uid, None)
        await self._emit(events)
        await self._save(resource, version, snapshot=True)
        return version

    async def _watch(self, resource: Resource, version: str) -> str:
        """The version to go on from; empty: it is too old."""
        query = {**self._query, "resourceVersion": version}
        came: asyncio.Queue[Change | Exception | None] = asyncio.Queue(MOST_CHANGES)
        reading = asyncio.ensure_future(self._read(resource, query, came))
        try:
            while True:
                first = await came.get()
                # What has come meanwhile goes with it: after an outage one by one would take as long as it did
                some = [first, *(came.get_nowait() for _ in range(came.qsize()))]
                version = await self._take(resource, version, [one for one in some if isinstance(one, tuple)])
                if not isinstance(some[-1], tuple):
                    end = some[-1]
                    break
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        if isinstance(end, ApiError) and end.status == 410:
            return ""
        if end is not None:
            raise end
        return version

    async def _read(self, resource: Resource, query: Mapping[str, str], came: "asyncio.Queue[Any]") -> None:
        """Changes in turn, and at the end None or what went wrong."""
        end: Exception | None = None
        try:
            async for change in self._given.kube.watch(resource.path, query, WATCH_SECONDS):
                await came.put(change)
        except Exception as error:  # raised again by whoever takes it
            end = error
        await came.put(end)

    async def _take(self, resource: Resource, version: str, changes: Sequence[Change]) -> str:
        """Emits and saves; the version to go on from."""
        events, changed = [], False
        for change, item in changes:
            _, uid, at = _identity(item)
            version = at or version
            if change in ("ADDED", "MODIFIED", "DELETED"):
                changed = True
                events.append(self._event(change, item))
                if change == "DELETED":
                    self._known.pop(uid, None)
                else:
                    self._remember(item)
        await self._emit(events)
        if changes:
            await self._save(resource, version, snapshot=changed and len(self._known) <= FEW)
        return version

    async def _emit(self, events: list[CloudEvent | None]) -> None:
        await self._given.sink.emit([event for event in events if event is not None])

    def _remember(self, item: Mapping[str, Json]) -> None:
        name, uid, version = _identity(item)
        if uid in self._known or len(self._known) < MOST_KNOWN:
            self._known[uid] = (name, version)

    async def _save(self, resource: Resource, version: str, *, snapshot: bool = False) -> None:
        now = asyncio.get_running_loop().time()
        if snapshot or now - self._saved_at > SNAPSHOT_SECONDS:
            self._saved_at = now
            await self._given.state.save(_SNAPSHOT, json.dumps(self._known).encode())
        position = {"path": resource.path, "query": self._query, "version": version}
        await self._given.state.save(_POSITION, json.dumps(position).encode())

    def _event(self, change: str, item: Mapping[str, Json]) -> CloudEvent | None:
        """None: a change that the Trigger does not want."""
        if change not in self._spec.changes:
            return None
        spec = self._spec
        name, uid, version = _identity(item)
        meta = {key: value for key, value in item["metadata"].items() if key != "managedFields"}
        whole = {"apiVersion": spec.api_version, "kind": spec.kind, **item, "metadata": meta}
        return CloudEvent(
            id=f"{uid}-{version}-{change.lower()}",
            source=f"/kubernetes/{spec.api_version}/namespaces/{self._trigger.namespace}/{spec.kind}",
            type=TYPE + change.lower(),
            subject=name,
            time=rfc3339(self._given.wall()),
            datacontenttype="application/json",
            data={"operation": change, "object": whole},
        )


def _identity(item: Mapping[str, Json]) -> tuple[str, str, str]:
    """(name, uid, resource version)."""
    meta = item.get("metadata") or {}
    return str(meta.get("name", "")), str(meta.get("uid", "")), str(meta.get("resourceVersion", ""))
