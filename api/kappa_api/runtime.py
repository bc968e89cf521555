"""The Runtime resource (cluster-scoped): the image that runs a language's code, and the bounds of its warm pool."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kappa_api.errors import Problem, SpecError
from kappa_api.fields import Reader
from kappa_api.function import FunctionSpec
from kappa_api.names import RUNTIME_KIND

Json = Any


@dataclass(frozen=True, slots=True)
class Pool:
    """Pods without code, `min` to `max` of them kept ready in each namespace that has a Function of this runtime."""

    min: int = 1
    max: int = 5


@dataclass(frozen=True, slots=True)
class Runtime:
    """One Runtime. `resources` are those of a pool pod, as in a container; a Function may ask for its own."""

    name: str
    uid: str
    image: str
    image_pull_policy: str = "IfNotPresent"
    pool: Pool = Pool()
    resources: Mapping[str, Json] = field(default_factory=dict)


def parse_runtime(resource: Mapping[str, Json]) -> Runtime:
    """Reads a Runtime resource. Raises SpecError with every fault found."""
    problems: list[Problem] = []
    meta = resource.get("metadata") or {}
    name = str(meta.get("name", ""))
    spec = Reader(resource.get("spec") or {}, "spec", problems)
    pool = spec.child("pool")
    low, high = pool.integer("min", 1, 0, 1000), pool.integer("max", 5, 0, 1000)
    if low > high:
        pool.fault("min", f"{low} is more than max {high}")
    runtime = Runtime(
        name=name,
        uid=str(meta.get("uid", "")),
        image=spec.string("image", required=True, pattern=r"\S+", hint="the image of the runtime"),
        image_pull_policy=spec.choice("imagePullPolicy", "IfNotPresent", ("IfNotPresent", "Always", "Never")),
        pool=Pool(low, high),
        resources=spec.mapping("resources"),
    )
    pool.unknown()
    spec.unknown()
    if problems:
        raise SpecError(RUNTIME_KIND, "", name, tuple(problems))
    return runtime


def own_pod_reason(spec: FunctionSpec, runtime: Runtime | None) -> str:
    """Why this function cannot use a pod of the runtime's pool, for people to read; empty when it can."""
    if spec.code.image is not None:
        return "code.image brings its own server"
    pod = spec.pod
    if any("valueFrom" in entry for entry in pod.env):
        return "env uses valueFrom"
    if pod.env_from:
        return "envFrom is set"
    if pod.volumes or pod.volume_mounts:
        return "volumes are mounted"
    if pod.service_account_name:
        return "serviceAccountName is set"
    if pod.resources and runtime is not None and pod.resources != runtime.resources:
        return "resources differ from those of the pool"
    return ""
