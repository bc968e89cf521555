"""What may be sent again, as a table (design section 7).

An attempt that ran nothing is always safe to repeat. One that may have run something is repeated only when the caller
(an idempotent method, RFC 9110 section 9.2.2) or the function (`http.idempotent`) says that twice does no harm. Nothing
is repeated once a byte of a reply reached the caller, nor when the body can no longer be produced.

A kept connection that the instance closed just as we wrote is not told apart from a lost instance: what arrived there
cannot be known. It is rare because our idle limit is shorter than the runtime's.
"""

from enum import Enum
from typing import Final

from kappa_gateway import states

IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})


class Outcome(Enum):
    """How an attempt at one instance failed. The value is the `reason` label of the retry metric."""

    UNREACHABLE = "unreachable"  # no connection: nothing was sent
    UNTAKEN = "untaken"  # no connection, and nobody said no: nothing was sent
    BUSY = "busy"  # kappa-refused: another gateway took the slot
    DRAINING = "draining"  # kappa-refused
    EMPTY = "empty"  # kappa-refused: it has no code yet
    MISDIRECTED = "misdirected"  # kappa-refused: it has the code of another function
    LOST = "lost"  # the connection ended after we sent, before a complete head
    GARBAGE = "garbage"  # the reply is not HTTP


class Rule(Enum):
    ALWAYS = "always"
    IF_IDEMPOTENT = "if idempotent"
    NEVER = "never"


TABLE: Final[dict[Outcome, Rule]] = {
    Outcome.UNREACHABLE: Rule.ALWAYS,
    Outcome.UNTAKEN: Rule.ALWAYS,
    Outcome.BUSY: Rule.ALWAYS,
    Outcome.DRAINING: Rule.ALWAYS,
    Outcome.EMPTY: Rule.ALWAYS,
    Outcome.MISDIRECTED: Rule.ALWAYS,
    Outcome.LOST: Rule.IF_IDEMPOTENT,
    Outcome.GARBAGE: Rule.NEVER,
}

#: What the caller is told when an attempt is not repeated: (code, message).
VERDICT: Final[dict[Outcome, tuple[str, str]]] = {
    Outcome.UNREACHABLE: ("no_capacity", "no instance could be reached"),
    Outcome.UNTAKEN: ("no_capacity", "no instance could be reached"),
    Outcome.BUSY: ("no_capacity", "the instance refused and the body was too large to be sent again"),
    Outcome.DRAINING: ("no_capacity", "the instance refused and the body was too large to be sent again"),
    Outcome.EMPTY: ("no_capacity", "the instance refused and the body was too large to be sent again"),
    Outcome.MISDIRECTED: ("no_capacity", "the instance refused and the body was too large to be sent again"),
    Outcome.LOST: ("instance_died", "the instance ended the connection before it answered"),
    Outcome.GARBAGE: ("bad_response", "the function did not answer in HTTP"),
}

#: What an outcome says about the instance itself, as an event of `states.INSTANCE`; empty: nothing.
TELLS: Final[dict[Outcome, str]] = {
    Outcome.UNREACHABLE: states.REFUSED,
    Outcome.UNTAKEN: states.LATE,  # a lost node, a hung process whose queue of connections is full
    Outcome.BUSY: states.REFUSED,
    Outcome.DRAINING: states.DRAINED,
    Outcome.EMPTY: states.REFUSED,
    Outcome.MISDIRECTED: states.REFUSED,  # its address or its label is wrong for a moment: the watch will tell
    Outcome.LOST: states.REFUSED,
    Outcome.GARBAGE: "",
}

#: How often a call that was lost is sent again. One that takes its instance down with it must not go round until none
#: is left; more than once, as several instances may die together.
MOST_LOST: Final = 3

FIRST_BACKOFF: Final = 0.005
LAST_BACKOFF: Final = 0.100


def may_repeat(outcome: Outcome, *, idempotent: bool, resendable: bool, replied: bool) -> bool:
    """Whether to send again. `resendable`: the whole body is at hand; `replied`: the caller has had a first byte."""
    rule = TABLE[outcome]
    if replied or not resendable or rule is Rule.NEVER:
        return False
    return rule is Rule.ALWAYS or idempotent


def backoff(failures: int) -> float:
    """Seconds to leave an instance alone after its n-th refusal in a row: 5 ms, doubling up to 100 ms."""
    return min(LAST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(failures - 1, 10))
