"""What the admin says about callers' identity: read by `kappa_gateway.settings` from the environment."""

from collections.abc import Mapping
from dataclasses import dataclass

#: In `key_namespaces`: every namespace, by one watch.
ALL = "*"


@dataclass(frozen=True, slots=True)
class AuthSettings:
    """Times in seconds.

    `key_namespaces`: where Secrets with API keys are read; (`*`,) for everywhere, () for nowhere. RBAC must allow it.
    `allow_http`: issuers' keys over plain http and from loopback addresses, for development: whoever is between could
    give the gateway keys of their own.
    `jwks_refresh`: how old keys get before they are fetched again. `jwks_retry`: the least time between two fetches,
    also for key ids that are not known: how long a rotation may stay unseen, and how often strangers can make us ask.
    `allowed_seconds`, `denied_seconds`: how long the API server's answer about a token holds: as long as a withdrawn
    RoleBinding still lets callers in, or a new one does not yet.
    `remembered`: verified tokens that are kept, and refused ones; about 1 KiB each.
    `reviews`: questions that may be with the API server at one time.
    `wait_seconds`: how long a caller waits for an issuer or for the API server.
    """

    key_namespaces: tuple[str, ...] = (ALL,)
    allow_http: bool = False
    jwks_refresh: float = 600.0
    jwks_retry: float = 10.0
    allowed_seconds: float = 30.0
    denied_seconds: float = 5.0
    remembered: int = 20_000
    reviews: int = 16
    wait_seconds: float = 5.0


DEFAULTS = AuthSettings()


def load(env: Mapping[str, str]) -> AuthSettings:
    """Raises ValueError with the variable and the remedy."""
    defaults = DEFAULTS
    namespaces = env.get("KAPPA_API_KEY_NAMESPACES")
    return AuthSettings(
        key_namespaces=defaults.key_namespaces if namespaces is None else _names(namespaces),
        allow_http=env.get("KAPPA_JWKS_ALLOW_HTTP", "").lower() in ("1", "true", "yes"),
        jwks_refresh=_seconds(env, "KAPPA_JWKS_REFRESH", defaults.jwks_refresh),
        jwks_retry=_seconds(env, "KAPPA_JWKS_RETRY", defaults.jwks_retry),
        allowed_seconds=_seconds(env, "KAPPA_REVIEW_ALLOWED", defaults.allowed_seconds),
        denied_seconds=_seconds(env, "KAPPA_REVIEW_DENIED", defaults.denied_seconds),
    )


def _names(text: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(filter(None, (piece.strip() for piece in text.split(",")))))
    return (ALL,) if ALL in found else found


def _seconds(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 86400:
        raise ValueError(f"{name}={text!r} is not a number of seconds from 0 to 86400")
    return value
