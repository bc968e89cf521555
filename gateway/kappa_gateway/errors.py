"""What a caller sees when the gateway, not the function, says no: one table of codes, and their JSON form.

`GatewayError` is the only exception the request chain raises on purpose; anything else is a bug and becomes `internal`.
"""

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from kappa_api import names


@dataclass(frozen=True, slots=True)
class Kind:
    """One row of the table: the status, and seconds for `Retry-After` (0: none)."""

    status: int
    retry_after: int = 0


KINDS: Final[dict[str, Kind]] = {
    "bad_request": Kind(400),
    "not_found": Kind(404),
    "method_not_allowed": Kind(405),
    "request_timeout": Kind(408),
    "body_too_large": Kind(413),
    "url_too_long": Kind(414),
    "expectation_failed": Kind(417),
    "queue_full": Kind(429, retry_after=1),
    "headers_too_large": Kind(431),
    "internal": Kind(500),
    "instance_died": Kind(502),
    "bad_response": Kind(502),
    "no_capacity": Kind(503, retry_after=1),
    "not_ready": Kind(503, retry_after=5),
    "shutting_down": Kind(503, retry_after=1),
    "deadline": Kind(504),
    "http_version": Kind(505),
}


class GatewayError(Exception):
    """An answer of the gateway. `code` is a key of KINDS; `close`: the connection cannot be used after it."""

    def __init__(self, code: str, message: str, *, close: bool = False, allow: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.close, self.allow = code, message, close, allow

    @property
    def status(self) -> int:
        return KINDS[self.code].status


def render(failure: GatewayError, request_id: bytes, *, keep: bool, head_only: bool = False) -> bytes:
    """The whole HTTP/1.1 reply. `keep`: the connection stays open; `head_only`: the request was HEAD."""
    kind = KINDS[failure.code]
    body = json.dumps(
        {"error": {"code": failure.code, "message": failure.message, "requestId": request_id.decode("latin-1")}}
    ).encode()
    lines = [
        f"HTTP/1.1 {kind.status} {HTTPStatus(kind.status).phrase}".encode(),
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        f"{names.HEADER_ERROR_SOURCE}: {names.SOURCE_GATEWAY}".encode(),
        names.HEADER_REQUEST_ID.encode() + b": " + request_id,
    ]
    if kind.retry_after:
        lines.append(b"retry-after: %d" % kind.retry_after)
    if failure.allow:
        lines.append(b"allow: " + failure.allow.encode())
    if not keep:
        lines.append(b"connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n" + (b"" if head_only else body)
