"""A webhook's CloudEvent as the HTTP API event that handlers know from plain calls (lambda_events.py).

The call itself is over: the gateway has verified and answered it. Of how it was made the extensions tell (`httpmethod`,
`httppath`, `httpquery`, and `httpheaders`: the sender's headers as JSON, without credentials). As headers there are the
attributes of the event, too, as CloudEvents' HTTP binding names them (`ce-type`, `ce-id`). Nothing that the handler
returns reaches the sender.
"""

import base64
import json
import time
from typing import Any

from kappa_runtime.cloudevent import Event
from kappa_runtime.lambda_events import joined_parameters

Json = Any
_CALL = ("httpmethod", "httppath", "httpquery", "httpheaders")


def http_event(event: Event, namespace: str, now: float) -> dict[str, Json]:
    """The event of payload format 2.0. `now`: epoch seconds, of its delivery."""
    body, is_base64 = _body(event.data)
    method, path, query, sent = (event.extensions.get(name, "") for name in _CALL)
    headers = _headers(sent)
    headers |= {f"ce-{n}": value for n, value in event.attributes().items() if n not in ("datacontenttype", *_CALL)}
    content_type = event.datacontenttype or ("" if event.data is None else "application/json")
    if content_type:
        headers["content-type"] = content_type
    path = path or (event.source if event.source.startswith("/") else "/")
    found: dict[str, Json] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": headers,
        "requestContext": {
            "accountId": "kappa",
            "apiId": namespace,
            "authentication": None,
            "domainName": "",
            "domainPrefix": "",
            "http": {
                "method": method or "POST",
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "",
                "userAgent": headers.get("user-agent", ""),
            },
            "requestId": event.id,
            "routeKey": "$default",
            "stage": "$default",
            "time": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now)),
            "timeEpoch": int(now * 1000),
        },
        "isBase64Encoded": is_base64,
    }
    if query:
        found["queryStringParameters"] = joined_parameters(query)
    if event.data is not None:
        found["body"] = body
    return found


def _headers(text: str) -> dict[str, str]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}


def _body(data: Json | bytes) -> tuple[str, bool]:
    if isinstance(data, bytes):
        return base64.b64encode(data).decode(), True
    if isinstance(data, str):
        return data, False
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")), False
