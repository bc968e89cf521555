"""Settings of the gateway: read once from the environment, checked, then passed to whoever needs them.

Every field says its unit and what a change does. `Limits` holds what protects the gateway from its callers.
"""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from kappa_api import names
from kappa_api.keyring import Keyring, KeyringError, read_secret
from kappa_api.limits import MAX_PER_SECONDS, MAX_REQUESTS, Rate
from kappa_api.routes import shared_hosts
from kappa_gateway.auth import settings as auth_settings
from kappa_gateway.auth.settings import AuthSettings
from kappa_gateway.events import settings as event_settings
from kappa_gateway.events.settings import EventSettings

KIB = 1024
MIB = 1024 * KIB
#: So many cost less than 1 % of a core to check, and still are many for one address behind which an office is.
AUTH_FAILURES = Rate(50, 1, 100)


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
    `body_rate`: bytes per second that the held part of a body must reach on average, after `body_idle_seconds`; 408.
    `waiting_per_function`: invocations of one function that may wait for an instance; more get 429. A function's
    `http.limits.maxWaiting` replaces it, up to `waiting_most`.
    `held_total_bytes`: memory for held bodies of all callers (`held.py`); more get 503.
    `connections`: of callers, open at once (`door.py`), as far as there are descriptors for them;
    `connections_per_address`: of one address, 0 for half of all. More get 503 and are closed.
    `rate`, `caller_rate`: limits of each function that has none of its own; None for none. 429 beyond.
    `event_rate`, `event_caller_rate`: the same of what is posted for each Trigger, in events.
    `auth_failures`: credentials of one address that may be no good, of all functions together; None for no limit. 429
    beyond, for whoever would have to be checked (`auth/failures.py`).
    `callers`, `callers_per_function`: callers to remember for `caller_rate`; 200 bytes each (`limits.py`). As many
    addresses as callers of a function are remembered for `auth_failures`.
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
    body_rate: float = 500.0
    waiting_per_function: int = 1000
    waiting_most: int = 10_000
    held_total_bytes: int = 128 * MIB
    connections: int = 10_000
    connections_per_address: int = 0
    rate: Rate | None = None
    caller_rate: Rate | None = None
    event_rate: Rate | None = None
    event_caller_rate: Rate | None = None
    auth_failures: Rate | None = AUTH_FAILURES
    callers: int = 100_000
    callers_per_function: int = 10_000
    websocket_idle_seconds: float = 600.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What the process is told from outside.

    `bind`: address of both ports; `data_port` and `admin_port` may be 0 (any free one, for tests).
    `secret`: the platform secret; tokens for the admin API and for the operator derive from it. `secret_file`: where it
    is read again from, empty for one that never changes. `keys` holds both and what they lead to.
    `name`: this gateway's name in stats and demand (the pod's name).
    `trust_forwarded`: keep `x-forwarded-*` of the caller. Only when a proxy that sets them stands in front: otherwise
    callers could claim any address. `forwarded_hops`: how many such proxies are passed one after the other; the caller
    is the address that stands so far from the end of X-Forwarded-For.
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
    forwarded_hops: int = 1
    shutdown_delay: float = 5.0
    shutdown_grace: float = 30.0
    connect_seconds: float = 1.0
    pool_idle_seconds: float = 60.0
    limits: Limits = Limits()
    auth: AuthSettings = auth_settings.DEFAULTS
    events: EventSettings = event_settings.NONE
    secret_file: str = ""
    #: Named hosts on which several namespaces may have routes, comma-separated. On any other a namespace is alone.
    shared_hosts: frozenset[str] = frozenset()
    keys: Keyring = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", Keyring(self.secret, self.secret_file))


def load(env: Mapping[str, str] = os.environ) -> Settings:
    """Settings from environment variables. Raises SettingsError."""
    defaults = Limits()
    try:
        secret, secret_file = read_secret(env)
        auth = auth_settings.load(env)
        events = event_settings.load(env)
    except (KeyringError, ValueError) as error:
        raise SettingsError(str(error)) from error
    return Settings(
        secret=secret,
        secret_file=secret_file,
        auth=auth,
        events=events,
        name=env.get(names.ENV_POD_NAME) or socket.gethostname(),
        system_namespace=env.get(names.ENV_SYSTEM_NAMESPACE) or names.SYSTEM_NAMESPACE,
        bind=env.get(names.ENV_BIND) or "0.0.0.0",
        data_port=int(_number(env, names.ENV_DATA_PORT, 8080)),
        admin_port=int(_number(env, names.ENV_ADMIN_PORT, 8081)),
        trust_forwarded=env.get("KAPPA_TRUST_FORWARDED", "").lower() in ("1", "true", "yes"),
        forwarded_hops=int(_number(env, "KAPPA_FORWARDED_HOPS", 1, least=1)),
        shared_hosts=shared_hosts(env.get(names.ENV_SHARED_HOSTS, "")),
        shutdown_delay=_number(env, "KAPPA_SHUTDOWN_DELAY", 5.0),
        shutdown_grace=_number(env, "KAPPA_SHUTDOWN_GRACE", 30.0),
        limits=Limits(
            held_bytes=int(_number(env, "KAPPA_HELD_BODY_BYTES", defaults.held_bytes)),
            body_bytes=int(_number(env, "KAPPA_MAX_BODY_BYTES", defaults.body_bytes)),
            head_seconds=_number(env, "KAPPA_HEAD_TIMEOUT", defaults.head_seconds),
            body_idle_seconds=_number(env, "KAPPA_BODY_IDLE_TIMEOUT", defaults.body_idle_seconds),
            idle_seconds=_number(env, "KAPPA_IDLE_TIMEOUT", defaults.idle_seconds),
            body_rate=_number(env, "KAPPA_BODY_RATE", defaults.body_rate, least=1),
            waiting_per_function=int(_number(env, "KAPPA_MAX_WAITING", defaults.waiting_per_function, least=1)),
            waiting_most=int(_number(env, "KAPPA_MAX_WAITING_BOUND", defaults.waiting_most, least=1)),
            held_total_bytes=int(_number(env, "KAPPA_HELD_TOTAL_BYTES", defaults.held_total_bytes, least=1)),
            connections=int(_number(env, "KAPPA_MAX_CONNECTIONS", defaults.connections, least=1)),
            connections_per_address=int(_number(env, "KAPPA_MAX_CONNECTIONS_PER_ADDRESS", 0)),
            rate=_rate(env, "KAPPA_RATE"),
            caller_rate=_rate(env, "KAPPA_CALLER_RATE"),
            event_rate=_rate(env, "KAPPA_EVENT_RATE"),
            event_caller_rate=_rate(env, "KAPPA_EVENT_CALLER_RATE"),
            auth_failures=_rate(env, "KAPPA_AUTH_FAILURES", defaults.auth_failures),
            callers=int(_number(env, "KAPPA_MAX_CALLERS", defaults.callers)),
            callers_per_function=int(_number(env, "KAPPA_MAX_CALLERS_PER_FUNCTION", defaults.callers_per_function)),
        ),
    )


def _number(env: Mapping[str, str], name: str, default: float, *, least: int = 0) -> float:
    text = env.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not least <= value < 1e12:
        raise SettingsError(f"{name}={text!r} is not a number of at least {least}")
    return value


def _rate(env: Mapping[str, str], name: str, default: Rate | None = None) -> Rate | None:
    """`100`, `100/60` or `100/60/20`: requests, in how many seconds, how many at once. Empty: `default`; 0: none."""
    text = env.get(name)
    if not text:
        return default
    pieces = text.split("/")
    if len(pieces) > 3 or not all(piece.isascii() and piece.isdigit() and len(piece) < 10 for piece in pieces):
        raise SettingsError(f"{name}={text!r} is not a rate: write REQUESTS/SECONDS/BURST, such as 100/1/200")
    requests, seconds, burst = (*map(int, pieces), *(1, 0)[len(pieces) - 1 :])
    if requests > MAX_REQUESTS or burst > MAX_REQUESTS or not 1 <= seconds <= MAX_PER_SECONDS:
        raise SettingsError(
            f"{name}={text!r} is out of range: at most {MAX_REQUESTS} requests in 1 to {MAX_PER_SECONDS} seconds"
        )
    return Rate(requests, seconds, burst) if requests else None
