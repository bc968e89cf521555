"""How often a function may be called: by all callers together, and by each of them (`spec.http.limits`).

A limit is a token bucket, kept as the one number that the equivalent GCRA needs (ITU-T I.371): when the bucket would
be full again. Each request moves that time on by the interval between two requests; one that would move it further
ahead than the burst allows is refused, and a refused request changes nothing.

**Several gateways.** Each enforces its share: rate and burst divided by the number of ready gateways. A share of the
rate is a fraction of it, never zero; a share of the burst is at least one request. So all gateways together admit, in
any `w` seconds, at most `max(burst, gateways) + rate * w`.

**Many callers.** What is remembered of callers is bounded, for each function and in all (`CallerRoom`), and nobody is
forgotten while that would give him a fresh burst: the table has two generations, and the older one is dropped only when
all in it have been silent for as long as a whole burst takes to come back. Who comes first while the table is full of
others shares one of `SHARED` buckets with some of them, so a flood of addresses makes newcomers slower, leaves alone
those who were there before, and wins at most `SHARED` callers' worth of requests.
"""

import math
from dataclasses import dataclass
from typing import Final

from kappa_api.limits import Rate
from kappa_gateway.peers import Peers

#: Buckets that callers share who find the table full.
SHARED: Final = 64
#: A generation lasts at least this many seconds.
LEAST_GENERATION: Final = 1.0
#: Part of an interval that sums of floats may be off; without it the last request of a burst could be refused.
_ROUNDING: Final = 0.001

FUNCTION_RATE: Final = "function_rate"
CALLER_RATE: Final = "caller_rate"


class Pace:
    """A rate at one of `gateways` equal gateways. Times in seconds: `interval` between two requests, `slack` that a
    burst may be ahead of them, `memory` until a whole burst has come back."""

    __slots__ = ("burst", "interval", "memory", "slack")

    def __init__(self, rate: Rate, gateways: int) -> None:
        self.interval = gateways / rate.per_second
        self.burst = max(1.0, rate.size / gateways)
        self.slack = (self.burst - 1 + _ROUNDING) * self.interval
        self.memory = self.burst * self.interval


@dataclass(frozen=True, slots=True)
class Refused:
    """`reason`: FUNCTION_RATE or CALLER_RATE; `after`: seconds until a request would be admitted."""

    reason: str
    rate: Rate
    after: float

    @property
    def retry_after(self) -> int:
        """Whole seconds, at least one."""
        return max(1, math.ceil(self.after - 1e-6))


def fields(reason: str, rate: Rate, after: int) -> bytes:
    """Header lines: the policy and what is left of it (draft-ietf-httpapi-ratelimit-headers). `after`: seconds."""
    name = "caller" if reason == CALLER_RATE else "function"
    policy = f'ratelimit-policy: "{name}";q={rate.requests};w={rate.per_seconds}\r\n'
    return f'{policy}ratelimit: "{name}";r=0;t={after}\r\n'.encode()


class CallerRoom:
    """How many callers all functions together may remember, and who does."""

    def __init__(self, total: int, each: int) -> None:
        self.total, self.each = total, each
        self.used = 0
        self.limiters: set[Limiter] = set()

    def sweep(self, now: float) -> None:
        """Lets functions forget callers who are silent, although nobody else calls. To be called now and then."""
        for limiter in list(self.limiters):
            limiter.turn(now)


class Limiter:
    """The rate limits of one function at this gateway."""

    __slots__ = (
        "_caller",
        "_due",
        "_function",
        "_gateways",
        "_old",
        "_peers",
        "_room",
        "_shared",
        "_turn_at",
        "_young",
        "caller_rate",
        "rate",
    )

    def __init__(self, rate: Rate | None, caller_rate: Rate | None, peers: Peers, room: CallerRoom) -> None:
        self.rate, self.caller_rate = rate, caller_rate
        self._peers, self._room = peers, room
        self._due = -math.inf  # when the function's bucket is full again
        self._young: dict[bytes, float] = {}  # the same for each caller
        self._old: dict[bytes, float] = {}
        self._shared: list[float] = []
        self._turn_at = -math.inf
        self._gateways = 0
        self._function: Pace | None = None
        self._caller: Pace | None = None

    def admit(self, caller: bytes, now: float) -> Refused | None:
        """Counts a request, or says why it is refused, which costs its caller nothing."""
        if self._peers.count != self._gateways:
            self._divide(self._peers.count)
        pace, function = self._caller, self._function
        seen = 0.0
        if pace is not None:
            seen = self._seen(caller, now)
            if seen > now + pace.slack:
                assert self.caller_rate is not None
                return Refused(CALLER_RATE, self.caller_rate, seen - pace.slack - now)
        if function is not None:
            if self._due > now + function.slack:
                assert self.rate is not None
                return Refused(FUNCTION_RATE, self.rate, self._due - function.slack - now)
            self._due = (self._due if self._due > now else now) + function.interval
        if pace is not None:
            self._write(caller, (seen if seen > now else now) + pace.interval)
        return None

    def left(self, caller: bytes, now: float) -> tuple[float, int]:
        """How many requests this caller has to spare, and whole seconds, at least one, until there is one. Counts
        nothing. For who does not know yet whether a request is to count."""
        pace, seen = self._account(caller, now)
        ahead = max(0.0, seen - now) - pace.slack
        return max(0.0, 1 - ahead / pace.interval), max(1, math.ceil(ahead - 1e-6))

    def charge(self, caller: bytes, now: float) -> None:
        """Counts a request of this caller, as far as its account goes."""
        pace, seen = self._account(caller, now)
        self._write(caller, min(max(seen, now) + pace.interval, now + pace.memory))

    @property
    def burst(self) -> float:
        """Requests that one caller may have at once, at this gateway."""
        return self._caller.burst if self._caller is not None else math.inf

    @property
    def callers(self) -> int:
        """How many are remembered."""
        return len(self._young) + len(self._old)

    def turn(self, now: float) -> None:
        """Drops the old generation, if it is time to."""
        if now < self._turn_at or self._caller is None:
            return
        self._room.used -= len(self._old)
        # Nobody is admitted between the end of a generation and this: another period later the young ones are as silent
        period = max(self._caller.memory, LEAST_GENERATION)
        if now >= self._turn_at + period:
            self._room.used -= len(self._young)
            self._young = {}
        self._old, self._young = self._young, {}
        self._turn_at = now + period
        if not self._old:
            self._room.limiters.discard(self)

    def forget(self) -> None:
        """The function is gone, or has other limits now."""
        self._room.used -= self.callers
        self._young, self._old = {}, {}
        self._room.limiters.discard(self)

    def _divide(self, gateways: int) -> None:
        # What is on account stays as it is: in seconds it means the same part of the burst whatever the share
        self._gateways = gateways
        self._function = Pace(self.rate, gateways) if self.rate is not None else None
        self._caller = Pace(self.caller_rate, gateways) if self.caller_rate is not None else None

    def _account(self, caller: bytes, now: float) -> tuple[Pace, float]:
        if self._peers.count != self._gateways:
            self._divide(self._peers.count)
        assert self._caller is not None
        return self._caller, self._seen(caller, now)

    def _seen(self, caller: bytes, now: float) -> float:
        """When this caller's bucket is full again."""
        if now >= self._turn_at:
            self.turn(now)
        found = self._young.get(caller)
        return found if found is not None else self._look(caller)

    def _write(self, caller: bytes, due: float) -> None:
        if caller in self._young:
            self._young[caller] = due
        else:
            self._remember(caller, due)

    def _look(self, caller: bytes) -> float:
        found = self._old.get(caller)
        if found is None and self._shared:  # even if there is room again: he may have called while there was none
            found = self._shared[hash(caller) % SHARED]
        return found if found is not None else -math.inf

    def _remember(self, caller: bytes, due: float) -> None:
        """Writes the account of a caller who is not in the young generation."""
        if self._old.pop(caller, None) is None:
            if self._full():
                if not self._shared:
                    self._shared = [-math.inf] * SHARED
                self._shared[hash(caller) % SHARED] = due
                return
            self._room.used += 1
            self._room.limiters.add(self)
        self._young[caller] = due

    def _full(self) -> bool:
        return self.callers >= self._room.each or self._room.used >= self._room.total

    def __repr__(self) -> str:
        return f"<Limiter rate={self.rate} caller_rate={self.caller_rate} of {self._gateways} callers={self.callers}>"
