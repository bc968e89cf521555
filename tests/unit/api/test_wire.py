"""The messages between processes: there and back, and refused when they are not what was agreed. And the tokens."""

import hashlib
import hmac
import json
from typing import Any

import pytest

from kappa_api import tokens
from kappa_api.wire import ByteCode, Demand, FunctionStats, Health, LoadError, Specialize, Stats, WireError

MESSAGES: list[Any] = [
    Specialize("shop", "hello", "abc", "main.handler", "event", {"main.py": b"\0\xff", "a/b": b""}),
    Specialize("s", "h", "r", "m.h", "asgi", {}, {"A": "1"}, 5, 9, 256),
    Specialize("s", "h", "r", "m.h", "asgi", {}, {}, 5, 9, 256, True, ByteCode("py-1", {"a/b.py": b"\0\xff"})),
    ByteCode("py-1", {}),
    LoadError("ImportError", "no module"),
    LoadError("SyntaxError", "bad", "Traceback ...", "main.py", 3),
    Health("empty"),
    Health("serving", "shop/hello", "abc", 3),
    Demand("gw-1", {}),
    Demand("gw-1", {"shop/hello": (3, 1)}),
    Stats("gw-1", "e", 1.5),
    Stats("gw-1", "e", 1.5, {"shop/hello": FunctionStats(1, 2, 3, 4, 5.5, 6.5, 7, 8)}, {"shop/pod": 2}),
    Stats("gw-1", "e", 1.5, {"shop/hello": FunctionStats(arrivals=9, moments=2)}),
    Stats("gw-1", "e", 9.5, {}, {}, {}),
    Stats("gw-1", "e", 9.5, {}, {}, {"shop/pod": 3}, 8.5),
    Stats("gw-1", "e", 9.5, {}, {}, {}, hung=("shop/pod", "shop/pod2")),
]


@pytest.mark.parametrize("message", MESSAGES, ids=repr)
def test_there_and_back(message: Any) -> None:
    assert type(message).from_json(json.loads(json.dumps(message.to_json()))) == message


@pytest.mark.parametrize("kind", [Specialize, ByteCode, LoadError, Health, Demand, Stats])
@pytest.mark.parametrize(
    "junk", [None, 3, "x", [], {}, {"files": 3, "functions": 3, "function": 3, "gateway": "g"}], ids=repr
)
def test_junk_is_refused(kind: Any, junk: Any) -> None:
    with pytest.raises(WireError):
        kind.from_json(junk)


def test_specialize_refuses_files_that_are_not_base64() -> None:
    message = MESSAGES[0].to_json() | {"files": {"main.py": "*"}}
    with pytest.raises(WireError):
        Specialize.from_json(message)


def test_byte_code_is_only_on_the_wire_when_there_is_some() -> None:
    assert {"wantByteCode", "byteCode"}.isdisjoint(MESSAGES[0].to_json())
    with pytest.raises(WireError):
        Specialize.from_json(MESSAGES[0].to_json() | {"byteCode": {"tag": "t", "files": {"main.py": "*"}}})


def test_tokens_differ_by_everything() -> None:
    found = {
        tokens.pod_token(b"s", "a", "b"),
        tokens.pod_token(b"t", "a", "b"),
        tokens.pod_token(b"s", "a", "c"),
        tokens.pod_token(b"s", "c", "b"),
        tokens.internal_token(b"s"),
        tokens.internal_token(b"t"),
    }
    assert len(found) == 6
    assert all(len(token) == 64 for token in found)


def test_token_is_the_documented_hmac() -> None:
    expected = hmac.new(b"secret", b"pod/shop/hello-1", hashlib.sha256).hexdigest()
    assert tokens.pod_token(b"secret", "shop", "hello-1") == expected


@pytest.mark.parametrize(
    ("header", "good"),
    [
        ("Bearer abc", True),
        ("bearer abc", True),
        ("BEARER  abc ", True),
        ("Bearer abd", False),
        ("Bearer ", False),
        ("Basic abc", False),
        ("abc", False),
        ("", False),
        ("Bearer äbc", False),
    ],
)
def test_bearer(header: str, good: bool) -> None:
    assert tokens.accepts("abc", header) is good
