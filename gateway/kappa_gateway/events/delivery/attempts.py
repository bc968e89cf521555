"""What follows a failed attempt: another one, and when, or a dead letter, and why. Pure.

Work whose next attempt would be due after its maximum age has none: it becomes a dead letter now.
"""

from dataclasses import dataclass
from typing import Final

from kappa_api.delivery import Delivery

#: Causes of dead letters. The words are part of the API.
RETRIES_EXHAUSTED: Final = "retries_exhausted"
MAX_AGE: Final = "max_age"
FUNCTION_DELETED: Final = "function_deleted"
TRIGGER_DELETED: Final = "trigger_deleted"
MALFORMED: Final = "malformed"
BODY_LOST: Final = "body_lost"
LOOP: Final = "loop"
DESTINATION_FAILED: Final = "destination_failed"

#: How long a function may be away before its work gives up: it is deleted and applied again by many tools.
GRACE_SECONDS: Final = 60.0

FIRST_PAUSE: Final = 0.25
LAST_PAUSE: Final = 5.0


@dataclass(frozen=True, slots=True)
class Step:
    """`due_ms`: epoch milliseconds of the next attempt; 0: there is none, for `cause`."""

    due_ms: int = 0
    cause: str = ""


def after_failure(delivery: Delivery, attempts: int, accepted_ms: int, now_ms: int, random: float) -> Step:
    """`attempts`: that have failed, this one among them; `random`: drawn from 0..1."""
    if attempts > delivery.retries:
        return Step(cause=RETRIES_EXHAUSTED)
    due = now_ms + round(delivery.backoff.pause(attempts, random) * 1000)
    if due >= expires_ms(delivery, accepted_ms):
        return Step(cause=MAX_AGE)
    return Step(due_ms=max(due, 1))


def expires_ms(delivery: Delivery, accepted_ms: int) -> int:
    return accepted_ms + delivery.max_age * 1000


def pause(throttled: int) -> float:
    """Seconds until work is offered again, after the n-th time in a row without room: 0.25 s doubling to 5 s."""
    return min(LAST_PAUSE, FIRST_PAUSE * 2.0 ** min(throttled - 1, 10))
