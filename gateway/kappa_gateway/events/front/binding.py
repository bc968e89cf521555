"""CloudEvents out of an HTTP request: the receiving side of the HTTP protocol binding 1.0.2 (CNCF). Pure.

Three modes, told apart by the content type: binary (attributes are `ce-` headers, the body is the data), structured
(the body is the event in the JSON format) and batched (a JSON list of those).
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from kappa_api.cloudevents import CloudEvent, CloudEventError
from kappa_gateway.events import json_text

Json = Any
PREFIX: Final = "ce-"
MAX_EVENTS: Final = 1000
#: Section "Type System" of the specification: what a string must not hold.
_NOT_TEXT: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_TIME: Final = re.compile(
    r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt]([01][0-9]|2[0-3])(:[0-5][0-9]){2}"
    r"(\.[0-9]{1,9})?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
)


class MediaTypeError(ValueError):
    """A format of CloudEvents that is not read here: 415."""


def headers_of(lines: Iterable[bytes]) -> dict[str, str]:
    """Header lines in wire form as a mapping: names in lower case, repeated ones joined with commas."""
    found: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.decode("latin-1").partition(":")
        if colon:
            key, text = name.lower(), value.strip()
            found[key] = f"{found[key]}, {text}" if key in found else text
    return found


def parse(headers: Mapping[str, str], body: bytes) -> tuple[CloudEvent, ...]:
    """The events of one request. Raises CloudEventError, which names the event of a batch, MediaTypeError
    and TooManyError."""
    content_type = headers.get("content-type", "")
    media = content_type.partition(";")[0].strip().lower()
    if media.startswith("application/cloudevents"):
        _check_charset(content_type)
        if media == "application/cloudevents+json":
            return (_event(_json(body, "the body")),)
        if media == "application/cloudevents-batch+json":
            return _batch(_json(body, "the body"))
        raise MediaTypeError(f"{media[:80]} is not read here: send the JSON format")
    return (_binary(headers, content_type, media, body),)


def _batch(found: Json) -> tuple[CloudEvent, ...]:
    if not isinstance(found, list):
        raise CloudEventError("a batch must be a JSON list of events")
    if len(found) > MAX_EVENTS:
        raise CloudEventError(f"a batch has at most {MAX_EVENTS} events, not {len(found)}")
    events = []
    for index, item in enumerate(found):
        try:
            events.append(_event(item))
        except CloudEventError as error:
            raise CloudEventError(f"event {index}: {error}") from error
    return tuple(events)


def _binary(headers: Mapping[str, str], content_type: str, media: str, body: bytes) -> CloudEvent:
    attributes = {
        name[len(PREFIX) :]: decoded(name, value) for name, value in headers.items() if name.startswith(PREFIX)
    }
    if "specversion" not in attributes:
        raise CloudEventError(
            "no CloudEvent: neither a ce-specversion header nor a content type application/cloudevents+json"
        )
    if "datacontenttype" in attributes:
        raise CloudEventError("ce-datacontenttype: in this mode Content-Type says it")
    if content_type:
        attributes["datacontenttype"] = content_type
    if "data" in attributes:
        raise CloudEventError("ce-data: is no attribute")
    return checked(CloudEvent.of(attributes, _data(media, content_type, body)))


def _event(value: Json) -> CloudEvent:
    return checked(CloudEvent.from_json(value))


def checked(event: CloudEvent) -> CloudEvent:
    """What every later reader of the event may rely on. Raises CloudEventError."""
    for name, value in event.attributes().items():
        if _NOT_TEXT.search(value):
            raise CloudEventError(f"{name}: holds control characters, or what is no character")
    if event.time and not _TIME.fullmatch(event.time):
        raise CloudEventError("time: must be as in 2024-05-17T09:30:00Z (RFC 3339)")
    if json_text.deep(event.data):
        raise CloudEventError(f"data: is nested more than {json_text.MAX_DEPTH} deep")
    return event


def _data(media: str, content_type: str, body: bytes) -> Json | bytes:
    """JSON becomes its value and text a string, so that filters see into them; all else stays bytes."""
    if not body:
        return None
    if media.endswith("+json") or media in ("application/json", "text/json"):
        return _json(body, "data")
    if media.startswith("text/") and _charset(content_type) in ("", "utf-8", "us-ascii"):
        try:
            return body.decode()
        except UnicodeDecodeError:
            return body
    return body


def _json(body: bytes, what: str) -> Json:
    try:
        return json_text.loads(body.decode("utf-8-sig"))
    except ValueError as error:
        raise CloudEventError(f"{what}: not JSON in UTF-8") from error
    except RecursionError as error:
        raise CloudEventError(f"{what}: is nested more than {json_text.MAX_DEPTH} deep") from error


def _charset(content_type: str) -> str:
    for parameter in content_type.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip('"').lower()
    return ""


def _check_charset(content_type: str) -> None:
    if _charset(content_type) not in ("", "utf-8", "us-ascii"):
        raise MediaTypeError("CloudEvents in JSON are read in UTF-8 only")


def decoded(name: str, value: str) -> str:
    """A header's value (section 3.1.3.2): out of its quotes if it is quoted, then percent-decoded, once, as UTF-8."""
    text = value
    if len(text) >= 2 and text[0] == text[-1] == '"':
        text, plain = "", iter(text[1:-1])
        for character in plain:
            text += next(plain, "") if character == "\\" else character
    try:
        return unquote_to_bytes(text.encode("latin-1")).decode()
    except UnicodeDecodeError as error:
        raise CloudEventError(f"{name[:43]}: not UTF-8 after percent-decoding") from error
