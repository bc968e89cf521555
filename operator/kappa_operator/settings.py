"""Settings of the operator, from the environment. Every duration is in seconds."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kappa_api import names

ENV_ARCHIVE_CA_FILE = "KAPPA_ARCHIVE_CA_FILE"


class SettingsError(ValueError):
    """The environment does not hold what the operator needs; the message names the variable."""


@dataclass(frozen=True, slots=True)
class Settings:
    """`secret`: the platform secret, from which every internal token is derived.

    `identity` names this replica on the Lease. `address` is where others reach the admin port; `bind` is where it
    listens. `gateway_url` is the base of `status.url`. `archive_ca_file` (PEM) is trusted for `code.archive` besides
    the system's.
    """

    secret: bytes
    identity: str
    address: str = "127.0.0.1"
    system_namespace: str = names.SYSTEM_NAMESPACE
    bind: str = "0.0.0.0"
    admin_port: int = 8081
    gateway_url: str = f"http://gateway.{names.SYSTEM_NAMESPACE}"
    archive_ca_file: str = ""
    #: A lease not renewed for this long is free to take. Shorter: faster take-over after a crash, more API calls.
    lease_seconds: int = 6
    renew_seconds: float = 2.0
    #: Functions reconciled at a time, and pods that are specialized or drained at a time.
    workers: int = 8
    pod_tasks: int = 64
    #: How long a pod may take from creation to answering, and the code to load. Longer: a broken image is told later.
    start_seconds: float = 120.0
    load_seconds: float = 60.0
    #: An instance that is not Ready for this long is replaced.
    sick_seconds: float = 60.0
    #: Added to a function's timeout before a drain is cut short.
    drain_grace_seconds: float = 5.0
    #: How often gateways are scraped, and how far back the need is remembered before instances are removed.
    scrape_seconds: float = 1.0
    down_window_seconds: float = 3.0
    #: How often everything is listed again, to find deletions that a broken watch has missed.
    resync_seconds: float = 300.0

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> "Settings":
        """Reads the environment. Raises SettingsError when the secret is missing or a number is not one."""
        env = os.environ if env is None else env
        namespace = env.get(names.ENV_SYSTEM_NAMESPACE, names.SYSTEM_NAMESPACE)
        return cls(
            secret=_secret(env),
            identity=env.get(names.ENV_POD_NAME) or f"{socket.gethostname()}-{os.getpid()}",
            address=env.get(names.ENV_POD_IP, "127.0.0.1"),
            system_namespace=namespace,
            bind=env.get(names.ENV_BIND, "0.0.0.0"),
            admin_port=int(_number(env, names.ENV_ADMIN_PORT, 8081)),
            gateway_url=env.get(names.ENV_GATEWAY_URL, f"http://gateway.{namespace}").rstrip("/"),
            archive_ca_file=env.get(ENV_ARCHIVE_CA_FILE, ""),
            lease_seconds=int(_number(env, "KAPPA_LEASE_SECONDS", 6)),
            renew_seconds=_number(env, "KAPPA_RENEW_SECONDS", 2.0),
            workers=int(_number(env, "KAPPA_WORKERS", 8)),
            start_seconds=_number(env, "KAPPA_START_SECONDS", 120.0),
            load_seconds=_number(env, "KAPPA_LOAD_SECONDS", 60.0),
            scrape_seconds=_number(env, "KAPPA_SCRAPE_SECONDS", 1.0),
            down_window_seconds=_number(env, "KAPPA_DOWN_WINDOW_SECONDS", 3.0),
            resync_seconds=_number(env, "KAPPA_RESYNC_SECONDS", 300.0),
        )


def _secret(env: Mapping[str, str]) -> bytes:
    if path := env.get(names.ENV_SECRET_FILE):
        try:
            secret = Path(path).read_bytes().strip()
        except OSError as error:
            raise SettingsError(f"{names.ENV_SECRET_FILE}: cannot read {path}: {error.strerror}") from error
    else:
        secret = env.get(names.ENV_SECRET, "").encode()
    if not secret:
        raise SettingsError(f"set {names.ENV_SECRET} or {names.ENV_SECRET_FILE} to the platform secret")
    return secret


def _number(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError as error:
        raise SettingsError(f"{name}: {text!r} is not a number") from error
    if value <= 0:
        raise SettingsError(f"{name}: {text!r} must be greater than zero")
    return value
