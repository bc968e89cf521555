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
from kappa_gateway.catalog import Catalog
from kappa_gateway.kube import ApiError

log = logging.getLogger(__name__)

Json = Any
FIRST_PAUSE: Final = 0.1
LAST_PAUSE: Final = 5.0
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
    version: str = ""
    listed: asyncio.Event = field(default_factory=asyncio.Event)


class Watcher:
    """Runs the two watches. `synced` is true once both first lists are in the catalog."""

    def __init__(self, source: Source, catalog: Catalog) -> None:
        self._source = source
        self.collections = (
            Collection(FUNCTIONS_PATH, {}, catalog.put_function, catalog.remove_function, catalog.known_functions),
            Collection(PODS_PATH, {"labelSelector": POD_SELECTOR}, catalog.put_pod, catalog.remove_pod, catalog.pods),
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
            try:
                if not collection.version:
                    await self._list(collection)
                await self._watch(collection)
                failures = 0
            except ApiError as error:
                failures += 1
                if error.status == 410:  # our version is too old
                    collection.version = ""
                    if failures == 1:
                        continue
                elif error.status in (401, 403, 404) or failures > 3:
                    log.warning("%s: %s", collection.path, error)
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError) as error:
                failures += 1
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
        collection.listed.set()

    async def _watch(self, collection: Collection) -> None:
        query = {**collection.query, "resourceVersion": collection.version}
        async for kind, item in self._source.watch(collection.path, query, random.randint(*WATCH_SECONDS)):
            if kind == "DELETED":
                collection.remove(key_of(item))
            elif kind in ("ADDED", "MODIFIED"):
                collection.put(item)
            if version := (item.get("metadata") or {}).get("resourceVersion"):
                collection.version = version


def key_of(item: Mapping[str, Json]) -> str:
    meta = item["metadata"]
    return f"{meta.get('namespace', '')}/{meta['name']}"
