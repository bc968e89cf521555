"""Bearer tokens between the platform's own processes, derived from one platform secret so that nobody stores them."""

import hashlib
import hmac


def pod_token(secret: bytes, namespace: str, pod: str) -> str:
    """The token that the runtime in this pod accepts: hex HMAC-SHA256 (RFC 2104) over `pod/<namespace>/<name>`."""
    return _derive(secret, f"pod/{namespace}/{pod}")


def internal_token(secret: bytes) -> str:
    """The token between gateways and operator (`/v1/demand`, `/v1/stats`)."""
    return _derive(secret, "internal")


def accepts(expected: str, authorization: str) -> bool:
    """Whether an `Authorization` header carries the expected bearer token (RFC 6750), compared in constant time."""
    scheme, _, token = authorization.partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(expected.encode(), token.strip().encode())


def _derive(secret: bytes, purpose: str) -> str:
    return hmac.new(secret, purpose.encode(), hashlib.sha256).hexdigest()
