"""Each test of this folder runs against the embedded cluster, and against a real Kubernetes when
KAPPA_TEST_KUBECONFIG names its kubeconfig. A difference between the two is a bug in kappa_local.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from kappa_fixtures_local import Api, Backend, connect, embedded, kubectl

GROUP = "suite.kappa.dev"
REAL = os.environ.get("KAPPA_TEST_KUBECONFIG")


def widget_crd() -> dict[str, object]:
    """One CRD that uses every schema feature the suite asks about."""
    spec = {
        "type": "object",
        "required": ["size"],
        "properties": {
            "size": {"type": "integer", "minimum": 1, "maximum": 10},
            "color": {"type": "string", "enum": ["red", "green"], "default": "red"},
            "label": {"type": "string", "pattern": "^[a-z]+$", "minLength": 2, "maxLength": 5},
            "ratio": {"type": "number", "exclusiveMinimum": True, "minimum": 0},
            "when": {"type": "string", "format": "date-time"},
            "maybe": {"type": "string", "nullable": True},
            "tags": {"type": "array", "maxItems": 2, "items": {"type": "string"}},
            "unique": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "limits": {"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 2},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            "parts": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {"name": {"type": "string"}, "count": {"type": "integer", "default": 1}},
                },
            },
            "nested": {
                "type": "object",
                "default": {},
                "properties": {"deep": {"type": "string", "default": "yes"}, "replicas": {"type": "integer"}},
            },
            "source": {
                "type": "object",
                "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
                "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
            },
        },
    }
    status = {
        "type": "object",
        "properties": {"replicas": {"type": "integer"}, "phase": {"type": "string"}, "selector": {"type": "string"}},
    }
    schema = {
        "openAPIV3Schema": {"type": "object", "required": ["spec"], "properties": {"spec": spec, "status": status}}
    }
    columns = [
        {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
        {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
        {"name": "Deep", "type": "string", "jsonPath": ".spec.nested.deep", "priority": 1},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]
    scale = {
        "specReplicasPath": ".spec.nested.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }
    versions = [
        {
            "name": name,
            "served": True,
            "storage": name == "v1",
            "schema": schema,
            "additionalPrinterColumns": columns,
            "subresources": {"status": {}, "scale": scale},
        }
        for name in ("v1", "v1beta1")
    ]
    names = {"plural": "widgets", "singular": "widget", "kind": "Widget", "shortNames": ["wd"]}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"widgets.{GROUP}"},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": versions},
    }


def gadget_crd() -> dict[str, object]:
    """int-or-string in a CRD of its own: a 1.20 server keeps no lists by key for a CRD that has one."""
    spec = {"type": "object", "properties": {"port": {"x-kubernetes-int-or-string": True}}}
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"gadgets.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"plural": "gadgets", "kind": "Gadget"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }


@pytest.fixture(scope="session", params=["local", pytest.param("real", marks=pytest.mark.real)])
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    if request.param == "real":
        if not REAL:
            pytest.skip("KAPPA_TEST_KUBECONFIG is not set")
        found = Backend("real", Path(REAL))
        yield from _with_crds(found)
        return
    with embedded(tmp_path_factory.mktemp("cluster")) as started:
        yield from _with_crds(started)


def _with_crds(backend: Backend) -> Iterator[Backend]:
    crds = {"apiVersion": "v1", "kind": "List", "items": [widget_crd(), gadget_crd()]}
    kubectl(backend, "apply", "-f", "-", stdin=json.dumps(crds))
    for plural in ("widgets", "gadgets"):
        kubectl(backend, "wait", "--for=condition=Established", f"crd/{plural}.{GROUP}", "--timeout=30s")
        # Established is said a moment before the paths answer (the real server's discovery lags).
        deadline = time.monotonic() + 20
        while "No resources found" not in kubectl(backend, "get", f"{plural}.{GROUP}", "-A", check=False):
            assert time.monotonic() < deadline
    yield backend
    kubectl(backend, "delete", "crd", f"widgets.{GROUP}", f"gadgets.{GROUP}", "--wait=false")


@pytest.fixture(scope="module")
def namespace(backend: Backend, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace for the module, removed at the end."""
    module = request.module.__name__.rpartition(".")[2].removeprefix("test_").replace("_", "-")
    name = f"suite-{module}-{secrets.token_hex(3)}"
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    kubectl(backend, "create", "-f", "-", stdin=json.dumps(body))
    yield name
    kubectl(backend, "delete", "namespace", name, "--wait=false")


@pytest.fixture
async def api(backend: Backend, namespace: str) -> AsyncIterator[Api]:
    async with connect(backend, namespace) as client:
        yield client


@pytest.fixture
def local_only(backend: Backend) -> None:
    if not backend.local:
        pytest.skip("about processes, which only the embedded cluster has")


@pytest.fixture
def name() -> str:
    """A fresh object name."""
    return f"x{secrets.token_hex(4)}"
