"""Messages of NATS as CloudEvents. Pure.

A message that is a CloudEvent (NATS protocol binding 1.0.2: headers `ce-*`, or the JSON format) stays what it is.
Any other becomes the data of one: JSON where it is JSON, else text, else bytes.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import unquote

from kappa_api.cloudevents import MEDIA_TYPE, CloudEvent, CloudEventError
from kappa_gateway import hops
from kappa_gateway.events import json_text
from kappa_gateway.events.front.binding import checked

Json = Any
_PREFIX: Final = "ce-"
_JSON: Final = "application/json"
_NOT_JSON: Final = (ValueError, RecursionError, json_text.TooManyError)


def cloud_event(headers: Mapping[str, str], data: bytes) -> CloudEvent | None:
    """The event that the message is; None: it is none, or a broken one, such as one with ends of line in attributes,
    which become headers further on."""
    lower = {name.lower(): value for name, value in headers.items()}
    media = lower.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if media == MEDIA_TYPE:
            return hops.farthest(checked(CloudEvent.from_json(json_text.loads(data.decode("utf-8-sig")))), headers)
        if "ce-specversion" not in lower:
            return None
        attributes = {n.removeprefix(_PREFIX): unquote(v) for n, v in lower.items() if n.startswith(_PREFIX)}
        if media:
            attributes["datacontenttype"] = lower["content-type"]
        return hops.farthest(checked(CloudEvent.of(attributes, content(data, media)[0] if data else None)), headers)
    except (CloudEventError, *_NOT_JSON):
        return None


def plain_event(template: CloudEvent, headers: Mapping[str, str], data: bytes) -> CloudEvent:
    """The message as the data of `template`, which has everything else."""
    media = next((value for name, value in headers.items() if name.lower() == "content-type"), "")
    if not media.isprintable():
        media = ""
    value, kind = content(data, media.partition(";")[0].strip().lower())
    return CloudEvent(
        id=template.id,
        source=template.source,
        type=template.type,
        subject=template.subject,
        time=template.time,
        datacontenttype=media or kind,
        data=value,
        extensions={**template.extensions, **hops.of_message(headers)},
    )


def content(data: bytes, media: str = "") -> tuple[Json | bytes, str]:
    """The data as the best that it can be, and its media type."""
    if not media or media == _JSON or media.endswith("+json"):
        try:
            found = json_text.loads(data.decode("utf-8-sig"))
            if not json_text.deep(found):
                return found, _JSON
        except _NOT_JSON:
            pass
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
