"""Where a revision's code comes from: its id as soon as the spec allows, its files when an instance needs them.

A ConfigMap is read when its digest is not known; an archive is fetched when the first instance needs it and kept in a
small cache. The last good revision is kept as a snapshot (see snapshots.py), because the spec has moved on.
"""

import asyncio
import base64
import binascii
import hashlib
import ssl
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kappa_api.function import Archive, Function, FunctionSpec, path_problem
from kappa_api.revision import revision_id
from kappa_operator import archive as archives
from kappa_operator.destinations import Destinations
from kappa_operator.kube import Kube, NotFoundError, core_path
from kappa_operator.store import Store

Json = Any

#: Each takes up to a hundred megabytes while it is fetched and unpacked; the others wait.
ARCHIVES_AT_A_TIME = 2


class SourceError(Exception):
    """The code cannot be had. `reason` is a condition's reason; `permanent`: only a change of the spec helps."""

    def __init__(self, reason: str, message: str, *, permanent: bool) -> None:
        self.reason, self.permanent = reason, permanent
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Content:
    """What an instance is given: the part of the spec that runs, and the files (none for an image)."""

    spec: FunctionSpec
    files: Mapping[str, bytes]


class ArchiveCache:
    """Unpacked archives; the least recently used go when together they are larger than `most` bytes.

    By URL and digest: a digest alone would give a private archive to a tenant who knows no more of it than that.
    """

    def __init__(self, most: int = 64 << 20) -> None:
        self.most, self.size = most, 0
        self._items: OrderedDict[Archive, Mapping[str, bytes]] = OrderedDict()

    def get(self, wanted: Archive) -> Mapping[str, bytes] | None:
        files = self._items.get(wanted)
        if files is not None:
            self._items.move_to_end(wanted)
        return files

    def put(self, wanted: Archive, files: Mapping[str, bytes]) -> None:
        if wanted in self._items:
            return
        self._items[wanted] = files
        self.size += _size(files)
        while self.size > self.most and len(self._items) > 1:
            _, dropped = self._items.popitem(last=False)
            self.size -= _size(dropped)


class Sources:
    """Finds code. `ca_file` is trusted for archives besides the system's certificates; `destinations` says from where
    they may come."""

    def __init__(
        self,
        kube: Kube,
        store: Store,
        *,
        ca_file: str = "",
        destinations: Destinations = Destinations(),  # noqa: B008
        limits: archives.Limits | None = None,
        cache: ArchiveCache | None = None,
    ) -> None:
        self._kube, self._store = kube, store
        self._limits = limits or archives.Limits()
        self._cache = cache or ArchiveCache()
        self._ca_file, self._destinations = ca_file, destinations
        self._few = asyncio.Semaphore(ARCHIVES_AT_A_TIME)
        self._context: ssl.SSLContext | None = None
        self._fetching: dict[Archive, asyncio.Lock] = {}

    async def revision(self, function: Function) -> str:
        """The id of the revision that the spec asks for. Raises SourceError when a ConfigMap is missing."""
        name = function.spec.code.config_map
        if name is None:
            return revision_id(function.spec)
        digest = self._store.config_digest(function.namespace, name)
        if digest is None:
            digest = _digest(await self._config_map(function.namespace, name))
            self._store.set_config_digest(function.namespace, name, digest)
        return revision_id(function.spec, digest)

    async def content(self, function: Function) -> Content:
        """The files of the revision that the spec asks for. Raises SourceError."""
        code = function.spec.code
        if code.files is not None:
            return Content(function.spec, {path: text.encode() for path, text in code.files.items()})
        if code.config_map is not None:
            return Content(function.spec, await self._config_map(function.namespace, code.config_map))
        if code.archive is not None:
            return Content(function.spec, await self.archive(code.archive))
        return Content(function.spec, {})

    async def archive(self, wanted: Archive) -> Mapping[str, bytes]:
        """The files of an archive. One fetch at a time for each."""
        lock = self._fetching.setdefault(wanted, asyncio.Lock())
        async with lock:
            files = self._cache.get(wanted)
            if files is None:
                try:
                    if self._context is None:
                        self._context = await asyncio.to_thread(_tls, self._ca_file)
                    async with self._few:
                        data = await archives.fetch(wanted, self._limits, self._context, self._destinations)
                        files = await asyncio.to_thread(archives.unpack, data, self._limits)
                except archives.ArchiveError as error:
                    raise SourceError("FetchFailed", f"code.archive: {error}", permanent=error.permanent) from error
                self._cache.put(wanted, files)
        self._fetching.pop(wanted, None)
        return files

    async def _config_map(self, namespace: str, name: str) -> Mapping[str, bytes]:
        try:
            raw = await self._kube.get(core_path("configmaps", namespace, name))
        except NotFoundError as error:
            raise SourceError(
                "CodeNotFound", f"there is no ConfigMap {name!r} in {namespace}", permanent=True
            ) from error
        files = {str(path): str(text).encode() for path, text in (raw.get("data") or {}).items()}
        try:
            binary = {str(p): base64.b64decode(d, validate=True) for p, d in (raw.get("binaryData") or {}).items()}
        except (binascii.Error, TypeError) as error:
            raise SourceError(
                "CodeNotFound", f"ConfigMap {name!r}: binaryData is not base64", permanent=True
            ) from error
        files |= binary
        if not files:
            raise SourceError("CodeNotFound", f"ConfigMap {name!r} holds no data", permanent=True)
        for path in files:
            if problem := path_problem(path):
                raise SourceError("CodeNotFound", f"ConfigMap {name!r}: {path!r} {problem}", permanent=True)
        return files


def _tls(ca_file: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file:
        context.load_verify_locations(ca_file)
    return context


def _digest(files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{len(path)}:{path}:{len(files[path])}:".encode() + files[path])
    return digest.hexdigest()


def _size(files: Mapping[str, bytes]) -> int:
    return sum(map(len, files.values()))
