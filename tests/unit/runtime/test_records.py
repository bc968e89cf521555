"""CloudEvents in the shapes that Lambda handlers know, compared whole."""

import json

import pytest

from kappa_api import names
from kappa_api.cloudevents import CloudEventError
from kappa_runtime.cloudevent import Delivery, Event, read_events, read_shape
from kappa_runtime.records import epoch_ms, shaped

TIME = "2026-03-01T12:00:00Z"
TIME_MS = 1_772_366_400_000


def event(data=None, **more):
    given = {"id": "e-1", "source": "/triggers/default/orders", "type": "com.example.order", "time": TIME}
    return Event(**given | more, data=data)


def shape(name, *events, **more):
    return shaped(Delivery(name, events, "default", **{"now": 5.5} | more))


def test_every_shape_that_there_is_can_be_made():
    data = {"operation": "insert", "key": {"id": 1}, "new": {"id": 1}}
    for name in names.SHAPES:
        found = shape(name, event(data), batch=True)
        assert len(found["Records"]) == 1
        json.dumps(found)


def test_a_cloudevent_is_its_json_format():
    extra = event({"a": 1}, subject="s", datacontenttype="application/json", extensions={"tenant": "t"})
    assert shape("cloudevent", extra) == {
        "specversion": "1.0",
        "id": "e-1",
        "source": "/triggers/default/orders",
        "type": "com.example.order",
        "subject": "s",
        "time": TIME,
        "datacontenttype": "application/json",
        "tenant": "t",
        "data": {"a": 1},
    }
    assert shape("cloudevent", event(b"\xff"))["data_base64"] == "/w=="


@pytest.mark.parametrize("name", ["cloudevent", "schedule", "http"])
def test_a_trigger_with_batches_gives_a_list_even_for_one(name):
    single = shape(name, event({"n": 1}))
    assert "Records" not in single
    assert shape(name, event({"n": 1}), batch=True) == {"Records": [single]}
    assert len(shape(name, event(id="1"), event(id="2"))["Records"]) == 2


def test_a_schedule():
    fired = event({"cron": "0 12 * * *", "scheduledTime": "2026-03-01T12:00:00Z", "detail": {"job": "report"}})
    assert shape("schedule", fired) == {
        "version": "0",
        "id": "e-1",
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": "kappa",
        "time": "2026-03-01T12:00:00Z",
        "region": "kappa",
        "resources": ["arn:kappa:events:kappa:default:rule/orders"],
        "detail": {"job": "report"},
    }
    assert shape("schedule", event(None))["detail"] == {}
    assert shape("schedule", event(None))["time"] == TIME


def test_s3_records_are_passed_on():
    record = {
        "eventVersion": "2.0",
        "eventSource": "minio:s3",
        "eventName": "s3:ObjectCreated:Put",
        "s3": {"bucket": {"name": "b"}, "object": {"key": "a+b.txt", "size": 3}},
    }
    assert shape("s3", event(record), event(record)) == {"Records": [{"awsRegion": "kappa", **record}] * 2}
    assert shape("s3", event({"s3": {}}))["Records"][0]["eventSource"] == "aws:s3"


def test_an_sqs_record():
    message = event({"order": 7, "name": "é"}, subject="orders.eu", extensions={"partitionkey": "k", "sequence": "12"})

    def attribute(value):
        return {"stringValue": value, "stringListValues": [], "binaryListValues": [], "dataType": "String"}

    assert shape("sqs", message, attempt=2) == {
        "Records": [
            {
                "messageId": "e-1",
                "receiptHandle": "e-1",
                "body": '{"order":7,"name":"é"}',
                "attributes": {
                    "ApproximateReceiveCount": "3",
                    "SentTimestamp": str(TIME_MS),
                    "SenderId": "/triggers/default/orders",
                    "ApproximateFirstReceiveTimestamp": str(TIME_MS),
                    "MessageGroupId": "k",
                    "SequenceNumber": "12",
                },
                "messageAttributes": {
                    "source": attribute("/triggers/default/orders"),
                    "type": attribute("com.example.order"),
                    "subject": attribute("orders.eu"),
                    "time": attribute(TIME),
                    "partitionkey": attribute("k"),
                    "sequence": attribute("12"),
                },
                "md5OfBody": "7bae5a86ca1bcb2ae61a41c9dd8c8dea",
                "eventSource": "aws:sqs",
                "eventSourceARN": "arn:kappa:sqs:kappa:default:orders",
                "awsRegion": "kappa",
            }
        ]
    }


@pytest.mark.parametrize(
    ("data", "body", "encoding"),
    [
        ("text", "text", None),
        (b"text", "text", None),
        (b"\xff\x00", "/wA=", "base64"),
        (None, "", None),
        ([1, None], "[1,null]", None),
        (0, "0", None),
        ("\ud800", "\ud800", None),
    ],
)
def test_bodies_of_messages(data, body, encoding):
    found = shape("sqs", event(data))["Records"][0]
    assert found["body"] == body
    assert found["messageAttributes"].get("encoding", {}).get("stringValue") == encoding


def test_a_webhook_is_an_http_event():
    hook = event({"action": "opened"}, source="/hooks/default/github", extensions={"githubevent": "issues"})
    found = shape("http", hook)
    request = found.pop("requestContext")
    assert found == {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": "/hooks/default/github",
        "rawQueryString": "",
        "headers": {
            "ce-specversion": "1.0",
            "ce-id": "e-1",
            "ce-source": "/hooks/default/github",
            "ce-type": "com.example.order",
            "ce-time": TIME,
            "ce-githubevent": "issues",
            "content-type": "application/json",
        },
        "isBase64Encoded": False,
        "body": '{"action":"opened"}',
    }
    assert (request["http"]["method"], request["http"]["path"]) == ("POST", "/hooks/default/github")
    assert (request["timeEpoch"], request["requestId"]) == (5500, "e-1")
    binary = shape("http", event(b"\xff", datacontenttype="image/png"))
    assert (binary["body"], binary["isBase64Encoded"], binary["headers"]["content-type"]) == ("/w==", True, "image/png")
    assert "body" not in shape("http", event(None))


def test_a_webhook_has_the_senders_method_path_query_and_headers():
    called = {"httpmethod": "PUT", "httppath": "/eu/1", "httpquery": "a=b&a=c"}
    called["httpheaders"] = '{"x-kind": "k", "content-type": "text/plain; charset=utf-8", "user-agent": "ua"}'
    found = shape("http", event("text", datacontenttype="text/plain", source="https://x.example", extensions=called))
    assert found["requestContext"]["http"] | {"protocol": ""} == {
        "method": "PUT",
        "path": "/eu/1",
        "protocol": "",
        "sourceIp": "",
        "userAgent": "ua",
    }
    assert (found["rawPath"], found["rawQueryString"]) == ("/eu/1", "a=b&a=c")
    assert found["queryStringParameters"] == {"a": "b,c"}
    assert found["headers"]["x-kind"] == "k"
    assert found["headers"]["content-type"] == "text/plain"
    assert not [name for name in found["headers"] if name.startswith("ce-http")]
    for broken in ("{", "[]", "1"):
        assert "x-kind" not in shape("http", event(None, extensions={"httpheaders": broken}))["headers"]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("s3", "text"),
        ("dynamodb", None),
        ("dynamodb", {"operation": "x"}),
        ("dynamodb", {"operation": []}),
        ("dynamodb", {"operation": "insert", "new": [1]}),
    ],
)
def test_what_is_not_what_the_shape_is_made_of(name, data):
    with pytest.raises(CloudEventError, match="event 'e-1'"):
        shape(name, event(data))


def test_an_unknown_shape():
    with pytest.raises(CloudEventError, match="'kafka' is no shape"):
        shape("kafka", event())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TIME, TIME_MS),
        ("2026-03-01T13:00:00.25+01:00", TIME_MS + 250),
        ("2026-03-01T12:00:00", TIME_MS),
        ("", 5500),
    ],
)
def test_times(text, expected):
    assert epoch_ms(text, 5.5) == expected


# --- reading ----------------------------------------------------------------------------------------------------------
def test_events_are_asked_by_attribute_or_like_a_dict():
    (found,) = read_events(json.dumps([event({"a": 1}, extensions={"tenant": "t"}).to_json()]).encode())
    assert (found.id, found.type, found.data, found.extensions) == (
        "e-1",
        "com.example.order",
        {"a": 1},
        {"tenant": "t"},
    )
    assert (found["id"], found["data"], found["tenant"], found.get("subject", "none")) == ("e-1", {"a": 1}, "t", "none")
    assert found.keys() == ["specversion", "id", "source", "type", "time", "tenant", "data"]
    with pytest.raises(KeyError):
        found["subject"]


def test_a_single_event_is_a_batch_of_one():
    assert read_events(json.dumps(event().to_json()).encode()) == (event(),)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "must be a list"),
        (b'"x"', "must be a list"),
        (b"[1]", "event 0: an event must be"),
        (json.dumps([event().to_json(), {"specversion": "1.0"}]).encode(), "event 1: id: is required"),
    ],
)
def test_bodies_that_hold_no_events(body, words):
    with pytest.raises(CloudEventError, match=words):
        read_events(body)


@pytest.mark.parametrize(
    ("value", "expected"), [("sqs", ("sqs", False)), ("http; batch", ("http", True)), ("http;batch", ("http", True))]
)
def test_the_header(value, expected):
    assert read_shape(value) == expected
