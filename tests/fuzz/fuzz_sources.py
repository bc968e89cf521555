"""What other systems send to sources of events: PostgreSQL's stream, MQTT's topics and payloads, messages of NATS.

Each is read, or refused with the error that its reader documents; every event that comes of it can travel.
"""

import struct

from fuzz_forms import JSON, frames, message, texts
from fuzz_target import Target
from fuzz_travel import check_travels
from hypothesis import strategies as st
from paho.mqtt.client import topic_matches_sub

from kappa_api.cloudevents import CloudEvent
from kappa_api.sources.mqtt import topic_fault
from kappa_gateway.events.front.binding import headers_of
from kappa_gateway.events.sources import mqtt_topics as topics
from kappa_gateway.events.sources import nats_messages
from kappa_gateway.events.sources.pgoutput import Alive, ProtocolError, decode, unwrap
from kappa_gateway.events.sources.postgres_events import Origin, Translator
from kappa_gateway.events.sources.postgres_values import to_json

# --- PostgreSQL -------------------------------------------------------------------------------------------------------
ORIGIN = Origin("slot", "postgresql://h:5432/d", ("insert", "update", "delete", "truncate"), {("s", "t"): ("a", "b")})


def check_postgres(case: list[bytes]) -> None:
    """Frames of one stream, in order."""
    translator = Translator(ORIGIN)
    for frame in case:
        try:
            found = unwrap(frame)
            events = [] if isinstance(found, Alive) else translator.feed(decode(found))
        except ProtocolError as error:
            if not 0 < len(str(error)) < 500:
                raise AssertionError("no reason, or the input at length") from error
            return
        for event in events:
            check_travels(event)


_OIDS = st.sampled_from([16, 17, 20, 23, 25, 114, 199, 700, 701, 1000, 1001, 1007, 1114, 1184, 1185, 3802, 3807, 7])
_TEXTS = st.one_of(
    st.text(max_size=6),
    st.sampled_from(
        ["{1,NULL}", '{"a\\"b",{}}', "[0:1]={a,b}", "\\x0aff", "NaN", "1e999", "t", '{"a":1e999}', "[[[", "{{"]
    ),
    st.sampled_from(["2024-05-01 10:00:00.5+00", "infinity", "0044-03-15 BC", "[" * 900 + "]" * 900, "{" * 2000]),
)
_VALUE = st.one_of(
    st.sampled_from([b"n", b"u", b"b\0\0\0\1x"]),
    _TEXTS.map(lambda text: b"t" + _sized(text.encode("utf-8", "replace"))),
)
_NAME = st.sampled_from(["a", "b", "s", "t", "é", "", "a\n"]).map(lambda name: name.encode() + b"\0")


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(4) + data


@st.composite
def postgres_streams(draw: st.DrawFn) -> list[bytes]:
    columns = draw(st.lists(st.tuples(st.sampled_from([b"\0", b"\1"]), _NAME, _OIDS), min_size=1, max_size=4))

    def row() -> bytes:
        values = [draw(_VALUE) for _ in columns]
        return len(values).to_bytes(2) + b"".join(values)

    moments = st.one_of(st.integers(0, 1 << 50), st.integers(-(1 << 63), (1 << 63) - 1))
    begin = b"B" + struct.pack("!QqI", draw(st.integers(0, (1 << 64) - 1)), draw(moments), 7)
    relation = b"R\0\0\0\1" + draw(_NAME) + draw(_NAME) + draw(st.sampled_from([b"d", b"f", b"n"]))
    relation += len(columns).to_bytes(2) + b"".join(k + n + struct.pack("!Ii", o, -1) for k, n, o in columns)
    found = [begin, relation]
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["I", "U", "UO", "UK", "D", "T"]))
        head = kind[:1].encode() + b"\0\0\0\1"
        if kind == "I" or kind == "U":
            found.append(head + b"N" + row())
        elif kind == "D":
            found.append(head + draw(st.sampled_from([b"K", b"O"])) + row())
        elif kind == "T":
            found.append(b"T\0\0\0\1" + draw(st.sampled_from([b"\0", b"\1", b"\3"])) + b"\0\0\0\1")
        else:
            found.append(head + kind[1:].encode() + row() + b"N" + row())
    found.append(b"C\0" + bytes(24))
    found = [b"w" + bytes(24) + part for part in found]
    if draw(st.integers(0, 3)) == 0:
        index = draw(st.integers(0, len(found) - 1))
        changed = bytearray(found[index])
        changed[draw(st.integers(0, len(changed) - 1))] = draw(st.integers(0, 255))
        found[index] = bytes(changed)
    return found


# --- a column's text --------------------------------------------------------------------------------------------------
def check_value(case: tuple[str, bytes]) -> None:
    """(number of the type, text): JSON, whatever the text is."""
    value = to_json(int(case[0]) if case[0].isdecimal() else 25, case[1].decode("utf-8", "replace"))
    check_travels(CloudEvent("1", "/s", "t", data=value))


# --- MQTT -------------------------------------------------------------------------------------------------------------
def check_mqtt(case: tuple[str, str, str, bytes]) -> None:
    """(a topic filter, another one, a topic, a payload)."""
    one, other, topic, payload = case
    if any("\udc80" <= character <= "\udcff" for text in case[:3] for character in text):
        return  # MQTT's strings are UTF-8: whoever sends others is cut off before
    wanted = [text for text in (one, other) if not topic_fault(text)]
    written = {}
    for text in wanted:
        try:
            written[text] = topics.subjects_of(text)
        except ValueError:
            continue
    groups = topics.groups(subject for subjects in written.values() for subject in subjects)
    for group in groups:
        assert not any(topics.overlap(a, b) for at, a in enumerate(group) for b in group[:at]), group
    if topic_fault(topic) or "+" in topic or "#" in topic:
        return
    check_travels(topics.event("mqtt://h:1", "id", topic, payload, qos=1, now=1e9))
    try:
        (subject,) = topics.subjects_of(topic)
    except ValueError:
        return
    if "." in topic or topic.startswith("$"):
        return  # a level of dots only is ambiguous for nats-server itself; what begins with $ is nobody's filter
    assert topics.topic_of(subject) == topic
    taken = any(_matches(pattern, subject) for group in groups for pattern in group)
    assert taken == any(topic_matches_sub(text, topic) for text in written), (
        "a filter takes what it should not, or less"
    )


def _matches(pattern: str, subject: str) -> bool:
    """Whether NATS gives the subject to who asks for the pattern."""
    wanted, tokens = pattern.split("."), subject.split(".")
    for index, token in enumerate(wanted):
        if token == ">":
            return len(tokens) > index
        if index >= len(tokens) or token not in ("*", tokens[index]):
            return False
    return len(wanted) == len(tokens)


_FILTERS = st.lists(
    st.sampled_from(["a", "b", "", "+", "#", "a.b", "é", "a b", "*", ">", "$SYS", "a+"]), max_size=4
).map("/".join)
_PAYLOADS = st.one_of(
    st.binary(max_size=8),
    st.sampled_from(
        [b'{"a": 1}', b"[1, NaN]", b"[1e999]", b'{"a": "\\ud800"}', b"21.50", b"[" * 900 + b"]" * 900, b"\xff{"]
    ),
)


# --- NATS -------------------------------------------------------------------------------------------------------------
TEMPLATE = CloudEvent("id", "nats://s", "dev.kappa.nats.message", subject="a.b", time="2024-05-17T09:30:00Z")


def check_nats(case: tuple[list[bytes], bytes]) -> None:
    """Header lines as NATS has them, and the data."""
    headers = headers_of(case[0])
    check_travels(nats_messages.cloud_event(headers, case[1]) or nats_messages.plain_event(TEMPLATE, headers, case[1]))


_LINES = st.sampled_from(
    [
        *(
            b"ce-specversion: 1.0\r\n",
            b"ce-id: 1\r\n",
            b"ce-source: /s\r\n",
            b"ce-type: t%0a\r\n",
            b"ce-x: %ff%0d%0a\r\n",
        ),
        *(
            b"Content-Type: application/json\r\n",
            b"Content-Type: application/cloudevents+json\r\n",
            b"Content-Type: text/x\r\n",
        ),
        *(b"ce-datacontenttype: a%0d%0ab\r\n", b"ce-X: 1\r\n", b"ce-subject: \xe9\r\n", b"CE-ID: 2\r\n"),
    ]
)
_EVENTS = st.sampled_from(
    [
        b'{"specversion":"1.0","id":"1","source":"/s","type":"t","datacontenttype":"text/plain","data":"x"}',
        b'{"specversion":"1.0","id":"1","source":"/s","type":"t","subject":"a\\nb","data_base64":"AA=="}',
    ]
)


_WORDS = (
    b'"datacontenttype":"',
    b"\\r\\n",
    b"\\u0000",
    b'"data_base64":"',
    b"Content-Type: ",
    b"ce-specversion: 1.0\r\n",
)
TARGETS = (
    Target(
        "postgres",
        "PostgreSQL's replication stream, to events",
        postgres_streams(),
        check_postgres,
        frames((b"w" + bytes(24), b"B", b"R\0\0\0\1", b"I\0\0\0\1N\0\1", b"t\0\0\0\1", b"T\0\0\0\1\0\0\0\0\1")),
    ),
    Target(
        "postgres-values",
        "columns of PostgreSQL, to JSON",
        st.tuples(_OIDS.map(str), _TEXTS.map(lambda text: text.encode("utf-8", "replace"))),
        check_value,
        texts(1, (*JSON, b"NULL", b"{{", b"[0:1]=", b"\\x", b"+00", b"infinity", b"1000\n", b"3807\n", b"1185\n")),
    ),
    Target(
        "mqtt",
        "topics as NATS's subjects, and payloads",
        st.tuples(_FILTERS, _FILTERS, _FILTERS, _PAYLOADS),
        check_mqtt,
        texts(3, (*JSON, b"a/+/b", b"/#", b"//", b"$SYS/")),
    ),
    Target(
        "nats",
        "messages of NATS, to events",
        st.tuples(st.lists(_LINES, max_size=6), _EVENTS | _PAYLOADS),
        check_nats,
        message((*JSON, *_WORDS)),
    ),
)
