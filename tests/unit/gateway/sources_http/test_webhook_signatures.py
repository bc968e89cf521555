"""Who may post: each preset with right, wrong, old and missing signatures.

GitHub's, Slack's and Standard Webhooks' rows with `published` in their names are the examples of their documentation;
the others are signed here, by code of the test's own.
"""

import base64
import hashlib
import hmac
from dataclasses import replace
from typing import Any

import pytest

from kappa_api.sources.webhook import Webhook
from kappa_gateway.events.source import Inbound
from kappa_gateway.events.sources.webhook_signatures import opens, proven, secrets_of

NOW = 1_700_000_000.0
KEY = b"current"
BODY = b'{"hello": "world"}'


def hexed(key: bytes, signed: bytes, algorithm: str = "sha256") -> str:
    return hmac.new(key, signed, getattr(hashlib, algorithm)).hexdigest()


def request(headers: dict[str, str], body: bytes = BODY, now: float = NOW) -> Inbound:
    return Inbound("POST", "", "", headers, body, now)


def stripe(*signatures: str, moment: float = NOW) -> dict[str, str]:
    return {"stripe-signature": ",".join([f"t={moment:.0f}", *(f"v1={one}" for one in signatures)])}


def slack(signature: str, moment: float = NOW) -> dict[str, str]:
    return {"x-slack-signature": f"v0={signature}", "x-slack-request-timestamp": f"{moment:.0f}"}


def standard(signature: str, moment: float = NOW, name: str = "msg_1") -> dict[str, str]:
    return {"webhook-id": name, "webhook-timestamp": f"{moment:.0f}", "webhook-signature": signature}


def at(moment: float, prefix: str = "", separator: str = ".") -> bytes:
    return f"{prefix}{moment:.0f}{separator}".encode() + BODY


def signed64(key: bytes, signed: bytes) -> str:
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


GITHUB = Webhook("github", "s")
STRIPE = Webhook("stripe", "s")
SLACK = Webhook("slack", "s")
STANDARD = Webhook("standard", "s")
PLAIN = Webhook("hmac", "s", header="x-sig")
FULL = replace(PLAIN, algorithm="sha512", encoding="base64", prefix="v1=")
TIMED = replace(PLAIN, timestamp_header="x-time", separator=":", tolerance_seconds=60)
TOKEN = Webhook("token", "s", header="x-gitlab-token")
OTHER = hexed(b"another", BODY)
OLD = NOW - 301
SVIX = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")

#: spec, request, whether it is right. The Secret holds `previous` and `current`.
ROWS: list[tuple[str, Webhook, Inbound, bool]] = [
    ("github", GITHUB, request({"x-hub-signature-256": "sha256=" + hexed(KEY, BODY)}), True),
    ("github, the former secret", GITHUB, request({"x-hub-signature-256": "sha256=" + hexed(b"previous", BODY)}), True),
    ("github, another secret", GITHUB, request({"x-hub-signature-256": "sha256=" + OTHER}), False),
    ("github, another body", GITHUB, request({"x-hub-signature-256": "sha256=" + hexed(KEY, BODY)}, b"{}"), False),
    ("github, none", GITHUB, request({}), False),
    ("github, empty", GITHUB, request({"x-hub-signature-256": "sha256="}), False),
    ("github, sha1 only", GITHUB, request({"x-hub-signature": "sha1=" + hexed(KEY, BODY, "sha1")}), False),
    ("github, not ASCII", GITHUB, request({"x-hub-signature-256": "sha256=\xe9\u20ac"}), False),
    ("stripe", STRIPE, request(stripe(hexed(KEY, at(NOW)))), True),
    ("stripe, several", STRIPE, request(stripe(OTHER, hexed(KEY, at(NOW)))), True),
    ("stripe, old", STRIPE, request(stripe(hexed(KEY, at(OLD)), moment=OLD)), False),
    ("stripe, from the future", STRIPE, request(stripe(hexed(KEY, at(NOW + 301)), moment=NOW + 301)), False),
    ("stripe, its time changed", STRIPE, request(stripe(hexed(KEY, at(OLD)))), False),
    ("stripe, only v0", STRIPE, request({"stripe-signature": f"t={NOW:.0f},v0={hexed(KEY, at(NOW))}"}), False),
    ("stripe, no time", STRIPE, request({"stripe-signature": f"v1={hexed(KEY, BODY)}"}), False),
    ("stripe, time is no number", STRIPE, request({"stripe-signature": f"t=\u0661,v1={hexed(KEY, BODY)}"}), False),
    ("slack", SLACK, request(slack(hexed(KEY, at(NOW, "v0:", ":")))), True),
    ("slack, old", SLACK, request(slack(hexed(KEY, at(OLD, "v0:", ":")), OLD)), False),
    ("slack, another", SLACK, request(slack(OTHER)), False),
    ("slack, none", SLACK, request({}), False),
    ("standard", STANDARD, request(standard("v1," + signed64(b"current!", b"msg_1." + at(NOW)))), True),
    ("standard, several", STANDARD,
     request(standard("v1,eA== v1a,eA== v1," + signed64(b"current!", b"msg_1." + at(NOW)))), True),
    ("standard, another version", STANDARD,
     request(standard("v2," + signed64(b"current!", b"msg_1." + at(NOW)))), False),
    ("standard, another id", STANDARD,
     request(standard("v1," + signed64(b"current!", b"msg_1." + at(NOW)), name="msg_2")), False),
    ("standard, no id", STANDARD, request(standard("v1," + signed64(b"current!", b"." + at(NOW)), name="")), False),
    ("standard, old", STANDARD, request(standard("v1," + signed64(b"current!", b"msg_1." + at(OLD)), OLD)), False),
    ("hmac", PLAIN, request({"x-sig": hexed(KEY, BODY)}), True),
    ("hmac, upper case", PLAIN, request({"x-sig": hexed(KEY, BODY).upper()}), True),
    ("hmac, shortened", PLAIN, request({"x-sig": hexed(KEY, BODY)[:-2]}), False),
    ("hmac, not hex", PLAIN, request({"x-sig": "zz"}), False),
    ("hmac, none", PLAIN, request({}), False),
    ("hmac, no prefix", FULL,
     request({"x-sig": base64.b64encode(hmac.digest(KEY, BODY, "sha512")).decode()}), False),
    ("hmac, all its fields", FULL,
     request({"x-sig": "v1=" + base64.b64encode(hmac.digest(KEY, BODY, "sha512")).decode()}), True),
    ("hmac, timed", TIMED, request({"x-sig": hexed(KEY, at(NOW, "", ":")), "x-time": f"{NOW:.0f}"}), True),
    ("hmac, in ms", TIMED,
     request({"x-sig": hexed(KEY, f"{NOW * 1000:.0f}:".encode() + BODY), "x-time": f"{NOW * 1000:.0f}"}), True),
    ("hmac, old", TIMED,
     request({"x-sig": hexed(KEY, at(NOW - 61, "", ":")), "x-time": f"{NOW - 61:.0f}"}), False),
    ("hmac, no time", TIMED, request({"x-sig": hexed(KEY, b":" + BODY)}), False),
    ("token", TOKEN, request({"x-gitlab-token": "current"}), True),
    ("token, wrong", TOKEN, request({"x-gitlab-token": "curren"}), False),
    ("token, none", TOKEN, request({}), False),
    ("token, empty", TOKEN, request({"x-gitlab-token": ""}), False),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "inbound", "right"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_who_may_post(spec: Webhook, inbound: Inbound, right: bool) -> None:
    key = base64.b64encode(b"current!") if spec.preset == "standard" else KEY
    assert proven(spec, inbound, [b"previous", key]) is right


PUBLISHED: list[tuple[str, Webhook, bytes, Inbound]] = [
    (
        "GitHub, published",
        GITHUB,
        b"It's a Secret to Everybody",
        request(
            {"x-hub-signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"},
            b"Hello, World!",
        ),
    ),
    (
        "Slack, published",
        SLACK,
        b"8f742231b10e8888abcd99yyyzzz85a5",
        request(
            slack("a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503", 1_531_420_618),
            b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
            b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
            b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554"
            b"%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c",
            1_531_420_618,
        ),
    ),
    (
        "Standard Webhooks, published",
        STANDARD,
        b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        request(
            standard("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", 1_614_265_330, "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            b'{"test": 2432232314}',
            1_614_265_330,
        ),
    ),
]


@pytest.mark.parametrize(("spec", "key", "inbound"), [row[1:] for row in PUBLISHED], ids=[row[0] for row in PUBLISHED])
def test_published_examples(spec: Webhook, key: bytes, inbound: Inbound) -> None:
    assert proven(spec, inbound, [key])
    assert not proven(spec, inbound, [key + b"x"])
    assert not proven(spec, replace(inbound, body=inbound.body + b" "), [key])


@pytest.mark.parametrize("preset", ["github", "stripe", "slack", "standard", "hmac", "token", "meta"])
def test_nothing_is_right_without_a_secret(preset: str) -> None:
    spec = Webhook(preset, "s", header="x-sig")
    headers = {"x-sig": "", "x-hub-signature-256": "sha256=", **slack(""), **stripe(""), **standard("v1,")}
    assert not proven(spec, request(headers), [])
    assert not proven(spec, request({**headers, "x-sig": "Bearer"}), [b"  "])


@pytest.mark.parametrize(
    ("header", "right"),
    [
        ("Bearer t", True),
        ("bearer  t", True),
        ("t", True),
        ("Bearer Bearer t", True),
        ("Basic t", False),
        ("Bearer", False),
        ("", False),
        ("Bearer u", False),
    ],
)
@pytest.mark.parametrize("secret", [b"t", b"Bearer t"])
def test_tokens_come_with_and_without_bearer(header: str, secret: bytes, right: bool) -> None:
    assert opens(header, [b"other", secret]) is right


def test_a_secrets_file_may_end_in_a_newline() -> None:
    data: dict[str, Any] = {"a": b"one\n", "b": b"two", "empty": b"\n", "verify-token": b"v"}
    assert secrets_of(data) == [b"one", b"two"]
