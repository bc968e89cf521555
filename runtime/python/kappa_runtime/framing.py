"""Which requests are refused although they parse.

Strictness is llhttp's (no leniency flag is set), plus what llhttp leaves open: a missing or second `Host`, any
Transfer-Encoding but `chunked`, one in HTTP/1.0, CONNECT, fragments, and every target that is not a path. Whatever is
not right is answered with 400 and the connection is closed, because the next byte could be anything.
"""

from kappa_runtime.exchange import Request


class BadRequestError(Exception):
    """The request cannot be served; the connection closes after the reply."""

    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, message
        super().__init__(message)


def check(request: Request, max_head_bytes: int) -> None:
    """Reads the framing headers into the request. Raises BadRequestError for what llhttp lets pass and we do not."""
    if request.version not in ("1.1", "1.0"):
        raise BadRequestError(400, f"HTTP/{request.version} is not supported")
    hosts = 0
    size = len(request.target)
    for name, value in request.headers:
        size += len(name) + len(value) + 4
        if name == b"host":
            hosts += 1
        elif name == b"transfer-encoding":
            if request.version != "1.1":
                raise BadRequestError(400, "Transfer-Encoding needs HTTP/1.1")
            if request.chunked or value.strip().lower() != b"chunked":
                raise BadRequestError(400, "Transfer-Encoding can only be chunked")
            request.chunked = True
        elif name == b"content-length":
            if request.length or not value.isdigit():
                raise BadRequestError(400, "Content-Length must be one number")
            request.length = int(value)
        elif name == b"expect" and value.lower() == b"100-continue":
            request.expects = True
    if size > max_head_bytes:
        raise BadRequestError(431, f"the header section is larger than {max_head_bytes} bytes")
    if request.length and request.chunked:
        raise BadRequestError(400, "Content-Length and Transfer-Encoding exclude each other")
    if hosts != 1 and (hosts or request.version == "1.1"):
        raise BadRequestError(400, "exactly one Host header is needed")
    if request.method == "CONNECT" or not request.target.startswith(b"/") or b"#" in request.target:
        raise BadRequestError(400, "the request target must be a path")
