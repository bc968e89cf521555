"""Tables: lists as `kubectl get` prints them (meta.k8s.io Table). Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from kappa_local import codec, jsonpath
from kappa_local.resources import Column, Resource
from kappa_local.store import Entry
from kappa_local.types import Obj

Cells = Callable[[Obj, datetime], list[Any]]


def table(
    resource: Resource, entries: Iterable[Entry], *, include: str, now: datetime, meta: Obj | None, headers: bool = True
) -> Obj:
    """`include`: what each row carries of its object: Metadata (default), Object or None."""
    columns, cells = _shape(resource)
    rows = [{"cells": cells(entry.obj, now), **_row_object(resource, entry, include)} for entry in entries]
    definitions = [
        {
            "name": column.name,
            "type": column.type,
            "format": column.format,
            "description": column.description,
            "priority": column.priority,
        }
        for column in columns
    ]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": meta or {},
        "columnDefinitions": definitions if headers else [],
        "rows": rows,
    }


def _row_object(resource: Resource, entry: Entry, include: str) -> Obj:
    if include == "None":
        return {}
    if include == "Object":
        return {"object": codec.outbound(resource, entry.obj)}
    partial = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": entry.obj["metadata"]}
    return {"object": partial}


def _shape(resource: Resource) -> tuple[tuple[Column, ...], Cells]:
    if resource.columns is not None:
        columns = resource.columns
        return columns, lambda obj, now: [_cell(column, obj, now) for column in columns]
    return _BUILTIN.get(resource.kind, _PLAIN)


def _cell(column: Column, obj: Obj, now: datetime) -> Any:
    found = jsonpath.evaluate(column.path, obj)
    if not found or found[0] is None:
        return "<unknown>" if column.type == "date" and column.path == ".metadata.creationTimestamp" else None
    value = found[0]
    if column.type == "date":
        return age(value, now) if isinstance(value, str) else "<invalid>"
    if column.type == "string":
        if isinstance(value, str):
            return value
        if len(found) > 1:
            return ",".join(str(item) for item in found)
        return json.dumps(value, separators=(",", ":"))
    return value


def age(timestamp: str | None, now: datetime) -> str:
    """How long ago, as kubectl prints it: 5s, 3m20s, 4h, 12d."""
    if not timestamp:
        return "<unknown>"
    try:
        then = datetime.fromisoformat(timestamp.replace("Z", "+00:00"))
    except ValueError:
        return "<invalid>"
    return duration(int((now - then).total_seconds()))


def duration(seconds: int) -> str:
    if seconds < -1:
        return "<invalid>"
    seconds = max(0, seconds)
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    return f"{days}d" if days < 730 else f"{days // 365}y"


def _text_columns(*names: str) -> tuple[Column, ...]:
    """Columns from 'Name' or 'Name:type' or 'Name:type:priority'."""
    columns = []
    for name in names:
        label, _, rest = name.partition(":")
        kind, _, priority = rest.partition(":")
        columns.append(
            Column(label, kind or "string", "", int(priority or 0), format="name" if label == "Name" else "")
        )
    return tuple(columns)


def _name(obj: Obj) -> str:
    return str(obj["metadata"]["name"])


def _age(obj: Obj, now: datetime) -> str:
    return age(obj["metadata"].get("creationTimestamp"), now)


def _pod(obj: Obj, now: datetime) -> list[Any]:
    status, spec = obj.get("status") or {}, obj.get("spec") or {}
    containers: list[Obj] = status.get("containerStatuses") or []
    restarts = sum(item.get("restartCount", 0) for item in containers)
    ready = sum(bool(item.get("ready")) for item in containers)
    reason = status.get("reason") or status.get("phase") or "Unknown"
    for item in (*(status.get("initContainerStatuses") or ()), *reversed(containers)):
        state = item.get("state") or {}
        waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
        if waiting.get("reason"):
            reason = waiting["reason"]
        elif ended and (ended.get("exitCode") or item in containers):
            reason = ended.get("reason") or f"ExitCode:{ended.get('exitCode')}"
    if obj["metadata"].get("deletionTimestamp"):
        reason = "Terminating"
    return [
        _name(obj),
        f"{ready}/{len(spec.get('containers') or ())}",
        reason,
        str(restarts),
        _age(obj, now),
        status.get("podIP") or "<none>",
        spec.get("nodeName") or "<none>",
        "<none>",
        "<none>",
    ]


def _event(obj: Obj, now: datetime) -> list[Any]:
    involved = obj.get("involvedObject") or {}
    target = f"{str(involved.get('kind', '')).lower()}/{involved.get('name', '')}"
    seen = (obj.get("series") or {}).get("lastObservedTime") or obj.get("lastTimestamp") or obj.get("eventTime")
    first = obj.get("firstTimestamp") or obj.get("eventTime") or seen
    source = (obj.get("source") or {}).get("component") or obj.get("reportingComponent") or ""
    host = (obj.get("source") or {}).get("host")
    return [
        age(seen, now),
        obj.get("type", ""),
        obj.get("reason", ""),
        target,
        involved.get("fieldPath") or "",
        f"{source}, {host}" if host else source,
        str(obj.get("message") or "").strip(),
        age(first, now),
        obj.get("count") or 1,
        _name(obj),
    ]


def _service(obj: Obj, now: datetime) -> list[Any]:
    spec = obj.get("spec") or {}
    ports = (
        ",".join(f"{port.get('port')}/{port.get('protocol', 'TCP')}" for port in spec.get("ports") or ()) or "<none>"
    )
    selector = ",".join(f"{key}={value}" for key, value in sorted((spec.get("selector") or {}).items())) or "<none>"
    return [
        _name(obj),
        spec.get("type", "ClusterIP"),
        spec.get("clusterIP") or "None",
        "<none>",
        ports,
        _age(obj, now),
        selector,
    ]


def _node(obj: Obj, now: datetime) -> list[Any]:
    status = obj.get("status") or {}
    info = status.get("nodeInfo") or {}
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ())
    address = next((a["address"] for a in status.get("addresses") or () if a["type"] == "InternalIP"), "<none>")
    return [
        _name(obj),
        "Ready" if ready else "NotReady",
        "<none>",
        _age(obj, now),
        info.get("kubeletVersion", ""),
        address,
        "<none>",
        info.get("osImage", ""),
        info.get("kernelVersion", ""),
        info.get("containerRuntimeVersion", ""),
    ]


def _deployment(obj: Obj, now: datetime) -> list[Any]:
    status, wanted = obj.get("status") or {}, (obj.get("spec") or {}).get("replicas", 0)
    return [
        _name(obj),
        f"{status.get('readyReplicas', 0)}/{wanted}",
        status.get("updatedReplicas", 0),
        status.get("availableReplicas", 0),
        _age(obj, now),
    ]


_PLAIN: tuple[tuple[Column, ...], Cells] = (
    _text_columns("Name", "Created At:date"),
    lambda o, _now: [_name(o), o["metadata"].get("creationTimestamp")],
)
_BUILTIN: dict[str, tuple[tuple[Column, ...], Cells]] = {
    "Pod": (
        _text_columns(
            "Name",
            "Ready",
            "Status",
            "Restarts",
            "Age",
            "IP:string:1",
            "Node:string:1",
            "Nominated Node:string:1",
            "Readiness Gates:string:1",
        ),
        _pod,
    ),
    "Event": (
        _text_columns(
            "Last Seen",
            "Type",
            "Reason",
            "Object",
            "Subobject:string:1",
            "Source:string:1",
            "Message",
            "First Seen:string:1",
            "Count:string:1",
            "Name:string:1",
        ),
        _event,
    ),
    "Service": (
        _text_columns("Name", "Type", "Cluster-IP", "External-IP", "Port(s)", "Age", "Selector:string:1"),
        _service,
    ),
    "Node": (
        _text_columns(
            "Name",
            "Status",
            "Roles",
            "Age",
            "Version",
            "Internal-IP:string:1",
            "External-IP:string:1",
            "OS-Image:string:1",
            "Kernel-Version:string:1",
            "Container-Runtime:string:1",
        ),
        _node,
    ),
    "ConfigMap": (
        _text_columns("Name", "Data", "Age"),
        lambda o, now: [_name(o), len(o.get("data") or {}) + len(o.get("binaryData") or {}), _age(o, now)],
    ),
    "Secret": (
        _text_columns("Name", "Type", "Data:integer", "Age"),
        lambda o, now: [_name(o), o.get("type", "Opaque"), len(o.get("data") or {}), _age(o, now)],
    ),
    "Namespace": (
        _text_columns("Name", "Status", "Age"),
        lambda o, now: [_name(o), (o.get("status") or {}).get("phase", "Active"), _age(o, now)],
    ),
    "ServiceAccount": (
        _text_columns("Name", "Secrets:string", "Age"),
        lambda o, now: [_name(o), len(o.get("secrets") or ()), _age(o, now)],
    ),
    "Lease": (
        _text_columns("Name", "Holder", "Age"),
        lambda o, now: [_name(o), (o.get("spec") or {}).get("holderIdentity") or "", _age(o, now)],
    ),
    "Deployment": (_text_columns("Name", "Ready", "Up-to-date:integer", "Available:integer", "Age"), _deployment),
    "CustomResourceDefinition": _PLAIN,
}
