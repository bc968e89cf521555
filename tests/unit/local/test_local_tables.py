"""What `kubectl get` prints: JSONPath, ages, rows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from kappa_local.jsonpath import evaluate
from kappa_local.resources import builtin_resources, version_priority
from kappa_local.store import Entry
from kappa_local.table import duration, table

OBJ = {
    "spec": {"a.b": 1, "list": [{"k": "x", "v": 1}, {"k": "y", "v": 2}]},
    "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]},
}
NOW = datetime(2024, 1, 1, 1, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".spec.list[0].v", [1]),
        (".spec.list[-1].v", [2]),
        (".spec.list[*].k", ["x", "y"]),
        ('.status.conditions[?(@.type=="Ready")].status', ["True"]),
        (".status.conditions[?(@.type=='None')].status", []),
        (".spec['a.b']", [1]),
        (r".spec.a\.b", [1]),
        ("{.spec.list[1].k}", ["y"]),
        ("spec.none.deeper", []),
        (".spec[", []),
    ],
)
def test_jsonpath(path: str, found: list[Any]) -> None:
    assert evaluate(path, OBJ) == found


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"),
        (0, "0s"),
        (119, "119s"),
        (125, "2m5s"),
        (600, "10m"),
        (3 * 3600 + 300, "3h5m"),
        (9 * 3600, "9h"),
        (50 * 3600, "2d2h"),
        (10 * 86400, "10d"),
    ],
)
def test_durations(seconds: int, text: str) -> None:
    assert duration(seconds) == text


def row(kind: str, obj: dict[str, Any]) -> list[Any]:
    resource = next(resource for resource in builtin_resources() if resource.kind == kind and resource.group == "")
    meta = {"name": "a", "creationTimestamp": "2024-01-01T00:59:00Z", **obj.pop("metadata", {})}
    made = table(resource, [Entry(("n", "a"), {"metadata": meta, **obj}, 1)], include="None", now=NOW, meta=None)
    cells: list[Any] = made["rows"][0]["cells"]
    assert len(cells) == len(made["columnDefinitions"])
    return cells


def waiting(reason: str) -> dict[str, Any]:
    return {"name": "m", "ready": False, "restartCount": 2, "state": {"waiting": {"reason": reason}}}


@pytest.mark.parametrize(
    ("obj", "cells"),
    [
        ({"status": {"phase": "Pending"}}, ["a", "0/1", "Pending", "0", "60s"]),
        (
            {
                "status": {
                    "phase": "Running",
                    "containerStatuses": [{"ready": True, "restartCount": 1, "state": {"running": {}}}],
                }
            },
            ["a", "1/1", "Running", "1", "60s"],
        ),
        (
            {"status": {"phase": "Pending", "containerStatuses": [waiting("ErrImagePull")]}},
            ["a", "0/1", "ErrImagePull", "2", "60s"],
        ),
        (
            {
                "status": {
                    "phase": "Failed",
                    "containerStatuses": [{"state": {"terminated": {"exitCode": 1, "reason": "Error"}}}],
                }
            },
            ["a", "0/1", "Error", "0", "60s"],
        ),
        (
            {"metadata": {"deletionTimestamp": "x"}, "status": {"phase": "Running"}},
            ["a", "0/1", "Terminating", "0", "60s"],
        ),
    ],
)
def test_pods(obj: dict[str, Any], cells: list[Any]) -> None:
    assert row("Pod", {"spec": {"containers": [{}]}, **obj})[:5] == cells


def test_other_kinds() -> None:
    assert row("ConfigMap", {"data": {"a": "b"}}) == ["a", 1, "60s"]
    assert row("Secret", {"data": {"a": "b"}, "type": "Opaque"}) == ["a", "Opaque", 1, "60s"]
    assert row("Namespace", {"status": {"phase": "Active"}}) == ["a", "Active", "60s"]
    assert row("Service", {"spec": {"ports": [{"port": 80}]}})[:5] == ["a", "ClusterIP", "None", "<none>", "80/TCP"]


def test_the_order_of_versions() -> None:
    versions = ["v1alpha1", "foo", "v1beta2", "v2", "v1", "v1beta1", "v10"]
    assert sorted(versions, key=version_priority) == ["v10", "v2", "v1", "v1beta2", "v1beta1", "v1alpha1", "foo"]
