"""What a proven webhook says, as CloudEvents: one function for each preset. Pure.

Ids are the sender's own, so that what it sends twice is one event; types begin with the sender's domain, reversed, as
CloudEvents' adapters have them (github.md in the specification's repository).
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from kappa_api.cloudevents import CloudEvent
from kappa_api.sources.webhook import Webhook
from kappa_gateway.events.source import Inbound, Reply
from kappa_gateway.events.sources import webhook_replies as replies

Json = Any
RECEIVED: Final = "dev.kappa.webhook.received"
#: Of a type's piece that the sender chose: types are for filters and for people.
_PIECE: Final = re.compile(r"[^A-Za-z0-9._-]+")
_MAX_TEXT: Final = 512
#: Headers that are credentials, of one hop only, or the platform's.
_WITHHELD: Final = frozenset(
    ("authorization", "cookie", "proxy-authorization", "connection", "keep-alive", "te", "trailer", "transfer-encoding",
     "upgrade", "host", "content-length", "expect", "forwarded", "x-api-key", "x-hub-signature", "x-hub-signature-256",
     "stripe-signature", "x-slack-signature", "webhook-signature")
)  # fmt: skip
#: All of them together: they are one header of the invocation of an ASGI application or an image.
_MAX_HEADERS: Final = 4096


@dataclass(frozen=True, slots=True)
class Proven:
    """A request whose sender is known. `origin`: the event's source, where the sender has none of its own."""

    spec: Webhook
    origin: str
    inbound: Inbound

    def header(self, name: str) -> str:
        return self.inbound.headers.get(name, "")[:_MAX_TEXT]


def answer(proven: Proven) -> Reply:
    """The answer, with the events. Raises BodyError."""
    return _PRESETS[proven.spec.preset](proven)


def challenged(spec: Webhook, query: Mapping[str, str], tokens: Callable[[str], bool]) -> Reply | None:
    """The answer to a GET that asks whether the hook is ours, None where the preset has no such. `tokens` tells
    whether a verify token is right."""
    if spec.preset != "meta":
        return None
    if query.get("hub.mode") != "subscribe" or not tokens(query.get("hub.verify_token", "")):
        return replies.refused()
    return Reply(200, query.get("hub.challenge", "").encode(), "text/plain; charset=utf-8")


def _github(proven: Proven) -> Reply:
    name, delivery = proven.header("x-github-event"), proven.header("x-github-delivery")
    if not name or not delivery:
        raise replies.BodyError("x-github-event and x-github-delivery are missing: this is not GitHub")
    if name == "ping":
        return Reply(200, b'{"ok": true}')
    if replies.is_form(proven.inbound.headers):
        data = replies.parse_json(replies.parse_form(proven.inbound.body).get("payload", "").encode())
    else:
        data = replies.parse_json(proven.inbound.body)
    if not isinstance(data, Mapping):
        raise replies.BodyError("the body is not a JSON object")
    repository = data.get("repository")
    number = data.get("number")
    return _one(
        proven,
        id=delivery,
        type=_type("com.github", name, data.get("action")),
        source=_text(repository, "html_url") or _text(data.get("organization"), "url") or proven.origin,
        subject=str(number) if isinstance(number, int) else _text(data, "ref"),
        data=data,
        datacontenttype="application/json",
    )


def _stripe(proven: Proven) -> Reply:
    data = _object(proven)
    account = _text(data, "account")
    body = data.get("data")
    return _one(
        proven,
        id=_required(data, "id"),
        type=_type("com.stripe", _required(data, "type")),
        source=f"https://api.stripe.com/v1/accounts/{account}" if account else proven.origin,
        subject=_text(body.get("object"), "id") if isinstance(body, Mapping) else "",
        time=_time(data.get("created")),
        data=data,
        datacontenttype="application/json",
    )


def _slack(proven: Proven) -> Reply:
    if replies.is_form(proven.inbound.headers):
        return _slack_form(proven)
    data = _object(proven)
    if data.get("type") == "url_verification":
        return Reply(200, _text(data, "challenge").encode(), "text/plain; charset=utf-8")
    inner = data.get("event")
    return _one(
        proven,
        id=_text(data, "event_id") or _digest(proven),
        type=_type("com.slack", "event", _text(inner, "type") or _text(data, "type") or "unknown"),
        source=_slack_source(proven, _text(data, "team_id")),
        subject=_text(inner, "channel"),
        time=_time(data.get("event_time")),
        data=data,
        datacontenttype="application/json",
    )


def _slack_form(proven: Proven) -> Reply:
    """Interactivity has its JSON in the field `payload`; slash commands are the form itself."""
    form = replies.parse_form(proven.inbound.body)
    data: Json = form
    kind = "command"
    if "payload" in form:
        data = replies.parse_json(form["payload"].encode())
        kind = "interaction." + (_text(data, "type") or "unknown")
    team = data.get("team") if isinstance(data, Mapping) else None
    found = _one(
        proven,
        id=_digest(proven),
        type=_type("com.slack", kind),
        source=_slack_source(proven, _text(data, "team_id") or _text(team, "id")),
        subject=_text(data, "command"),
        data=data,
        datacontenttype="application/json",
    )
    return Reply(200, events=found.events)  # Slack shows a body to the user


def _slack_source(proven: Proven, team: str) -> str:
    return f"https://slack.com/teams/{team}" if team else proven.origin


def _meta(proven: Proven) -> Reply:
    data = _object(proven)
    return _one(
        proven,
        id=_digest(proven),
        type=_type("com.meta", _text(data, "object") or "unknown"),
        source=proven.origin,
        data=data,
        datacontenttype="application/json",
    )


def _standard(proven: Proven) -> Reply:
    data, kind = replies.content(proven.inbound.headers, proven.inbound.body)
    return _one(
        proven,
        id=proven.header("webhook-id"),
        type=_type(_text(data, "type")) or RECEIVED,
        source=proven.origin,
        time=_rfc3339(_text(data, "timestamp")),
        data=data,
        datacontenttype=kind,
    )


def _generic(proven: Proven) -> Reply:
    """`hmac` and `token`: id and type are in the headers that the Trigger names."""
    data, kind = replies.content(proven.inbound.headers, proven.inbound.body)
    spec = proven.spec
    return _one(
        proven,
        id=(proven.header(spec.id_header) if spec.id_header else "") or _digest(proven),
        type=(_type(proven.header(spec.type_header)) if spec.type_header else "") or RECEIVED,
        source=proven.origin,
        data=data,
        datacontenttype=kind,
    )


def _one(proven: Proven, **attributes: Any) -> Reply:
    inbound = proven.inbound
    extensions = {"httpmethod": inbound.method, "httpheaders": _headers(proven)}
    extensions |= {"httppath": inbound.path} if inbound.path else {}
    extensions |= {"httpquery": inbound.query} if inbound.query else {}
    attributes = {name: value for name, value in attributes.items() if value != ""}
    attributes.setdefault("time", _time(inbound.now))
    # 200 and not 202: some senders (Meta) take nothing else for success.
    return Reply(200, b'{"accepted": 1}', events=(CloudEvent(**attributes, extensions=extensions),))


def _headers(proven: Proven) -> str:
    """What the sender said besides the body, as JSON: for handlers that look at headers of their own."""
    withheld = _WITHHELD | {proven.spec.header}
    found: dict[str, str] = {}
    room = _MAX_HEADERS
    for name, value in proven.inbound.headers.items():
        room -= len(name) + len(value)
        if name not in withheld and not name.startswith("kappa-") and room >= 0:
            found[name] = value
    return json.dumps(found)


def _digest(proven: Proven) -> str:
    """For senders that number nothing: what is posted again in the same words is the same event. Where requests carry a
    time that is part of it."""
    parts = [proven.inbound.method, proven.inbound.path, proven.inbound.query]
    for name in ("x-slack-request-timestamp", proven.spec.timestamp_header):
        parts.append(proven.inbound.headers.get(name, "") if name else "")
    head = json.dumps(parts).encode()
    return hashlib.sha256(head + proven.inbound.body).hexdigest()[:32]


def _object(proven: Proven) -> Mapping[str, Json]:
    data = replies.parse_json(proven.inbound.body)
    if not isinstance(data, Mapping):
        raise replies.BodyError("the body is not a JSON object")
    return data


def _required(data: Mapping[str, Json], name: str) -> str:
    if not (found := _text(data, name)):
        raise replies.BodyError(f"the body has no {name}")
    return found


def _text(data: Json, name: str) -> str:
    found = data.get(name) if isinstance(data, Mapping) else None
    return found[:_MAX_TEXT] if isinstance(found, str) else ""


def _type(*pieces: Json) -> str:
    """A CloudEvents type of the pieces that are text."""
    return ".".join(_PIECE.sub("_", piece)[:_MAX_TEXT] for piece in pieces if isinstance(piece, str) and piece)


def _time(seconds: Json) -> str:
    """Epoch seconds as RFC 3339, empty for what is no time."""
    try:
        return datetime.fromtimestamp(float(seconds), UTC).isoformat().replace("+00:00", "Z")
    except (TypeError, ValueError, OverflowError, OSError):
        return ""


def _rfc3339(text: str) -> str:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return ""
    return text if found.tzinfo else ""


_PRESETS: Final[Mapping[str, Callable[[Proven], Reply]]] = {
    "github": _github,
    "stripe": _stripe,
    "slack": _slack,
    "meta": _meta,
    "standard": _standard,
    "hmac": _generic,
    "token": _generic,
}
