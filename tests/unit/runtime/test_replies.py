"""What handlers return, as replies."""

import datetime
import decimal
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kappa_runtime.replies import ReplyError, clean_headers, make_reply

LIMIT = 1 << 20
JSON = (b"content-type", b"application/json")
TEXT = (b"content-type", b"text/plain; charset=utf-8")
BINARY = (b"content-type", b"application/octet-stream")


@pytest.mark.parametrize(
    ("value", "reply"),
    [
        (None, (200, [JSON], b"null")),
        ("text", (200, [JSON], b'"text"')),
        ("é", (200, [JSON], '"é"'.encode())),
        (True, (200, [JSON], b"true")),
        (1.5, (200, [JSON], b"1.5")),
        ([1, "a"], (200, [JSON], b'[1,"a"]')),
        ({"hello": "world"}, (200, [JSON], b'{"hello":"world"}')),
        ({"body": "no statusCode"}, (200, [JSON], b'{"body":"no statusCode"}')),
        (b"\x00\xff", (200, [BINARY], b"\x00\xff")),
        (bytearray(b"x"), (200, [BINARY], b"x")),
        ({"statusCode": 204}, (204, [], b"")),
        ({"statusCode": "404", "body": "no"}, (404, [TEXT], b"no")),
        ({"statusCode": 200, "body": {"a": [1]}}, (200, [JSON], b'{"a":[1]}')),
        ({"statusCode": 200, "body": b"\xff"}, (200, [BINARY], b"\xff")),
        ({"statusCode": 200, "body": "AP8=", "isBase64Encoded": True}, (200, [BINARY], b"\x00\xff")),
        ({"statusCode": 200, "body": "x", "isBase64Encoded": False}, (200, [TEXT], b"x")),
        ({"statusCode": 200, "headers": {"Content-Type": "text/html"}, "body": "<p>"}, (200, [(b"content-type", b"text/html")], b"<p>")),  # noqa: E501
        ({"statusCode": 200, "headers": {"A": 1, "B": True, "C": ["x", 2]}}, (200, [(b"a", b"1"), (b"b", b"true"), (b"c", b"x"), (b"c", b"2")], b"")),  # noqa: E501
        ({"statusCode": 200, "cookies": ["a=1", "b=2"]}, (200, [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")], b"")),  # noqa: E501
        ({"statusCode": 200, "headers": {"Connection": "close", "kappa-refused": "busy", "Content-Length": "9", "Upgrade": "x"}}, (200, [], b"")),  # noqa: E501
        ({"statusCode": 200, "headers": None, "cookies": None, "body": None, "isBase64Encoded": None}, (200, [], b"")),
    ],
)  # fmt: skip
def test_replies(value, reply):
    assert make_reply(value, LIMIT) == reply


LOOP: list[object] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (object(), "the result cannot be written as JSON: Object of type object"),
        (datetime.datetime(2026, 1, 1), "datetime"),
        (decimal.Decimal(1), "Decimal"),
        ({1, 2}, "set"),
        (float("nan"), "Out of range float"),
        (LOOP, "Circular"),
        ("\ud800", "not valid Unicode"),
        ({(1, 2): 3}, "keys must be"),
        ("x" * (LIMIT + 1), "at most 1048576"),
        ({"statusCode": 600}, "statusCode 600 is out of range"),
        ({"statusCode": 100}, "statusCode 100 is out of range"),
        ({"statusCode": None}, "statusCode must be a number, not None"),
        ({"statusCode": True}, "statusCode must be a number, not bool"),
        ({"statusCode": "2x"}, "statusCode must be a number, not str"),
        ({"statusCode": 200.0}, "statusCode must be a number, not float"),
        ({"statusCode": 200, "headers": [("a", "b")]}, "headers must be a dict, not list"),
        ({"statusCode": 200, "headers": {1: "b"}}, "1 is not a header name"),
        ({"statusCode": 200, "headers": {"a b": "c"}}, "is not a header name"),
        ({"statusCode": 200, "headers": {"": "c"}}, "is not a header name"),
        ({"statusCode": 200, "headers": {"é": "c"}}, "is not a header name"),
        ({"statusCode": 200, "headers": {"a": "b\r\nc: d"}}, "headers[a]: a value may not have line breaks"),
        ({"statusCode": 200, "headers": {"a": "b\nc"}}, "headers[a]"),
        ({"statusCode": 200, "headers": {"a": "\0"}}, "headers[a]"),
        ({"statusCode": 200, "headers": {"a": None}}, "headers[a] must be a string, not None"),
        ({"statusCode": 200, "headers": {"a": ["b", {}]}}, "headers[a] must be a string, not dict"),
        ({"statusCode": 200, "cookies": "a=1"}, "cookies must be a list of strings, not str"),
        ({"statusCode": 200, "cookies": [1, None]}, "cookies[1] must be a string, not None"),
        ({"statusCode": 200, "cookies": ["a\r\nb"]}, "headers[set-cookie]"),
        ({"statusCode": 200, "body": "%%%", "isBase64Encoded": True}, "body is not base64"),
        ({"statusCode": 200, "body": {}, "isBase64Encoded": True}, "body must be a base64 string"),
        ({"statusCode": 200, "body": "x", "isBase64Encoded": "yes"}, "isBase64Encoded must be true or false, not str"),
        ({"statusCode": 200, "body": object()}, "body cannot be written as JSON"),
        ({"statusCode": 200, "body": "\udc80"}, "body has text that is not valid Unicode"),
    ],
)
def test_what_is_no_reply_says_why(value, text):
    with pytest.raises(ReplyError) as caught:
        make_reply(value, LIMIT)
    assert text in str(caught.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.text() | st.integers() | st.floats(),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
    )
)
def test_any_json_value_is_a_reply_or_a_reply_error(value):
    try:
        status, headers, body = make_reply(value, LIMIT)
    except ReplyError:
        return
    assert 200 <= status <= 599
    assert isinstance(json.loads(body or b"null"), object)
    clean_headers(headers)


@given(
    st.dictionaries(
        st.sampled_from(["statusCode", "headers", "body", "cookies", "isBase64Encoded"]),
        st.none() | st.text() | st.integers() | st.lists(st.text()) | st.dictionaries(st.text(), st.text()),
    )
)
def test_garbage_is_a_reply_or_a_reply_error(value):
    value["statusCode"] = value.get("statusCode", 200)
    try:
        _, headers, _ = make_reply(value, LIMIT)
    except ReplyError:
        return
    for name, content in headers:
        assert b"\n" not in name + content
        assert b"\r" not in name + content
