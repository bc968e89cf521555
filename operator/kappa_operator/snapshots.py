"""The last good revision of each function, kept in the cluster so that it can be started again.

The spec has moved on by the time the old revision needs another instance: the new one may not load, or load slowly.
So what was proven last is written to a ConfigMap owned by the Function (gzipped JSON: the part of the spec that runs,
and the files unless they come from an archive). It is read only in that case, never watched.
"""

import base64
import gzip
import json
import logging
import zlib
from collections.abc import Mapping
from typing import Any

from kappa_api import names
from kappa_api.function import Archive, Code, FunctionSpec, PodNeeds, path_problem, volume_problem
from kappa_operator.kube import ApiError, ConflictError, Kube, NotFoundError, core_path
from kappa_operator.observed import FunctionRecord
from kappa_operator.pods import owner
from kappa_operator.sources import Content, SourceError, Sources

Json = Any
logger = logging.getLogger(__name__)

KEY = "revision.json.gz"
#: What a ConfigMap can hold, unpacked: files of 1 MiB in base64, and the spec around them.
MOST_BYTES = 8 << 20


def snapshot_name(function: str) -> str:
    """Function names have no dots, so this cannot be the name of another function's snapshot."""
    return f"{function}.revision"


def encode(content: Content) -> bytes:
    """Content as gzipped JSON. An archive stands for its files."""
    spec, pod, archive = content.spec, content.spec.pod, content.spec.code.archive
    files = {} if archive else {path: base64.b64encode(data).decode() for path, data in content.files.items()}
    what = {
        "runtime": spec.runtime,
        "handler": spec.handler,
        "signature": spec.signature,
        "timeoutSeconds": spec.timeout_seconds,
        "concurrency": spec.concurrency,
        "files": files,
        "archive": {"url": archive.url, "sha256": archive.sha256} if archive else None,
        "image": spec.code.image,
        "command": spec.code.command,
        "args": spec.code.args,
        "env": pod.env,
        "envFrom": pod.env_from,
        "resources": pod.resources,
        "volumes": pod.volumes,
        "volumeMounts": pod.volume_mounts,
        "serviceAccountName": pod.service_account_name,
    }
    return gzip.compress(json.dumps(what).encode(), mtime=0)


def decode(data: bytes) -> Content:
    """The inverse; an archive's files are still to be fetched. Raises ValueError, KeyError or TypeError for what
    `encode` did not make: whoever may write ConfigMaps in the namespace can change it, so it is checked like a spec."""
    what: Mapping[str, Json] = json.loads(_unzipped(data))
    archive = Archive(**what["archive"]) if what["archive"] else None
    files = {path: base64.b64decode(text, validate=True) for path, text in what["files"].items()}
    for problem in (*map(path_problem, files), *(volume_problem(volume)[1] for volume in what["volumes"])):
        if problem:
            raise ValueError(problem)
    code = Code(
        files=None if archive or what["image"] else {},
        archive=archive,
        image=what["image"],
        command=tuple(what["command"]),
        args=tuple(what["args"]),
    )
    pod = PodNeeds(
        env=tuple(what["env"]),
        env_from=tuple(what["envFrom"]),
        resources=what["resources"],
        volumes=tuple(what["volumes"]),
        volume_mounts=tuple(what["volumeMounts"]),
        service_account_name=what["serviceAccountName"],
    )
    spec = FunctionSpec(
        code=code,
        runtime=what["runtime"],
        handler=what["handler"],
        signature=what["signature"],
        pod=pod,
        timeout_seconds=what["timeoutSeconds"],
        concurrency=what["concurrency"],
    )
    return Content(spec, files)


def _unzipped(data: bytes) -> bytes:
    unzip = zlib.decompressobj(wbits=31)
    found = unzip.decompress(data, MOST_BYTES)
    if not unzip.eof:
        raise ValueError(f"is cut short or unpacks to more than {MOST_BYTES >> 20} MiB")
    return found


class Snapshots:
    """Saves and loads them."""

    def __init__(self, kube: Kube, sources: Sources) -> None:
        self._kube, self._sources = kube, sources

    async def save(self, record: FunctionRecord, revision: str, content: Content) -> None:
        """Replaces the function's snapshot. One that is too large is left out: then only the spec itself can start
        it."""
        name = snapshot_name(record.name)
        manifest = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": name,
                "namespace": record.namespace,
                "labels": {
                    names.LABEL_FUNCTION: record.name,
                    names.LABEL_REVISION: revision,
                    names.LABEL_PART_OF: "kappa",
                    names.LABEL_MANAGED_BY: names.MANAGER,
                },
                "ownerReferences": [owner(names.FUNCTION_KIND, record.name, record.uid)],
            },
            "binaryData": {KEY: base64.b64encode(encode(content)).decode()},
        }
        try:
            try:
                await self._kube.create(core_path("configmaps", record.namespace), manifest)
            except ConflictError:
                await self._kube.replace(core_path("configmaps", record.namespace, name), manifest)
        except ApiError as error:
            logger.warning("%s: revision %s could not be kept: %s", record.key, revision, error)

    async def load(self, record: FunctionRecord, revision: str) -> Content:
        """What the revision consists of. Raises SourceError when it is not there."""
        try:
            raw = await self._kube.get(core_path("configmaps", record.namespace, snapshot_name(record.name)))
        except NotFoundError as error:
            raise _lost(revision) from error
        if (raw["metadata"].get("labels") or {}).get(names.LABEL_REVISION) != revision:
            raise _lost(revision)
        try:
            content = decode(base64.b64decode((raw.get("binaryData") or {}).get(KEY, "")))
        except (ValueError, KeyError, TypeError, AttributeError, zlib.error, RecursionError) as error:
            logger.warning("%s: the snapshot of revision %s is not what was written: %r", record.key, revision, error)
            raise _lost(revision) from error
        if content.spec.code.archive:
            return Content(content.spec, await self._sources.archive(content.spec.code.archive))
        return content


def _lost(revision: str) -> SourceError:
    return SourceError("RevisionLost", f"the code of revision {revision} is not kept any more", permanent=True)
