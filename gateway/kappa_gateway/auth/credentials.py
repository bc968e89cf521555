"""Which credential a request carries, and taking it out of what the function sees.

`Authorization: Bearer` (RFC 6750) and `x-api-key`. A request with two of one kind is refused: two servers could choose
differently.
"""

from typing import Final

from kappa_gateway.errors import GatewayError
from kappa_gateway.headers import Field
from kappa_gateway.request import Request

#: Longer is no token: header fields are limited as well, but that limit can be raised.
MAX_BYTES: Final = 32 * 1024


def bearer(request: Request) -> bytes:
    """The bearer token, or nothing. Raises GatewayError for two Authorization fields."""
    value = _only(request, Field.AUTHORIZATION, "Authorization")
    if value[:7].lower() != b"bearer ":
        return b""
    token = value[7:].strip()
    return token if len(token) <= MAX_BYTES else b""


def api_key(request: Request) -> bytes:
    """The content of `x-api-key`, or nothing. Raises GatewayError for two of them."""
    return _only(request, Field.API_KEY, "x-api-key").strip()


def withhold(request: Request, field: Field) -> None:
    """The function does not see this field."""
    for kind, _, line in request.credentials:
        if kind is field and line in request.lines:  # a Connection field can have removed it already
            request.lines.remove(line)


def _only(request: Request, field: Field, name: str) -> bytes:
    found = b""
    for kind, value, _ in request.credentials:
        if kind is field:
            if found:
                raise GatewayError("bad_request", f"more than one {name} header")
            found = value
    return found
