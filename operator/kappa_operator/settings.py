"""Settings of the operator, from the environment. Every duration is in seconds."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from kappa_api import names
from kappa_api.keyring import Keyring, KeyringError, read_secret
from kappa_api.routes import shared_hosts
from kappa_operator.destinations import Destinations, DestinationsError
from kappa_operator.quantity import parse_quantity

#: Where instances find the gateway, if not at KAPPA_GATEWAY_URL: that may be a name for callers outside the cluster.
ENV_INSIDE_URL = "KAPPA_INSIDE_URL"
ENV_ARCHIVE_CA_FILE = "KAPPA_ARCHIVE_CA_FILE"
ENV_ARCHIVE_ALLOW = "KAPPA_ARCHIVE_ALLOW"
ENV_ARCHIVE_DENY = "KAPPA_ARCHIVE_DENY"
ENV_ARCHIVE_HTTP = "KAPPA_ARCHIVE_HTTP"


class SettingsError(ValueError):
    """The environment does not hold what the operator needs; the message names the variable."""


@dataclass(frozen=True, slots=True)
class Settings:
    """`secret`: the platform secret, from which every internal token is derived; `secret_file`: where it is read again
    from, empty for one that never changes. `keys` holds both of them and what they lead to.

    `identity` names this replica on the Lease. `address` is where others reach the admin port; `bind` is where it
    listens. `gateway_url` is the base of `status.url`; `inside_url` is where instances find the gateway.
    `archive_ca_file` (PEM) is trusted for `code.archive` besides the system's; `archive_destinations` says from where
    archives may come.
    """

    secret: bytes
    identity: str
    address: str = "127.0.0.1"
    system_namespace: str = names.SYSTEM_NAMESPACE
    bind: str = "0.0.0.0"
    admin_port: int = 8081
    gateway_url: str = f"http://gateway.{names.SYSTEM_NAMESPACE}"
    inside_url: str = f"http://gateway.{names.SYSTEM_NAMESPACE}"
    archive_ca_file: str = ""
    archive_destinations: Destinations = field(default_factory=Destinations)
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
    #: Instances that the Functions of a namespace may have together where its annotation says nothing; 0: any number.
    max_instances_per_namespace: int = 0
    #: Memory that the idle instances of all Functions may hold together, in bytes; 0: any. Less: more cold starts.
    idle_memory_bytes: int = 0
    #: How often everything is listed again, to find deletions that a broken watch has missed.
    resync_seconds: float = 300.0
    secret_file: str = ""
    #: Named hosts on which several namespaces may have routes; the gateways must be told the same.
    shared_hosts: frozenset[str] = frozenset()
    keys: Keyring = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", Keyring(self.secret, self.secret_file))

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> "Settings":
        """Reads the environment. Raises SettingsError when the secret is missing or a number is not one."""
        env = os.environ if env is None else env
        namespace = env.get(names.ENV_SYSTEM_NAMESPACE, names.SYSTEM_NAMESPACE)
        url = env.get(names.ENV_GATEWAY_URL, f"http://gateway.{namespace}").rstrip("/")
        try:
            secret, secret_file = read_secret(env)
        except KeyringError as error:
            raise SettingsError(str(error)) from error
        return cls(
            secret=secret,
            secret_file=secret_file,
            identity=env.get(names.ENV_POD_NAME) or f"{socket.gethostname()}-{os.getpid()}",
            address=env.get(names.ENV_POD_IP, "127.0.0.1"),
            system_namespace=namespace,
            bind=env.get(names.ENV_BIND, "0.0.0.0"),
            admin_port=int(_number(env, names.ENV_ADMIN_PORT, 8081)),
            gateway_url=url,
            inside_url=(env.get(ENV_INSIDE_URL) or url).rstrip("/"),
            archive_ca_file=env.get(ENV_ARCHIVE_CA_FILE, ""),
            archive_destinations=_destinations(env),
            shared_hosts=shared_hosts(env.get(names.ENV_SHARED_HOSTS, "")),
            lease_seconds=int(_number(env, "KAPPA_LEASE_SECONDS", 6)),
            renew_seconds=_number(env, "KAPPA_RENEW_SECONDS", 2.0),
            workers=int(_number(env, "KAPPA_WORKERS", 8)),
            start_seconds=_number(env, "KAPPA_START_SECONDS", 120.0),
            load_seconds=_number(env, "KAPPA_LOAD_SECONDS", 60.0),
            scrape_seconds=_number(env, "KAPPA_SCRAPE_SECONDS", 1.0),
            down_window_seconds=_number(env, "KAPPA_DOWN_WINDOW_SECONDS", 3.0),
            max_instances_per_namespace=_count(env, "KAPPA_MAX_INSTANCES_PER_NAMESPACE"),
            idle_memory_bytes=_memory(env, "KAPPA_IDLE_MEMORY_LIMIT"),
            resync_seconds=_number(env, "KAPPA_RESYNC_SECONDS", 300.0),
        )


def _destinations(env: Mapping[str, str]) -> Destinations:
    # The API server, whatever its address: some clusters give it a public one.
    forbidden = ",".join((env.get(ENV_ARCHIVE_DENY, ""), env.get("KUBERNETES_SERVICE_HOST", "")))
    http = env.get(ENV_ARCHIVE_HTTP, "").lower() in ("1", "true", "yes")
    try:
        return Destinations.parse(env.get(ENV_ARCHIVE_ALLOW, ""), forbidden, http=http)
    except DestinationsError as error:
        raise SettingsError(f"{ENV_ARCHIVE_ALLOW}, {ENV_ARCHIVE_DENY}: {error}") from error


def _number(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError as error:
        raise SettingsError(f"{name}: {text!r} is not a number") from error
    if value <= 0:
        raise SettingsError(f"{name}: {text!r} must be greater than zero")
    return value


def _count(env: Mapping[str, str], name: str) -> int:
    """A number from 0 up; 0 when it is not set."""
    text = env.get(name, "") or "0"
    if not text.isdecimal():
        raise SettingsError(f"{name}: {text!r} is not a number from 0 up")
    return int(text)


def _memory(env: Mapping[str, str], name: str) -> int:
    """A quantity of memory in bytes; 0 when it is not set."""
    text = env.get(name, "")
    if text and parse_quantity(text) <= 0 and text != "0":
        raise SettingsError(f"{name}: {text!r} is not a quantity of memory, such as 4Gi")
    return parse_quantity(text) if text else 0
