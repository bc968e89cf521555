"""What the NATS sources are made of: messages as events, old values, credentials, addresses. No server."""

import base64
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from kappa_api.cloudevents import CloudEvent
from kappa_gateway.events.addresses import checker
from kappa_gateway.events.source import SourceError
from kappa_gateway.events.sources.kv import MOST_BYTES, Before, Memory
from kappa_gateway.events.sources.nats_link import _credentials, _urls
from kappa_gateway.events.sources.nats_messages import cloud_event, content, plain_event


@pytest.mark.parametrize(
    ("data", "media", "expected"),
    [
        (b'{"a": 1}', "", ({"a": 1}, "application/json")),
        (b"text", "", ("text", "text/plain")),
        (b"\xff", "", (b"\xff", "application/octet-stream")),
        (b'{"a": 1}', "application/vnd.x+json", ({"a": 1}, "application/json")),
        (b"{broken", "application/json", (b"{broken", "application/json")),
        (b"17", "text/csv", ("17", "text/csv")),
        (b"17", "image/png", (b"17", "image/png")),
        (b"[" * 100_000, "", ("[" * 100_000, "text/plain")),
    ],
)
def test_content(data: bytes, media: str, expected: Any) -> None:
    assert content(data, media) == expected


def test_binary_and_structured_events() -> None:
    headers = {"Ce-SpecVersion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t", "ce-extra": "a%20b"}
    event = cloud_event(headers | {"Content-Type": "application/json"}, b'{"x": 1}')
    assert event == CloudEvent(
        id="1", source="/s", type="t", datacontenttype="application/json", data={"x": 1}, extensions={"extra": "a b"}
    )
    body = b'{"specversion": "1.0", "id": "2", "source": "/s", "type": "t", "data": [1]}'
    event = cloud_event({"content-type": "application/cloudevents+json; charset=utf-8"}, body)
    assert event == CloudEvent(id="2", source="/s", type="t", data=[1])


@pytest.mark.parametrize(
    ("headers", "data"),
    [
        ({}, b"{}"),
        ({"ce-id": "1"}, b"{}"),
        ({"ce-specversion": "1.0", "ce-id": "1"}, b"{}"),
        ({"content-type": "application/cloudevents+json"}, b"no json"),
        ({"content-type": "application/cloudevents+json"}, b"{}"),
    ],
)
def test_broken_ones_are_messages_like_any_other(headers: dict[str, str], data: bytes) -> None:
    assert cloud_event(headers, data) is None


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=5), st.binary(max_size=50))
def test_any_message_becomes_an_event(headers: dict[str, str], data: bytes) -> None:
    template = CloudEvent(id="i", source="/s", type="t")
    event = cloud_event(headers, data) or plain_event(template, headers, data)
    assert event.id
    assert isinstance(event.to_json(), dict)


def test_memory_forgets_the_oldest_by_size() -> None:
    memory = Memory()
    memory.put("a", b"x" * (MOST_BYTES - 10))
    memory.put("b", b"y")
    assert memory.before("a") == Before(b"x" * (MOST_BYTES - 10))
    memory.put("c", b"z" * 20)
    assert (memory.before("a"), memory.before("b"), memory.before("c")) == (None, Before(b"y"), Before(b"z" * 20))
    memory.put("b", None)
    assert memory.before("b") == Before(None)


def test_a_credentials_file_signs_the_servers_challenge() -> None:
    key = Ed25519PrivateKey.generate()
    raw = bytes([0x90 | 0x05, 0xA0]) + key.private_bytes_raw() + b"cc"
    seed = base64.b32encode(raw).decode().rstrip("=")
    text = (
        "-----BEGIN NATS USER JWT-----\neyJ.abc.def\n------END NATS USER JWT------\n\nIMPORTANT\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
    found = _credentials("s", {"creds": text.encode()})
    assert bytes(found["user_jwt_cb"]()) == b"eyJ.abc.def"
    key.public_key().verify(base64.b64decode(found["signature_cb"]("nonce")), b"nonce")


def test_credentials() -> None:
    assert _credentials("s", {"token": b"t\n"}) == {"token": "t"}
    assert _credentials("s", {"user": b"u", "password": b"p"}) == {"user": "u", "password": "p"}
    assert "tls" in _credentials("s", {"url": b"tls://x"})
    for bad in ({"creds": b"nothing"}, {"ca.crt": b"no certificate"}):
        with pytest.raises(SourceError) as caught:
            _credentials("s", bad)
        assert "no c" in str(caught.value) or "PEM" in str(caught.value)
    with pytest.raises(SourceError, match=r"the Secret s: tls.crt and tls.key go together"):
        _credentials("s", {"tls.crt": b"x"})
    with pytest.raises(SourceError, match="no certificate in PEM form and its key"):
        _credentials("s", {"tls.crt": b"x", "tls.key": b"y"})


@pytest.mark.parametrize("url", ["", "http://x", "nats://", "nats://user:pw@host", "nats://127.0.0.1:4222"])
async def test_urls_that_are_refused_do_not_show_credentials(url: str) -> None:
    given: Any = SimpleNamespace(check_address=checker(loopback=False))
    with pytest.raises(SourceError) as caught:
        await _urls(given, {"url": url.encode()})
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "loopback", "allowed"),
    [
        ("127.0.0.1", False, False),
        ("127.0.0.1", True, True),
        ("[::1]", False, False),
        ("::ffff:127.0.0.1", False, False),
        ("localhost", False, False),
        ("169.254.169.254", True, False),
        ("0.0.0.0", True, False),
        ("10.1.2.3", False, True),
    ],
)
async def test_addresses(host: str, loopback: bool, allowed: bool) -> None:
    check = checker(loopback=loopback)
    if allowed:
        assert await check(host, 1) == (host,)
    else:
        with pytest.raises(SourceError):
            await check(host, 1)
