"""CloudEvents as the events that AWS Lambda handlers know: a schedule, S3 records, SQS records.

Sources, all in the AWS Lambda developer guide: "Using Lambda with Amazon EventBridge Scheduler" (the scheduled event),
"Process Amazon S3 event notifications with Lambda" (and "Event message structure" in the S3 user guide), "Using Lambda
with Amazon SQS". For table changes see `tables`, for webhooks `webhooks`.

Account and region are "kappa": there are none, and code that looks at them should be able to tell.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from kappa_api.cloudevents import CloudEventError
from kappa_runtime import tables, webhooks
from kappa_runtime.cloudevent import Delivery, Event

Json = Any

ACCOUNT = REGION = "kappa"
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def shaped(delivery: Delivery) -> dict[str, Json]:
    """The event that the handler gets. Shapes that are lists in AWS always are one here; the others are, as
    `{"Records": [...]}`, when their Trigger may deliver batches. Raises CloudEventError for an
    unknown shape, and for data that is not what the shape is made of."""
    make = _MAKERS.get(delivery.shape)
    if make is None:
        raise CloudEventError(f"{delivery.shape[:40]!r} is no shape that this runtime knows")
    try:
        if delivery.shape in _ALWAYS_RECORDS or delivery.batch or len(delivery.events) > 1:
            return {"Records": [make(event, delivery) for event in delivery.events]}
        return make(delivery.events[0], delivery)
    except RecursionError as error:
        raise CloudEventError("its data is nested too deeply") from error


def cloudevent(event: Event, delivery: Delivery) -> dict[str, Json]:
    """The CloudEvent in its JSON format."""
    return event.to_json()


def schedule(event: Event, delivery: Delivery) -> dict[str, Json]:
    """EventBridge's scheduled event. `time` is when it was due, not when it came."""
    data = event.data if isinstance(event.data, Mapping) else {}
    detail = data.get("detail")
    return {
        "version": "0",
        "id": event.id,
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": ACCOUNT,
        "time": data.get("scheduledTime") or event.time,
        "region": REGION,
        "resources": [arn("events", delivery, f"rule/{last_part(event.source)}")],
        "detail": {} if detail is None else detail,
    }


def s3(event: Event, delivery: Delivery) -> dict[str, Json]:
    """The S3 record, which is the event's data as it came from the bucket's server."""
    if not isinstance(event.data, Mapping):
        raise CloudEventError(f"event {event.id[:80]!r}: its data is no S3 record")
    return {"eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": REGION, **event.data}


def sqs(event: Event, delivery: Delivery) -> dict[str, Json]:
    """An SQS record. `messageId` is the CloudEvent's id: that is what batchItemFailures names.

    The body is a string, as in SQS: JSON data as JSON text; bytes as text when they are UTF-8, else in base64 and with
    the message attribute `encoding` = `base64`. The CloudEvent's attributes are message attributes.
    """
    body, encoding = message_text(event.data)
    attributes = {name: value for name, value in event.attributes().items() if name not in ("id", "specversion")}
    if encoding:
        attributes["encoding"] = encoding
    sent = str(epoch_ms(event.time, delivery.now))
    system = {
        "ApproximateReceiveCount": str(delivery.attempt + 1),
        "SentTimestamp": sent,
        "SenderId": event.source,
        "ApproximateFirstReceiveTimestamp": sent,
    }
    # CloudEvents' extensions for partitioning and sequence: what a FIFO queue's records have.
    for extension, name in (("partitionkey", "MessageGroupId"), ("sequence", "SequenceNumber")):
        if extension in event.extensions:
            system[name] = event.extensions[extension]
    return {
        "messageId": event.id,
        "receiptHandle": event.id,
        "body": body,
        "attributes": system,
        "messageAttributes": {
            name: {"stringValue": value, "stringListValues": [], "binaryListValues": [], "dataType": "String"}
            for name, value in attributes.items()
        },
        "md5OfBody": hashlib.md5(body.encode(errors="surrogatepass"), usedforsecurity=False).hexdigest(),
        "eventSource": "aws:sqs",
        "eventSourceARN": arn("sqs", delivery, last_part(event.source)),
        "awsRegion": REGION,
    }


def message_text(data: Json | bytes) -> tuple[str, str]:
    """A message as a string, and `base64` if it is that."""
    if data is None:
        return "", ""
    if isinstance(data, str):
        return data, ""
    if isinstance(data, bytes):
        try:
            return data.decode(), ""
        except UnicodeDecodeError:
            return base64.b64encode(data).decode(), "base64"
    return _encode(data), ""


def epoch_ms(time: str, default: float) -> int:
    """Epoch milliseconds of an RFC 3339 time, or of `default` (epoch seconds) when it is none."""
    try:
        found = datetime.fromisoformat(time)
        return round((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)
    except ValueError:
        return int(default * 1000)


def arn(service: str, delivery: Delivery, resource: str) -> str:
    """In the form of an Amazon Resource Name, for code that splits one at its colons."""
    return f"arn:kappa:{service}:{REGION}:{delivery.namespace}:{resource}"


def last_part(source: str) -> str:
    """The last segment of a CloudEvent's source."""
    return source.rstrip("/").rpartition("/")[2].replace(":", "-")


def dynamodb(event: Event, delivery: Delivery) -> dict[str, Json]:
    """A DynamoDB stream's record."""
    record = tables.record(event, epoch_ms(event.time, delivery.now) / 1000)
    return record | {"awsRegion": REGION, "eventSourceARN": arn("dynamodb", delivery, tables.resource(event))}


def http(event: Event, delivery: Delivery) -> dict[str, Json]:
    """An HTTP API's event, payload format 2.0."""
    return webhooks.http_event(event, delivery.namespace, delivery.now)


_ALWAYS_RECORDS = ("s3", "sqs", "dynamodb")
_MAKERS: dict[str, Callable[[Event, Delivery], dict[str, Json]]] = {
    "cloudevent": cloudevent,
    "schedule": schedule,
    "s3": s3,
    "sqs": sqs,
    "dynamodb": dynamodb,
    "http": http,
}
