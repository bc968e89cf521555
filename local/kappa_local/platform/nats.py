"""NATS for the embedded platform: one server with JetStream and MQTT, as a pod of the host network beside the gateway.

It listens on 127.0.0.1 alone. Who shows no credentials is a guest, so that `nats pub` and `mosquitto_pub` work as they
are; what is Kappa's own, and JetStream's interface, is out of a guest's reach.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

from kappa_api import names
from kappa_local.platform.settings import Place, SetupError

Json = dict[str, Any]

#: The user under which the gateway connects; the token is its password.
USER = "kappa"
IMAGE = "kappa-nats"
_CONFIG_FOLDER = "/etc/nats"
_CONFIG = """\
listen: "127.0.0.1:{port}"
server_name: kappa-local
max_payload: 4MB
jetstream {{
  store_dir: "{store}"
}}
mqtt {{
  listen: "127.0.0.1:{mqtt}"
  no_auth_user: guest
}}
no_auth_user: guest
authorization {{
  users: [
    {{user: {user}, password: $TOKEN}}
    {{user: guest, password: guest, permissions: {{
      publish: {{deny: ["kappa.>", "$JS.>", "$KV.>", "$O.>", "$SYS.>", "$MQTT.msgs.>"]}}
      subscribe: {{deny: ["kappa.>", "$JS.>", "$SYS.>"]}}
    }}}}
  ]
}}
"""


def nats(where: Place, token: str) -> list[Json]:
    """The ConfigMap and the pod. Raises SetupError when this machine has no nats-server."""
    return [_config(where), _pod(where, token)]


def gateway_env(where: Place, token: str) -> dict[str, str]:
    """What the gateway must be told to use it."""
    return {
        names.ENV_NATS_URL: f"nats://127.0.0.1:{where.nats_port}",
        names.ENV_NATS_USER: USER,
        names.ENV_NATS_TOKEN: token,
        "KAPPA_WORK_BYTES": str(1 << 30),  # JetStream sets it aside, and laptops have small disks
    }


def server() -> str:
    """The nats-server beside this interpreter (pinned by the lock file), else the one on the PATH."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if not found:
        raise SetupError("nats-server was not found: run `make venv`, which installs it")
    return found


def _config(where: Place) -> Json:
    text = _CONFIG.format(port=where.nats_port, mqtt=where.mqtt_port, store=where.state / "nats", user=USER)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": names.COMPONENT_NATS, "namespace": names.SYSTEM_NAMESPACE},
        "data": {"nats.conf": text},
    }


def _pod(where: Place, token: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": names.COMPONENT_NATS,
            "namespace": names.SYSTEM_NAMESPACE,
            "labels": {names.LABEL_COMPONENT: names.COMPONENT_NATS, names.LABEL_PART_OF: "kappa"},
        },
        "spec": {
            "hostNetwork": True,
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "volumes": [{"name": "config", "configMap": {"name": names.COMPONENT_NATS}}],
            "containers": [
                {
                    "name": names.COMPONENT_NATS,
                    "image": IMAGE,
                    "command": [server(), "-c", f"$(KAPPA_LOCAL_MOUNT_ROOT){_CONFIG_FOLDER}/nats.conf"],
                    # Quoted: the server would read a token of digits alone as a number
                    "env": [{"name": "TOKEN", "value": f'"{token}"'}],
                    "ports": [
                        {"name": "nats", "containerPort": where.nats_port},
                        {"name": "mqtt", "containerPort": where.mqtt_port},
                    ],
                    "volumeMounts": [{"name": "config", "mountPath": _CONFIG_FOLDER}],
                    # Its listener opens last, when JetStream has read what it holds
                    "readinessProbe": {"tcpSocket": {"port": "nats"}, "periodSeconds": 1},
                }
            ],
        },
    }
