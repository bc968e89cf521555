"""CloudEvents out of HTTP requests: the modes of the HTTP binding, its encoding of headers, and what is refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kappa_api.cloudevents import CloudEvent, CloudEventError
from kappa_gateway.events.front.binding import MAX_EVENTS, MediaTypeError, headers_of, parse

CE = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t"}
PLAIN = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
STRUCTURED = {"content-type": "application/cloudevents+json; charset=UTF-8"}
BATCHED = {"content-type": "application/cloudevents-batch+json"}
EVENT = CloudEvent("1", "/s", "t")


def one(headers: dict[str, str], body: bytes = b"") -> CloudEvent:
    (found,) = parse(headers, body)
    return found


def nested(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


@pytest.mark.parametrize(
    ("headers", "body", "content_type", "data"),
    [
        ({}, b"", "", None),
        ({}, b"raw", "", b"raw"),
        ({"content-type": "application/json"}, b'{"a": [1]}', "application/json", {"a": [1]}),
        ({"content-type": "application/vnd.x+json; v=1"}, b"7", "application/vnd.x+json; v=1", 7),
        ({"content-type": "text/plain"}, "é".encode(), "text/plain", "é"),
        ({"content-type": "text/plain; charset=latin-1"}, b"\xe9", "text/plain; charset=latin-1", b"\xe9"),
        ({"content-type": "text/plain"}, b"\xe9", "text/plain", b"\xe9"),
        ({"content-type": "image/png"}, b"\x89", "image/png", b"\x89"),
    ],
)
def test_binary_mode(headers: dict[str, str], body: bytes, content_type: str, data: Any) -> None:
    assert one(CE | headers, body) == CloudEvent("1", "/s", "t", datacontenttype=content_type, data=data)


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ("plain", "plain"),
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),  # the example of section 3.1.3.2
        ('"quoted \\"text\\" \\\\"', 'quoted "text" \\'),
        ("%2525", "%25"),  # decoded once
        ("100%", "100%"),
        ('"', '"'),
    ],
)
def test_header_values_are_decoded(sent: str, meant: str) -> None:
    assert one(CE | {"ce-subject": sent}).subject == meant


def test_extensions_in_both_modes() -> None:
    event = CloudEvent("1", "/s", "t", time="2024-05-17T09:30:00.5+02:00", extensions={"tenant": "a", "n": "7"})
    sent = CE | {"ce-time": "2024-05-17T09:30:00.5+02:00", "ce-tenant": "a", "ce-n": "7"}
    assert one(sent) == event
    value = PLAIN | {"time": "2024-05-17T09:30:00.5+02:00", "tenant": "a", "n": 7}
    assert one(STRUCTURED, json.dumps(value).encode()) == event


def test_deep_data() -> None:
    assert one(STRUCTURED, json.dumps(PLAIN | {"data": nested(200)}).encode()).data == nested(200)


def test_structured_mode_wins_over_headers() -> None:
    assert one(CE | {"ce-id": "other"} | STRUCTURED, json.dumps(PLAIN).encode()) == EVENT


def test_a_batch() -> None:
    assert parse(BATCHED, json.dumps([PLAIN, PLAIN | {"id": "2"}]).encode()) == (EVENT, CloudEvent("2", "/s", "t"))
    assert parse(BATCHED, b"[]") == ()


@pytest.mark.parametrize(
    ("headers", "body", "says"),
    [
        ({}, b"{}", "no CloudEvent"),
        ({"content-type": "application/json"}, b"{}", "no CloudEvent"),
        (CE | {"ce-specversion": "0.3"}, b"", "specversion"),
        (CE | {"ce-id": ""}, b"", "id: is required"),
        (CE | {"ce-id": "%ff"}, b"", "ce-id: not UTF-8"),
        (CE | {"ce-id": "a%00"}, b"", "id: holds control characters"),
        (CE | {"ce-time": "yesterday"}, b"", "time: must be"),
        (CE | {"ce-time": "2024-13-01T00:00:00Z"}, b"", "time: must be"),
        (CE | {"ce-data": "x"}, b"", "ce-data"),
        (CE | {"ce-datacontenttype": "x"}, b"", "Content-Type says it"),
        (CE | {"ce-no_name": "x"}, b"", "attribute names"),
        (CE | {"content-type": "application/json"}, b"{", "data: not JSON"),
        (CE | {"content-type": "application/json"}, b"NaN", "data: not JSON"),
        (CE | {"content-type": "application/json"}, b"[" * 100_000, "data: is nested more than 200 deep"),
        (CE | {"content-type": "application/json"}, b"[" * 202 + b"]" * 202, "nested more than 200 deep"),
        (STRUCTURED, json.dumps(PLAIN | {"data": nested(201)}).encode(), "nested more than 200 deep"),
        (STRUCTURED, b"\xff", "the body: not JSON"),
        (STRUCTURED, b"[]", "must be a JSON object"),
        (STRUCTURED, json.dumps(PLAIN | {"data": 1, "data_base64": ""}).encode(), "only one of them"),
        (STRUCTURED, json.dumps(PLAIN | {"data_base64": "?"}).encode(), "not base64"),
        (STRUCTURED, json.dumps(PLAIN | {"id": "\ud800"}).encode(), "what is no character"),
        (STRUCTURED, json.dumps(PLAIN | {"x": {}}).encode(), "x: must be a string"),
        (BATCHED, b"{}", "must be a JSON list"),
        (BATCHED, json.dumps([PLAIN, {**PLAIN, "type": ""}]).encode(), "event 1: type: is required"),
        (BATCHED, json.dumps([PLAIN] * (MAX_EVENTS + 1)).encode(), f"at most {MAX_EVENTS}"),
    ],
)
def test_what_is_refused_says_why(headers: dict[str, str], body: bytes, says: str) -> None:
    with pytest.raises(CloudEventError, match=says):
        parse(headers, body)


@pytest.mark.parametrize(
    "content_type",
    [
        "application/cloudevents+avro",
        "application/cloudevents-batch+xml",
        "application/cloudevents+json; charset=utf-16",
    ],
)
def test_other_formats(content_type: str) -> None:
    with pytest.raises(MediaTypeError):
        parse({"content-type": content_type}, b"")


def test_headers_of_lines() -> None:
    lines = [b"X-A: 1\r\n", b"", b"x-a:  2 \r\n", b"Empty:\r\n"]
    assert headers_of(lines) == {"x-a": "1, 2", "empty": ""}


TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF, exclude_categories=("Cc", "Cs")), min_size=1)


@given(TEXT, TEXT, st.dictionaries(st.from_regex(r"x[a-z0-9]{0,9}", fullmatch=True), TEXT, max_size=3))
def test_what_is_encoded_as_the_binding_says_comes_back(id_: str, subject: str, extensions: dict[str, str]) -> None:
    event = CloudEvent(id_, "/s", "t", subject=subject, data={"a": [None, "é"]}, extensions=extensions)
    assert one(STRUCTURED, json.dumps(event.to_json()).encode()) == event
    headers = {f"ce-{name}": _encoded(value) for name, value in event.attributes().items()}
    body = json.dumps(event.data).encode()
    assert one(headers | {"content-type": "application/json"}, body).extensions == extensions
    assert one(headers, b"").subject == subject


def _encoded(value: str) -> str:
    """Section 3.1.3.2: space, double quote, percent and what is not printable ASCII are percent-encoded."""
    return "".join(
        c if "!" <= c <= "~" and c not in '"%' else "".join(f"%{byte:02X}" for byte in c.encode()) for c in value
    )
