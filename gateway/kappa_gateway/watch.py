"""Keeps the catalog equal to the cluster: list, then watch, for Functions and for instances' pods.

While the API server is away the gateway serves what it last knew. A watch that is too old (410) lists again and applies
the difference: objects that vanished in between are removed, nothing known is forgotten first, so there is no gap.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import aiohttp

from kappa_api import names
from kappa_api.callers import API_KEYS_SECRET_TYPE
from kappa_gateway.auth.api_keys import KeyStore
from kappa_gateway.auth.settings import ALL
from kappa_gateway.catalog import Catalog
from kappa_gateway.kube import ApiError
from kappa_gateway.peers import SELECTOR as GATEWAYS_SELECTOR
from kappa_gateway.peers import Peers

log = logging.getLogger(__name__)

Json = Any
FIRST_PAUSE: Final = 0.1
#: An operator looks every second: it must not roll out, after an outage, what a gateway does not see for much longer.
LAST_PAUSE: Final = 1.0
#: A watch that was open for this long was alive, even if nothing happened. Longer than connecting may take.
ALIVE_SECONDS: Final = 15.0
#: Watches are asked to end after so long, so that a dead connection is noticed and load spreads over API servers.
WATCH_SECONDS: Final = (60, 120)

FUNCTIONS_PATH: Final = f"/apis/{names.API_VERSION}/{names.FUNCTION_PLURAL}"
PODS_PATH: Final = "/api/v1/pods"
POD_SELECTOR: Final = f"{names.LABEL_FUNCTION},{names.LABEL_STATE} in ({names.STATE_SERVING},{names.STATE_DRAINING})"


class Source(Protocol):
    """What a watch reads from: `kube.Kube`, or a list of answers in tests."""

    def pages(self, path: str, query: Mapping[str, str]) -> AsyncIterator[tuple[list[Json], str]]: ...

    def watch(self, path: str, query: Mapping[str, str], seconds: int) -> AsyncIterator[tuple[str, Json]]: ...


@dataclass(slots=True)
class Collection:
    """One watched collection and where its objects go. `known` gives the keys that the catalog has now."""

    path: str
    query: Mapping[str, str]
    put: Callable[[Mapping[str, Json]], None]
    remove: Callable[[str], None]
    known: Callable[[], Iterable[str]]
    #: Only for what a gateway can do without: told why the API refuses it, and with "" when it no longer does.
    heard: Callable[[str], None] | None = None
    #: Nor is it missed where the API server has no such resource at all.
    optional: bool = False
    version: str = ""
    listed: asyncio.Event = field(default_factory=asyncio.Event)
    lively: bool = False  # the present watch has brought something


def gateways(namespace: str, peers: Peers) -> Collection:
    """The gateways' own pods."""
    path = f"/api/v1/namespaces/{namespace}/pods"
    return Collection(path, {"labelSelector": GATEWAYS_SELECTOR}, peers.put, peers.remove, peers.known)


def api_keys(namespaces: Iterable[str], store: KeyStore) -> list[Collection]:
    """Secrets with callers' keys, and no others, of the namespaces where they may be read."""

    def collection(namespace: str) -> Collection:
        path = "/api/v1/secrets" if namespace == ALL else f"/api/v1/namespaces/{namespace}/secrets"
        query = {"fieldSelector": f"type={API_KEYS_SECRET_TYPE}"}
        found = Collection(path, query, store.put, store.remove, lambda: store.known(namespace))
        found.heard = lambda refused: store.heard(namespace, refused)
        return found

    return [collection(namespace) for namespace in namespaces]


class Watcher:
    """Runs the watches. `synced` is true once all first lists are in the catalog; `more`: further collections."""

    def __init__(self, source: Source, catalog: Catalog, *more: Collection) -> None:
        self._source = source
        self.collections = (
            Collection(FUNCTIONS_PATH, {}, catalog.put_function, catalog.remove_function, catalog.known_functions),
            Collection(PODS_PATH, {"labelSelector": POD_SELECTOR}, catalog.put_pod, catalog.remove_pod, catalog.pods),
            *more,
        )

    @property
    def synced(self) -> bool:
        return all(collection.listed.is_set() for collection in self.collections)

    async def wait_synced(self) -> None:
        for collection in self.collections:
            await collection.listed.wait()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for collection in self.collections:
                group.create_task(self._keep(collection))

    async def _keep(self, collection: Collection) -> None:
        failures = 0
        while True:
            begun, collection.lively = asyncio.get_running_loop().time(), False
            try:
                if not collection.version:
                    await self._list(collection)
                await self._watch(collection)
                failures = 0
            except ApiError as error:
                failures = _one_more(failures, collection, begun)
                if error.status == 410:  # our version is too old
                    collection.version = ""
                    if failures == 1:
                        continue
                elif collection.heard is not None and error.status in _refusals(collection):
                    collection.heard(str(error))
                    collection.listed.set()
                elif error.status in (401, 403, 404) or failures > 3:
                    log.warning("%s: %s", collection.path, error)
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError) as error:
                failures = _one_more(failures, collection, begun)
                if failures in (1, 10) or failures % 100 == 0:
                    log.warning(
                        "%s: no word from the Kubernetes API: %r; serving what is known", collection.path, error
                    )
            if failures:
                pause = min(LAST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 10))
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))

    async def _list(self, collection: Collection) -> None:
        present, version = set(), ""
        async for items, listed_at in self._source.pages(collection.path, collection.query):
            version = listed_at
            for item in items:
                present.add(key_of(item))
                collection.put(item)
        for key in set(collection.known()) - present:
            collection.remove(key)
        collection.version = version
        if collection.heard is not None:
            collection.heard("")
        collection.listed.set()

    async def _watch(self, collection: Collection) -> None:
        query = {**collection.query, "resourceVersion": collection.version}
        async for kind, item in self._source.watch(collection.path, query, random.randint(*WATCH_SECONDS)):
            if kind == "DELETED":
                collection.remove(key_of(item))
            elif kind in ("ADDED", "MODIFIED"):
                collection.put(item)
            collection.lively = True
            if version := (item.get("metadata") or {}).get("resourceVersion"):
                collection.version = version


def _refusals(collection: Collection) -> tuple[int, ...]:
    return (401, 403, 404) if collection.optional else (401, 403)


def _one_more(failures: int, collection: Collection, begun: float) -> int:
    """Failures in a row. A watch that was alive begins a new row: one that is cut every minute, by a load balancer with
    little patience, must not end up with pauses in which this gateway is blind."""
    alive = collection.lively or asyncio.get_running_loop().time() - begun >= ALIVE_SECONDS
    return 1 if alive else failures + 1


def key_of(item: Mapping[str, Json]) -> str:
    meta = item["metadata"]
    return f"{meta.get('namespace', '')}/{meta['name']}"
