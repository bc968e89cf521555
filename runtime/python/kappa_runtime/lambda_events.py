"""HTTP requests as the event that AWS Lambda handlers know: payload format version 2.0.

The shape is that of Lambda function URLs and of API Gateway's HTTP API. As there: header names are lower case,
repeated headers and query parameters are joined with commas, `Cookie` becomes the list `cookies`, keys without
content are left out, and a body is base64 unless its content type says text. Source: "Working with AWS Lambda proxy
integrations for HTTP APIs" in the API Gateway developer guide.
"""

import base64
import json
import time
from typing import Any
from urllib.parse import parse_qsl, quote_from_bytes

from kappa_api.names import HEADER_IDENTITY_DATA, HEADER_PATH_PARAMETERS, HEADER_PREFIX, HEADER_ROUTE
from kappa_runtime.context import FunctionInfo
from kappa_runtime.exchange import Request

_PREFIX = HEADER_PREFIX.encode()
_ROUTE = HEADER_ROUTE
_PARAMETERS = HEADER_PATH_PARAMETERS
_TEXT_TYPES = (
    "application/json",
    "application/xml",
    "application/javascript",
    "application/x-www-form-urlencoded",
    "application/graphql",
)
_URL_SAFE = bytes(range(0x21, 0x7F)).decode()


def make_event(request: Request, body: bytes, function: FunctionInfo, request_id: str, now: float) -> dict[str, Any]:
    """The event for one request. `now` is the arrival time in epoch seconds."""
    headers, cookies, platform = _headers(request)
    raw_path, _, raw_query = target_text(request.target).partition("?")
    template = platform.get(_ROUTE, "")
    route_key = f"{request.method} {template}" if template else "$default"
    host = headers.get("x-forwarded-host") or headers.get("host", "")
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": route_key,
        "rawPath": raw_path,
        "rawQueryString": raw_query,
        "headers": headers,
        "requestContext": {
            "accountId": "kappa",
            "apiId": function.key,
            "authentication": None,
            "domainName": host,
            "domainPrefix": host.partition(".")[0],
            "http": {
                "method": request.method,
                "path": raw_path,
                "protocol": f"HTTP/{request.version}",
                "sourceIp": headers.get("x-forwarded-for", "").partition(",")[0].strip(),
                "userAgent": headers.get("user-agent", ""),
            },
            "requestId": request_id,
            "routeKey": route_key,
            "stage": "$default",
            "time": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now)),
            "timeEpoch": int(now * 1000),
        },
        "isBase64Encoded": False,
    }
    if (authorizer := read_authorizer(platform.get(HEADER_IDENTITY_DATA, ""))) is not None:
        event["requestContext"]["authorizer"] = authorizer
    if cookies:
        event["cookies"] = cookies
    if raw_query:
        event["queryStringParameters"] = joined_parameters(raw_query)
    if platform.get(_PARAMETERS):
        event["pathParameters"] = dict(parse_qsl(platform[_PARAMETERS], keep_blank_values=True))
    if body:
        text = _text(headers.get("content-type", ""), body)
        event["isBase64Encoded"] = text is None
        event["body"] = base64.b64encode(body).decode() if text is None else text
    return event


def read_authorizer(data: str) -> Any:
    """The caller that the gateway verified, as API Gateway tells of it, or None where everybody may call. Only the
    gateway can send it: it drops what callers send under the platform's prefix."""
    if not data:
        return None
    try:
        return json.loads(base64.urlsafe_b64decode(data))
    except ValueError:
        return None


def target_text(target: bytes) -> str:
    """The request target as text: bytes that may not be in one are percent-encoded, nothing is decoded."""
    try:
        return target.decode("ascii")
    except UnicodeDecodeError:
        return quote_from_bytes(target, safe=_URL_SAFE)


def joined_parameters(query: str) -> dict[str, str]:
    """Query parameters, decoded; the values of a repeated one joined with commas."""
    found: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        found[name] = f"{found[name]},{value}" if name in found else value
    return found


def _headers(request: Request) -> tuple[dict[str, str], list[str], dict[str, str]]:
    """The caller's headers, the cookies, and the headers that the platform added for itself."""
    headers: dict[str, str] = {}
    cookies: list[str] = []
    platform: dict[str, str] = {}
    for raw_name, raw_value in request.headers:
        name = raw_name.decode("latin-1")
        try:
            value = raw_value.decode()
        except UnicodeDecodeError:
            value = raw_value.decode("latin-1")
        if raw_name.startswith(_PREFIX):
            platform[name] = value
        elif name == "cookie":
            cookies += [cookie for part in value.split(";") if (cookie := part.strip())]
        elif name in headers:
            headers[name] += "," + value
        else:
            headers[name] = value
    return headers, cookies, platform


def _text(content_type: str, body: bytes) -> str | None:
    """The body as text, or None when its type does not say text or its bytes are not UTF-8."""
    kind = content_type.partition(";")[0].strip().lower()
    if not (kind.startswith("text/") or kind in _TEXT_TYPES or kind.endswith(("+json", "+xml"))):
        return None
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None
