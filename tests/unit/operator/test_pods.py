"""Pod manifests, compared whole."""

from dataclasses import replace
from typing import Any

import pytest

from kappa_api.function import parse_function
from kappa_api.keyring import key_id
from kappa_api.machine import IllegalMoveError
from kappa_api.runtime import Pool, Runtime
from kappa_api.tokens import pod_token
from kappa_operator import pods, states
from kappa_operator.observed import Pod, parse_record

Json = Any

SECRET = b"secret"
GATEWAY = "http://gateway.kappa-system"
RUNTIME = Runtime("python", "r-uid", "registry/python:1", "IfNotPresent", Pool(), {"limits": {"memory": "128Mi"}})


def who(name: str) -> pods.Identity:
    return pods.Identity("ns", name, SECRET, GATEWAY)


def function(**spec: Json) -> Json:
    base = {"runtime": "python", "handler": "main.handler", "code": {"inline": ""}, "timeoutSeconds": 20}
    meta = {"name": "fn", "namespace": "ns", "uid": "f-uid", "generation": 3, "resourceVersion": "7"}
    return {"metadata": meta, "spec": {**base, **spec} if "code" not in spec else {"timeoutSeconds": 20, **spec}}


COMMON_LABELS = {
    "app.kubernetes.io/component": "instance",
    "app.kubernetes.io/part-of": "kappa",
    "app.kubernetes.io/managed-by": "kappa-operator",
}
SAFE = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "true"}
POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "runAsGroup": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
ADDRESS = [
    {"name": "PORT", "value": "8080"},
    {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    {"name": "KAPPA_GATEWAY_URL", "value": GATEWAY},
]
PORTS = [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]
TMP = {"name": "kappa-tmp", "emptyDir": {"sizeLimit": "256Mi"}}
HEALTH = {
    "httpGet": {"path": "/_kappa/health", "port": "http"},
    "periodSeconds": 2,
    "timeoutSeconds": 5,
    "failureThreshold": 3,
}


def test_a_pool_pod() -> None:
    assert pods.pool_pod(RUNTIME, who("python-pool-x")) == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "python-pool-x",
            "namespace": "ns",
            "labels": {
                **COMMON_LABELS,
                "kappa.dev/runtime": "python",
                "kappa.dev/state": "pool",
                "kappa.dev/secret-id": key_id(SECRET),
            },
            "annotations": {**SAFE, "kappa.dev/template": pods.pool_template(RUNTIME, SECRET, GATEWAY)},
            "ownerReferences": [
                {
                    "apiVersion": "kappa.dev/v1",
                    "kind": "Runtime",
                    "name": "python",
                    "uid": "r-uid",
                    "controller": True,
                }
            ],
        },
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 330,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": POD_SECURITY,
            "containers": [
                {
                    "name": "function",
                    "image": "registry/python:1",
                    "imagePullPolicy": "IfNotPresent",
                    "ports": PORTS,
                    "env": [*ADDRESS, {"name": "KAPPA_POD_TOKEN", "value": pod_token(SECRET, "ns", "python-pool-x")}],
                    "securityContext": CONTAINER_SECURITY,
                    "volumeMounts": [{"name": "kappa-tmp", "mountPath": "/tmp"}],
                    "readinessProbe": HEALTH,
                    "resources": {"limits": {"memory": "128Mi"}},
                }
            ],
            "volumes": [TMP],
        },
    }


def test_another_address_of_the_gateway_makes_another_pool() -> None:
    assert pods.pool_template(RUNTIME, SECRET, GATEWAY) != pods.pool_template(RUNTIME, SECRET, "http://other")
    nowhere = pods.pool_pod(RUNTIME, pods.Identity("ns", "p", SECRET))
    assert "KAPPA_GATEWAY_URL" not in [entry["name"] for entry in nowhere["spec"]["containers"][0]["env"]]


def test_a_pod_of_its_own_with_everything() -> None:
    password = {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "p"}}}
    raw = function(
        env=[password, {"name": "PLAIN", "value": "1"}],
        envFrom=[{"configMapRef": {"name": "more"}}],
        volumes=[{"name": "data", "emptyDir": {}}],
        volumeMounts=[{"name": "data", "mountPath": "/data"}],
        serviceAccountName="robot",
        resources={"limits": {"memory": "1Gi"}},
        concurrency=4,
    )
    manifest = pods.own_pod(parse_function(raw), "5f2c1a00", RUNTIME, who("fn-x"), "env uses valueFrom")
    assert manifest["metadata"] == {
        "name": "fn-x",
        "namespace": "ns",
        "labels": {
            **COMMON_LABELS,
            "kappa.dev/runtime": "python",
            "kappa.dev/function": "fn",
            "kappa.dev/revision": "5f2c1a00",
            "kappa.dev/state": "starting",
            "kappa.dev/secret-id": key_id(SECRET),
        },
        "annotations": {**SAFE, "kappa.dev/concurrency": "4", "kappa.dev/own-pod-reason": "env uses valueFrom"},
        "ownerReferences": [
            {"apiVersion": "kappa.dev/v1", "kind": "Function", "name": "fn", "uid": "f-uid", "controller": True}
        ],
    }
    assert manifest["spec"] == {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 25,
        "automountServiceAccountToken": True,
        "serviceAccountName": "robot",
        "enableServiceLinks": False,
        "securityContext": {**POD_SECURITY, "fsGroup": 65532},
        "containers": [
            {
                "name": "function",
                "image": "registry/python:1",
                "imagePullPolicy": "IfNotPresent",
                "ports": PORTS,
                "env": [
                    *ADDRESS,
                    {"name": "KAPPA_POD_TOKEN", "value": pod_token(SECRET, "ns", "fn-x")},
                    password,
                    {"name": "PLAIN", "value": "1"},
                ],
                "envFrom": [{"configMapRef": {"name": "more"}}],
                "securityContext": CONTAINER_SECURITY,
                "volumeMounts": [
                    {"name": "kappa-tmp", "mountPath": "/tmp"},
                    {"name": "data", "mountPath": "/data"},
                ],
                "readinessProbe": HEALTH,
                "resources": {"limits": {"memory": "1Gi"}},
            }
        ],
        "volumes": [TMP, {"name": "data", "emptyDir": {}}],
    }


def test_plain_env_comes_with_the_code_where_the_pool_could_have_served() -> None:
    raw = function(env=[{"name": "PLAIN", "value": "1"}])
    manifest = pods.own_pod(parse_function(raw), "5f2c1a00", RUNTIME, who("fn-x"), "the pool had no pod to spare")
    assert [entry["name"] for entry in manifest["spec"]["containers"][0]["env"]] == [
        "PORT",
        "POD_IP",
        "POD_NAME",
        "KAPPA_GATEWAY_URL",
        "KAPPA_POD_TOKEN",
    ]


def test_an_image() -> None:
    raw = function(code={"image": "web:1", "command": ["serve"], "args": ["-v"]}, env=[{"name": "A", "value": "b"}])
    manifest = pods.image_pod(parse_function(raw), "5f2c1a00", who("fn-x"))
    assert "kappa.dev/runtime" not in manifest["metadata"]["labels"]
    assert manifest["spec"]["containers"] == [
        {
            "name": "function",
            "image": "web:1",
            "command": ["serve"],
            "args": ["-v"],
            "ports": PORTS,
            "env": [*ADDRESS, {"name": "A", "value": "b"}],
            "securityContext": CONTAINER_SECURITY,
            "volumeMounts": [{"name": "kappa-tmp", "mountPath": "/tmp"}],
            "readinessProbe": {
                "tcpSocket": {"port": "http"},
                "periodSeconds": 1,
                "timeoutSeconds": 5,
                "failureThreshold": 3,
            },
        }
    ]


def test_a_claim_patch() -> None:
    assert pods.claim_patch(parse_record(function()), "5f2c1a00", "serving", 4) == [
        {"op": "test", "path": "/metadata/labels/kappa.dev~1state", "value": "pool"},
        {"op": "add", "path": "/metadata/labels/kappa.dev~1state", "value": "serving"},
        {"op": "add", "path": "/metadata/labels/kappa.dev~1function", "value": "fn"},
        {"op": "add", "path": "/metadata/labels/kappa.dev~1revision", "value": "5f2c1a00"},
        {"op": "add", "path": "/metadata/annotations/kappa.dev~1concurrency", "value": "4"},
        {
            "op": "add",
            "path": "/metadata/ownerReferences",
            "value": [
                {
                    "apiVersion": "kappa.dev/v1",
                    "kind": "Function",
                    "name": "fn",
                    "uid": "f-uid",
                    "controller": True,
                }
            ],
        },
    ]


def test_a_move_patch() -> None:
    pod = Pod("ns", "p", "u", 1, 0.0, state="serving")
    assert pods.move_patch(pod, states.DRAINED, {"kappa.dev/drain-since": "now"}) == [
        {"op": "test", "path": "/metadata/labels/kappa.dev~1state", "value": "serving"},
        {"op": "replace", "path": "/metadata/labels/kappa.dev~1state", "value": "draining"},
        {"op": "add", "path": "/metadata/annotations/kappa.dev~1drain-since", "value": "now"},
    ]
    with pytest.raises(IllegalMoveError):
        pods.move_patch(replace(pod, state="draining"), states.LOADED)
