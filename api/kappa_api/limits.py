"""How much may be asked for, by everybody together and by one caller: `spec.http.limits` of a Function, and `limits` of
the sources of Triggers that are posted to.

The same rules stand in the chart's CRD. What is left out (0 or None here) is what the gateway's own settings say.
"""

from dataclasses import dataclass

from kappa_api.fields import Reader

MAX_WAITING = 100_000
MAX_REQUESTS = 1_000_000
MAX_PER_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class Rate:
    """`requests` in `per_seconds` on average; up to `burst` at once (0: as many as `requests`)."""

    requests: int
    per_seconds: int = 1
    burst: int = 0

    @property
    def per_second(self) -> float:
        return self.requests / self.per_seconds

    @property
    def size(self) -> int:
        """How many may come at once after a pause."""
        return self.burst or self.requests


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """`max_waiting`: invocations that may wait for an instance at each gateway; 0 leaves it to the gateway.

    `rate`: of all callers together; `caller_rate`: of each caller. Both count over all gateways.
    """

    max_waiting: int = 0
    rate: Rate | None = None
    caller_rate: Rate | None = None


NO_LIMITS = RequestLimits()


@dataclass(frozen=True, slots=True)
class PostLimits:
    """The same of events that are posted for a Trigger: `requests` of a rate are events."""

    rate: Rate | None = None
    caller_rate: Rate | None = None


NO_POST_LIMITS = PostLimits()


def read_limits(reader: Reader) -> RequestLimits:
    """Reads the object; faults go to the reader."""
    found = RequestLimits(
        max_waiting=reader.integer("maxWaiting", 0, 1, MAX_WAITING),
        rate=_rate(reader, "rate"),
        caller_rate=_rate(reader, "callerRate"),
    )
    reader.unknown()
    return found


def read_post_limits(source: Reader) -> PostLimits:
    """`limits` of a source; faults go to the reader."""
    reader = source.child("limits")
    found = PostLimits(rate=_rate(reader, "rate"), caller_rate=_rate(reader, "callerRate"))
    reader.unknown()
    return found


def _rate(parent: Reader, key: str) -> Rate | None:
    reader = parent.child(key)
    if key not in parent:
        return None
    if "requests" not in reader:
        reader.fault("requests", "is required: how many requests in perSeconds")
    found = Rate(
        requests=reader.integer("requests", 1, 1, MAX_REQUESTS),
        per_seconds=reader.integer("perSeconds", 1, 1, MAX_PER_SECONDS),
        burst=reader.integer("burst", 0, 1, MAX_REQUESTS),
    )
    reader.unknown()
    return found
