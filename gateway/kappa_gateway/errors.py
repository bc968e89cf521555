"""What a caller sees when the gateway, not the function, says no: one table of codes, and their JSON form.

`GatewayError` is the only exception the request chain raises on purpose; anything else is a bug and becomes `internal`.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
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
    "unauthorized": Kind(401),
    "forbidden": Kind(403),
    "cors_refused": Kind(403),
    "not_found": Kind(404),
    "method_not_allowed": Kind(405),
    "request_timeout": Kind(408),
    "conflict": Kind(409),
    "body_too_large": Kind(413),
    "url_too_long": Kind(414),
    "unsupported_media_type": Kind(415),
    "expectation_failed": Kind(417),
    "key_reused": Kind(422),
    "queue_full": Kind(429, retry_after=1),
    "rate_limited": Kind(429, retry_after=1),
    "headers_too_large": Kind(431),
    "internal": Kind(500),
    "events_off": Kind(501),
    "instance_died": Kind(502),
    "bad_response": Kind(502),
    "no_capacity": Kind(503, retry_after=1),
    "not_ready": Kind(503, retry_after=5),
    "auth_unavailable": Kind(503, retry_after=5),
    "overloaded": Kind(503, retry_after=1),
    "events_away": Kind(503, retry_after=2),
    "too_many_connections": Kind(503, retry_after=1),
    "shutting_down": Kind(503, retry_after=1),
    "deadline": Kind(504),
    "http_version": Kind(505),
    "loop_detected": Kind(508),
}


class GatewayError(Exception):
    """An answer of the gateway. `code` is a key of KINDS; `close`: the connection cannot be used after it.

    `retry_after`: seconds, instead of those of the code. `lines`: more header lines in wire form.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        close: bool = False,
        allow: str = "",
        retry_after: int = 0,
        lines: bytes = b"",
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.close, self.allow = code, message, close, allow
        self.retry_after, self.lines = retry_after, lines

    @property
    def status(self) -> int:
        return KINDS[self.code].status


def render(
    failure: GatewayError, request_id: bytes, *, keep: bool, head_only: bool = False, extra: bytes = b""
) -> bytes:
    """The whole HTTP/1.1 reply. `keep`: the connection stays open; `head_only`: the request was HEAD; `extra`: more
    header lines in wire form."""
    before, middle, after, opening, closing = _parts(
        failure.code, failure.message, failure.retry_after, failure.allow, failure.lines
    )
    body = b"" if head_only else b"%b%b%b" % (opening, request_id, closing)
    length = len(opening) + len(request_id) + len(closing)
    end = b"\r\n" if keep else b"connection: close\r\n\r\n"
    return b"%b%d%b%b%b%b%b%b" % (before, length, middle, request_id, after, extra, end, body)


@lru_cache(maxsize=256)
def _parts(code: str, message: str, retry_after: int, allow: str, lines: bytes) -> tuple[bytes, ...]:
    """All of a reply but its length and the request's id: what is refused a thousand times a second is the same each
    time, and writing it down is half of what a refusal costs."""
    kind = KINDS[code]
    before = f"HTTP/1.1 {kind.status} {HTTPStatus(kind.status).phrase}\r\ncontent-type: application/json\r\n"
    middle = f"\r\n{names.HEADER_ERROR_SOURCE}: {names.SOURCE_GATEWAY}\r\n{names.HEADER_REQUEST_ID}: "
    after = "\r\n"
    if seconds := retry_after or kind.retry_after:
        after += f"retry-after: {seconds}\r\n"
    if allow:
        after += f"allow: {allow}\r\n"
    body = json.dumps({"error": {"code": code, "message": message, "requestId": ""}})
    return (
        f"{before}content-length: ".encode(),
        middle.encode(),
        after.encode() + lines,
        body[:-3].encode(),
        body[-3:].encode(),
    )
