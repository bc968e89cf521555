"""The last good revision of each function, kept in the cluster so that it can be started again.

The spec has moved on by the time the old revision needs another instance: the new one may not load, or load slowly.
So what was proven last is written to a ConfigMap owned by the Function (gzipped JSON: the part of the spec that runs,
and the files unless they come from an archive). It is read only in that case, never watched.
"""

import base64
import gzip
import json
import logging
from collections.abc import Mapping
from typing import Any

from kappa_api import names
from kappa_api.function import Archive, Code, FunctionSpec, PodNeeds
from kappa_operator.kube import ApiError, ConflictError, Kube, NotFoundError, core_path
from kappa_operator.observed import FunctionRecord
from kappa_operator.pods import owner
from kappa_operator.sources import Content, SourceError, Sources

Json = Any
logger = logging.getLogger(__name__)

KEY = "revision.json.gz"


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
    """The inverse; an archive's files are still to be fetched."""
    what: Mapping[str, Json] = json.loads(gzip.decompress(data))
    archive = Archive(**what["archive"]) if what["archive"] else None
    files = {path: base64.b64decode(text) for path, text in what["files"].items()}
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
        content = decode(base64.b64decode((raw.get("binaryData") or {}).get(KEY, "")))
        if content.spec.code.archive:
            return Content(content.spec, await self._sources.archive(content.spec.code.archive))
        return content


def _lost(revision: str) -> SourceError:
    return SourceError("RevisionLost", f"the code of revision {revision} is not kept any more", permanent=True)
