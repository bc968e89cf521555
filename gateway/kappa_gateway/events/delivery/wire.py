"""What an instance gets to see of work, and what its answer says about the single events of a batch. Pure.

Handlers of the signature `event` get all events as one JSON list, with the shape they want in a header: their runtime
makes the shape. ASGI applications and images get CloudEvents as the HTTP protocol binding 1.0.2 has them: one event in
binary mode, a batch in batched mode.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote

from kappa_api import names
from kappa_api.cloudevents import BATCH_MEDIA_TYPE, CloudEvent, CloudEventError
from kappa_gateway.events.bodies import FetchedBody
from kappa_gateway.events.delivery.composed import ComposedBody
from kappa_gateway.events.delivery.invoke import Outgoing
from kappa_gateway.events.delivery.target import Target
from kappa_gateway.events.delivery.verdict import Outcome
from kappa_gateway.events.stored_data import JSON
from kappa_gateway.events.work import HttpCall, Work

Json = Any
#: Printable ASCII that needs no percent-encoding in a header (binding, section 3.1.3.2).
_SAFE: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')


def of_call(work: Work, call: HttpCall, attempts: int) -> Outgoing:
    """An asynchronous invocation, as its caller sent it."""
    return Outgoing(call.method, call.path, call.lines + _attempt(attempts), work.body, request_id=work.id)


def of_events(works: Sequence[Work], target: Target, attempts: int) -> Outgoing:
    """One event, or a batch."""
    if listed(target):
        return Outgoing("POST", "/", _list_lines(target, attempts), b"[%b]" % b",".join(work.body for work in works))
    try:
        return _binary(CloudEvent.from_json(json.loads(works[0].body)), attempts)
    except (ValueError, CloudEventError):  # no source of ours writes such a thing: the function may know better
        return Outgoing("POST", "/", _line("content-type", "application/json") + _attempt(attempts), works[0].body)


def of_large_events(works: Sequence[Work], target: Target, attempts: int, body: ComposedBody) -> Outgoing:
    """As `of_events`, where data of some is in the bucket: `body` puts it together. Raises ValueError."""
    if listed(target):
        outgoing = Outgoing("POST", "/", _list_lines(target, attempts))
    else:
        first = works[0]
        event = CloudEvent.from_json(json.loads(first.body))
        kind = "application/json" if first.data is not None and first.data.form == JSON else ""
        outgoing = _binary(replace(event, datacontenttype=event.datacontenttype or kind), attempts)
    return with_body(outgoing, body)


def listed(target: Target) -> bool:
    """Whether events go as one JSON list; else each is a request in binary mode."""
    return bool(target.shape) or target.batch.size > 1


def _list_lines(target: Target, attempts: int) -> bytes:
    lines = _line("content-type", BATCH_MEDIA_TYPE) + _attempt(attempts)
    if target.shape:
        whole = "; batch" if target.batch.size > 1 else ""
        lines += _line(names.HEADER_EVENT_SHAPE, target.shape + whole)
    return lines


def _binary(event: CloudEvent, attempts: int) -> Outgoing:
    lines = b"".join(
        _line(f"ce-{name}", quote(value, safe=_SAFE))
        for name, value in event.attributes().items()
        if name != "datacontenttype"
    )
    body = b""
    kind = event.datacontenttype
    if isinstance(event.data, bytes):
        body = event.data
    elif isinstance(event.data, str) and kind and "json" not in kind:
        body = event.data.encode()
    elif event.data is not None:
        body, kind = json.dumps(event.data).encode(), kind or "application/json"
    if kind and kind.isprintable():  # what else there may be ends the line, and begins one of its own
        lines += _line("content-type", kind)
    return Outgoing("POST", "/", lines + _attempt(attempts), body)


def failures(outcome: Outcome, works: Sequence[Work]) -> set[int] | None:
    """Which of the works failed, by their index, when the function has answered `batchItemFailures`; None: the answer
    says nothing of the kind. As Lambda reads it: an empty list is a success, an entry that names nothing known fails
    all."""
    try:
        answer = json.loads(outcome.body)
    except ValueError:
        return None
    listed = answer.get("batchItemFailures") if isinstance(answer, dict) else None
    if not isinstance(listed, list):
        return None
    known: dict[str, int] = {}
    for index, work in enumerate(works):
        for name in _identifiers(work):
            known[name] = index
    found = set()
    for entry in listed:
        place = known.get(str(entry.get("itemIdentifier"))) if isinstance(entry, dict) else None
        if place is None:
            return set(range(len(works)))
        found.add(place)
    return found


def _identifiers(work: Work) -> list[str]:
    """The event's id, and for a change of a table its sequence number."""
    try:
        event = json.loads(work.body)
        data = event.get("data")
        extra = [data[key] for key in ("sequence", "lsn") if key in data] if isinstance(data, dict) else []
        stored = work.data.names if work.data is not None else ()
        return [str(name) for name in (*extra, *stored, event.get("id", ""))]
    except (ValueError, AttributeError):
        return []


def _line(name: str, value: str) -> bytes:
    return f"{name}: {value}\r\n".encode("latin-1", "replace")


def _attempt(attempts: int) -> bytes:
    return b"%b: %d\r\n" % (names.HEADER_ATTEMPT.encode(), attempts)


def with_body(outgoing: Outgoing, body: FetchedBody | ComposedBody) -> Outgoing:
    return replace(outgoing, stored=body, size=body.total)
