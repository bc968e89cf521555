"""What the API server fills in and checks for built-in kinds: defaults, derived fields, required fields. Pure.

Only what programs that create pods, secrets and services can notice. Kinds that no controller acts on here pass as
they are.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from kappa_local.errors import Cause
from kappa_local.types import Obj
from kappa_local.validate import show

_PROBE = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
_SIDE_KINDS = ("readinessProbe", "livenessProbe", "startupProbe")


def defaulted(kind: str, obj: Obj) -> Obj:
    """`obj` with the server's defaults for its kind."""
    fill = _DEFAULTS.get(kind)
    return fill(obj) if fill is not None else obj


def faults(kind: str, obj: Obj, old: Obj | None) -> list[Cause]:
    """What the server refuses in a new (old is None) or changed object."""
    check = _CHECKS.get(kind)
    return check(obj, old) if check is not None else []


def initial_status(kind: str, obj: Obj) -> Obj | None:
    """The status a new object gets, whatever the client sent."""
    if kind == "Pod":
        return {"phase": "Pending", "qosClass": _qos(obj.get("spec") or {})}
    if kind == "Namespace":
        return {"phase": "Active"}
    if kind == "Service":
        return {"loadBalancer": {}}
    return None


def _with(base: Obj, defaults: Obj) -> Obj:
    return {**base, **{key: value for key, value in defaults.items() if base.get(key) is None}}


def pod_spec(spec: Obj) -> Obj:
    spec = _with(
        spec,
        {
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst",
            "securityContext": {},
            "schedulerName": "default-scheduler",
        },
    )
    if spec.get("serviceAccountName"):
        spec.setdefault("serviceAccount", spec["serviceAccountName"])
    for field in ("containers", "initContainers"):
        if isinstance(spec.get(field), list):
            spec[field] = [_container(item, spec) if isinstance(item, dict) else item for item in spec[field]]
    if isinstance(spec.get("volumes"), list):
        spec["volumes"] = [_volume(item) for item in spec["volumes"]]
    return spec


def _container(container: Obj, spec: Obj) -> Obj:
    image = str(container.get("image") or "")
    tag = image.rsplit("/", 1)[-1].partition("@")[0].partition(":")[2]
    policy = "IfNotPresent" if (tag and tag != "latest") or "@" in image else "Always"
    container = _with(
        container,
        {
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
            "imagePullPolicy": policy,
            "resources": {},
        },
    )
    if isinstance(container.get("ports"), list):
        container["ports"] = [_port(port, spec) for port in container["ports"]]
    for kind in _SIDE_KINDS:
        if isinstance(container.get(kind), dict):
            container[kind] = _probe(container[kind])
    container["resources"] = _resources(container["resources"])
    if isinstance(container.get("env"), list):
        container["env"] = [_env(item) for item in container["env"]]
    return container


def _resources(resources: Obj) -> Obj:
    """Quantities as text; a request that is not given is the limit."""
    out = dict(resources)
    for side in ("limits", "requests"):
        if out.get(side):
            out[side] = {name: value if isinstance(value, str) else f"{value:g}" for name, value in out[side].items()}
    if out.get("limits"):
        out["requests"] = {**out["limits"], **(out.get("requests") or {})}
    return out


def _env(item: Any) -> Any:
    ref = ((item.get("valueFrom") or {}).get("fieldRef")) if isinstance(item, dict) else None
    if not ref:
        return item
    return {**item, "valueFrom": {"fieldRef": {"apiVersion": "v1", **ref}}}


def _port(port: Obj, spec: Obj) -> Obj:
    port = _with(port, {"protocol": "TCP"})
    return _with(port, {"hostPort": port.get("containerPort")}) if spec.get("hostNetwork") else port


def _probe(probe: Obj) -> Obj:
    probe = _with(probe, _PROBE)
    if isinstance(probe.get("httpGet"), dict):
        probe["httpGet"] = _with(probe["httpGet"], {"path": "/", "scheme": "HTTP"})
    return probe


def _volume(volume: Obj) -> Obj:
    for source in ("configMap", "secret"):
        if isinstance(volume.get(source), dict):
            return {**volume, source: _with(volume[source], {"defaultMode": 0o644})}
    return volume


def _qos(spec: Obj) -> str:
    resources = [container.get("resources") or {} for container in spec.get("containers") or ()]
    if not any(r.get("limits") or r.get("requests") for r in resources):
        return "BestEffort"
    equal = all(
        (r.get("limits") or {}).keys() >= {"cpu", "memory"} and (r.get("requests") or r["limits"]) == r["limits"]
        for r in resources
    )
    return "Guaranteed" if equal else "Burstable"


def _pod(obj: Obj) -> Obj:
    return {**obj, "spec": pod_spec(obj.get("spec") or {})}


def _secret(obj: Obj) -> Obj:
    obj = {**obj, "type": obj.get("type") or "Opaque"}
    plain = obj.pop("stringData", None)
    if plain:
        folded = {key: base64.b64encode(value.encode()).decode() for key, value in plain.items()}
        obj["data"] = {**(obj.get("data") or {}), **folded}
    return obj


def _service(obj: Obj) -> Obj:
    spec = _with(obj.get("spec") or {}, {"type": "ClusterIP", "sessionAffinity": "None"})
    ports = [_with(port, {"protocol": "TCP", "targetPort": port.get("port")}) for port in spec.get("ports") or ()]
    return {**obj, "spec": {**spec, "ports": ports} if ports else spec}


def _namespace(obj: Obj) -> Obj:
    return {**obj, "spec": _with(obj.get("spec") or {}, {"finalizers": ["kubernetes"]})}


def _workload(obj: Obj) -> Obj:
    spec = dict(obj.get("spec") or {})
    template = spec.get("template")
    if isinstance(template, dict) and isinstance(template.get("spec"), dict):
        spec["template"] = {**template, "spec": pod_spec(template["spec"])}
    if obj.get("kind") in ("Deployment", "ReplicaSet", "StatefulSet"):
        spec = _with(spec, {"replicas": 1})
    return {**obj, "spec": spec}


def _pod_faults(obj: Obj, old: Obj | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    if old is not None:
        return _pod_change_faults(spec, old.get("spec") or {})
    found = []
    if not spec.get("containers"):
        found.append(Cause("FieldValueRequired", "Required value", "spec.containers"))
    if spec.get("restartPolicy") not in ("Always", "OnFailure", "Never"):
        message = (
            f'Unsupported value: {show(spec.get("restartPolicy"))}: supported values: "Always", "OnFailure", "Never"'
        )
        found.append(Cause("FieldValueNotSupported", message, "spec.restartPolicy"))
    names: set[str] = set()
    for field in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(field) or ()):
            path = f"spec.{field}[{index}]"
            found += [
                Cause("FieldValueRequired", "Required value", f"{path}.{name}")
                for name in ("name", "image")
                if not container.get(name)
            ]
            if container.get("name") in names:
                found.append(
                    Cause("FieldValueDuplicate", f"Duplicate value: {show(container['name'])}", f"{path}.name")
                )
            names.add(container.get("name", ""))
            volumes = {volume.get("name") for volume in spec.get("volumes") or ()}
            found += [
                Cause("FieldValueNotFound", f"Not found: {show(mount.get('name'))}", f"{path}.volumeMounts[{i}].name")
                for i, mount in enumerate(container.get("volumeMounts") or ())
                if mount.get("name") not in volumes
            ]
    return found


_MUTABLE = ("activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "nodeName")


def _pod_change_faults(spec: Obj, old: Obj) -> list[Cause]:
    def fixed(value: Obj) -> Obj:
        kept = {key: item for key, item in value.items() if key not in _MUTABLE}
        for field in ("containers", "initContainers"):
            if field in kept:
                kept[field] = [{k: v for k, v in item.items() if k != "image"} for item in kept[field]]
        return kept

    if fixed(spec) == fixed(old):
        return []
    text = (
        "Forbidden: pod updates may not change fields other than `spec.containers[*].image`, "
        "`spec.initContainers[*].image`, `spec.activeDeadlineSeconds` or `spec.tolerations` "
        "(only additions to existing tolerations)"
    )
    return [Cause("FieldValueForbidden", text, "spec")]


def _data_faults(obj: Obj, old: Obj | None) -> list[Cause]:
    if old is not None and old.get("immutable"):
        found = []
        if not obj.get("immutable"):
            found.append(
                Cause("FieldValueForbidden", "Forbidden: field is immutable when `immutable` is set", "immutable")
            )
        for field in ("data", "binaryData"):
            if (obj.get(field) or {}) != (old.get(field) or {}):
                found.append(
                    Cause("FieldValueForbidden", "Forbidden: field is immutable when `immutable` is set", field)
                )
        return found
    return []


def _secret_faults(obj: Obj, old: Obj | None) -> list[Cause]:
    found = _data_faults(obj, old)
    if old is not None and obj.get("type") != old.get("type"):
        found.append(Cause("FieldValueInvalid", f"Invalid value: {show(obj.get('type'))}: field is immutable", "type"))
    return found


def _lease_faults(obj: Obj, _old: Obj | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    return [
        Cause("FieldValueInvalid", f"Invalid value: {show(spec[name])}: {text}", f"spec.{name}")
        for name, least, text in (
            ("leaseDurationSeconds", 1, "must be greater than 0"),
            ("leaseTransitions", 0, "must be greater than or equal to 0"),
        )
        if isinstance(spec.get(name), int) and spec[name] < least
    ]


def _service_faults(obj: Obj, _old: Obj | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    if not spec.get("ports") and spec.get("type") != "ExternalName" and spec.get("clusterIP") != "None":
        return [Cause("FieldValueRequired", "Required value", "spec.ports")]
    return []


_DEFAULTS: dict[str, Callable[[Obj], Obj]] = {
    "Pod": _pod,
    "Secret": _secret,
    "Service": _service,
    "Namespace": _namespace,
    "Deployment": _workload,
    "ReplicaSet": _workload,
    "StatefulSet": _workload,
    "DaemonSet": _workload,
    "Job": _workload,
}
_CHECKS: dict[str, Callable[[Obj, Obj | None], list[Cause]]] = {
    "Pod": _pod_faults,
    "ConfigMap": _data_faults,
    "Secret": _secret_faults,
    "Lease": _lease_faults,
    "Service": _service_faults,
}
