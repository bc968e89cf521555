"""The source `s3`: bucket notifications as Amazon S3 words them (`Records`) and as MinIO and its relatives post them.

Called by the front, on every gateway; holds nothing. What is posted proves itself by a token (MinIO's `auth_token`).
Amazon's come through SNS, wrapped (`sns.py`) or, with raw message delivery, as they are.
Sources: "Event message structure" in the Amazon S3 user guide; MinIO's bucket notification documentation; the S3
adapter of the CloudEvents specification (`adapters/aws-s3.md`) for type, source and subject.
"""

import fnmatch
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote_plus

from kappa_api.cloudevents import CloudEvent
from kappa_api.sources.s3 import S3
from kappa_api.trigger import Trigger
from kappa_gateway.events.source import Inbound, Place, Reply
from kappa_gateway.events.sources import sns
from kappa_gateway.events.sources import webhook_replies as replies
from kappa_gateway.events.sources import webhook_signatures as signatures

Json = Any
PLACE: Final = Place.NONE
SHAPE: Final = "s3"
_TYPE: Final = "com.amazonaws.s3."
_TEST: Final = "s3:TestEvent"
_WORD: Final = re.compile(r"[A-Za-z0-9:._-]{1,200}")


def receive(trigger: Trigger, inbound: Inbound, secret: Any) -> Reply:
    """See `kappa_gateway.events.source.Receiver`."""
    spec: S3 = trigger.source
    if inbound.method in ("GET", "HEAD"):
        return Reply(200)  # how MinIO finds out whether somebody listens; tells nothing and takes nothing
    if inbound.method != "POST":
        return replies.failed(405, "method_not_allowed", "notifications are posted")
    tokens = signatures.secrets_of(secret(spec.secret) or {})
    if not tokens:
        return replies.no_secret(spec.secret)
    given = inbound.headers.get("authorization", "")
    if not signatures.opens(given, tokens) and not sns.opens(given, tokens):
        challenge = sns.CHALLENGE if sns.is_sender(inbound.headers) else ""
        return replace(replies.refused(), challenge=challenge)
    try:
        body = replies.parse_json(inbound.body)
        wrapped = sns.unwrap(body)
        if wrapped is None:
            return _accepted(spec, body)
        if wrapped.notice:
            return Reply(200, b'{"accepted": 0}', notice=wrapped.notice)
        return replace(_accepted(spec, wrapped.body), notice="")
    except replies.BodyError as error:
        return replies.failed(400, "bad_body", str(error))


def _accepted(spec: S3, body: Json) -> Reply:
    if isinstance(body, Mapping) and body.get("Event") == _TEST:
        return Reply(200, b'{"accepted": 0}')  # what Amazon sends when notifications are set up
    records = body.get("Records") if isinstance(body, Mapping) else None
    if not isinstance(records, list):
        raise replies.BodyError("the body has no list Records: this is no bucket notification")
    events = tuple(event(record) for record in records if _wanted(spec, record))
    return Reply(200, json.dumps({"accepted": len(events)}).encode(), events=events)


def event(record: Mapping[str, Json]) -> CloudEvent:
    """One record as a CloudEvent. Raises BodyError."""
    bucket, thing = _bucket(record), _below(record, "s3", "object")
    key = unquote_plus(_text(thing, "key"))  # S3 encodes keys as forms are
    name = _name(record)
    origin = (_text(record, "eventSource") or "aws:s3", _text(record, "awsRegion"), bucket)
    return CloudEvent(
        id=_id(record, name, key),
        source=".".join(part for part in origin if part),
        type=_TYPE + name.removeprefix("s3:"),
        subject=key,
        time=_text(record, "eventTime"),
        datacontenttype="application/json",
        data=record,
    )


def _wanted(spec: S3, record: Json) -> bool:
    return _matches(spec.buckets, _bucket(record)) and _matches(spec.events, _name(record))


def _matches(patterns: Iterable[str], text: str) -> bool:
    return not patterns or any(_pattern(pattern).match(text) for pattern in patterns)


@lru_cache(maxsize=1024)
def _pattern(text: str) -> re.Pattern[str]:
    # fnmatch knows ? and [] too, but neither may stand in a bucket's name or an event's.
    return re.compile(fnmatch.translate(text))


def _name(record: Json) -> str:
    """The event's name with `s3:` before it, which Amazon leaves out and MinIO does not. Raises BodyError."""
    name = _text(record, "eventName")
    if not _WORD.fullmatch(name):
        raise replies.BodyError("a record has no eventName")
    return name if name.startswith("s3:") else f"s3:{name}"


def _bucket(record: Json) -> str:
    if not _WORD.fullmatch(found := _text(_below(record, "s3", "bucket"), "name")):
        raise replies.BodyError("a record has no s3.bucket.name")
    return found


def _id(record: Mapping[str, Json], name: str, key: str) -> str:
    """The same for the same change, however often it is told. The request's id would not do: one request can delete a
    thousand objects. Stores without sequencer and version tell the time instead; then the whole record counts."""
    thing = _below(record, "s3", "object")
    marks = [str(thing.get(mark) or "") for mark in ("sequencer", "versionId")]
    told = json.dumps([_bucket(record), key, name, *marks] if any(marks) else record, sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def _below(record: Json, *path: str) -> Mapping[str, Json]:
    for step in path:
        record = record.get(step) if isinstance(record, Mapping) else None
    return record if isinstance(record, Mapping) else {}


def _text(value: Json, name: str) -> str:
    found = value.get(name) if isinstance(value, Mapping) else None
    return found if isinstance(found, str) else ""
