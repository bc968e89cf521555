"""Pod manifests: pure functions, compared whole in the tests.

Every pod passes the `restricted` Pod Security level. Pods are single and never restarted: an instance that dies is
replaced.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kappa_api import names
from kappa_api.function import Function
from kappa_api.keyring import key_id
from kappa_api.runtime import Runtime, own_pod_reason
from kappa_api.tokens import pod_token
from kappa_operator import states
from kappa_operator.observed import FunctionRecord, Pod

Json = Any

#: Who runs in a pod: no user of any host, and the same everywhere so that images can prepare for it.
USER = 65532
TMP_SIZE = "256Mi"
#: Grace of a pool pod, whose function (and so its timeout) is not known yet. A runtime ends itself as soon as it is
#: idle.
POOL_GRACE_SECONDS = 330
DRAIN_GRACE_SECONDS = 5
SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
#: A pod without a ReplicaSet stops the cluster autoscaler from removing its node, unless it says that it may be moved.
SAFE_TO_EVICT = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "true"}


@dataclass(frozen=True, slots=True)
class Identity:
    """A pod's place and name, and the platform secret that its token is derived from. `gateway_url`: where it finds
    the gateway."""

    namespace: str
    name: str
    secret: bytes
    gateway_url: str = ""


def pool_pod(runtime: Runtime, who: Identity) -> Json:
    """A pod without code, owned by its Runtime."""
    pod = _pool_pod(runtime, who)
    pod["metadata"]["annotations"][names.ANNOTATION_TEMPLATE] = pool_template(runtime, who.secret, who.gateway_url)
    return pod


def pool_template(runtime: Runtime, secret: bytes, gateway_url: str = "") -> str:
    """A digest of what all pods of this pool have in common. A pod with another one was made from an earlier spec, by
    an earlier Kappa, or with an earlier platform secret or address of the gateway. What the API server fills in does
    not show in it."""
    manifest = json.dumps(_pool_pod(runtime, Identity("", "", secret, gateway_url)), sort_keys=True)
    return hashlib.sha256(manifest.encode()).hexdigest()[:12]


def _pool_pod(runtime: Runtime, who: Identity) -> Json:
    labels = {
        names.LABEL_RUNTIME: runtime.name,
        names.LABEL_STATE: names.STATE_POOL,
        names.LABEL_SECRET_ID: key_id(who.secret),
    }
    container = _runtime_container(runtime, who, runtime.resources, [])
    spec = _spec(container, POOL_GRACE_SECONDS)
    return _pod(who, labels, SAFE_TO_EVICT, owner(names.RUNTIME_KIND, runtime.name, runtime.uid), spec)


def own_pod(function: Function, revision: str, runtime: Runtime, who: Identity, reason: str) -> Json:
    """A pod made for one function, without its code yet. `reason` says why the pool could not serve (for people).

    The environment is in the manifest only where the pool could not have served: else it comes with the code.
    """
    needs = function.spec.pod
    env = list(needs.env) if own_pod_reason(function.spec, runtime) else []
    container = _runtime_container(runtime, who, needs.resources or runtime.resources, env)
    return _function_pod(function, revision, runtime.name, who, reason, container)


def image_pod(function: Function, revision: str, who: Identity) -> Json:
    """A pod that runs the function's own image: it serves as soon as it listens on $PORT."""
    code, needs = function.spec.code, function.spec.pod
    container: dict[str, Json] = {
        **_container(code.image or "", [*_address_env(who), *needs.env]),
        "readinessProbe": {
            "tcpSocket": {"port": "http"},
            "periodSeconds": 1,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
    }
    if needs.resources:
        container["resources"] = dict(needs.resources)
    if code.command:
        container["command"] = list(code.command)
    if code.args:
        container["args"] = list(code.args)
    return _function_pod(function, revision, "", who, "code.image brings its own server", container)


def owner(kind: str, name: str, uid: str) -> Json:
    """An owner reference that makes Kubernetes delete the pod with its owner."""
    return {"apiVersion": names.API_VERSION, "kind": kind, "name": name, "uid": uid, "controller": True}


def claim_patch(record: FunctionRecord, revision: str, state: str, concurrency: int) -> list[Json]:
    """RFC 6902: a pool pod becomes an instance of a function. It fails when the pod is not of the pool any more.

    A test of the label, not of the resource version: the kubelet writes the pod's status at any moment, and that is no
    reason to choose another pod.
    """
    return [
        {"op": "test", "path": _label(names.LABEL_STATE), "value": names.STATE_POOL},
        {"op": "add", "path": _label(names.LABEL_STATE), "value": state},
        {"op": "add", "path": _label(names.LABEL_FUNCTION), "value": record.name},
        {"op": "add", "path": _label(names.LABEL_REVISION), "value": revision},
        {"op": "add", "path": _annotation(names.ANNOTATION_CONCURRENCY), "value": str(concurrency)},
        {
            "op": "add",
            "path": "/metadata/ownerReferences",
            "value": [owner(names.FUNCTION_KIND, record.name, record.uid)],
        },
    ]


def move_patch(pod: Pod, event: str, annotations: Mapping[str, str] | None = None) -> list[Json]:
    """RFC 6902: the next state of an instance. It fails when the pod is not in the state any more that we know it in.

    Raises IllegalMoveError when the event (of `states.POD`) cannot happen in that state.
    """
    patch: list[Json] = [
        {"op": "test", "path": _label(names.LABEL_STATE), "value": pod.state},
        {"op": "replace", "path": _label(names.LABEL_STATE), "value": states.POD.next(pod.state, event)},
    ]
    return patch + [{"op": "add", "path": _annotation(k), "value": v} for k, v in (annotations or {}).items()]


def _label(key: str) -> str:
    return "/metadata/labels/" + key.replace("~", "~0").replace("/", "~1")


def _annotation(key: str) -> str:
    return "/metadata/annotations/" + key.replace("~", "~0").replace("/", "~1")


def _function_pod(
    function: Function, revision: str, runtime: str, who: Identity, reason: str, container: dict[str, Json]
) -> Json:
    needs = function.spec.pod
    if needs.env_from:
        container["envFrom"] = list(needs.env_from)
    container["volumeMounts"] = [*container["volumeMounts"], *needs.volume_mounts]
    labels = {
        names.LABEL_FUNCTION: function.name,
        names.LABEL_REVISION: revision,
        names.LABEL_STATE: names.STATE_STARTING,
    }
    if runtime:
        labels |= {names.LABEL_RUNTIME: runtime, names.LABEL_SECRET_ID: key_id(who.secret)}
    annotations = {
        **SAFE_TO_EVICT,
        names.ANNOTATION_CONCURRENCY: str(function.spec.concurrency),
        names.ANNOTATION_OWN_POD: reason,
    }
    spec = _spec(container, function.spec.timeout_seconds + DRAIN_GRACE_SECONDS)
    spec["volumes"] = [*spec["volumes"], *needs.volumes]
    if needs.volumes:
        spec["securityContext"]["fsGroup"] = USER
    if needs.service_account_name:
        spec["serviceAccountName"] = needs.service_account_name
        spec["automountServiceAccountToken"] = True
    return _pod(who, labels, annotations, owner(names.FUNCTION_KIND, function.name, function.uid), spec)


def _pod(who: Identity, labels: Mapping[str, str], annotations: Mapping[str, str], by: Json, spec: Json) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": who.name,
            "namespace": who.namespace,
            "labels": {
                names.LABEL_COMPONENT: names.COMPONENT_INSTANCE,
                names.LABEL_PART_OF: "kappa",
                names.LABEL_MANAGED_BY: names.MANAGER,
                **labels,
            },
            "annotations": dict(annotations),
            "ownerReferences": [by],
        },
        "spec": spec,
    }


def _spec(container: Json, grace: int) -> dict[str, Json]:
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": grace,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "kappa-tmp", "emptyDir": {"sizeLimit": TMP_SIZE}}],
    }


def _address_env(who: Identity) -> list[Json]:
    gateway = [{"name": names.ENV_GATEWAY_URL, "value": who.gateway_url}] if who.gateway_url else []
    return [
        {"name": names.ENV_PORT, "value": str(names.INSTANCE_PORT)},
        {"name": names.ENV_POD_IP, "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": names.ENV_POD_NAME, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        *gateway,
    ]


def _runtime_container(runtime: Runtime, who: Identity, resources: Mapping[str, Json], env: list[Json]) -> Json:
    token = {"name": names.ENV_POD_TOKEN, "value": pod_token(who.secret, who.namespace, who.name)}
    container = {
        **_container(runtime.image, [*_address_env(who), token, *env]),
        "imagePullPolicy": runtime.image_pull_policy,
        "readinessProbe": {
            "httpGet": {"path": names.PATH_HEALTH, "port": "http"},
            "periodSeconds": 2,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
    }
    if resources:
        container["resources"] = dict(resources)
    return container


def _container(image: str, env: list[Json]) -> dict[str, Json]:
    return {
        "name": names.CONTAINER_NAME,
        "image": image,
        "ports": [{"name": "http", "containerPort": names.INSTANCE_PORT, "protocol": "TCP"}],
        "env": env,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "kappa-tmp", "mountPath": "/tmp"}],
    }
