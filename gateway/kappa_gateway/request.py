"""A parsed request as the gateway needs it: checked, with the header lines for the instance already in wire form.

aiohttp's parser (llhttp, strict) refuses most malformed requests. `read` refuses the rest: what two servers could frame
or route differently (RFC 9112 section 11.2, request smuggling). The request is framed anew towards the instance.
"""

import re
from typing import Final

from aiohttp.http import HttpVersion10, HttpVersion11, RawRequestMessage

from kappa_gateway import hops
from kappa_gateway.errors import GatewayError
from kappa_gateway.headers import CONNECTION_OPTIONS, MEMO_SIZE, PLAIN_CONNECTION, Field, listed, request_memo
from kappa_gateway.settings import Limits

_FIELDS: Final = request_memo()
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_HOST: Final = re.compile(rb"(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9._~-]{1,255})(:[0-9]{0,5})?")
_PREFERENCE: Final = re.compile(rb'(?:[^,"]|"(?:[^"\\]|\\.)*")+')
_SECONDS: Final = re.compile(rb"[0-9]{1,6}")
_AUTHORITY_FORM: Final = re.compile(r"https?://([^/?#]*)([^#]*)", re.IGNORECASE)

#: Host values that were found good: callers use few, and a pattern costs more than a look.
_known_hosts: set[bytes] = set()


class Request:
    """`target`: origin-form, raw (percent-encoding and query kept). `lines`: header lines to pass on, with their CRLF.

    `credentials`: (kind, value, its line among `lines`) of each Authorization and x-api-key. `origin`: of a web page.
    `preflight`: the method that a page asks leave for (an OPTIONS request with Access-Control-Request-Method), with
    `wanted_headers`. `later`: the caller prefers to be told that the call was accepted, and no more (RFC 7240); `wait`:
    for how many seconds he would wait, 0 where he does not say. `pod`: who says to send an event. `hops`: see `hops`.
    `host`: as sent; `length`: Content-Length, or -1; `request_id`: the caller's, or empty; `forwarded_*`: only where
    such fields are trusted.
    """

    __slots__ = (
        "continues",
        "credentials",
        "forwarded_for",
        "forwarded_host",
        "hops",
        "host",
        "keep",
        "later",
        "length",
        "lines",
        "method",
        "origin",
        "pod",
        "preflight",
        "request_id",
        "target",
        "v10",
        "wait",
        "wanted_headers",
        "websocket",
    )

    def __init__(self) -> None:
        self.method = self.target = ""
        self.host = self.request_id = self.origin = self.wanted_headers = self.pod = b""
        self.credentials: tuple[tuple[Field, bytes, bytes], ...] = ()
        self.preflight = ""
        self.lines: list[bytes] = []
        self.length = -1
        self.hops = 0
        self.wait = 0.0
        self.continues = self.websocket = self.v10 = self.forwarded_host = self.later = False
        self.forwarded_for: list[bytes] = []
        self.keep = True

    @property
    def host_name(self) -> str:
        """The host without its port, lower case."""
        name = self.host.decode("latin-1").lower()
        return name.rpartition(":")[0] if ":" in name and not name.endswith("]") else name


#: Stands in for a request that could not be read.
UNREAD: Final = Request()
UNREAD.keep = False


def read(message: RawRequestMessage, limits: Limits, *, trust_forwarded: bool) -> Request:
    """Checks a message and takes from it what passes. Raises GatewayError."""
    request = Request()
    request.method = message.method
    request.target = message.path
    if message.version is not HttpVersion11:
        if message.version != HttpVersion10:
            raise GatewayError("http_version", "speak HTTP/1.1", close=True)
        request.v10 = True
    request.keep = not message.should_close and not request.v10
    lines, size, encoded = request.lines, 0, False
    connection = upgrade = b""
    for name, value in message.raw_headers:
        size += len(name) + len(value) + 4
        kind = _FIELDS[name]
        if not kind:
            lines.append(b"%b: %b\r\n" % (name, value))
        elif kind is Field.HOST:
            request.host = value
            lines.append(b"host: %b\r\n" % value)
        elif kind is Field.CONTENT_LENGTH:
            if not value.isdigit():
                raise GatewayError("bad_request", "Content-Length is not a number", close=True)
            request.length = int(value)
        elif kind is Field.CONNECTION:
            if value in PLAIN_CONNECTION:  # the parser's `should_close` knows it already
                continue
            connection = connection + b"," + value if connection else value
        elif kind is Field.TRANSFER_ENCODING:
            encoded = True
            if value.lower() != b"chunked":
                raise GatewayError("bad_request", "the only Transfer-Encoding is chunked", close=True)
        elif kind is Field.EXPECT:
            if value.lower() != b"100-continue":
                raise GatewayError("expectation_failed", "the only expectation is 100-continue", close=True)
            request.continues = not request.v10
        elif kind is Field.REQUEST_ID:
            if _REQUEST_ID.fullmatch(value):
                request.request_id = value
        elif kind is Field.UPGRADE:
            upgrade = value
        elif kind >= Field.AUTHORIZATION:
            lines.append(_noted(request, kind, name, value))
        elif trust_forwarded:
            if kind is Field.FORWARDED_FOR:
                request.forwarded_for.append(value)
            elif kind is not Field.DROP:
                lines.append(b"%b: %b\r\n" % (name, value))
                request.forwarded_host |= kind is Field.FORWARDED_HOST
    if size > limits.head_bytes:
        raise GatewayError("headers_too_large", f"the headers are longer than {limits.head_bytes} bytes", close=True)
    if encoded and (request.length >= 0 or request.v10):
        raise GatewayError("bad_request", "Transfer-Encoding with Content-Length or in HTTP/1.0", close=True)
    if request.host not in _known_hosts:
        _check_host(request)
    if connection:
        _apply_connection(request, connection, upgrade)
    if request.websocket and encoded:
        raise GatewayError("bad_request", "a WebSocket begins without a body", close=True)
    if upgrade:
        request.keep = False  # where the upgrade is not taken, the parser is not sure what follows
    if request.method == "CONNECT":  # with any target: what follows it is a tunnel to some servers, a body to others
        raise GatewayError(
            "method_not_allowed", "this is not a proxy", close=True, allow="GET, HEAD, POST, PUT, DELETE"
        )
    if not request.target.startswith("/"):
        _normalise_target(request)
    elif "#" in request.target:
        raise GatewayError("bad_request", "a request has no fragment", close=True)
    return request


def _noted(request: Request, kind: Field, name: bytes, value: bytes) -> bytes:
    """A field that passes, and that the gateway looks at as well. Returns its line."""
    line = b"%b: %b\r\n" % (name, value)
    if kind is Field.ORIGIN:
        request.origin = value
    elif kind is Field.WANTED_METHOD:
        if request.method == "OPTIONS":
            request.preflight = value.decode("latin-1")
    elif kind is Field.WANTED_HEADERS:
        request.wanted_headers += b"," + value if request.wanted_headers else value
    elif kind is Field.PREFER:
        return _preferred(request, name, value)
    elif kind is Field.POD:
        request.pod = value
        return b""  # as all that is the platform's
    elif kind is Field.HOPS:
        request.hops = max(request.hops, hops.read(value))
        return b""  # what the instance gets is another number
    else:
        request.credentials += ((kind, value, line),)
    return line


def _preferred(request: Request, name: bytes, value: bytes) -> bytes:
    """Looks for what the gateway knows in a Prefer field. Returns the line without what the gateway does itself."""
    left = []
    for preference in _PREFERENCE.findall(value):
        token, _, given = preference.partition(b";")[0].partition(b"=")
        token = token.strip().lower()
        if token == b"respond-async":
            request.later = True
            continue
        if token == b"wait" and _SECONDS.fullmatch(number := given.strip().strip(b'"')):
            request.wait = float(number)
        left.append(preference.strip())
    return b"%b: %b\r\n" % (name, b", ".join(left)) if left else b""


def _check_host(request: Request) -> None:
    if not _HOST.fullmatch(request.host):
        if request.host or not request.v10:
            raise GatewayError("bad_request", "the Host header is not a host name", close=True)
        return
    if len(_known_hosts) >= MEMO_SIZE:
        _known_hosts.clear()
    _known_hosts.add(request.host)


def _apply_connection(request: Request, connection: bytes, upgrade: bytes) -> None:
    options = listed(connection)
    unwanted = options - CONNECTION_OPTIONS
    if unwanted:
        request.lines = [line for line in request.lines if line.split(b":", 1)[0].lower() not in unwanted]
        if b"host" in unwanted:
            raise GatewayError("bad_request", "Connection names a field that must arrive", close=True)
    if b"upgrade" in options and upgrade.lower() == b"websocket":
        if request.method != "GET" or request.v10 or request.length > 0:
            raise GatewayError("bad_request", "a WebSocket begins with a GET in HTTP/1.1", close=True)
        request.websocket = True
        request.later = False  # a connection cannot be had later


def _normalise_target(request: Request) -> None:
    """The other forms of a request's target (RFC 9112 section 3.2)."""
    form = _AUTHORITY_FORM.fullmatch(request.target)
    if form is None:
        raise GatewayError("not_found", "the target is not a path")
    authority = form[1].encode("latin-1", "replace")
    if not _HOST.fullmatch(authority):
        raise GatewayError("bad_request", "the target's authority is not a host name", close=True)
    # RFC 9112 section 3.2.2: the authority of the target replaces Host
    request.lines = [line for line in request.lines if not line.startswith(b"host: ")]
    request.lines.insert(0, b"host: %b\r\n" % authority)
    request.host = authority
    request.target = form[2] if form[2].startswith("/") else "/" + form[2]
