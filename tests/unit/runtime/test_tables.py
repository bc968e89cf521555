"""Changes of tables as records of a DynamoDB stream."""

import base64
from decimal import Context, Decimal, Inexact, Rounded

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kappa_runtime.cloudevent import Delivery, Event
from kappa_runtime.records import shaped
from kappa_runtime.tables import image, typed


def change(operation, **data):
    data = {"operation": operation, "schema": "public", "table": "orders", **data}
    event = Event("0/16B3748/0", "/postgres/shop", "dev.kappa.postgres.row", time="2026-03-01T12:00:00.5Z", data=data)
    (found,) = shaped(Delivery("dynamodb", (event,), "ns"))["Records"]
    return found


def test_an_update():
    found = change("update", key={"id": 1}, old={"id": 1, "paid": False}, new={"id": 1, "paid": True}, lsn="0/16B3748")
    found["dynamodb"].pop("SizeBytes")
    assert found == {
        "eventID": "0/16B3748/0",
        "eventName": "MODIFY",
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": "kappa",
        "dynamodb": {
            "ApproximateCreationDateTime": 1_772_366_400.5,
            "Keys": {"id": {"N": "1"}},
            "NewImage": {"id": {"N": "1"}, "paid": {"BOOL": True}},
            "OldImage": {"id": {"N": "1"}, "paid": {"BOOL": False}},
            "SequenceNumber": "0/16B3748/0",
            "StreamViewType": "NEW_AND_OLD_IMAGES",
        },
        "eventSourceARN": "arn:kappa:dynamodb:kappa:ns:table/orders/stream/kappa",
    }


@pytest.mark.parametrize(
    ("operation", "name", "images"),
    [
        ("insert", "INSERT", {"NewImage"}),
        ("delete", "REMOVE", {"OldImage"}),
        ("truncate", "TRUNCATE", set()),
    ],
)
def test_operations_and_their_images(operation, name, images):
    rows = {"old": None, "new": None} | {image.removesuffix("Image").lower(): {"id": 1} for image in images}
    found = change(operation, key=None if operation == "truncate" else {"id": 1}, **rows)
    assert found["eventName"] == name
    assert {key for key in found["dynamodb"] if key.endswith("Image")} == images
    assert found["dynamodb"]["Keys"] == ({} if operation == "truncate" else {"id": {"N": "1"}})


def test_the_sequence_is_the_sources_own():
    assert change("truncate", sequence="000123")["dynamodb"]["SequenceNumber"] == "000123"


def test_another_schema_stands_before_the_table():
    assert change("truncate", schema="shop")["eventSourceARN"].split(":")[5] == "table/shop.orders/stream/kappa"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, {"NULL": True}),
        (True, {"BOOL": True}),
        ("", {"S": ""}),
        (-1.5, {"N": "-1.5"}),
        (0.0, {"N": "0.0"}),
        (10**37, {"N": str(10**37)}),
        (10**38 + 1, {"S": str(10**38 + 1)}),  # more digits than DynamoDB's numbers have
        (1e126, {"S": "1e+126"}),
        (1e-131, {"S": "1e-131"}),
        (float("nan"), {"S": "nan"}),
        ([1, ["x"]], {"L": [{"N": "1"}, {"L": [{"S": "x"}]}]}),
        ({"a": {}}, {"M": {"a": {"M": {}}}}),
    ],
)
def test_values(value, expected):
    assert typed(value) == expected


def deserialized(value):
    """What boto3's TypeDeserializer does, by the DynamoDB API reference: numbers are exact decimals of 38 digits."""
    ((kind, content),) = value.items()
    if kind == "N":
        return Context(Emin=-128, Emax=126, prec=38, traps=[Inexact, Rounded]).create_decimal(content)
    if kind == "M":
        return {key: deserialized(item) for key, item in content.items()}
    if kind == "L":
        return [deserialized(item) for item in content]
    return {"NULL": None}.get(kind, base64.b64decode(content) if kind == "B" else content)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.text()
    | st.integers(-(10**38) + 1, 10**38 - 1)
    | st.floats(-1e125, 1e125).filter(lambda number: number == 0 or abs(number) > 1e-90),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def same(value, back):
    if isinstance(value, dict):
        return value.keys() == back.keys() and all(same(value[key], back[key]) for key in value)
    if isinstance(value, list):
        return len(value) == len(back) and all(map(same, value, back))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Decimal(repr(value)) == back
    return value == back and type(value) is type(back)


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_rows_come_back_from_their_typed_form(row):
    assert same(row, {name: deserialized(value) for name, value in image(row).items()})
