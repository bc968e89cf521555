"""The small pure parts: retry table, errors, header fields, deadlines, frame borders, settings, logs, counters."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kappa_gateway import errors, retry, settings
from kappa_gateway.deadlines import SLOT_SECONDS, Deadlines
from kappa_gateway.errors import GatewayError
from kappa_gateway.headers import MEMO_SIZE, Field, listed, request_memo, response_memo
from kappa_gateway.logs import JsonFormatter
from kappa_gateway.metrics import Counters
from kappa_gateway.retry import Outcome, backoff, may_repeat
from kappa_gateway.websocket import FrameBorder

NOTHING_RAN = [
    Outcome.UNREACHABLE,
    Outcome.UNTAKEN,
    Outcome.BUSY,
    Outcome.DRAINING,
    Outcome.EMPTY,
    Outcome.MISDIRECTED,
]


# (outcome, idempotent, resendable, replied) -> repeat
@pytest.mark.parametrize(
    ("outcome", "idempotent", "resendable", "replied", "repeat"),
    [
        *[(outcome, False, True, False, True) for outcome in NOTHING_RAN],
        *[(outcome, True, True, False, True) for outcome in NOTHING_RAN],
        *[(outcome, True, False, False, False) for outcome in Outcome],
        *[(outcome, True, True, True, False) for outcome in Outcome],
        (Outcome.LOST, True, True, False, True),
        (Outcome.LOST, False, True, False, False),
        (Outcome.GARBAGE, True, True, False, False),
        (Outcome.GARBAGE, False, True, False, False),
    ],
)
def test_retry_table(outcome: Outcome, idempotent: bool, resendable: bool, replied: bool, repeat: bool) -> None:
    assert may_repeat(outcome, idempotent=idempotent, resendable=resendable, replied=replied) is repeat


def test_the_retry_tables_know_every_outcome() -> None:
    assert set(retry.TABLE) == set(retry.VERDICT) == set(Outcome)
    assert {code for code, _ in retry.VERDICT.values()} <= set(errors.KINDS)


def test_methods_that_may_be_repeated() -> None:
    assert frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"}) == retry.IDEMPOTENT


def test_backoff_grows_to_a_limit() -> None:
    assert [backoff(n) for n in (1, 2, 3, 4, 5, 6, 1000)] == [0.005, 0.01, 0.02, 0.04, 0.08, 0.1, 0.1]


def test_an_error_as_the_caller_sees_it() -> None:
    failure = GatewayError("no_capacity", 'no "instance"')
    head, body = errors.render(failure, b"id-1", keep=False).split(b"\r\n\r\n")
    assert head.decode().split("\r\n") == [
        "HTTP/1.1 503 Service Unavailable",
        "content-type: application/json",
        f"content-length: {len(body)}",
        "kappa-error-source: gateway",
        "kappa-request-id: id-1",
        "retry-after: 1",
        "connection: close",
    ]
    assert json.loads(body) == {"error": {"code": "no_capacity", "message": 'no "instance"', "requestId": "id-1"}}
    kept = errors.render(failure, b"id-1", keep=True, head_only=True)
    assert b"connection" not in kept
    assert kept.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("code", errors.KINDS)
def test_every_error_can_be_rendered(code: str) -> None:
    assert errors.render(GatewayError(code, "x"), b"1", keep=True).startswith(b"HTTP/1.1 ")


@pytest.mark.parametrize(
    ("name", "request_field", "response_field"),
    [
        (b"Accept", Field.PASS, Field.PASS),
        (b"Set-Cookie", Field.PASS, Field.PASS),
        (b"CONTENT-LENGTH", Field.CONTENT_LENGTH, Field.CONTENT_LENGTH),
        (b"content_length", Field.DROP, Field.DROP),
        (b"transfer-Encoding", Field.TRANSFER_ENCODING, Field.TRANSFER_ENCODING),
        (b"transfer_encoding", Field.DROP, Field.DROP),
        (b"keep-alive", Field.DROP, Field.DROP),
        (b"TE", Field.DROP, Field.DROP),
        (b"trailer", Field.DROP, Field.DROP),
        (b"proxy-connection", Field.DROP, Field.DROP),
        (b"proxy-authorization", Field.DROP, Field.DROP),
        (b"Kappa-Request-Id", Field.DROP, Field.DROP),
        (b"kappa_request_id", Field.DROP, Field.DROP),
        (b"kappa-anything", Field.DROP, Field.DROP),
        (b"kappa-duration-ms", Field.DROP, Field.PASS),
        (b"kappa-error", Field.DROP, Field.PASS),
        (b"kappa-refused", Field.DROP, Field.REFUSED),
        (b"x-forwarded-for", Field.FORWARDED_FOR, Field.PASS),
        (b"x_forwarded_for", Field.DROP, Field.PASS),
        (b"x-forwarded-proto", Field.FORWARDED, Field.PASS),
        (b"x-forwarded-prefix", Field.DROP, Field.PASS),
        (b"forwarded", Field.FORWARDED, Field.PASS),
        (b"x-request-id", Field.REQUEST_ID, Field.PASS),
        (b"upgrade", Field.UPGRADE, Field.UPGRADE),
    ],
)
def test_fields(name: bytes, request_field: Field, response_field: Field) -> None:
    assert request_memo()[name] is request_field
    assert response_memo()[name] is response_field


def test_nobody_can_make_the_memo_grow() -> None:
    memo = request_memo()
    for number in range(3 * MEMO_SIZE):
        assert memo[b"x-%d" % number] is Field.PASS
    assert len(memo) <= MEMO_SIZE


def test_listed() -> None:
    assert listed(b" Keep-Alive ,X-a,, close") == {b"keep-alive", b"x-a", b"close"}


class Timed:
    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.fired = 0

    def expire(self) -> None:
        self.fired += 1


@given(st.lists(st.tuples(st.floats(0, 5), st.booleans()), max_size=30), st.lists(st.floats(0, 1), max_size=20))
def test_deadlines_fire_once_and_never_early(items: list[tuple[float, bool]], steps: list[float]) -> None:
    wheel = Deadlines()
    timed = [(Timed(deadline), gone) for deadline, gone in items]
    for item, _ in timed:
        wheel.add(item)
    for item, gone in timed:
        if gone:
            wheel.discard(item)
    now = 0.0
    for step in [*steps, 10.0]:
        now += step
        wheel.tick(now)
        for item, gone in timed:
            if gone:
                assert item.fired == 0
            elif now < item.deadline:
                assert item.fired == 0, "early"
            elif now >= item.deadline + 2 * SLOT_SECONDS:
                assert item.fired == 1, "late, or twice"
    assert len(wheel) == 0


def test_a_deadline_that_is_already_past_fires_with_the_next_tick() -> None:
    wheel, item, gone = Deadlines(), Timed(1.0), Timed(1.0)
    wheel.tick(5.0)
    wheel.add(item)
    wheel.add(gone)
    wheel.discard(gone)
    wheel.tick(5.0 + 2 * SLOT_SECONDS)
    assert (item.fired, gone.fired, len(wheel)) == (1, 0, 0)


@given(
    st.lists(st.tuples(st.integers(0, 70_000), st.booleans()), min_size=1, max_size=4),
    st.lists(st.integers(1, 5000), min_size=1, max_size=40),
)
def test_frame_borders(frames: list[tuple[int, bool]], cuts: list[int]) -> None:
    """However the stream is cut, the border is where a frame ends."""
    stream, ends = b"", {0}
    for size, masked in frames:
        bit = 0x80 if masked else 0
        head = b"\x82" + (
            bytes([bit | size])
            if size < 126
            else bytes([bit | 126]) + size.to_bytes(2)
            if size < 65536
            else bytes([bit | 127]) + size.to_bytes(8)
        )
        stream += head + (b"mask" if masked else b"") + bytes(size)
        ends.add(len(stream))
    border, at = FrameBorder(), 0
    for cut in [*cuts, len(stream)]:
        border.feed(stream[at : at + cut])
        at = min(len(stream), at + cut)
        assert border.between == (at in ends)


def test_counters() -> None:
    counters = Counters()
    counters.finish(200, 0.003, failed=False)
    counters.finish(503, 99.0, failed=True)
    counters.finish(0, 0.0, failed=False)
    counters.cold(0.2)
    assert (counters.finished, counters.errors, counters.cold_starts) == (3, 1, 1)
    assert counters.classes == [1, 0, 1, 0, 0, 1]
    assert (counters.latency[0], counters.latency[2], counters.latency[-1]) == (1, 1, 1)


def test_settings(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("from-file\n")
    chosen = settings.load({"KAPPA_PLATFORM_SECRET_FILE": str(secret), "POD_NAME": "gw-7", "KAPPA_BIND": "127.0.0.2"})
    assert (chosen.secret, chosen.name, chosen.bind, chosen.data_port) == (b"from-file", "gw-7", "127.0.0.2", 8080)
    assert chosen.limits == settings.Limits()
    chosen = settings.load({"KAPPA_PLATFORM_SECRET": "x", "KAPPA_DATA_PORT": "0", "KAPPA_MAX_BODY_BYTES": "7"})
    assert (chosen.secret, chosen.data_port, chosen.limits.body_bytes) == (b"x", 0, 7)


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({}, "set KAPPA_PLATFORM_SECRET or KAPPA_PLATFORM_SECRET_FILE"),
        ({"KAPPA_PLATFORM_SECRET_FILE": "/does/not/exist"}, "cannot read /does/not/exist"),
        ({"KAPPA_PLATFORM_SECRET_FILE": "/dev/null"}, "is empty"),
        ({"KAPPA_PLATFORM_SECRET": "x", "KAPPA_DATA_PORT": "web"}, "KAPPA_DATA_PORT='web' is not a number"),
        ({"KAPPA_PLATFORM_SECRET": "x", "KAPPA_SHUTDOWN_DELAY": "-1"}, "KAPPA_SHUTDOWN_DELAY"),
    ],
)
def test_settings_that_cannot_be_used(env: dict[str, str], words: str) -> None:
    with pytest.raises(settings.SettingsError, match=words.replace("(", r"\(")):
        settings.load(env)


def test_log_lines_are_json() -> None:
    try:
        raise ValueError("boom")
    except ValueError as error:
        record: Any = logging.LogRecord("x", logging.ERROR, "f", 1, "bad %s", ("thing",), (ValueError, error, None))
    record.requestId = "id-1"
    line = json.loads(JsonFormatter().format(record))
    assert (line["level"], line["message"], line["requestId"]) == ("error", "bad thing", "id-1")
    assert "boom" in line["exception"]
