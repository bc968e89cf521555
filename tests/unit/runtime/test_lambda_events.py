"""Requests as events of payload format 2.0. (The integration tests compare a whole event.)"""

import base64
import json

import pytest

from kappa_runtime.context import Context, FunctionInfo
from kappa_runtime.exchange import Request
from kappa_runtime.lambda_events import joined_parameters, make_event, target_text

FUNCTION = FunctionInfo("default", "hello", "rev1")


def event(target=b"/", headers=(), body=b"", method="GET"):
    request = Request()
    request.method, request.target, request.headers = method, target, list(headers)
    return make_event(request, body, FUNCTION, "r1", 1_000_000_000.5)


def test_what_has_no_content_is_left_out():
    found = event()
    assert not {"cookies", "queryStringParameters", "pathParameters", "body"} & set(found)
    assert found["isBase64Encoded"] is False
    assert found["requestContext"]["time"] == "09/Sep/2001:01:46:40 +0000"
    assert found["requestContext"]["timeEpoch"] == 1_000_000_000_500


def test_repeated_headers_are_joined_and_cookies_are_a_list():
    found = event(
        headers=[(b"x", b"1"), (b"cookie", b"a=1;b=2 "), (b"x", b"2"), (b"cookie", b"c=3"), (b"kappa-x", b"no")]
    )
    assert (found["headers"], found["cookies"]) == ({"x": "1,2"}, ["a=1", "b=2", "c=3"])


@pytest.mark.parametrize(("value", "text"), [("é".encode(), "é"), (b"\xe9", "é")])
def test_header_values_are_utf_8_or_else_latin_1(value, text):
    assert event(headers=[(b"x", value)])["headers"] == {"x": text}


@pytest.mark.parametrize(
    ("kind", "body", "is_base64"),
    [
        (b"text/plain", b"x", False),
        (b"TEXT/HTML; charset=utf-8", "é".encode(), False),
        (b"text/plain", b"\xff", True),
        (b"application/json", b"{}", False),
        (b"application/vnd.api+json", b"{}", False),
        (b"image/svg+xml", b"<svg/>", False),
        (b"application/x-www-form-urlencoded", b"a=b", False),
        (b"application/octet-stream", b"x", True),
        (b"image/png", b"x", True),
        (b"", b"x", True),
    ],
)
def test_bodies(kind, body, is_base64):
    found = event(headers=[(b"content-type", kind)], body=body)
    expected = base64.b64encode(body).decode() if is_base64 else body.decode()
    assert (found["isBase64Encoded"], found["body"]) == (is_base64, expected)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("a=1&a=2", {"a": "1,2"}),
        ("a", {"a": ""}),
        ("a=%2C&b=+", {"a": ",", "b": " "}),
        ("a=%FF", {"a": "\ufffd"}),
        ("&&", {}),
    ],
)
def test_query_parameters(query, found):
    assert joined_parameters(query) == found


@pytest.mark.parametrize(("target", "text"), [(b"/a%20b", "/a%20b"), (b"/\xc3\xa9?x", "/%C3%A9?x")])
def test_targets_stay_encoded(target, text):
    assert target_text(target) == text


def test_the_contexts_repr_tells_which_call_it_is():
    assert repr(Context(FUNCTION, "r1", 5)) == "<Context kappa:default/hello request_id=r1 deadline_ms=5>"
    assert Context(FUNCTION, "r1", 5).get_remaining_time_in_millis() == 0


def test_the_caller_whom_the_gateway_verified():
    authorizer = {"jwt": {"claims": {"sub": "é"}, "scopes": None}}
    data = base64.urlsafe_b64encode(json.dumps(authorizer).encode())
    found = event(headers=[(b"kappa-identity-data", data), (b"kappa-identity-principal", b"x"), (b"a", b"b")])
    assert found["requestContext"]["authorizer"] == authorizer
    assert found["headers"] == {"a": "b"}


@pytest.mark.parametrize("data", [b"", b"!", b"e30", b"Zm9v", b"/w=="])
def test_without_a_caller_there_is_no_authorizer(data):
    headers = [(b"kappa-identity-data", data)] if data else []
    assert "authorizer" not in event(headers=headers)["requestContext"]
