"""Messages of NATS as CloudEvents. Pure.

A message that is a CloudEvent (NATS protocol binding 1.0.2: headers `ce-*`, or the JSON format) stays what it is.
Any other becomes the data of one: JSON where it is JSON, else text, else bytes.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import unquote

from kappa_api.cloudevents import MEDIA_TYPE, CloudEvent, CloudEventError

Json = Any
_PREFIX: Final = "ce-"
_JSON: Final = "application/json"


def cloud_event(headers: Mapping[str, str], data: bytes) -> CloudEvent | None:
    """The event that the message is; None: it is none, or a broken one."""
    lower = {name.lower(): value for name, value in headers.items()}
    media = lower.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if media == MEDIA_TYPE:
            return CloudEvent.from_json(json.loads(data))
        if "ce-specversion" not in lower:
            return None
        attributes = {n.removeprefix(_PREFIX): unquote(v) for n, v in lower.items() if n.startswith(_PREFIX)}
        if media:
            attributes["datacontenttype"] = lower["content-type"]
        return CloudEvent.of(attributes, content(data, media)[0] if data else None)
    except (CloudEventError, ValueError, RecursionError):
        return None


def plain_event(template: CloudEvent, headers: Mapping[str, str], data: bytes) -> CloudEvent:
    """The message as the data of `template`, which has everything else."""
    media = next((value for name, value in headers.items() if name.lower() == "content-type"), "")
    value, kind = content(data, media.partition(";")[0].strip().lower())
    return CloudEvent(
        id=template.id,
        source=template.source,
        type=template.type,
        subject=template.subject,
        time=template.time,
        datacontenttype=media or kind,
        data=value,
        extensions=template.extensions,
    )


def content(data: bytes, media: str = "") -> tuple[Json | bytes, str]:
    """The data as the best that it can be, and its media type."""
    if not media or media == _JSON or media.endswith("+json"):
        try:
            return json.loads(data), _JSON
        except (ValueError, RecursionError):
            if media:
                return data, media
    if not media or media.startswith("text/"):
        try:
            return data.decode(), media or "text/plain"
        except UnicodeDecodeError:
            pass
    return data, media or "application/octet-stream"


def rfc3339(epoch: float) -> str:
    """With milliseconds, in UTC."""
    return datetime.fromtimestamp(epoch, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
