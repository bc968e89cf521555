"""Bucket notifications: Amazon's and MinIO's words, what is wanted of them, and who may post them."""

import json
from typing import Any

import pytest

from kappa_api.cloudevents import CloudEvent
from kappa_api.sources.s3 import S3
from kappa_api.trigger import Trigger
from kappa_gateway.events.source import Inbound, Reply
from kappa_gateway.events.sources import s3

PLAIN = S3("s")


def record(
    name: str = "ObjectCreated:Put", bucket: str = "photos", key: str = "a+b.jpg", **thing: Any
) -> dict[str, Any]:
    """As Amazon's user guide has it, shortened."""
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "eu-central-1",
        "eventTime": "2026-01-02T03:04:05.678Z",
        "eventName": name,
        "responseElements": {"x-amz-request-id": "R1"},
        "s3": {"bucket": {"name": bucket}, "object": {"key": key, "size": 3, **thing}},
    }


def post(body: Any, spec: S3 = PLAIN, **more: Any) -> Reply:
    trigger = Trigger("default", "photos", "uid", 1, "f", "s3", spec)
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"method": "POST", "path": "", "query": "", "headers": {"authorization": "Bearer t"}, "now": 0.0, **more}
    return s3.receive(trigger, Inbound(**given, body=raw), lambda name: {"t": b"t"} if name == "s" else None)


def test_a_record_is_a_cloudevent() -> None:
    put = record(sequencer="0A", eTag="e")
    reply = post({"Records": [put]})
    assert reply.status == 200
    (found,) = reply.events
    assert found == CloudEvent(
        id=found.id,
        source="aws:s3.eu-central-1.photos",
        type="com.amazonaws.s3.ObjectCreated:Put",
        subject="a b.jpg",
        time="2026-01-02T03:04:05.678Z",
        datacontenttype="application/json",
        data=put,
    )


def test_minios_envelope_and_names() -> None:
    put = record("s3:ObjectCreated:Put") | {"eventSource": "minio:s3", "awsRegion": ""}
    (found,) = post({"EventName": "s3:ObjectCreated:Put", "Key": "photos/a b.jpg", "Records": [put]}).events
    assert found.type == "com.amazonaws.s3.ObjectCreated:Put"
    assert found.source == "minio:s3.photos"


def test_an_id_is_of_one_change() -> None:
    def ids(*records: dict[str, Any]) -> list[str]:
        return [event.id for event in post({"Records": list(records)}).events]

    first, again = record(sequencer="0A"), record(sequencer="0A") | {"eventTime": "later"}
    assert len(set(ids(first, again))) == 1
    others = [
        record(sequencer="0B"),
        record(key="other", sequencer="0A"),
        record(bucket="other", sequencer="0A"),
        record("ObjectRemoved:Delete", sequencer="0A"),
        record(sequencer="0A", versionId="v1"),
        record(),
        record() | {"eventTime": "later"},
    ]
    assert len({*ids(first), *ids(*others)}) == 1 + len(others)


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        (S3("s"), 4),
        (S3("s", events=("s3:ObjectCreated:*",)), 3),
        (S3("s", events=("s3:ObjectCreated:Put", "s3:ObjectRemoved:*")), 3),
        (S3("s", events=("s3:*",)), 4),
        (S3("s", buckets=("photos",)), 3),
        (S3("s", buckets=("ph*", "vid*")), 4),
        (S3("s", buckets=("photo",)), 0),
        (S3("s", buckets=("videos",), events=("s3:ObjectRemoved:*",)), 0),
    ],
)
def test_what_is_wanted(spec: S3, wanted: int) -> None:
    records = [
        record(),
        record("s3:ObjectCreated:Copy"),
        record("ObjectRemoved:Delete"),
        record("ObjectCreated:Put", "videos"),
    ]
    reply = post({"Records": records}, spec)
    assert (reply.status, len(reply.events)) == (200, wanted)
    assert json.loads(reply.body) == {"accepted": wanted}


def test_what_servers_ask_before_they_send() -> None:
    assert post({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "photos"}) == Reply(200, b'{"accepted": 0}')
    assert post(b"", method="HEAD", headers={}).status == 200
    assert post({"Records": []}).status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        {},
        {"Records": {}},
        {"Records": [1]},
        {"Records": [{}]},
        {"Records": [record("")]},
        {"Records": [record(bucket="")]},
        {"Records": [record("a b")]},
        {"Records": [{"eventName": "ObjectCreated:Put", "s3": []}]},
    ],
)
def test_what_is_no_notification_is_refused(body: Any) -> None:
    reply = post(body)
    assert (reply.status, reply.events) == (400, ())


def test_who_may_post() -> None:
    put = {"Records": [record()]}
    for header in ("t", "Bearer t", "Bearer Bearer t"):
        assert len(post(put, headers={"authorization": header}).events) == 1
    for headers in ({}, {"authorization": "Bearer u"}, {"x-token": "t"}):
        assert (post(put, headers=headers).status, post(b"{", headers=headers).status) == (401, 401)
    assert post(put, S3("missing")).status == 503
    assert post(put, method="PUT").status == 405
