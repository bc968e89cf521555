"""Webhooks from strangers: who has not signed gets nothing in, whatever he sends; what was signed is read or refused.

A case is signed here, as its sender would, or left as it is: no mutation makes a good signature.
"""

import base64
import hashlib
import hmac
from typing import Any

from fuzz_forms import JSON, message, numbered
from fuzz_target import Target
from fuzz_travel import check_travels
from hypothesis import strategies as st

from kappa_api.sources.s3 import S3
from kappa_api.sources.webhook import Webhook
from kappa_api.trigger import Trigger
from kappa_gateway.events.front.binding import headers_of
from kappa_gateway.events.front.hooks import in_ascii
from kappa_gateway.events.source import Inbound, Reply
from kappa_gateway.events.sources import s3, webhook
from kappa_gateway.events.sources.webhook_signatures import proven, secrets_of

#: (number, (header lines, body)); the first of the lines is method, path and query.
Case = tuple[int, tuple[list[bytes], bytes]]
NOW = 1_700_000_000.0
MOMENT = f"{NOW:.0f}"
KEY = b"a2V5a2V5"
SPECS: list[Any] = [
    *(Webhook(preset, "s") for preset in ("github", "stripe", "slack", "meta", "standard")),
    Webhook("hmac", "s", header="x-sig", id_header="x-id", type_header="x-type"),
    Webhook("hmac", "s", header="x-sig", encoding="base64", prefix="v1=", timestamp_header="x-time"),
    Webhook("token", "s", header="authorization"),
    S3("s", ("photos*",), ("s3:ObjectCreated:*",)),
]
#: Twice as many as there are specs: with the second half, the case is signed.
KINDS = 2 * len(SPECS)


def signed(spec: Any, headers: dict[str, str], body: bytes) -> dict[str, str]:
    """The headers with which the sender would have posted this body."""

    def digest(before: str = "", key: bytes = KEY) -> bytes:
        return hmac.new(key, before.encode("latin-1") + body, hashlib.sha256).digest()

    if isinstance(spec, S3) or spec.preset == "token":
        return headers | {"authorization": f"Bearer {KEY.decode()}"}
    match spec.preset:
        case "github" | "meta":
            return headers | {"x-hub-signature-256": f"sha256={digest().hex()}"}
        case "stripe":
            return headers | {"stripe-signature": f"t={MOMENT},v1={digest(MOMENT + '.').hex()}"}
        case "slack":
            signature = f"v0={digest(f'v0:{MOMENT}:').hex()}"
            return headers | {"x-slack-signature": signature, "x-slack-request-timestamp": MOMENT}
        case "standard":
            name = headers.get("webhook-id") or "m1"
            signature = base64.b64encode(digest(f"{name}.{MOMENT}.", base64.b64decode(KEY))).decode()
            return headers | {"webhook-id": name, "webhook-timestamp": MOMENT, "webhook-signature": f"v1,{signature}"}
    if not spec.timestamp_header:
        return headers | {"x-sig": digest().hex()}
    return headers | {"x-time": MOMENT, "x-sig": "v1=" + base64.b64encode(digest(MOMENT + ".")).decode()}


def check(case: Case) -> None:
    number, (lines, body) = case
    spec, sign = SPECS[number % len(SPECS)], number >= len(SPECS)
    first, *lines = lines or [b"POST  \r\n"]
    # As the gateway reads request lines: UTF-8, and what is not as half characters
    method, _, rest = first.decode("utf-8", "surrogateescape").strip().partition(" ")
    path, _, query = in_ascii(rest).partition("?")
    headers = headers_of(lines)
    if sign:
        headers = signed(spec, headers, body)
    module, kind = (s3, "s3") if isinstance(spec, S3) else (webhook, "webhook")
    inbound = Inbound(method, path, query, headers, body, NOW)
    data = {"k": KEY, "verify-token": b"v3rify\n"}
    reply: Reply = module.receive(Trigger("default", "hook", "u", 1, "f", kind, spec), inbound, lambda name: data)
    assert reply.status in (200, 400, 401, 405), reply
    assert len(reply.body) < 600 + len(query) + len(body), "an answer that is longer than what was asked"
    if isinstance(spec, Webhook) and sign:
        assert proven(spec, inbound, secrets_of(data)), "who signs well is not known"
    if not sign and isinstance(spec, Webhook) and spec.preset != "token":
        assert not reply.events, "who has not signed gets in"
    assert method in ("POST", "PUT", "PATCH") or not reply.events
    for event in reply.events:
        check_travels(event)


_FIRST = st.builds(
    lambda method, rest: method + b" " + rest + b"\r\n",
    st.sampled_from([b"POST"] * 6 + [b"PUT", b"GET", b"HEAD", b"DELETE", b""]),
    st.sampled_from(
        [b"", b"/a?b=c", b"?hub.mode=subscribe&hub.verify_token=v3rify&hub.challenge=\xff", b"?%ff", b"/\xc3\xa9\xff"]
    ),
)
_LINES = st.sampled_from(
    [
        *(
            b"content-type: application/json\r\n",
            b"content-type: application/x-www-form-urlencoded\r\n",
            b"content-type: \r\n",
        ),
        *(b"content-type: text/plain\xe9\r\n", b"content-type: a/b+json; charset=x\r\n", b"x-github-event: push\r\n"),
        *(
            b"x-github-event: ping\r\n",
            b"x-github-delivery: 1\r\n",
            b"webhook-id: \xe9\r\n",
            b"x-id: \x01\r\n",
            b"x-type: a b\r\n",
        ),
        *(
            b"x-time: 1700000000\r\n",
            b"x-sig: v1=\r\n",
            b"authorization: Bearer a2V5a2V\r\n",
            b"stripe-signature: t=1\r\n",
        ),
    ]
)
_BODIES = st.sampled_from(
    [
        b'{"action":"opened","number":1,"repository":{"html_url":"https://g/a"}}',
        b'{"id":"evt_1","type":"charge.ok","created":1e300,"account":"a\\r\\nb","data":{"object":{"id":"x"}}}',
        b'{"type":"url_verification","challenge":"\\ud800"}',
        b'{"type":"event_callback","event_id":"E","team_id":"T","event":{"type":"m","channel":"C"},"event_time":NaN}',
        b"payload=%7B%22type%22%3A%22x%22%7D&a=%ff",
        b'{"object":"page","entry":[1e999]}',
        b'{"type":"a.b","timestamp":"2024-05-17T09:30:00Z"}',
        b'{"Records":[{"eventName":"ObjectCreated:Put","eventTime":"x","s3":{"bucket":{"name":"photos"},"object":{"key":"a+b%ff"}}}]}',
        b'{"Event":"s3:TestEvent"}',
        b"[" * 900 + b"]" * 900,
    ]
)
_WORDS = (
    *(
        b"POST /\r\n",
        b"GET ?",
        b"hub.mode=subscribe",
        b"hub.verify_token=v3rify",
        b"hub.challenge=",
        b"x-github-event: ",
    ),
    *(b"x-github-delivery: ", b"content-type: application/json\r\n", b"application/x-www-form-urlencoded", b"payload="),
    *(b"url_verification", b'"challenge":', b'"event":', b'"repository":', b'"html_url":', b'"number":', b'"created":'),
    *(
        b'"Records":',
        b'"eventName":',
        b'"bucket":',
        b'"object":',
        b'"sequencer":',
        b'"timestamp":',
        b"x-type: ",
        b"\\u0000",
    ),
)
TARGETS = (
    Target(
        "webhooks",
        "webhooks of every preset and bucket notifications, signed and not",
        st.tuples(
            st.integers(0, KINDS - 1),
            st.tuples(
                st.tuples(_FIRST, st.lists(_LINES, max_size=4)).map(lambda pair: [pair[0], *pair[1]]),
                _BODIES | st.binary(max_size=20),
            ),
        ),
        check,
        numbered(message((*JSON, *_WORDS)), KINDS),
    ),
)
