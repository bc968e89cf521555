"""Outcomes for receivers outside: what an answer means, when it is tried again, and what is told of a URL."""

import asyncio
import json
import ssl

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from hypothesis import given
from hypothesis import strategies as st
from kappa_profiles import tries

from kappa_api.delivery import Backoff, Delivery, Destination
from kappa_gateway.auth.fetch import FetchError
from kappa_gateway.events.dead import _as_call
from kappa_gateway.events.delivery.attempts import DESTINATION_FAILED, Step
from kappa_gateway.events.outcomes.address import Address, kind_of, shown, shown_text
from kappa_gateway.events.outcomes.post import Poster
from kappa_gateway.events.outcomes.rules import (
    MOST_RETRY_AFTER,
    PATIENCE,
    PROBLEMS,
    Answer,
    Tried,
    Verdict,
    after,
    answered,
    judge,
    seconds_of,
    unanswered,
)
from kappa_gateway.events.records import record_key
from kappa_gateway.events.submit import split_id
from kappa_gateway.events.work import EVENT_CALL, OUTCOME, Lane, Work

KEY = ConnectionKey("hooks.example.org", 443, is_ssl=True, ssl=True, proxy=None, proxy_auth=None, proxy_headers_hash=0)
SECRET = "https://hooks.example.org/services/T0/B0/word?key=größe"


# --- verdicts ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, Verdict.SENT),
        (202, Verdict.SENT),
        (204, Verdict.SENT),
        (299, Verdict.SENT),
        (300, Verdict.NEVER),
        (301, Verdict.NEVER),
        (304, Verdict.NEVER),
        (308, Verdict.NEVER),
        (400, Verdict.NEVER),
        (401, Verdict.NEVER),
        (404, Verdict.NEVER),
        (408, Verdict.AGAIN),
        (409, Verdict.NEVER),
        (410, Verdict.NEVER),
        (413, Verdict.NEVER),
        (429, Verdict.AGAIN),
        (499, Verdict.NEVER),
        (500, Verdict.AGAIN),
        (501, Verdict.AGAIN),
        (503, Verdict.AGAIN),
        (599, Verdict.AGAIN),
    ],
)
def test_what_a_status_means(status: int, verdict: Verdict) -> None:
    assert judge(status) is verdict
    answer = answered(status, "hooks.example.org", 7)
    assert answer.verdict is verdict
    assert answer.reason == ("" if verdict is Verdict.SENT else f"status_{status}")


def test_a_redirect_is_explained() -> None:
    assert answered(302, "a.example").message == "a.example answered 302: redirects are not followed"


def test_nothing_is_sent_without_an_answer() -> None:
    for reason in PROBLEMS:
        assert unanswered(reason, "x").verdict in (Verdict.AGAIN, Verdict.NEVER)


# --- when again -------------------------------------------------------------------------------------------------------
RULES = Delivery(retries=3, backoff=Backoff(10, 3, 60, 0), max_age=1000)
AWAY = Answer(Verdict.AGAIN, "status_503", "x answered 503")
DEAD = Step(cause=DESTINATION_FAILED)


@pytest.mark.parametrize(
    ("answer", "tried", "step"),
    [
        (AWAY, Tried(1, 0, 1_000), Step(11_000)),
        (AWAY, Tried(2, 0, 1_000), Step(31_000)),
        (AWAY, Tried(3, 0, 1_000), Step(61_000)),
        (AWAY, Tried(4, 0, 1_000), DEAD),  # the last one
        (AWAY, Tried(1, 0, 995_000), DEAD),  # too old at the next
        (Answer(Verdict.NEVER), Tried(1, 0, 1_000), DEAD),
        (Answer(Verdict.AGAIN, retry_after=5), Tried(1, 0, 1_000), Step(11_000)),  # sooner than the pause: no
        (Answer(Verdict.AGAIN, retry_after=120), Tried(1, 0, 1_000), Step(121_000)),
        (Answer(Verdict.AGAIN, retry_after=120), Tried(4, 0, 1_000), DEAD),
        (Answer(Verdict.AGAIN, retry_after=3600), Tried(1, 0, 1_000), DEAD),
    ],
)
def test_what_follows(answer: Answer, tried: Tried, step: Step) -> None:
    assert after(RULES, answer, tried, 0.5) == step


@pytest.mark.parametrize(("draw", "hours"), [(0.0, 12), (0.5, 15), (1.0, 18)])
def test_ten_attempts_fit_into_the_day(draw: float, hours: int) -> None:
    """Always at the same end of the jitter: the shortest and the longest that it can last."""
    now, made = 0, 1
    while (step := after(PATIENCE, AWAY, Tried(made, 0, now), draw)).due_ms:
        assert made > 1 or 8_000 <= step.due_ms <= 12_000
        now, made = step.due_ms, made + 1
    assert made == 10
    assert round(now / 3_600_000) == hours


@tries(200)
@given(st.integers(1, 12), st.integers(0, 90_000_000), st.floats(0, MOST_RETRY_AFTER), st.floats(0, 1))
def test_what_is_tried_again_is_not_too_old_then(made: int, age: int, wished: float, draw: float) -> None:
    answer = Answer(Verdict.AGAIN, "timeout", "", wished)
    step = after(PATIENCE, answer, Tried(made, 1_000, 1_000 + age), draw)
    if step.due_ms:
        assert made <= PATIENCE.retries
        assert 1_000 + age + wished * 1000 - 1 <= step.due_ms < 1_000 + PATIENCE.max_age * 1000
    else:
        assert step == DEAD


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", 0),
        ("0", 0),
        ("120", 120),
        (" 7 ", 7),
        ("99999999999999999999", MOST_RETRY_AFTER),
        ("-5", 0),
        ("1.5", 0),
        ("soon", 0),
        ("٣", 0),
        ("Thu, 01 Jan 1970 00:01:30 GMT", 90 - 60),
        ("Thu, 01 Jan 1970 00:00:30 GMT", 0),  # it has passed
        ("Thu, 01 Jan 2099 00:00:00 GMT", MOST_RETRY_AFTER),
        ("Thu, 99 Jan 1970 00:01:30 GMT", 0),
        ("Thu, 01 Jan 1970 00:01:30", 30),
    ],
)
def test_retry_after(text: str, seconds: float) -> None:
    assert seconds_of(text, 60.0) == seconds


@tries(300)
@given(st.text(max_size=60), st.floats(0, 4e9))
def test_any_retry_after_is_within_bounds(text: str, now: float) -> None:
    assert 0 <= seconds_of(text, now) <= MOST_RETRY_AFTER


# --- addresses --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("destination", "kind", "told"),
    [
        (Destination(url=SECRET), "url", "hooks.example.org"),
        (Destination(url="http://127.0.0.1:8080?word"), "url", "127.0.0.1:8080"),
        (Destination(url="http://[::1:1/x"), "url", "[::1:1"),
        (Destination(subject="default.done"), "subject", "default.done"),
        (Destination(function="next"), "function", "next"),
    ],
)
@pytest.mark.parametrize("success", [True, False])
def test_an_address_is_read_as_it_was_written(destination: Destination, kind: str, told: str, success: bool) -> None:
    address = Address(destination, "trigger", success)
    text = address.to_text()
    assert text.isascii()
    assert Address.read(text) == address
    assert (kind_of(destination), shown(destination), shown_text(text)) == (kind, told, told)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "1",
        "null",
        "{}",
        '{"url": "http://x", "success": true}',
        '{"url": "http://x", "of": "async"}',
        '{"url": "http://x", "of": "outcome", "success": true}',
        '{"url": "http://x", "of": "async", "success": 1}',
        '{"url": "", "of": "async", "success": true}',
        '{"url": 1, "of": "async", "success": true}',
        '{"url": "http://x", "subject": "y", "of": "async", "success": true}',
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="outcome"):
        Address.read(text)
    assert shown_text(text) == ""


def test_an_outcome_in_a_message() -> None:
    lane = Lane(OUTCOME, "default", "hello")
    assert lane.subject == "kappa.work.outcome.default.hello"
    assert Lane.of(lane.subject) == lane
    text = Address(Destination(url=SECRET), "async", success=True).to_text()
    work = Work("ab12/Success", 5, b"{}", destination=text)
    headers = work.headers()
    assert all(value.isascii() for value in headers.values())
    assert Work.read(headers, b"{}") == work
    with pytest.raises(ValueError, match="not an id"):
        split_id(f"{work.id}-1")  # nobody asks for it as for a call
    assert record_key(lane, work, 7) == "t7-5"
    assert _as_call(work) == Work("ab12/Success", 5, b"{}", EVENT_CALL)  # a replay to a function is a plain call


# --- one attempt ------------------------------------------------------------------------------------------------------
class Session:
    """A session whose requests end so."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def post(self, *_: object, **__: object) -> object:
        raise self.error

    async def close(self) -> None: ...


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TimeoutError(), "timeout"),
        (FetchError("hooks.example.org is a loopback address"), "forbidden_address"),
        (aiohttp.InvalidURL(SECRET), "bad_url"),
        (aiohttp.ServerDisconnectedError(SECRET), "unreachable"),
        (ConnectionResetError(SECRET), "unreachable"),
        (aiohttp.ClientPayloadError(SECRET), "unreachable"),
        (ValueError(SECRET), "bad_url"),
        (ssl.SSLCertVerificationError(1, SECRET), "unreachable"),
        (aiohttp.ClientConnectorCertificateError(KEY, ValueError(SECRET)), "unreachable"),
        (AssertionError(SECRET), "unreachable"),
    ],
)
def test_attempts_without_an_answer_say_nothing_of_the_path(error: Exception, reason: str) -> None:
    async def run() -> Answer:
        poster = Poster(loopback=False)
        poster._session = Session(error)  # type: ignore[assignment]
        return await poster.post(SECRET, b"{}")

    answer = asyncio.run(run())
    assert (answer.verdict, answer.reason) == (PROBLEMS[reason], reason)
    assert "T0" not in json.dumps([answer.reason, answer.message])
    assert answer.message


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://[::1:1/x", "bad_url"),
        ("http://a.example:99999999/x", "bad_url"),
    ],
)
def test_urls_that_lead_nowhere(url: str, reason: str) -> None:
    async def run() -> Answer:
        poster = Poster(loopback=True)
        try:
            return await poster.post(url, b"{}")
        finally:
            await poster.close()

    assert asyncio.run(run()).reason == reason
