"""Topics and subjects, and which consumers read what."""

from itertools import product
from types import SimpleNamespace

import aiomqtt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import MQTTMessage

from kappa_gateway.events.sources import mqtt_broker
from kappa_gateway.events.sources import mqtt_topics as topics
from kappa_gateway.events.sources.mqtt_broker import Identities, Inbox


@pytest.mark.parametrize(
    ("topic", "subjects"),
    [
        ("a/b", ("a.b",)),
        ("a/+/b", ("a.*.b",)),
        ("a/#", ("a.>", "a")),
        ("#", (">",)),
        ("/a", ("/.a",)),
        ("a/", ("a./",)),
        ("a//b", ("a./.b",)),
        ("a.b/c", ("a//b.c",)),
    ],
)
def test_subjects_of_topics(topic: str, subjects: tuple[str, ...]) -> None:
    assert topics.subjects_of(topic) == subjects


@given(st.lists(st.text("ab.", max_size=3), min_size=1, max_size=4))
def test_a_topic_comes_back_from_its_subject(levels: list[str]) -> None:
    # A level of dots only is ambiguous for nats-server itself, and dots are refused for Triggers anyway.
    topic = "/".join(level.replace(".", "x.") for level in levels)
    assert topics.topic_of(topics.subjects_of(topic)[0]) == topic


@pytest.mark.parametrize("topic", ["a b", "a*", "a/>", "a\tb"])
def test_topics_that_nats_cannot_have(topic: str) -> None:
    with pytest.raises(ValueError, match="NATS has no spaces"):
        topics.subjects_of(topic)


TOKENS = st.lists(st.sampled_from(["a", "b", "*"]), min_size=1, max_size=3)
SUBJECTS = st.builds(lambda tokens, rest: ".".join(tokens + rest), TOKENS, st.sampled_from([[], [">"]]))
ALL = [".".join(tokens) for length in range(1, 5) for tokens in product("ab", repeat=length)]


def matched(pattern: str) -> set[str]:
    """By brute force: which of a small world's subjects a pattern matches."""
    tokens = pattern.split(".")
    rest = tokens[-1] == ">"
    head = tokens[:-1] if rest else tokens

    def fits(subject: str) -> bool:
        parts = subject.split(".")
        enough = len(parts) > len(head) if rest else len(parts) == len(head)
        return enough and all(a in ("*", b) for a, b in zip(head, parts, strict=False))

    return {subject for subject in ALL if fits(subject)}


@given(SUBJECTS, SUBJECTS)
def test_overlap_is_what_both_match(one: str, other: str) -> None:
    assert topics.overlap(one, other) == bool(matched(one) & matched(other))


@given(st.lists(SUBJECTS, min_size=1, max_size=6))
def test_groups_read_everything_and_none_of_them_anything_twice(subjects: list[str]) -> None:
    found = topics.groups(subjects)
    assert set().union(*map(matched, subjects)) == set().union(*(matched(s) for group in found for s in group))
    for group in found:
        assert not any(topics.overlap(a, b) for i, a in enumerate(group) for b in group[:i])
    assert {subject for group in found for subject in group} <= set(subjects)


@pytest.mark.parametrize(
    ("payload", "data", "kind"),
    [
        (b'{"a": 1}', {"a": 1}, "application/json"),
        (b" [1, 2]", [1, 2], "application/json"),
        (b"21.50", "21.50", "text/plain"),
        (b"{not json", "{not json", "text/plain"),
        (b'{"a": NaN}', '{"a": NaN}', "text/plain"),
        (b'["\\ud800"]', '["\\ud800"]', "text/plain"),
        (b"\xff", b"\xff", "application/octet-stream"),
        (b"", None, ""),
    ],
)
def test_payloads(payload: bytes, data: object, kind: str) -> None:
    assert topics.data_of(payload) == (data, kind)


def message(mid: int, payload: bytes, *, dup: bool = False, qos: int = 1) -> MQTTMessage:
    found = MQTTMessage(mid, b"t")
    found.payload, found.dup, found.qos = payload, dup, qos
    return found


def test_only_a_repetition_keeps_its_id() -> None:
    ids = Identities()
    first = ids.of(message(1, b"on"))
    assert ids.of(message(1, b"on", dup=True)) == first
    again = ids.of(message(1, b"on"))  # the packet id is free again, and the device says the same
    assert again != first
    assert ids.of(message(1, b"on", dup=True)) == again
    assert ids.of(message(1, b"off", dup=True)) not in (first, again)  # of a message that this process never saw
    assert len({ids.of(message(0, b"on", qos=0)) for _ in range(3)}) == 3
    assert Identities().of(message(1, b"on")) != Identities().of(message(1, b"on"))


class Paho:
    """As much of paho's client as an Inbox touches."""

    def manual_ack_set(self, on: bool) -> None:
        assert on

    def _sock_recv(self, size: int) -> bytes:
        return b""


def an_inbox() -> Inbox:
    return Inbox(SimpleNamespace(_client=Paho()), "default/t")  # type: ignore[arg-type]


async def test_what_waits_is_bounded_in_bytes() -> None:
    inbox = an_inbox()
    large = bytes(mqtt_broker.MOST_WAITING // 4)
    for _ in range(10):
        inbox._came(None, None, message(0, large, qos=0))  # type: ignore[arg-type]
    assert len(await inbox.take(None)) == 4  # type: ignore[arg-type]
    for mid in range(16):
        inbox._came(None, None, message(mid, large))  # type: ignore[arg-type]
    with pytest.raises(aiomqtt.MqttError, match="on and on"):
        inbox._came(None, None, message(17, large))  # type: ignore[arg-type]
    assert len(await inbox.take(None)) == 16  # type: ignore[arg-type]
    inbox._came(None, None, message(17, large))  # type: ignore[arg-type]
