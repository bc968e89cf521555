"""What a receiver's answer means for an outcome, and what follows: sent, again and when, or a dead letter. Pure.

A status of 200 to 299 is taken. What may pass is tried again: 408, 429, 500 and above, no connection, no answer in
time, no stream for the subject. What will not pass by itself is given up at once: every other status (redirects, too:
they would lead to where nobody has looked), and addresses that gateways may not connect to.
"""

from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Final

from kappa_api.delivery import Backoff, Delivery
from kappa_gateway.events.delivery.attempts import DESTINATION_FAILED, Step, after_failure, expires_ms

#: Ten attempts in 15 hours, the first ones soon: 10 s, 30 s, 90 s and so on, at last every six hours; a day at most.
PATIENCE: Final = Delivery(
    retries=9,
    backoff=Backoff(seconds=10, factor=3, max_seconds=21_600, jitter_percent=20),
    max_age=86_400,
    result_seconds=0,
)
#: Under way to receivers of one owner, at one gateway: a slow one keeps so many waiting and no more.
MOST_EACH: Final = 8
#: Of a receiver's own wish; longer ones are cut to it.
MOST_RETRY_AFTER: Final = 3600.0


class Verdict(Enum):
    SENT = "sent"
    AGAIN = "again"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Answer:
    """How one attempt ended. `reason`: a word, `status_<n>` or of PROBLEMS; `message`: for people, without anything of
    a URL but its host. `retry_after`: seconds that the receiver wishes, 0: none."""

    verdict: Verdict
    reason: str = ""
    message: str = ""
    retry_after: float = 0.0


SENT: Final = Answer(Verdict.SENT)

#: Why there was no answer.
PROBLEMS: Final[dict[str, Verdict]] = {
    "timeout": Verdict.AGAIN,
    "unreachable": Verdict.AGAIN,
    "no_stream": Verdict.AGAIN,
    "no_room": Verdict.NEVER,  # the work stream is full, and the receiver did not take it either
    "bad_url": Verdict.NEVER,
    "forbidden_address": Verdict.NEVER,
    "forbidden_subject": Verdict.NEVER,
    "too_large": Verdict.NEVER,
}


def judge(status: int) -> Verdict:
    if 200 <= status < 300:
        return Verdict.SENT
    return Verdict.AGAIN if status >= 500 or status in (408, 429) else Verdict.NEVER


def answered(status: int, place: str, retry_after: float = 0.0) -> Answer:
    verdict = judge(status)
    if verdict is Verdict.SENT:
        return SENT
    hint = ": redirects are not followed" if 300 <= status < 400 else ""
    return Answer(verdict, f"status_{status}", f"{place} answered {status}{hint}", retry_after)


def unanswered(reason: str, message: str) -> Answer:
    return Answer(PROBLEMS[reason], reason, message)


def seconds_of(text: str, now: float) -> float:
    """Of a `Retry-After` (RFC 9110, 10.2.3: seconds, or a date), within bounds; 0: none, or not to be read. `now`:
    epoch seconds."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), MOST_RETRY_AFTER)
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return 0.0
    date = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
    return max(0.0, min(date.timestamp() - now, MOST_RETRY_AFTER))


@dataclass(frozen=True, slots=True)
class Tried:
    """`attempts`: that have failed, this one among them. Times in epoch milliseconds."""

    attempts: int
    accepted_ms: int
    now_ms: int


def after(delivery: Delivery, answer: Answer, tried: Tried, random: float) -> Step:
    """What follows an attempt that was not taken. `random`: drawn from 0..1."""
    if answer.verdict is Verdict.NEVER:
        return Step(cause=DESTINATION_FAILED)
    step = after_failure(delivery, tried.attempts, tried.accepted_ms, tried.now_ms, random)
    due = max(step.due_ms, tried.now_ms + round(answer.retry_after * 1000))
    if not step.due_ms or due >= expires_ms(delivery, tried.accepted_ms):
        return Step(cause=DESTINATION_FAILED)
    return Step(due_ms=due)
