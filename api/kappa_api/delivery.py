"""How accepted work is delivered: `spec.async` of a Function, and the same fields of a Trigger.

The same rules stand in the chart's CRDs. Times are in seconds.
"""

from dataclasses import dataclass

from kappa_api.callers import URL_PATTERN
from kappa_api.fields import Reader

MAX_RETRIES = 100
MAX_SECONDS = 30 * 86_400
MAX_RESULT_SECONDS = 7 * 86_400
FUNCTION_NAME = r"[a-z]([-a-z0-9]{0,50}[a-z0-9])?"
SUBJECT = r"[^\s.*>$]+(\.[^\s.*>]+)*"


@dataclass(frozen=True, slots=True)
class Backoff:
    """The pause after the n-th failed attempt (n from 1): `seconds * factor ** (n - 1)`, at most `max_seconds`, then
    moved at random by up to `jitter_percent` of itself, so that what failed together does not return together."""

    seconds: float = 60
    factor: int = 2
    max_seconds: int = 3600
    jitter_percent: int = 10

    def pause(self, attempts: int, random: float) -> float:
        """Seconds until the next attempt; `attempts` have failed; `random` is drawn from 0..1."""
        plain = min(self.seconds * float(self.factor) ** (attempts - 1), self.max_seconds)
        return plain * (1 + self.jitter_percent / 100 * (2 * random - 1))


@dataclass(frozen=True, slots=True)
class Destination:
    """Where the outcome goes; exactly one is set. `function`: in the same namespace; `subject`: in JetStream;
    `url`: POSTed as a CloudEvent."""

    function: str = ""
    subject: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True)
class Delivery:
    """`retries`: attempts after the first one that failed. `max_age`: work older than this becomes a dead letter.
    `result_seconds`: how long the result can be fetched; 0: it is not kept. `suspend`: accept, and deliver later."""

    retries: int = 2
    backoff: Backoff = Backoff()
    max_age: int = 21_600
    on_success: Destination | None = None
    on_failure: Destination | None = None
    result_seconds: int = 86_400
    suspend: bool = False


DEFAULT_DELIVERY = Delivery()


def read_delivery(reader: Reader, *, results: bool) -> Delivery:
    """Reads the fields out of `reader`, whose owner calls `unknown()`. `results`: whether resultSeconds is one."""
    backoff = reader.child("backoff")
    found = Delivery(
        retries=reader.integer("retries", 2, 0, MAX_RETRIES),
        backoff=Backoff(
            seconds=backoff.integer("seconds", 60, 0, MAX_SECONDS),
            factor=backoff.integer("factor", 2, 1, 10),
            max_seconds=backoff.integer("maxSeconds", 3600, 0, MAX_SECONDS),
            jitter_percent=backoff.integer("jitterPercent", 10, 0, 100),
        ),
        max_age=reader.integer("maxAgeSeconds", 21_600, 1, MAX_SECONDS),
        on_success=read_destination(reader, "onSuccess"),
        on_failure=read_destination(reader, "onFailure"),
        result_seconds=reader.integer("resultSeconds", 86_400, 0, MAX_RESULT_SECONDS) if results else 0,
        suspend=reader.boolean("suspend", False),
    )
    backoff.unknown()
    return found


def read_destination(parent: Reader, key: str) -> Destination | None:
    """The destination under `key`, or None."""
    reader = parent.child(key)
    if key not in parent:
        return None
    found = Destination(
        function=reader.string("function", pattern=FUNCTION_NAME, hint="the name of a Function in this namespace"),
        subject=reader.string("subject", pattern=SUBJECT, hint="a subject without wildcards, such as team.orders.done"),
        url=reader.string("url", pattern=URL_PATTERN, hint="an https URL"),
    )
    if sum(key in reader for key in ("function", "subject", "url")) != 1:
        parent.fault(key, "must have exactly one of function, subject and url")
    reader.unknown()
    return found
