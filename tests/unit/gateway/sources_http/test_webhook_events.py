"""What proven webhooks become, and what is answered."""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kappa_api.cloudevents import CloudEvent
from kappa_api.sources.webhook import PRESETS, Webhook
from kappa_api.trigger import Trigger
from kappa_gateway.events.source import Inbound, Reply
from kappa_gateway.events.sources import webhook

NOW = 1_700_000_000.0
KEY = b"key"


def receive(spec: Webhook, headers: Mapping[str, str], body: bytes, **more: Any) -> Reply:
    trigger = Trigger("default", "hook", "uid", 1, "f", "webhook", spec)
    inbound = Inbound(**{"method": "POST", "path": "", "query": "", "now": NOW, **more}, headers=headers, body=body)
    data = {"k": KEY, "verify-token": b"v3rify\n"}
    return webhook.receive(trigger, inbound, lambda name: data if name == "s" else None)


def signed(preset: str, body: bytes, **headers: str) -> dict[str, str]:
    """The headers with which the preset's sender would post this body."""
    head = {name.replace("_", "-"): value for name, value in headers.items()}
    digest = hmac.new(KEY, body, hashlib.sha256).hexdigest()
    moment = f"{NOW:.0f}"
    match preset:
        case "github" | "meta":
            head["x-hub-signature-256"] = f"sha256={digest}"
        case "stripe":
            digest = hmac.new(KEY, moment.encode() + b"." + body, hashlib.sha256).hexdigest()
            head["stripe-signature"] = f"t={moment},v1={digest}"
        case "slack":
            digest = hmac.new(KEY, f"v0:{moment}:".encode() + body, hashlib.sha256).hexdigest()
            head |= {"x-slack-signature": f"v0={digest}", "x-slack-request-timestamp": moment}
        case "standard":
            whole = f"m1.{moment}.".encode() + body
            digest = base64.b64encode(hmac.new(base64.b64decode(KEY + b"="), whole, hashlib.sha256).digest()).decode()
            head |= {"webhook-id": "m1", "webhook-timestamp": moment, "webhook-signature": f"v1,{digest}"}
        case "hmac":
            head["x-sig"] = digest
        case "token":
            head["authorization"] = "Bearer key"
    return head


def one(reply: Reply) -> CloudEvent:
    assert reply.status == 200, reply.body
    assert len(reply.events) == 1
    return reply.events[0]


def told(preset: str, body: Any, **headers: str) -> CloudEvent:
    raw = json.dumps(body).encode()
    return one(
        receive(Webhook(preset, "s"), signed(preset, raw, **{"content_type": "application/json"} | headers), raw)
    )


def test_github() -> None:
    body = {"action": "opened", "number": 7, "repository": {"html_url": "https://github.com/o/r"}}
    found = told("github", body, x_github_event="pull_request", x_github_delivery="d-1", x_hub_signature="sha1=x")
    headers = {"content-type": "application/json", "x-github-event": "pull_request", "x-github-delivery": "d-1"}
    assert found == CloudEvent(
        id="d-1",
        source="https://github.com/o/r",
        type="com.github.pull_request.opened",
        subject="7",
        time="2023-11-14T22:13:20Z",
        datacontenttype="application/json",
        data=body,
        extensions={"httpmethod": "POST", "httpheaders": json.dumps(headers)},
    )


def test_github_push_as_a_form_is_the_same_event() -> None:
    body = {"ref": "refs/heads/main", "organization": {"url": "https://api.github.com/orgs/o"}}
    raw = urlencode({"payload": json.dumps(body)}).encode()
    head = signed("github", raw, x_github_event="push", x_github_delivery="d-2")
    found = one(receive(Webhook("github", "s"), head | {"content-type": "application/x-www-form-urlencoded"}, raw))
    assert (found.type, found.subject, found.source) == (
        "com.github.push",
        "refs/heads/main",
        "https://api.github.com/orgs/o",
    )
    assert found.data == body


def test_githubs_ping_is_answered_and_is_no_event() -> None:
    reply = receive(
        Webhook("github", "s"), signed("github", b"{}", x_github_event="ping", x_github_delivery="d"), b"{}"
    )
    assert (reply.status, reply.events) == (200, ())


def test_stripe() -> None:
    body = {"id": "evt_1", "type": "invoice.paid", "created": 1_699_999_999, "data": {"object": {"id": "in_1"}}}
    found = told("stripe", body)
    assert (found.id, found.type, found.subject) == ("evt_1", "com.stripe.invoice.paid", "in_1")
    assert (found.time, found.source) == ("2023-11-14T22:13:19Z", "/hooks/default/hook")
    assert told("stripe", body | {"account": "acct_1"}).source == "https://api.stripe.com/v1/accounts/acct_1"


def test_slack_events() -> None:
    body = {"type": "event_callback", "event_id": "Ev1", "team_id": "T1", "event_time": 1_699_999_999}
    found = told("slack", body | {"event": {"type": "message", "channel": "C1"}})
    assert (found.id, found.type, found.subject) == ("Ev1", "com.slack.event.message", "C1")
    assert found.source == "https://slack.com/teams/T1"


def test_slack_asks_whether_the_url_is_ours() -> None:
    raw = b'{"type": "url_verification", "challenge": "c-1"}'
    reply = receive(Webhook("slack", "s"), signed("slack", raw), raw)
    assert (reply.status, reply.body, reply.content_type, reply.events) == (
        200,
        b"c-1",
        "text/plain; charset=utf-8",
        (),
    )
    assert receive(Webhook("slack", "s"), {}, raw).status == 401


@pytest.mark.parametrize(
    ("form", "kind", "data"),
    [
        ({"command": "/deploy", "text": "", "team_id": "T1"}, "com.slack.command", None),
        (
            {"payload": json.dumps({"type": "block_actions", "team": {"id": "T1"}})},
            "com.slack.interaction.block_actions",
            {"type": "block_actions", "team": {"id": "T1"}},
        ),
    ],
)
def test_slack_forms_are_answered_with_nothing_to_show(form: dict[str, str], kind: str, data: Any) -> None:
    raw = urlencode(form).encode()
    head = signed("slack", raw) | {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
    reply = receive(Webhook("slack", "s"), head, raw)
    found = one(reply)
    assert reply.body == b""
    assert (found.type, found.source) == (kind, "https://slack.com/teams/T1")
    assert found.data == (data or form)


def test_meta_and_its_challenge() -> None:
    assert told("meta", {"object": "page", "entry": []}).type == "com.meta.page"
    spec = Webhook("meta", "s")
    query = "hub.mode=subscribe&hub.verify_token=v3rify&hub.challenge=42"
    reply = receive(spec, {}, b"", method="GET", query=query)
    assert (reply.status, reply.body, reply.content_type) == (200, b"42", "text/plain; charset=utf-8")
    assert receive(spec, {}, b"", method="GET", query=query.replace("v3rify", "other")).status == 401
    assert receive(spec, {}, b"", method="GET", query=query.replace("v3rify", "key")).status == 401
    assert receive(spec, {}, b"", method="GET").status == 401


def test_standard_webhooks() -> None:
    raw = json.dumps({"type": "user.created", "timestamp": "2022-11-03T20:26:10.344522Z", "data": {}}).encode()
    spec = Webhook("standard", "s")
    data = {"k": b"whsec_" + base64.b64encode(base64.b64decode(KEY + b"="))}
    trigger = Trigger("default", "hook", "uid", 1, "f", "webhook", spec)
    head = signed("standard", raw, content_type="application/json")
    found = one(webhook.receive(trigger, Inbound("POST", "", "", head, raw, NOW), lambda _: data))
    assert (found.id, found.type, found.time) == ("m1", "user.created", "2022-11-03T20:26:10.344522Z")


def test_any_other_sender() -> None:
    spec = Webhook("hmac", "s", header="x-sig", id_header="x-id", type_header="x-kind")
    raw = b"plain text"
    head = signed("hmac", raw, x_id="i-1", x_kind="order paid!", content_type="text/plain; charset=utf-8", cookie="c")
    found = one(receive(spec, head, raw, method="PUT", path="/eu/1", query="a=b"))
    assert (found.id, found.type, found.data, found.datacontenttype) == (
        "i-1",
        "order_paid_",
        raw.decode(),
        "text/plain",
    )
    assert found.extensions["httppath"] == "/eu/1"
    assert found.extensions["httpquery"] == "a=b"
    assert found.extensions["httpmethod"] == "PUT"
    seen = json.loads(found.extensions["httpheaders"])
    assert sorted(seen) == ["content-type", "x-id", "x-kind"]  # neither signature nor cookie


def test_without_an_id_of_its_own_the_same_request_is_the_same_event() -> None:
    spec = Webhook("token", "s", header="authorization")

    def ids(body: bytes, **more: Any) -> str:
        return one(receive(spec, signed("token", body), body, **more)).id

    assert ids(b"a") == ids(b"a")
    assert len({ids(b"a"), ids(b"b"), ids(b"a", path="/x"), ids(b"a", query="q=1")}) == 4


@pytest.mark.parametrize(
    ("kind", "raw", "data", "found_kind"),
    [
        ("application/json", b'{"a": 1}', {"a": 1}, "application/json"),
        ("application/vnd.x+json; v=1", b"[1]", [1], "application/json"),
        ("application/xml", b"<a/>", "<a/>", "application/xml"),
        ("text/plain", b"\xff", b"\xff", "text/plain"),
        ("image/png", b"\x89PNG", b"\x89PNG", "image/png"),
        ("", b"x", b"x", "application/octet-stream"),
        ("application/json", b"", None, ""),
    ],
)
def test_bodies(kind: str, raw: bytes, data: Any, found_kind: str) -> None:
    spec = Webhook("token", "s", header="authorization")
    found = one(receive(spec, signed("token", raw, content_type=kind), raw))
    assert (found.data, found.datacontenttype) == (data, found_kind)


@pytest.mark.parametrize("raw", [b"{", b"\xff", b"[" * 100_000, b"NaN", b'"\\ud800"', b'{"a": 1e', b"9" * 5000])
def test_what_is_not_json_is_refused_after_its_sender_is_known(raw: bytes) -> None:
    spec = Webhook("token", "s", header="authorization")
    reply = receive(spec, signed("token", raw, content_type="application/json"), raw)
    assert (reply.status, reply.events) == (400, ())
    assert receive(spec, {"content-type": "application/json"}, raw).status == 401


@pytest.mark.parametrize("preset", PRESETS)
def test_refusals_give_no_hint(preset: str) -> None:
    spec = Webhook(preset, "s", header="x-sig")
    bad = receive(spec, signed(preset, b"{}") | {"x-hub-signature-256": "sha256=00", "x-sig": "00"}, b'{"x": 1}')
    none = receive(spec, {}, b"{}")
    expected = {"error": {"code": "unauthorized", "message": "the request does not prove who sent it"}}
    assert json.loads(none.body) == expected
    assert none.status == 401
    if preset != "token":
        assert bad == none


def test_methods_and_a_missing_secret() -> None:
    spec = Webhook("github", "s")
    assert receive(spec, {}, b"", method="GET").status == 405
    assert receive(spec, {}, b"", method="DELETE").status == 405
    gone = receive(Webhook("github", "gone"), signed("github", b"{}"), b"{}")
    assert gone.status == 503


@given(
    st.sampled_from(PRESETS),
    st.binary(max_size=200) | st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x, max_size=3)
    | st.dictionaries(st.sampled_from(["type", "id", "event", "payload", "data", "created", "repository"]), x),
    max_leaves=8).map(lambda value: json.dumps(value).encode()),
    st.sampled_from(["application/json", "application/x-www-form-urlencoded", "text/plain", ""]),
)  # fmt: skip
def test_whatever_a_proven_sender_posts_has_an_answer(preset: str, raw: bytes, kind: str) -> None:
    spec = Webhook(preset, "s", header="authorization" if preset == "token" else "x-sig")
    head = signed(preset, raw, x_github_event="e", x_github_delivery="d", content_type=kind)
    reply = receive(spec, head, raw)
    assert reply.status in ((200, 400) if preset != "standard" else (200, 400, 401))
    for event in reply.events:
        text = json.dumps(event.to_json(), ensure_ascii=False).encode()
        assert CloudEvent.from_json(json.loads(text)).id
