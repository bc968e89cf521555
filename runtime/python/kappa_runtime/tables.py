"""Changes of tables as the records of a DynamoDB stream.

Sources: "Using AWS Lambda with Amazon DynamoDB" in the AWS Lambda developer guide; "Record", "StreamRecord" and
"AttributeValue" in the DynamoDB API reference. The data of such a CloudEvent is

    {"operation": "insert" | "update" | "delete" | "truncate", "schema", "table", "key": {...},
     "old": {...} | null, "new": {...} | null, ...}

with plain JSON values; here they become typed ones, which boto3's TypeDeserializer reads back.
"""

import json
from collections.abc import Mapping
from decimal import Context, Decimal, DecimalException, Inexact, Rounded
from typing import Any

from kappa_api.cloudevents import CloudEventError
from kappa_runtime.cloudevent import Event

Json = Any

#: A truncated table is no removed record, and DynamoDB has no word for it: handlers that do not know it leave it alone.
NAMES = {"insert": "INSERT", "update": "MODIFY", "delete": "REMOVE", "truncate": "TRUNCATE"}
#: What a number of DynamoDB holds: 38 digits, 1E-130 to 9.99E+125. Beyond it a value is a string.
_NUMBERS = Context(prec=38, traps=[Inexact, Rounded])
_LOWEST, _HIGHEST = -130, 125


def record(event: Event, time: float) -> dict[str, Json]:
    """The record without its region and source's name. `time`: epoch seconds of the change.

    `SequenceNumber` is the source's, or else the event's id: batchItemFailures may name either, as with Lambda.
    """
    data = _data(event)
    operation = data.get("operation")
    if not isinstance(operation, str) or operation not in NAMES:
        raise CloudEventError(f"event {event.id[:80]!r}: operation {operation!r:.80} is none of {', '.join(NAMES)}")
    change: dict[str, Json] = {"ApproximateCreationDateTime": time, "Keys": {}}
    for key, name in (("key", "Keys"), ("new", "NewImage"), ("old", "OldImage")):
        row = data.get(key)
        if row is not None and not isinstance(row, Mapping):
            raise CloudEventError(f"event {event.id[:80]!r}: {key} is no row")
        if row is not None:
            change[name] = image(row)
    change |= {
        "SequenceNumber": str(data.get("sequence") or event.id),
        "SizeBytes": len(json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")),
        "StreamViewType": "NEW_AND_OLD_IMAGES",
    }
    return {
        "eventID": event.id,
        "eventName": NAMES[operation],
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "dynamodb": change,
    }


def resource(event: Event) -> str:
    """The table as the last part of an ARN: `table/<name>/stream/kappa`, with the schema before the name unless it is
    PostgreSQL's usual one."""
    data = _data(event)
    schema, table = data.get("schema") or "", data.get("table") or ""
    return f"table/{table if schema in ('', 'public') else f'{schema}.{table}'}/stream/kappa"


def image(row: Mapping[str, Json]) -> dict[str, Json]:
    """A row with typed values."""
    return {str(name): typed(value) for name, value in row.items()}


def typed(value: Json) -> dict[str, Json]:
    """One JSON value as a DynamoDB AttributeValue."""
    if value is None:
        return {"NULL": True}
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, str):
        return {"S": value}
    if isinstance(value, int | float):
        return _number(value)
    if isinstance(value, Mapping):
        return {"M": image(value)}
    return {"L": [typed(item) for item in value]}


def _number(value: int | float) -> dict[str, Json]:
    text = repr(value)
    try:
        number = _NUMBERS.create_decimal(Decimal(text))
    except (DecimalException, ValueError):
        return {"S": text}
    fits = number.is_zero() or (number.is_finite() and _LOWEST <= number.adjusted() <= _HIGHEST)
    return {"N": text} if fits else {"S": text}


def _data(event: Event) -> Mapping[str, Json]:
    if not isinstance(event.data, Mapping):
        raise CloudEventError(f"event {event.id[:80]!r}: its data is no change of a table")
    return event.data
