"""The answers to what other systems post, and reading what they have posted. Shared by the kinds `webhook` and `s3`."""

import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from kappa_gateway.events import json_text
from kappa_gateway.events.source import Reply

Json = Any
#: A refusal says nothing of what was wrong: who signs well knows, and nobody else should learn.
REFUSED: Final = 401
_DEEP: Final = f"the body is nested more than {json_text.MAX_DEPTH} deep"
_FORM: Final = "application/x-www-form-urlencoded"


class BodyError(ValueError):
    """The body is not what its content type says; the message is for whoever posted it."""


def refused() -> Reply:
    return failed(REFUSED, "unauthorized", "the request does not prove who sent it")


def no_secret(name: str) -> Reply:
    """The Secret is missing or empty: the sender shall try again later, the admin finds the reason in the message."""
    return failed(503, "secret_unavailable", f"the Secret {name} of this Trigger cannot be read or holds nothing")


def failed(status: int, code: str, message: str) -> Reply:
    return Reply(status, json.dumps({"error": {"code": code, "message": message}}).encode())


def media_type(headers: Mapping[str, str]) -> str:
    """The content type without its parameters, in lower case."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def parse_json(body: bytes) -> Json:
    """Strict JSON that can be written again as UTF-8. Raises BodyError and TooManyError."""
    try:
        found = json_text.loads(body.decode())
        if b"\\u" in body:
            json.dumps(found, ensure_ascii=False).encode()  # half a surrogate pair could never be sent on
    except ValueError as error:
        raise BodyError("the body is not valid JSON") from error
    except RecursionError as error:
        raise BodyError(_DEEP) from error
    if json_text.deep(found):
        raise BodyError(_DEEP)
    return found


def parse_form(body: bytes) -> dict[str, str]:
    """A form's fields; of repeated ones the last. Raises BodyError."""
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=1000, errors="strict"))
    except ValueError as error:
        raise BodyError("the body is not a valid form") from error


def content(headers: Mapping[str, str], body: bytes) -> tuple[Json | bytes, str]:
    """The body as an event's data, and its content type: JSON parsed, other text as a string, the rest as bytes.
    Raises BodyError."""
    kind = media_type(headers)
    if not body:
        return None, ""
    if kind == "application/json" or kind.endswith("+json"):
        return parse_json(body), "application/json"
    if kind.startswith("text/") or kind in (_FORM, "application/xml") or kind.endswith("+xml"):
        try:
            return body.decode(), kind
        except UnicodeDecodeError:
            pass
    return body, kind or "application/octet-stream"


def is_form(headers: Mapping[str, str]) -> bool:
    return media_type(headers) == _FORM
