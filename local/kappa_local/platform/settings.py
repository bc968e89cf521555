"""Where the platform runs on this machine: ports and folders, each changeable by an environment variable."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]


class SetupError(Exception):
    """Something on this machine stands in the way; the message says what, and what to do."""


@dataclass(frozen=True, slots=True)
class Place:
    """Ports are on 127.0.0.1. `state` holds kubeconfig, logs and the process id; it is removed by `down`."""

    state: Path
    api_port: int = 7443
    gateway_port: int = 8080
    gateway_admin_port: int = 8081
    operator_admin_port: int = 8082
    nats_port: int = 4222
    mqtt_port: int = 1883

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"

    @property
    def pid_file(self) -> Path:
        return self.state / "pid"

    @property
    def log_file(self) -> Path:
        return self.state / "cluster.log"

    @property
    def gateway_url(self) -> str:
        return f"http://127.0.0.1:{self.gateway_port}"

    def ports(self) -> dict[str, int]:
        """Each port under the variable that changes it."""
        return {
            "KAPPA_API_PORT": self.api_port,
            "KAPPA_GATEWAY_PORT": self.gateway_port,
            "KAPPA_GATEWAY_ADMIN_PORT": self.gateway_admin_port,
            "KAPPA_OPERATOR_ADMIN_PORT": self.operator_admin_port,
            "KAPPA_NATS_PORT": self.nats_port,
            "KAPPA_MQTT_PORT": self.mqtt_port,
        }


def place(environ: Mapping[str, str] = os.environ) -> Place:
    """Reads the place from the environment. Raises SetupError for a port that is not a number from 1 to 65535."""
    given = Place(state=Path(environ.get("KAPPA_STATE_DIR", ".kappa")).absolute())
    numbers = []
    for variable, default in given.ports().items():
        text = environ.get(variable, str(default))
        if not text.isdecimal() or not 0 < int(text) < 65536:
            raise SetupError(f"{variable}={text!r} is not a port: use a number from 1 to 65535")
        numbers.append(int(text))
    return Place(given.state, *numbers)


def check_ports(where: Place) -> None:
    """Raises SetupError when a port is in use, naming the variable that chooses another one."""
    for variable, port in where.ports().items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise SetupError(
                    f"port {port} of 127.0.0.1 is not free ({error.strerror}): stop what uses it, "
                    f"or choose another, for example {variable}={port + 1000} make up"
                ) from error
