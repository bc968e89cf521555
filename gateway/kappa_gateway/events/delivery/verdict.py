"""What an attempt means for the work, as a table: done, failed, or not attempted at all.

Only what ran, or may have run, is a failed attempt. While the function has no room nothing has run: that costs no
attempt, however long it lasts. An answer to an asynchronous call counts as a failure when repeating the call may help:
5xx and 429. Any other status is the function's answer, 404 as well. An event has nobody who could read an answer: there
every status of 400 and above is a failure.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final


class Verdict(Enum):
    DONE = "done"
    FAILED = "failed"  # an attempt was spent
    THROTTLED = "throttled"  # nothing ran: again later, the attempt is not spent
    GONE = "gone"  # there is no such function now
    HOPELESS = "hopeless"  # repeating it cannot help: a dead letter at once


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended. `code`: of the gateway's error (`errors.KINDS`); empty when the function has answered with
    `status`. `error`: type of the exception that the handler raised (kappa-error), or empty.

    `lines`: of the answer's head, `name: value`. `truncated`: the answer was longer than what is kept.
    """

    status: int = 0
    lines: tuple[str, ...] = ()
    body: bytes = b""
    code: str = ""
    message: str = ""
    error: str = ""
    truncated: bool = False
    seconds: float = 0.0

    @property
    def reason(self) -> str:
        """What went wrong, in a word: for counters and causes."""
        return self.code or self.error or (f"status_{self.status}" if self.status >= 400 else "")

    def explain(self) -> str:
        """What went wrong, for people."""
        if self.code:
            return self.message
        if self.error:
            return f"the handler raised {self.error}"
        return f"the function answered {self.status}"


TABLE: Final[dict[str, Verdict]] = {
    "no_capacity": Verdict.THROTTLED,
    "queue_full": Verdict.THROTTLED,
    "not_ready": Verdict.THROTTLED,
    "overloaded": Verdict.THROTTLED,
    "shutting_down": Verdict.THROTTLED,
    "not_found": Verdict.GONE,
    "body_lost": Verdict.HOPELESS,
    "deadline": Verdict.FAILED,
    "instance_died": Verdict.FAILED,
    "bad_response": Verdict.FAILED,
    "internal": Verdict.FAILED,
}


def judge(outcome: Outcome, *, event: bool) -> Verdict:
    """`event`: nobody reads the answer."""
    if outcome.code:
        return TABLE.get(outcome.code, Verdict.FAILED)
    if outcome.error or outcome.status >= 500 or outcome.status == 429:
        return Verdict.FAILED
    return Verdict.FAILED if event and outcome.status >= 400 else Verdict.DONE
