"""What an event handler returns, as an HTTP reply: AWS Lambda's rules for payload format 2.0.

A dict with `statusCode` is a reply: `{statusCode, headers, body, cookies, isBase64Encoded}`. Anything else that JSON
can hold is sent as JSON with status 200; bytes as they are. A value that is neither raises ReplyError, which names
the field: a function that returns garbage gets an error that says what is wrong with it, and its caller a 500.

Beyond Lambda: header values may be lists (one header each), a body may be bytes or any JSON value.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any

from kappa_api.names import HEADER_PREFIX
from kappa_runtime.exchange import Headers

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_PREFIX = HEADER_PREFIX.encode()
#: Headers of one connection, or computed here: dropped from what a function sets (RFC 9110, 7.6.1).
HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade")
)
JSON_TYPE = (b"content-type", b"application/json")
TEXT_TYPE = (b"content-type", b"text/plain; charset=utf-8")
BINARY_TYPE = (b"content-type", b"application/octet-stream")

Reply = tuple[int, Headers, bytes]


class ReplyError(Exception):
    """The handler returned something that is not a reply."""


def make_reply(value: Any, max_bytes: int) -> Reply:
    """Status, clean headers and body for a handler's result. Raises ReplyError."""
    if isinstance(value, Mapping) and "statusCode" in value:
        reply = _full_reply(value)
    elif isinstance(value, bytes | bytearray | memoryview):
        reply = 200, [BINARY_TYPE], bytes(value)
    else:
        reply = 200, [JSON_TYPE], to_json(value, "the result")
    if len(reply[2]) > max_bytes:
        raise ReplyError(f"the reply has {len(reply[2])} bytes; at most {max_bytes} are allowed")
    return reply


def make_data_reply(value: Any, max_bytes: int) -> Reply:
    """The same where nobody has made an HTTP call: the result is data, whatever its keys are called."""
    if isinstance(value, bytes | bytearray | memoryview):
        return make_reply(value, max_bytes)
    body = to_json(value, "the result")
    if len(body) > max_bytes:
        raise ReplyError(f"the result has {len(body)} bytes; at most {max_bytes} are allowed")
    return 200, [JSON_TYPE], body


def to_json(value: Any, what: str) -> bytes:
    """Compact JSON (RFC 8259) in UTF-8. Raises ReplyError where `value` has no such form."""
    try:
        return _encode(value).encode()
    except TypeError as error:
        raise ReplyError(
            f"{what} cannot be written as JSON: {error}; convert it to str, int, float, list or dict"
        ) from error
    except UnicodeEncodeError as error:
        raise ReplyError(f"{what} has text that is not valid Unicode: {error}") from error
    except (ValueError, RecursionError) as error:
        raise ReplyError(f"{what} cannot be written as JSON: {error}") from error


def clean_headers(pairs: Headers) -> Headers:
    """Checked and lower-case headers without hop-by-hop and platform ones. Raises ReplyError."""
    found: Headers = []
    for name, value in pairs:
        if not _NAME.fullmatch(name):
            raise ReplyError(f"headers: {name[:80]!r} is not a header name")
        if _BAD_VALUE.search(value):
            raise ReplyError(f"headers[{name.decode()}]: a value may not have line breaks or control characters")
        name = name.lower()
        if name not in HOP_BY_HOP and not name.startswith(_PREFIX):
            found.append((name, value))
    return found


def _full_reply(value: Mapping[str, Any]) -> Reply:
    status = _status(value["statusCode"])
    pairs: Headers = []
    headers = value.get("headers")
    if headers is not None:
        if not isinstance(headers, Mapping):
            raise ReplyError(f"headers must be a dict, not {_kind(headers)}")
        for name, given in headers.items():
            if not isinstance(name, str):
                raise ReplyError(f"headers: {name!r} is not a header name")
            for item in given if isinstance(given, list | tuple) else (given,):
                pairs.append((name.encode("utf-8", "replace"), _header_value(item, f"headers[{name}]")))
    cookies = value.get("cookies")
    if cookies is not None:
        if not isinstance(cookies, list | tuple):
            raise ReplyError(f"cookies must be a list of strings, not {_kind(cookies)}")
        pairs += [(b"set-cookie", _header_value(cookie, f"cookies[{i}]")) for i, cookie in enumerate(cookies)]
    found = [header for header in clean_headers(pairs) if header[0] != b"content-length"]
    body, default_type = _body(value.get("body"), value.get("isBase64Encoded"))
    if body and not any(name == b"content-type" for name, _ in found):
        found.append(default_type)
    return status, found, body


def _status(value: Any) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ReplyError(f"statusCode must be a number, not {_kind(value)}")
    if not 200 <= value <= 599:
        raise ReplyError(f"statusCode {value} is out of range: must be from 200 to 599")
    return int(value)


def _header_value(value: Any, where: str) -> bytes:
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if not isinstance(value, str | int | float):
        raise ReplyError(f"{where} must be a string, not {_kind(value)}")
    try:
        return str(value).encode()
    except UnicodeEncodeError as error:
        raise ReplyError(f"{where} has text that is not valid Unicode: {error}") from error


def _body(value: Any, is_base64: Any) -> tuple[bytes, tuple[bytes, bytes]]:
    if not isinstance(is_base64, bool | None):
        raise ReplyError(f"isBase64Encoded must be true or false, not {_kind(is_base64)}")
    if value is None:
        return b"", TEXT_TYPE
    if is_base64:
        if not isinstance(value, str | bytes):
            raise ReplyError(f"body must be a base64 string when isBase64Encoded is true, not {_kind(value)}")
        try:
            return base64.b64decode(value, validate=True), BINARY_TYPE
        except (binascii.Error, ValueError) as error:
            raise ReplyError(f"body is not base64, but isBase64Encoded is true: {error}") from error
    if isinstance(value, str):
        try:
            return value.encode(), TEXT_TYPE
        except UnicodeEncodeError as error:
            raise ReplyError(f"body has text that is not valid Unicode: {error}") from error
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value), BINARY_TYPE
    return to_json(value, "body"), JSON_TYPE


def _kind(value: Any) -> str:
    return "None" if value is None else type(value).__name__
