"""What strangers put into attributes and targets becomes no header of an invocation, and can be sent on."""

import json

import pytest

from kappa_api.cloudevents import CloudEvent
from kappa_gateway.events import json_text
from kappa_gateway.events.delivery.target import Target
from kappa_gateway.events.delivery.wire import of_events
from kappa_gateway.events.front.hooks import in_ascii
from kappa_gateway.events.sources.nats_messages import cloud_event, plain_event
from kappa_gateway.events.work import Work

PLAIN = CloudEvent("1", "/s", "t", data="x")
FORGED = "text/plain\r\nkappa-identity-type: jwt"


def test_a_content_type_with_an_end_of_line_is_no_header() -> None:
    event = PLAIN.to_json() | {"datacontenttype": FORGED}
    outgoing = of_events([Work("id", 0, json.dumps(event).encode())], Target("default/f"), 0)
    assert b"kappa-identity" not in outgoing.lines
    assert b"content-type" not in outgoing.lines


def test_a_nats_message_with_such_an_attribute_is_no_cloudevent() -> None:
    message = json.dumps(PLAIN.to_json() | {"datacontenttype": FORGED}).encode()
    assert cloud_event({"Content-Type": "application/cloudevents+json"}, message) is None
    assert cloud_event({"Content-Type": "application/cloudevents+json"}, json.dumps(PLAIN.to_json()).encode()) == PLAIN
    assert cloud_event({"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t%0d%0a"}, b"") is None
    assert plain_event(PLAIN, {"Content-Type": "a/b\x00"}, b"x").datacontenttype == "text/plain"


def test_targets_become_ascii() -> None:
    assert in_ascii("/a%20b?c=%ff&d") == "/a%20b?c=%ff&d"
    assert in_ascii("/é") == "/%C3%A9"
    assert in_ascii(b"/x\xff".decode("utf-8", "surrogateescape")) == "/x%FF"


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "1e999", "-1e999"])
def test_numbers_that_would_be_written_as_no_json(text: str) -> None:
    with pytest.raises(ValueError, match=r"JSON|larger than"):
        json_text.loads(text)


def test_depth() -> None:
    assert not json_text.deep(json.loads("[" * 200 + "1" + "]" * 200))
    assert json_text.deep(json.loads("[" * 202 + "]" * 202))
