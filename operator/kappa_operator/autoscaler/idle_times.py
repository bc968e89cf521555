"""Keeps the idle times of functions in ConfigMaps of the system namespace, so that another leader goes on with them.

A shard is written when one of its functions has learnt something, at most once a minute, and once more when the leader
ends. Nothing is written before everything has been read: else a leader that could not read would erase.
"""

import base64
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kappa_api import names
from kappa_operator.autoscaler.remembered import SHARDS, Remembered, decode, encode, shard_of
from kappa_operator.clock import Clock
from kappa_operator.kube import ApiError, ConflictError, Kube, NotFoundError, core_path

Json = Any
logger = logging.getLogger(__name__)

COMPONENT = "idle-times"
KEY = "functions.json.gz"
WRITE_SECONDS = 60.0
RETRY_SECONDS = 5.0

#: What is known of these functions now; those that are gone, or know nothing, are left out.
Recall = Callable[[Iterable[str]], Mapping[str, Remembered]]


class IdleTimes:
    """Reads once, then writes what changes. `recall` is asked when a shard is written; `learnt` takes what was read."""

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        recall: Recall,
        learnt: Callable[[Mapping[str, Remembered]], None],
        clock: Clock,
    ) -> None:
        self._kube, self._namespace, self._recall, self._learnt = kube, namespace, recall, learnt
        self._clock = clock
        self._keys: dict[int, set[str]] = {shard: set() for shard in range(SHARDS)}
        self._changed: set[int] = set()
        self._there: set[int] = set()
        self._read = False

    def changed(self, key: str) -> None:
        """A function has learnt something, or is gone."""
        shard = shard_of(key)
        self._keys[shard].add(key)
        self._changed.add(shard)

    async def read(self) -> bool:
        """Takes over what an earlier leader wrote; False when that has to be tried again."""
        found: dict[str, Remembered] = {}
        there: set[int] = set()
        try:
            selector = f"{names.LABEL_COMPONENT}={COMPONENT},{names.LABEL_MANAGED_BY}={names.MANAGER}"
            async for raw in self._kube.items(core_path("configmaps", self._namespace), selector):
                text = (raw.get("binaryData") or {}).get(KEY, "")
                shard = raw["metadata"]["name"].rpartition("-")[2]
                if shard.isdecimal() and int(shard) < SHARDS:
                    there.add(int(shard))
                    found.update(decode(base64.b64decode(text)))
        except ApiError as error:
            logger.warning("idle times cannot be read yet: %s", error)
            return False
        self._there = there
        for key in found:
            self._keys[shard_of(key)].add(key)
        self._read = True
        self._learnt(found)
        logger.info("idle times of %d functions taken over", len(found))
        return True

    async def run(self) -> None:
        """Writes until cancelled."""
        while not self._read and not await self.read():
            await self._clock.sleep(RETRY_SECONDS)
        while True:
            await self._clock.sleep(WRITE_SECONDS)
            await self.write()

    async def write(self) -> None:
        """Writes the shards that have changed."""
        if not self._read:
            return
        for shard in sorted(self._changed):
            self._changed.discard(shard)
            try:
                await self._write(shard)
            except ConflictError:
                self._there.add(shard)  # made by a leader that was cut off
                self._changed.add(shard)
            except ApiError as error:
                self._changed.add(shard)
                logger.warning("idle times could not be kept: %s", error)
                return

    async def _write(self, shard: int) -> None:
        functions = self._recall(self._keys[shard])
        self._keys[shard] = set(functions)
        if not functions and shard not in self._there:
            return
        name = f"kappa-{COMPONENT}-{shard}"
        manifest: Json = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": name,
                "namespace": self._namespace,
                "labels": {
                    names.LABEL_COMPONENT: COMPONENT,
                    names.LABEL_PART_OF: "kappa",
                    names.LABEL_MANAGED_BY: names.MANAGER,
                },
            },
            "binaryData": {KEY: base64.b64encode(encode(functions)).decode()},
        }
        if shard in self._there:
            try:
                await self._kube.replace(core_path("configmaps", self._namespace, name), manifest)
                return
            except NotFoundError:
                self._there.discard(shard)  # somebody has deleted it
        await self._kube.create(core_path("configmaps", self._namespace), manifest)
        self._there.add(shard)
