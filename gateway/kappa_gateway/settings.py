"""Settings of the gateway: read once from the environment, checked, then passed to whoever needs them.

Every field says its unit and what a change does. `Limits` holds what protects the gateway from its callers.
"""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kappa_api import names

KIB = 1024
MIB = 1024 * KIB


class SettingsError(ValueError):
    """A setting that is missing or not usable; the message names the variable and the remedy."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one caller, or all of them, may cost.

    `url_bytes`, `header_bytes` (one field), `head_bytes` (all fields), `header_count`: longer gets 414 or 431.
    `held_bytes`: a body up to this size is kept until the reply began, so it can be sent again; larger ones stream.
    `body_bytes`: largest request body; a function's `http.maxBodyBytes` may only lower it. 413 beyond.
    `head_seconds`: from the first byte of a request to the end of its headers. `body_idle_seconds`: between two pieces
    of a body. Slower clients get 408. `idle_seconds`: how long an unused client connection stays; longer than the pools
    of the clients and load balancers in front (usually 60), or they send into a connection being closed.
    `send_idle_seconds`: how long a client may accept nothing of its reply.
    `waiting_per_function`: invocations of one function that may wait for an instance; more get 429.
    `websocket_idle_seconds`: a WebSocket without a byte in either direction for so long is closed.
    """

    url_bytes: int = 8 * KIB
    header_bytes: int = 16 * KIB
    head_bytes: int = 64 * KIB
    header_count: int = 100
    held_bytes: int = 64 * KIB
    body_bytes: int = 100 * MIB
    head_seconds: float = 15.0
    body_idle_seconds: float = 30.0
    send_idle_seconds: float = 60.0
    idle_seconds: float = 90.0
    waiting_per_function: int = 1000
    websocket_idle_seconds: float = 600.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What the process is told from outside.

    `bind`: address of both ports; `data_port` and `admin_port` may be 0 (any free one, for tests).
    `secret`: the platform secret; tokens for the admin API and for the operator derive from it.
    `name`: this gateway's name in stats and demand (the pod's name).
    `trust_forwarded`: keep `x-forwarded-*` of the caller. Only when a proxy that sets them stands in front: otherwise
    callers could claim any address.
    `shutdown_delay`: seconds to go on serving after SIGTERM, so that endpoints and load balancers forget this gateway.
    `shutdown_grace`: seconds that invocations in flight get after that.
    `connect_seconds`: how long a TCP connect to an instance may take. `pool_idle_seconds`: how long an unused
    connection to an instance is kept: shorter than the runtime's own limit (75), so that we close first.
    """

    secret: bytes
    name: str
    system_namespace: str = names.SYSTEM_NAMESPACE
    bind: str = "0.0.0.0"
    data_port: int = 8080
    admin_port: int = 8081
    trust_forwarded: bool = False
    shutdown_delay: float = 5.0
    shutdown_grace: float = 30.0
    connect_seconds: float = 1.0
    pool_idle_seconds: float = 60.0
    limits: Limits = Limits()


def load(env: Mapping[str, str] = os.environ) -> Settings:
    """Settings from environment variables. Raises SettingsError."""
    defaults = Limits()
    return Settings(
        secret=_secret(env),
        name=env.get(names.ENV_POD_NAME) or socket.gethostname(),
        system_namespace=env.get(names.ENV_SYSTEM_NAMESPACE) or names.SYSTEM_NAMESPACE,
        bind=env.get(names.ENV_BIND) or "0.0.0.0",
        data_port=int(_number(env, names.ENV_DATA_PORT, 8080)),
        admin_port=int(_number(env, names.ENV_ADMIN_PORT, 8081)),
        trust_forwarded=env.get("KAPPA_TRUST_FORWARDED", "").lower() in ("1", "true", "yes"),
        shutdown_delay=_number(env, "KAPPA_SHUTDOWN_DELAY", 5.0),
        shutdown_grace=_number(env, "KAPPA_SHUTDOWN_GRACE", 30.0),
        limits=Limits(
            held_bytes=int(_number(env, "KAPPA_HELD_BODY_BYTES", defaults.held_bytes)),
            body_bytes=int(_number(env, "KAPPA_MAX_BODY_BYTES", defaults.body_bytes)),
            head_seconds=_number(env, "KAPPA_HEAD_TIMEOUT", defaults.head_seconds),
            body_idle_seconds=_number(env, "KAPPA_BODY_IDLE_TIMEOUT", defaults.body_idle_seconds),
            idle_seconds=_number(env, "KAPPA_IDLE_TIMEOUT", defaults.idle_seconds),
            waiting_per_function=int(_number(env, "KAPPA_MAX_WAITING", defaults.waiting_per_function)),
        ),
    )


def _secret(env: Mapping[str, str]) -> bytes:
    if value := env.get(names.ENV_SECRET):
        return value.encode()
    path = env.get(names.ENV_SECRET_FILE)
    if not path:
        raise SettingsError(f"set {names.ENV_SECRET} or {names.ENV_SECRET_FILE} to the platform secret")
    try:
        secret = Path(path).read_bytes().strip()
    except OSError as error:
        raise SettingsError(f"{names.ENV_SECRET_FILE}: cannot read {path}: {error.strerror}") from error
    if not secret:
        raise SettingsError(f"{names.ENV_SECRET_FILE}: {path} is empty")
    return secret


def _number(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e12:
        raise SettingsError(f"{name}={text!r} is not a number of at least 0")
    return value
