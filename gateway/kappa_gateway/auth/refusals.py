"""How a caller is turned away: 401 with a challenge (RFC 9110 section 11.6.1, RFC 6750 section 3), 403, or 503.

A message says which check failed, never what was sent nor what would have passed.
"""

from kappa_gateway.errors import GatewayError


def missing(key: str, what: str, who: str = "this function") -> GatewayError:
    """No credential: a challenge without an error code, as RFC 6750 section 3.1 wants it. `who` wants it."""
    return GatewayError("unauthorized", f"{who} wants {what}", lines=_line(f'Bearer realm="{key}"'))


def invalid(key: str, why: str) -> GatewayError:
    """A credential that does not open."""
    return GatewayError("unauthorized", why, lines=_challenge(key, "invalid_token", why))


def forbidden(key: str, why: str) -> GatewayError:
    """The caller is known and may not."""
    return GatewayError("forbidden", why, lines=_challenge(key, "insufficient_scope", why))


def unavailable(why: str) -> GatewayError:
    """Nobody can be checked now, so nobody gets in."""
    return GatewayError("auth_unavailable", why)


def _challenge(key: str, error: str, why: str) -> bytes:
    # error_description: printable ASCII without quote and backslash (RFC 6750 section 3)
    text = "".join(c if " " <= c <= "~" and c not in '"\\' else "'" for c in why)
    return _line(f'Bearer realm="{key}", error="{error}", error_description="{text}"')


def _line(challenge: str) -> bytes:
    return f"www-authenticate: {challenge}\r\n".encode("ascii", "replace")
