"""CloudEvents from strangers, in every mode of the HTTP binding: read, or refused with a reason.

What was read must survive the way it goes from there: as JSON in the stream, and read again by the delivery.
"""

import json
from typing import Any

from fuzz_forms import JSON, message
from fuzz_target import Target
from fuzz_travel import check_travels
from hypothesis import strategies as st

from kappa_api.cloudevents import CloudEvent, CloudEventError
from kappa_api.sources.event import EventSource
from kappa_gateway.events.front.binding import MediaTypeError, headers_of, parse

Json = Any
Case = tuple[list[bytes], bytes]

_TYPES = st.sampled_from(
    [
        "application/cloudevents+json",
        "application/cloudevents-batch+json; charset=utf-8",
        "application/cloudevents+json;charset=",
        "application/cloudevents",
        "Application/JSON",
        "text/plain; charset=us-ascii",
        "application/x+json;;",
        "",
        ";",
    ]
)
_VALUES = st.one_of(
    st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=12),
    st.sampled_from(["1.0", "%C3%A9", "%ff", "%", '"a\\', '"\\""', "2024-05-17T09:30:00Z", "é", "1" * 300]),
)
_NAMES = st.sampled_from(
    ["id", "source", "type", "specversion", "time", "subject", "data", "dataschema", "x1", "X", "_"]
)
_HEADER = st.tuples(_NAMES, _VALUES).map(lambda pair: f"ce-{pair[0]}: {pair[1]}\r\n".encode("latin-1"))
_SCALAR = st.one_of(st.none(), st.booleans(), st.integers(-3, 1 << 70), st.floats(), st.text(max_size=8), _VALUES)
_DATA = st.recursive(
    _SCALAR,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
)
_GOOD: Json = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
_EVENT = st.one_of(
    _DATA,
    st.fixed_dictionaries(
        {}, optional=dict.fromkeys((*_GOOD, "data", "data_base64", "time", "subject", "x1", "A", ""), _DATA)
    ).map(lambda change: _GOOD | change),
)
_BODY = st.one_of(
    st.binary(max_size=30),
    _EVENT.map(lambda value: json.dumps(value).encode()),
    st.lists(_EVENT, max_size=3).map(lambda value: json.dumps(value).encode()),
    st.sampled_from([b"[" * 5000, b"1" * 5000, b"\xef\xbb\xbf{}", b'"\\ud800"']),
)
_BINARY = [f"ce-{name}: {value}\r\n".encode() for name, value in _GOOD.items()]


@st.composite
def requests(draw: st.DrawFn) -> Case:
    lines = [f"Content-Type: {draw(_TYPES)}\r\n".encode()] if draw(st.booleans()) else []
    if draw(st.booleans()):
        lines += _BINARY
    return lines + draw(st.lists(_HEADER, max_size=4)), draw(_BODY)


def check(case: Case) -> None:
    try:
        found = parse(headers_of(case[0]), case[1])
    except (CloudEventError, MediaTypeError) as error:
        if not 0 < len(str(error)) < 500:
            raise AssertionError("no reason, or the input at length") from error
        return
    for event in found:
        check_travels(event)
        sent = json.dumps(event.to_json(), separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
        again = CloudEvent.from_json(json.loads(sent))
        assert again == event
        EventSource(types=("a*b*", "*"), sources=("*/s",)).matches(event)
        for value in event.attributes().values():
            value.encode()  # whatever keeps it keeps it as UTF-8
            assert "\n" not in value


_WORDS = (
    *JSON,
    *(b"ce-id: 1\r\n", b"ce-specversion: 1.0\r\n", b"ce-time: ", b"ce-", b"\r\n\r\n", b"; charset=", b"Content-Type: "),
    *(b"application/cloudevents+json", b"application/cloudevents-batch+json", b"data_base64", b"2024-05-17T09:30:00Z"),
)  # fmt: skip
TARGETS = (Target("cloudevents", "CloudEvents over HTTP in every mode", requests(), check, message(_WORDS)),)
