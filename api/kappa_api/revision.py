"""The revision id: a short hash of exactly what runs: equal code is one revision, and scaling makes no new one."""

import hashlib
import json

from kappa_api.function import FunctionSpec

REVISION_LENGTH = 8


def revision_id(spec: FunctionSpec, content: str = "") -> str:
    """8 hex digits over runtime, handler, signature, code, pod needs, timeout and concurrency.

    `content` is the digest of code that the spec only points to (a ConfigMap's data); an archive is named by its own
    sha256 and an image by its reference. Timeout and concurrency count because the instance itself enforces them;
    scaling, routes and the other `http` fields do not.
    """
    code = spec.code
    what = {
        "runtime": spec.runtime,
        "handler": spec.handler,
        "signature": spec.signature,
        "files": dict(code.files) if code.files is not None else None,
        "configMap": code.config_map,
        "archive": code.archive.sha256 if code.archive else None,
        "image": code.image,
        "command": code.command,
        "args": code.args,
        "content": content,
        "env": spec.pod.env,
        "envFrom": spec.pod.env_from,
        "resources": spec.pod.resources,
        "volumes": spec.pod.volumes,
        "volumeMounts": spec.pod.volume_mounts,
        "serviceAccountName": spec.pod.service_account_name,
        "timeoutSeconds": spec.timeout_seconds,
        "concurrency": spec.concurrency,
    }
    text = json.dumps(what, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:REVISION_LENGTH]
