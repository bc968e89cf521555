"""Answers of the platform's own paths, written at once: nothing here is long."""

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from kappa_api import names

if TYPE_CHECKING:
    from kappa_gateway.app import Gateway
    from kappa_gateway.call import Call

JSON_TYPE: Final = "application/json"
_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}


def answer(
    gateway: "Gateway", call: "Call", status: int, body: bytes, *, content_type: str = JSON_TYPE, lines: str = ""
) -> bool:
    """Sends it; `lines`: further header lines. Returns whether the connection may be kept."""
    request = call.request
    # A caller that waits for 100 Continue, and had another answer, may never send the body
    keep = request.keep and not gateway.closing and call.body.whole and not request.continues
    call.status = status
    request_id = call.request_id.decode("latin-1")
    head = f"HTTP/1.1 {status} {_PHRASES.get(status, '')}\r\n{names.HEADER_REQUEST_ID}: {request_id}\r\n"
    if status != HTTPStatus.NO_CONTENT:
        head += f"content-length: {len(body)}\r\n"
    if body:
        head += f"content-type: {content_type}\r\n"
    end = b"\r\n" if keep else b"connection: close\r\n\r\n"
    shown = b"" if request.method == "HEAD" else body
    call.client.send(b"%b%b%b%b%b" % (head.encode("latin-1"), lines.encode("latin-1"), call.cors, end, shown))
    return keep


def answer_json(gateway: "Gateway", call: "Call", status: int, value: Any, *, lines: str = "") -> bool:
    """The same with a JSON value."""
    return answer(gateway, call, status, json.dumps(value).encode(), lines=lines)
