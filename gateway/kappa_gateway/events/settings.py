"""Settings of events and asynchronous invocations. Read once from the environment by `kappa_gateway.settings`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kappa_api import names
from kappa_api.delivery import Delivery
from kappa_gateway.auth.settings import ALL
from kappa_gateway.events.nats_login import CA, CERT, CREDS, KEY, options
from kappa_gateway.events.outcomes.rules import PATIENCE


@dataclass(frozen=True, slots=True)
class EventSettings:
    """`urls`: of the NATS servers; none: there is no NATS, and no Triggers. `token`: what they want to see; with
    `user` it is that user's password. `login`: what else there is of `nats_login.options`.

    `replicas`: of each stream, 1, 3 or 5. `stored_bytes`: largest body of an asynchronous call; `message_bytes`: larger
    ones are put into the object store. `dead_seconds`: how long dead letters are kept. `ack_seconds`: a delivery that
    nobody speaks for is given to another gateway after so long. `work_bytes`: the work stream takes no more than this;
    callers then get 503. Large bodies may take half as much, dead letters and results a quarter each.

    `shared_subjects`: prefixes of subjects, streams and buckets on these servers that every namespace may use.
    `secret_namespaces`: where Secrets with sources' credentials are read; (`*`,) for everywhere. RBAC must allow it.
    `allow_loopback`: sources and destinations may be on this machine. `resources`: what `kubernetes` sources may watch
    although the gateway itself has a right to it (`secrets`, `pods`, ...), as `plural` or `plural.group`. `max_hops`:
    work farther away from its first cause is not delivered, nor are calls (`kappa_gateway/hops.py`); 0: everything is.
    `outcomes`: how patiently outcomes are sent to receivers outside. `namespace_share`: percent of the work stream that
    one namespace may fill while nobody else has anything in it (`shares.py`); 100: all.
    """

    urls: tuple[str, ...] = ()
    token: str = ""
    user: str = ""
    login: Mapping[str, bytes] = field(default_factory=dict)
    replicas: int = 1
    message_bytes: int = 900 * 1024
    stored_bytes: int = 100 * 1024 * 1024
    dead_seconds: int = 14 * 86_400
    ack_seconds: float = 15.0
    work_bytes: int = 4 * 1024**3
    shared_subjects: tuple[str, ...] = ()
    secret_namespaces: tuple[str, ...] = (ALL,)
    allow_loopback: bool = False
    resources: tuple[str, ...] = ()
    max_hops: int = 16
    namespace_share: int = 50
    outcomes: Delivery = PATIENCE

    def credentials(self) -> dict[str, Any]:
        """For nats-py's `connect`. Raises ValueError."""
        data = dict(self.login)
        if self.user:
            data |= {"user": self.user.encode(), "password": self.token.encode()}
        elif self.token:
            data["token"] = self.token.encode()
        return options(data, tls=any(url.startswith("tls:") for url in self.urls))


NONE: Final = EventSettings()
#: Contents, in PEM form or as `nsc` writes them.
_LOGIN: Final = {
    CREDS: "KAPPA_NATS_CREDS",
    CA: "KAPPA_NATS_CA_CERT",
    CERT: "KAPPA_NATS_TLS_CERT",
    KEY: "KAPPA_NATS_TLS_KEY",
}


def load(env: Mapping[str, str]) -> EventSettings:
    """Raises ValueError with the variable's name."""
    urls = tuple(url.strip() for url in env.get(names.ENV_NATS_URL, "").split(",") if url.strip())
    replicas = env.get("KAPPA_NATS_REPLICAS") or "1"
    if replicas not in ("1", "3", "5"):
        raise ValueError(f"KAPPA_NATS_REPLICAS={replicas!r} is not 1, 3 or 5")
    found = EventSettings(
        urls=urls,
        token=env.get(names.ENV_NATS_TOKEN, ""),
        user=env.get(names.ENV_NATS_USER, ""),
        login={key: env[name].encode() for key, name in _LOGIN.items() if env.get(name)},
        dead_seconds=_number(env, "KAPPA_DEAD_SECONDS", 14 * 86_400),
        ack_seconds=_number(env, "KAPPA_ACK_SECONDS", 15),
        work_bytes=_number(env, "KAPPA_WORK_BYTES", 4 * 1024**3),
        replicas=int(replicas),
        shared_subjects=_list(env.get("KAPPA_SHARED_SUBJECTS", "")),
        secret_namespaces=_list(env.get("KAPPA_SOURCE_SECRET_NAMESPACES", ALL)),
        allow_loopback=env.get(names.ENV_ALLOW_LOOPBACK, "").lower() in ("1", "true", "yes"),
        resources=_list(env.get("KAPPA_KUBERNETES_SOURCES", "")),
        max_hops=_number(env, "KAPPA_MAX_HOPS", 16, least=0),
        namespace_share=_number(env, "KAPPA_NAMESPACE_SHARE", 50, most=100),
    )
    try:
        found.credentials()
    except ValueError as error:
        raise ValueError(f"{', '.join(_LOGIN[key] for key in found.login)}: {error}") from error
    return found


def _list(text: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(piece.strip() for piece in text.split(",") if piece.strip()))
    return (ALL,) if ALL in found else found


def _number(env: Mapping[str, str], name: str, default: int, *, least: int = 1, most: int = 0) -> int:
    text = env.get(name) or str(default)
    if not text.isdigit() or int(text) < least:
        raise ValueError(f"{name}={text!r} is not a whole number of at least {least}")
    if most and int(text) > most:
        raise ValueError(f"{name}={text!r} is more than {most}")
    return int(text)
