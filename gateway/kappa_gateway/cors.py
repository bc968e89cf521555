"""Cross-origin requests of web pages (Fetch standard, section 3.2): what `spec.http.cors` makes the gateway answer.

A function with `cors` leaves it all to the gateway: preflights are answered here, without an instance and before any
authentication (browsers send no credentials with them), and what the function itself says of CORS is dropped. Without
`cors` nothing is added and nothing taken away.
"""

from functools import lru_cache
from typing import Final

from kappa_api.callers import Cors
from kappa_gateway.errors import GatewayError
from kappa_gateway.request import Request

PREFIX: Final = b"access-control-"
_VARY: Final = b"vary: Origin\r\n"
_VARY_PREFLIGHT: Final = b"vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers\r\n"
_ALLOW_ANY: Final = b"access-control-allow-origin: *\r\n"


def reply_lines(cors: Cors, origin: bytes) -> bytes:
    """Header lines for a reply; never empty. An origin that is not allowed gets none that allow anything."""
    return _reply_lines(cors, origin if len(origin) <= 300 else b"")


@lru_cache(maxsize=4096)
def _reply_lines(cors: Cors, origin: bytes) -> bytes:
    everyone = "*" in cors.allow_origins
    if not everyone and not (origin and allows(cors, origin.decode("latin-1"))):
        return _VARY
    lines = _ALLOW_ANY if everyone else b"access-control-allow-origin: %b\r\n%b" % (origin, _VARY)
    if cors.allow_credentials:
        lines += b"access-control-allow-credentials: true\r\n"
    if cors.expose_headers:
        lines += f"access-control-expose-headers: {', '.join(cors.expose_headers)}\r\n".encode()
    return lines


def preflight_lines(cors: Cors, request: Request) -> bytes:
    """Header lines of the answer to a preflight. Raises GatewayError naming what is not allowed."""
    origin = request.origin.decode("latin-1")
    if not allows(cors, origin):
        raise GatewayError("cors_refused", "this origin may not call the function (spec.http.cors.allowOrigins)")
    method = request.preflight
    # GET, HEAD and POST need no permission, but pages ask for them when a header needs one
    if "*" not in cors.allow_methods and method not in cors.allow_methods:
        raise GatewayError("cors_refused", f"{method[:20]} is not among spec.http.cors.allowMethods")
    wanted = [name for item in request.wanted_headers.decode("latin-1").lower().split(",") if (name := item.strip())]
    allowed = {name.lower() for name in cors.allow_headers}
    # `*` never stands for Authorization (Fetch standard, section 3.2.4), so that it must be allowed by name
    refused = [name for name in wanted if name not in allowed and ("*" not in allowed or name == "authorization")]
    if refused:
        raise GatewayError("cors_refused", f"{refused[0][:80]} is not among spec.http.cors.allowHeaders")
    lines = _ALLOW_ANY if "*" in cors.allow_origins else b"access-control-allow-origin: %b\r\n" % request.origin
    if cors.allow_credentials:
        lines += b"access-control-allow-credentials: true\r\n"
    methods = method if "*" in cors.allow_methods else ", ".join(cors.allow_methods)
    lines += f"access-control-allow-methods: {methods}\r\naccess-control-max-age: {cors.max_age_seconds}\r\n".encode()
    if wanted:
        lines += f"access-control-allow-headers: {', '.join(wanted)}\r\n".encode()
    return lines + _VARY_PREFLIGHT


def allows(cors: Cors, origin: str) -> bool:
    """Whether pages of this origin may. `null`, which any sandboxed page has, is allowed by `*` alone."""
    if "*" in cors.allow_origins or origin in cors.allow_origins:
        return True
    scheme, found, host = origin.partition("://")
    if not found or "/" in host:
        return False
    for pattern in cors.allow_origins:
        wanted, _, tail = pattern.partition("://*")
        if tail and scheme == wanted and host.endswith(tail) and len(host) > len(tail):
            return True
    return False
