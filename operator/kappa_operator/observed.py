"""What the operator keeps of the objects it watches: small frozen values, not the JSON (thousands of them are held)."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from kappa_api import names
from kappa_api.errors import SpecError
from kappa_api.function import Function, parse_function
from kappa_api.owners import controller, controls

Json = Any

#: Waiting reasons of a container that will not go away by themselves within seconds.
_STUCK = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
        "CrashLoopBackOff",
    }
)


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod. Times are epoch seconds; `version` is the resource version as a number.

    `component` is empty for a pod that claims to be an instance by its labels only: one that no Function or Runtime
    controls, or another than the labels say. `owner` is the uid of the one that does. `secret_id` names the platform
    secret of its token. `problem` says why the pod cannot run, as (reason, message), both empty when nothing is wrong.
    `unready_since` is 0 when it is Ready. `template` is the digest of the manifest that a pool pod was made from.
    `admin_port` is only set on the platform's own pods.
    """

    namespace: str
    name: str
    uid: str
    version: int
    created: float
    component: str = ""
    runtime: str = ""
    function: str = ""
    revision: str = ""
    state: str = ""
    phase: str = "Pending"
    ip: str = ""
    image: str = ""
    template: str = ""
    ready: bool = False
    unready_since: float = 0.0
    deleting: bool = False
    drain_since: float = 0.0
    problem: tuple[str, str] = ("", "")
    admin_port: int = 0
    owner: str = ""
    secret_id: str = ""

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"

    @property
    def function_key(self) -> str:
        return f"{self.namespace}/{self.function}" if self.function else ""

    @property
    def ended(self) -> bool:
        return self.phase in ("Failed", "Succeeded")

    @property
    def live(self) -> bool:
        """Neither ended nor on its way out."""
        return not self.deleting and not self.ended


def parse_pod(raw: Mapping[str, Json]) -> Pod:
    """Reads a pod as the API server sends it."""
    meta, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
    condition: Mapping[str, Json] = next(
        (item for item in status.get("conditions") or () if item.get("type") == "Ready"), {}
    )
    ready = condition.get("status") == "True"
    created = timestamp(meta.get("creationTimestamp"))
    component, owner = labels.get(names.LABEL_COMPONENT, ""), controller(meta)
    if component == names.COMPONENT_INSTANCE and not controls(owner, labels):
        component = ""
    containers = spec.get("containers") or ()
    main = next((c for c in containers if c.get("name") == names.CONTAINER_NAME), containers[0] if containers else {})
    return Pod(
        namespace=str(meta.get("namespace", "")),
        name=str(meta["name"]),
        uid=str(meta.get("uid", "")),
        version=version_of(raw),
        created=created,
        component=component,
        runtime=labels.get(names.LABEL_RUNTIME, ""),
        function=labels.get(names.LABEL_FUNCTION, ""),
        revision=labels.get(names.LABEL_REVISION, ""),
        state=labels.get(names.LABEL_STATE, ""),
        phase=str(status.get("phase") or "Pending"),
        ip=str(status.get("podIP") or ""),
        image=str(main.get("image", "")),
        template=annotations.get(names.ANNOTATION_TEMPLATE, ""),
        ready=ready,
        unready_since=0.0 if ready else timestamp(condition.get("lastTransitionTime")) or created,
        deleting=bool(meta.get("deletionTimestamp")),
        drain_since=timestamp(annotations.get(names.ANNOTATION_DRAIN_SINCE)),
        problem=_problem(status),
        admin_port=_port(containers, names.ADMIN_PORT_NAME),
        owner=str(owner.get("uid", "")),
        secret_id=labels.get(names.LABEL_SECRET_ID, ""),
    )


def _problem(status: Mapping[str, Json]) -> tuple[str, str]:
    for item in status.get("containerStatuses") or ():
        if item.get("name") != names.CONTAINER_NAME:
            continue
        state = item.get("state") or {}
        if (waiting := state.get("waiting")) and waiting.get("reason") in _STUCK:
            return str(waiting["reason"]), str(waiting.get("message") or "")
        if ended := state.get("terminated"):
            code, reason = ended.get("exitCode"), str(ended.get("reason") or "Error")
            return reason, str(ended.get("message") or "") or f"the container ended with exit code {code}"
    if status.get("phase") == "Failed":
        return str(status.get("reason") or "Failed"), str(status.get("message") or "the pod failed")
    for item in status.get("conditions") or ():
        # Other reasons, such as SchedulerError, are the scheduler's own and gone at its next try.
        if item.get("type") == "PodScheduled" and item.get("reason") == "Unschedulable":
            return "Unschedulable", str(item.get("message") or "")
    return "", ""


def _port(containers: Any, name: str) -> int:
    for container in containers:
        for port in container.get("ports") or ():
            if port.get("name") == name:
                return int(port.get("containerPort", 0))
    return 0


@dataclass(frozen=True, slots=True)
class FunctionRecord:
    """One Function: parsed, or with what is wrong with it; and the status as it stands in the API.

    `function` is None exactly when `problems` has text; `last` is then the last form of it that was valid, if this
    operator has seen one.
    """

    kind: ClassVar[str] = names.FUNCTION_KIND

    namespace: str
    name: str
    uid: str
    version: int
    generation: int
    deleting: bool
    function: Function | None
    problems: str
    status: Mapping[str, Json]
    last: Function | None = None

    @property
    def scaled(self) -> Function | None:
        """By whose spec it is scaled: traffic comes and goes whatever is wrong with the newest one."""
        return self.function or self.last

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


def parse_record(raw: Mapping[str, Json]) -> FunctionRecord:
    """Reads a Function, valid or not."""
    function: Function | None = None
    problems = ""
    try:
        function = parse_function(raw)
    except SpecError as error:
        problems = str(error)
    return FunctionRecord(**identity_of(raw), function=function, problems=problems, status=raw.get("status") or {})


def identity_of(raw: Mapping[str, Json]) -> dict[str, Any]:
    """What every record begins with: whose object it is, and which state of it."""
    meta = raw["metadata"]
    return {
        "namespace": str(meta.get("namespace", "")),
        "name": str(meta["name"]),
        "uid": str(meta.get("uid", "")),
        "version": version_of(raw),
        "generation": int(meta.get("generation", 0)),
        "deleting": bool(meta.get("deletionTimestamp")),
    }


def version_of(raw: Mapping[str, Json]) -> int:
    """The resource version as a number: equal objects of one kind can be ordered by it (KEP 5504); 0 when it is not
    one."""
    text = str(raw["metadata"].get("resourceVersion") or "")
    return int(text) if text.isdecimal() else 0


def timestamp(text: str | None) -> float:
    """RFC 3339 as epoch seconds, 0 for nothing or nonsense."""
    if not text:
        return 0.0
    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


def rfc3339(epoch: float) -> str:
    """Epoch seconds as Kubernetes writes times (`metav1.Time`)."""
    return datetime.datetime.fromtimestamp(int(epoch), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_micro(epoch: float) -> str:
    """Epoch seconds as `metav1.MicroTime`."""
    return datetime.datetime.fromtimestamp(epoch, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
