"""The pure parts: verdicts, what follows a failure, what goes over the wire, records, ids, streams, settings."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kappa_profiles import tries

from kappa_api.cloudevents import CloudEvent
from kappa_api.delivery import Backoff, Delivery
from kappa_api.trigger import Batch
from kappa_gateway.errors import KINDS
from kappa_gateway.events import settings, streams
from kappa_gateway.events.delivery import wire
from kappa_gateway.events.delivery.attempts import MAX_AGE, RETRIES_EXHAUSTED, Step, after_failure, pause
from kappa_gateway.events.delivery.invoke import MOST_ANSWER, Sink
from kappa_gateway.events.delivery.pull import consumer_name, nak
from kappa_gateway.events.delivery.target import Target
from kappa_gateway.events.delivery.verdict import TABLE, Outcome, Verdict, judge
from kappa_gateway.events.records import Record, error_of, record_key, result_of
from kappa_gateway.events.submit import Submission, key_name, public_id, split_id
from kappa_gateway.events.work import HttpCall, Lane, Work

# --- verdicts ---------------------------------------------------------------------------------------------------------
CALL, EVENT = False, True


@pytest.mark.parametrize(
    ("outcome", "event", "verdict"),
    [
        (Outcome(200), CALL, Verdict.DONE),
        (Outcome(204), EVENT, Verdict.DONE),
        (Outcome(302), EVENT, Verdict.DONE),
        (Outcome(404), CALL, Verdict.DONE),
        (Outcome(404), EVENT, Verdict.FAILED),
        (Outcome(429), CALL, Verdict.FAILED),
        (Outcome(500), CALL, Verdict.FAILED),
        (Outcome(200, error="ValueError"), CALL, Verdict.FAILED),
        (Outcome(code="deadline"), CALL, Verdict.FAILED),
        (Outcome(code="instance_died"), EVENT, Verdict.FAILED),
        (Outcome(code="no_capacity"), CALL, Verdict.THROTTLED),
        (Outcome(code="not_ready"), EVENT, Verdict.THROTTLED),
        (Outcome(code="not_found"), CALL, Verdict.GONE),
        (Outcome(code="body_lost"), CALL, Verdict.HOPELESS),
        (Outcome(code="something new"), CALL, Verdict.FAILED),
    ],
)
def test_verdicts(outcome: Outcome, event: bool, verdict: Verdict) -> None:
    assert judge(outcome, event=event) is verdict


def test_every_code_of_the_table_is_one_of_the_gateways() -> None:
    assert set(TABLE) - {"body_lost"} <= set(KINDS)


# --- attempts ---------------------------------------------------------------------------------------------------------
def test_what_follows_a_failure() -> None:
    delivery = Delivery(retries=2, backoff=Backoff(60, 2, 3600, 0), max_age=600)
    assert after_failure(delivery, 1, 0, 5_000, 0.5) == Step(65_000)
    assert after_failure(delivery, 2, 0, 65_000, 0.5) == Step(185_000)
    assert after_failure(delivery, 3, 0, 185_000, 0.5) == Step(cause=RETRIES_EXHAUSTED)
    assert after_failure(delivery, 1, 0, 540_000, 0.5) == Step(cause=MAX_AGE)
    assert after_failure(Delivery(retries=0), 1, 0, 0, 0.5) == Step(cause=RETRIES_EXHAUSTED)


@tries(200)
@given(
    st.integers(0, 100),
    st.integers(0, 10_000),
    st.integers(1, 10),
    st.integers(0, 100),
    st.integers(1, 101),
    st.floats(0, 1),
)
def test_a_pause_is_within_its_bounds(
    retries: int, seconds: int, factor: int, jitter: int, tried: int, draw: float
) -> None:
    delivery = Delivery(retries=retries, backoff=Backoff(seconds, factor, 3600, jitter), max_age=10**6)
    step = after_failure(delivery, tried, 0, 1_000, draw)
    if tried > retries:
        assert step == Step(cause=RETRIES_EXHAUSTED)
    else:
        longest = min(seconds * factor ** (tried - 1), 3600) * (1 + jitter / 100)
        assert 1 <= step.due_ms <= 1_000 + longest * 1000 + 1
    assert 0.25 <= pause(tried) <= 5.0


# --- wire -------------------------------------------------------------------------------------------------------------
def work_of(event: CloudEvent) -> Work:
    return Work("w" + event.id, 1, json.dumps(event.to_json()).encode())


EVENTS = [CloudEvent(id=f"e{n}", source="/s", type="t", data={"sequence": f"s{n}"}) for n in range(3)]
WORKS = [work_of(event) for event in EVENTS]


@pytest.mark.parametrize(
    ("answer", "failed"),
    [
        (b"", None),
        (b"null", None),
        (b"[]", None),
        (b'{"other": 1}', None),
        (b'{"batchItemFailures": null}', None),
        (b'{"batchItemFailures": []}', set()),
        (b'{"batchItemFailures": [{"itemIdentifier": "e1"}]}', {1}),
        (b'{"batchItemFailures": [{"itemIdentifier": "s0"}, {"itemIdentifier": "e2"}]}', {0, 2}),
        (b'{"batchItemFailures": [{"itemIdentifier": "nobody"}]}', {0, 1, 2}),
        (b'{"batchItemFailures": [{"itemIdentifier": ""}]}', {0, 1, 2}),
        (b'{"batchItemFailures": ["e1"]}', {0, 1, 2}),
    ],
)
def test_partial_failures(answer: bytes, failed: set[int] | None) -> None:
    assert wire.failures(Outcome(200, body=answer), WORKS) == failed


def test_a_batch_and_its_shape() -> None:
    outgoing = wire.of_events(WORKS, Target("default/f", batch=Batch(10, 1), shape="sqs"), 2)
    assert [event["id"] for event in json.loads(outgoing.body)] == ["e0", "e1", "e2"]
    assert b"kappa-event-shape: sqs; batch\r\n" in outgoing.lines
    assert b"kappa-attempt: 2\r\n" in outgoing.lines
    single = wire.of_events(WORKS[:1], Target("default/f", shape="sqs"), 0)
    assert b"kappa-event-shape: sqs\r\n" in single.lines


@pytest.mark.parametrize(
    ("event", "body", "kind"),
    [
        (CloudEvent("1", "/s", "t", data=b"\x00\xff", datacontenttype="image/png"), b"\x00\xff", b"image/png"),
        (CloudEvent("1", "/s", "t", data="text", datacontenttype="text/plain"), b"text", b"text/plain"),
        (CloudEvent("1", "/s", "t", data="text"), b'"text"', b"application/json"),
        (CloudEvent("1", "/s", "t", data={"a": 1}), b'{"a": 1}', b"application/json"),
        (CloudEvent("1", "/s", "t"), b"", b""),
    ],
)
def test_binary_mode(event: CloudEvent, body: bytes, kind: bytes) -> None:
    outgoing = wire.of_events([work_of(event)], Target("default/f"), 0)
    assert outgoing.body == body
    assert (b"content-type: %b\r\n" % kind in outgoing.lines) == bool(kind)
    assert b"ce-specversion: 1.0\r\n" in outgoing.lines
    assert b"ce-datacontenttype" not in outgoing.lines


@tries(100)
@given(st.text(max_size=40))
def test_no_attribute_breaks_out_of_its_line(text: str) -> None:
    event = CloudEvent("1", "/s", "t", subject=text)
    lines = wire.of_events([work_of(event)], Target("default/f"), 0).lines
    assert lines.count(b"\r\n") == len(lines.split(b"\r\n")) - 1 == (6 if text else 5)
    assert all(b": " in line for line in lines.split(b"\r\n")[:-1])


def test_a_long_answer_is_cut_and_says_so() -> None:
    sink = Sink(None, b"h")
    sink.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nkappa-error: X\r\n\r\n")
    for _ in range(10):
        sink.send(b"x" * 100_000)
    outcome = sink.outcome(200, 0.1)
    assert outcome.truncated
    assert len(outcome.body) < MOST_ANSWER
    assert (outcome.error, outcome.lines[0]) == ("X", "content-type: text/plain")
    sink.abort()
    assert sink.outcome(200, 0.1).code == "instance_died"


# --- records and ids --------------------------------------------------------------------------------------------------
def test_a_record_is_what_was_written() -> None:
    outcome = Outcome(200, ("content-type: text/plain", "connection: close"), b"\xff")
    record = Record("i", "default/f", "succeeded", 1, 2, 3, until=4, result=result_of(outcome))
    assert Record.read(record.to_bytes()) == record
    assert record.result == {"status": 200, "headers": [["content-type", "text/plain"]], "bodyBase64": "/w=="}
    assert Record.read(b'{"id": "i", "function": "f", "state": "queued", "of a later version": 1}').state == "queued"


def test_errors_are_told_as_the_handler_told_them() -> None:
    told = Outcome(500, (), b'{"errorType": "KeyError", "errorMessage": "x"}', error="KeyError")
    assert error_of(told) == {"type": "KeyError", "message": "x"}
    assert error_of(Outcome(503)) == {"type": "status_503", "message": "the function answered 503"}
    assert error_of(Outcome(500, (), b"[1]", error="E"))["message"] == "the handler raised E"


@tries(200)
@given(st.integers(0, 2**63 - 1))
def test_ids_come_back(seq: int) -> None:
    assert split_id(public_id("0123456789abcdef" * 2, seq)) == ("0123456789abcdef" * 2, seq)


@tries(200)
@given(st.text(max_size=60))
def test_what_is_no_id_is_refused(text: str) -> None:
    try:
        work, seq = split_id(text)
    except ValueError:
        return
    assert public_id(work, seq) == text or text.partition("-")[2].startswith("0")


def test_keys_of_callers_and_functions_are_apart() -> None:
    call = HttpCall("POST", "/", b"")
    names = {
        key_name(Submission(function, call, key=key, caller=caller))
        for function in ("a/b", "a/c")
        for key in ("k", "l")
        for caller in ("", "me")
    }
    assert len(names) == 8


def test_events_have_records_of_their_own() -> None:
    """Ids of events are the sources': two Triggers, or two replays, may have the same."""
    lane, work = Lane("trigger", "a", "t"), Work("x.y >*", 5, b"")
    assert record_key(lane, work, 7) == "t7-5"
    assert record_key(Lane("async", "a", "f"), Work("0" * 32, 5, b""), 7) == "0" * 32


# --- streams, consumers, settings -------------------------------------------------------------------------------------
def test_consumers_of_different_lanes_have_different_names() -> None:
    lanes = [
        Lane("async", "a-b", "c"),
        Lane("async", "a", "b-c"),
        Lane("trigger", "a", "b-c"),
        Lane("trigger", "a", "b-c", "1"),
    ]
    names = {consumer_name(lane) for lane in lanes}
    assert len(names) == 4
    assert not any(set(name) & set(".*> ") for name in names)


def test_a_nak_says_when() -> None:
    assert nak(0) == b"-NAK"
    assert json.loads(nak(1.5)[5:]) == {"delay": 1_500_000_000}


def test_the_work_stream_refuses_rather_than_forgets() -> None:
    made = {config["name"]: config for config in streams.wanted(settings.EventSettings(replicas=3))}
    assert (made["KAPPA_WORK"]["retention"], made["KAPPA_WORK"]["discard"]) == ("workqueue", "new")
    assert made["KAPPA_WORK"]["max_age"] == 0
    assert {config["num_replicas"] for config in made.values()} == {3}
    assert {config["storage"] for config in made.values()} == {"file"}


def test_settings_are_checked() -> None:
    assert settings.load({}).urls == ()
    found = settings.load({"KAPPA_NATS_URL": "nats://a:4222, nats://b:4222", "KAPPA_ACK_SECONDS": "7"})
    assert (found.urls, found.ack_seconds) == (("nats://a:4222", "nats://b:4222"), 7)
    for name, value in (("KAPPA_NATS_REPLICAS", "2"), ("KAPPA_ACK_SECONDS", "0"), ("KAPPA_WORK_BYTES", "1G")):
        with pytest.raises(ValueError, match=name):
            settings.load({name: value})
