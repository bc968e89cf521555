"""Deliveries to event handlers: whatever sources put into events, the runtime makes its shape of it or says why not."""

import json
from typing import Any

from fuzz_forms import JSON, texts
from fuzz_target import Target
from hypothesis import strategies as st

from kappa_api.cloudevents import CloudEventError
from kappa_api.names import SHAPES
from kappa_runtime.cloudevent import Delivery, read_events, read_shape
from kappa_runtime.records import shaped

Json = Any
Case = tuple[str, bytes]

_SCALAR = st.one_of(st.none(), st.booleans(), st.integers(-3, 1 << 200), st.floats(), st.text(max_size=8))
_DATA = st.recursive(
    st.one_of(_SCALAR, st.sampled_from(["insert", "truncate", "0001-01-01T00:00:00+14:00", "\ud800", "/", ":"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
)
_CHANGE = st.fixed_dictionaries(
    {"operation": st.one_of(st.sampled_from(["insert", "update", "delete", "truncate"]), _DATA)},
    optional=dict.fromkeys(("key", "old", "new", "schema", "table", "sequence"), _DATA),
)
_GOOD: Json = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
_EVENT = st.one_of(
    _DATA,
    st.fixed_dictionaries(
        {"data": st.one_of(_DATA, _CHANGE, st.dictionaries(st.sampled_from(["detail", "scheduledTime", "s3"]), _DATA))},
        optional=dict.fromkeys(("time", "subject", "source", "datacontenttype", "partitionkey", "sequence"), _DATA),
    ).map(lambda change: _GOOD | change),
    st.fixed_dictionaries({"data_base64": st.sampled_from(["", "/w==", "eA==", "?"])}).map(lambda b: _GOOD | b),
)
_DEEP = [
    json.dumps([_GOOD]).replace("}]", ', "data": ' + "[" * n + "]" * n + "}]").encode() for n in (300, 900, 50_000)
]
_BODY = st.one_of(
    st.binary(max_size=20),
    st.lists(_EVENT, max_size=3).map(lambda value: json.dumps(value).encode()),
    st.sampled_from([b"null", b"[" * 5000, *_DEEP]),
)
_HEADER = st.one_of(
    st.sampled_from(SHAPES), st.sampled_from([f"{name}; batch" for name in SHAPES]), st.text(max_size=9)
)


def check(case: Case) -> None:
    shape, batch = read_shape(case[0])
    try:
        event = shaped(Delivery(shape, read_events(case[1]), "default", batch, 1, 5.0))
    except CloudEventError as error:
        if not 0 < len(str(error)) < 500:
            raise AssertionError("no reason, or the input at length") from error
        return
    if not isinstance(event, dict) or (batch and "Records" not in event):
        raise AssertionError(f"handlers do not expect this: {event!r:.200}")
    json.dumps(event)


_WORDS = (*JSON, *(name.encode() for name in SHAPES), b"; batch", b'"data":', b'"data_base64":', b'"operation":')
TARGETS = (
    Target("shapes", "events of sources in the shapes of handlers", st.tuples(_HEADER, _BODY), check, texts(1, _WORDS)),
)
