"""What an ASGI app is told about a request (the connection scope), and reading what it sends back.

`root_path` is what the gateway cut off (`x-forwarded-prefix`). `path` includes it: so the ASGI specification has it,
and so Starlette, Django and uvicorn read it. `scope["kappa.context"]` is the Context that event handlers get, and
`scope["kappa.authorizer"]` their `requestContext.authorizer` (None where everybody may call); the headers
`kappa-identity-*` say the same to what only sees headers.
"""

from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from kappa_api.names import HEADER_IDENTITY_DATA, HEADER_IDENTITY_PREFIX, HEADER_PREFIX
from kappa_runtime.exchange import Headers, Request
from kappa_runtime.function import Function
from kappa_runtime.invoke import Call
from kappa_runtime.lambda_events import read_authorizer
from kappa_runtime.replies import ReplyError

Message = dict[str, Any]

SPEC_VERSION = "2.4"
_PREFIX = HEADER_PREFIX.encode()
_IDENTITY = HEADER_IDENTITY_PREFIX.encode()
_IDENTITY_DATA = HEADER_IDENTITY_DATA.encode()


def make_scope(kind: str, request: Request, function: Function, call: Call) -> Message:
    """The connection scope of an HTTP request or a WebSocket, without what is particular to either."""
    raw_path, _, query = request.target.partition(b"?")
    headers = [
        header for header in request.headers if not header[0].startswith(_PREFIX) or header[0].startswith(_IDENTITY)
    ]
    prefix = request.header(b"x-forwarded-prefix").rstrip("/")
    secure = request.header(b"x-forwarded-proto") in ("https", "wss")
    client = request.header(b"x-forwarded-for").partition(",")[0].strip()
    host, _, port = request.header(b"host").rpartition(":")
    return {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": SPEC_VERSION},
        "http_version": request.version,
        "scheme": ("https" if secure else "http") if kind == "http" else ("wss" if secure else "ws"),
        "path": unquote(prefix) + unquote_to_bytes(raw_path).decode("utf-8", "replace"),
        "raw_path": prefix.encode("latin-1") + raw_path,
        "query_string": query,
        "root_path": unquote(prefix),
        "headers": headers,
        "client": (client, 0) if client else None,
        "server": (host, int(port)) if host and port.isdigit() else (request.header(b"host"), 443 if secure else 80),
        "extensions": {},
        "state": dict(function.lifespan.state) if function.lifespan else {},
        "kappa.context": call.context(function.info),
        "kappa.authorizer": read_authorizer(request.header(_IDENTITY_DATA)),
    }


def header_pairs(message: Message) -> Headers:
    """The headers of an ASGI message, as pairs of bytes. Raises ReplyError."""
    pairs = []
    for pair in message.get("headers") or ():
        try:
            name, value = pair
            pairs.append((bytes(name), bytes(value)))
        except (TypeError, ValueError) as error:
            raise ReplyError(f"headers: {pair!r} is not a pair of bytes") from error
    return pairs
