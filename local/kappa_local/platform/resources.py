"""What is applied to an empty embedded cluster to make it Kappa: the chart's CRDs, a namespace, a Runtime, three pods.

Operator and gateway run as pods on the host network: `kubectl -n kappa-system get pods` and `logs` show them, and
the operator finds the gateway exactly as in a real cluster. They are the same programs as there.
"""

import sys
from pathlib import Path
from typing import Any

import yaml

from kappa_api import names
from kappa_local.platform.nats import gateway_env, nats
from kappa_local.platform.settings import REPOSITORY, Place

Json = dict[str, Any]

RUNTIME_IMAGE = "kappa-runtime-python"
CRDS = REPOSITORY / "charts" / "kappa" / "crds"


def custom_resource_definitions(folder: Path = CRDS) -> list[Json]:
    """The CRDs of the chart, as the chart installs them."""
    return [document for file in sorted(folder.glob("*.yaml")) for document in yaml.safe_load_all(file.read_text())]


def platform(where: Place, secret: str, nats_token: str = "") -> list[Json]:
    """The objects of a platform with one operator and one gateway; `secret` is the platform secret. With a token there
    is a NATS server too, which lets the gateway in by it; without, no asynchronous invocations and no Triggers."""
    events = gateway_env(where, nats_token) if nats_token else {}
    server = nats(where, nats_token) if nats_token else []
    return [_namespace(), _runtime(), _invoker(), *server, _operator(where, secret), _gateway(where, secret, events)]


def _namespace() -> Json:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": names.SYSTEM_NAMESPACE}}


def _runtime() -> Json:
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.RUNTIME_KIND,
        "metadata": {"name": "python"},
        "spec": {"image": RUNTIME_IMAGE, "pool": {"min": 2, "max": 5}},
    }


def _invoker() -> Json:
    """As the chart has it: for RoleBindings to whom `http.auth.type: kubernetes` is to let in."""
    resources = [names.FUNCTION_PLURAL, names.TRIGGER_PLURAL]
    rule = {"apiGroups": [names.GROUP], "resources": resources, "verbs": ["invoke"]}
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "kappa-invoker"},
        "rules": [rule],
    }


def _operator(where: Place, secret: str) -> Json:
    env = {
        names.ENV_ADMIN_PORT: str(where.operator_admin_port),
        names.ENV_GATEWAY_URL: where.gateway_url,
    }
    return _component(where, names.COMPONENT_OPERATOR, secret, env, {names.ADMIN_PORT_NAME: where.operator_admin_port})


def _gateway(where: Place, secret: str, events: dict[str, str]) -> Json:
    env = {
        names.ENV_DATA_PORT: str(where.gateway_port),
        names.ENV_ADMIN_PORT: str(where.gateway_admin_port),
        "KAPPA_SHUTDOWN_DELAY": "0",
        "KAPPA_JWKS_ALLOW_HTTP": "true",  # an issuer on this machine has no certificate
        "KAPPA_JWKS_RETRY": "1",
        names.ENV_ALLOW_LOOPBACK: "true",  # what a Trigger or a destination names is on this machine, too
    } | events
    ports = {"http": where.gateway_port, names.ADMIN_PORT_NAME: where.gateway_admin_port}
    return _component(where, names.COMPONENT_GATEWAY, secret, env, ports)


def _component(where: Place, component: str, secret: str, env: dict[str, str], ports: dict[str, int]) -> Json:
    shared = {
        "KUBECONFIG": str(where.kubeconfig),
        names.ENV_SECRET: secret,
        names.ENV_SYSTEM_NAMESPACE: names.SYSTEM_NAMESPACE,
        names.ENV_BIND: "127.0.0.1",
    }
    fields = {names.ENV_POD_NAME: "metadata.name", names.ENV_POD_IP: "status.podIP"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": component,
            "namespace": names.SYSTEM_NAMESPACE,
            "labels": {names.LABEL_COMPONENT: component, names.LABEL_PART_OF: "kappa"},
        },
        "spec": {
            "hostNetwork": True,
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "containers": [
                {
                    "name": component,
                    "image": f"kappa-{component}",
                    "command": [sys.executable, "-m", f"kappa_{component}"],
                    "env": [{"name": name, "value": value} for name, value in (shared | env).items()]
                    + [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()],
                    "ports": [{"name": name, "containerPort": port} for name, port in ports.items()],
                    "readinessProbe": {
                        "httpGet": {"path": names.PATH_READYZ, "port": names.ADMIN_PORT_NAME},
                        "periodSeconds": 1,
                    },
                }
            ],
        },
    }
