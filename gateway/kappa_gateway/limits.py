"""How often a function may be called: by all callers together, and by each of them (`spec.http.limits`); and how many
events may be posted for a Trigger (`limits` of its source).

A limit is a token bucket, kept as the one number that the equivalent GCRA needs (ITU-T I.371): when the bucket would
be full again. Each request moves that time on by the interval between two requests; one that would move it further
ahead than the burst allows is refused, and a refused request changes nothing.

**Several gateways.** Each enforces its share: rate and burst divided by the number of ready gateways. A share of the
rate is a fraction of it, never zero; a share of the burst is at least one request. So all gateways together admit, in
any `w` seconds, at most `max(burst, gateways) + rate * w`.

**Several at once.** A batch of events counts as many, and is taken as a whole or not at all. One that is larger than
the burst could never be: it is taken when the bucket is full, and owes the rest. So the bound is then
`max(burst, gateways * batch) + rate * w`.

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
TRIGGER_RATE: Final = "trigger_rate"
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

    def wait(self, due: float, now: float, cost: int) -> float:
        """Seconds until a bucket that is full again at `due` has as many as `cost`; none when it has them now."""
        return due + (min(float(cost), self.burst) - 1) * self.interval - self.slack - now


@dataclass(frozen=True, slots=True)
class Refused:
    """`reason`: FUNCTION_RATE, TRIGGER_RATE or CALLER_RATE; `after`: seconds until a request would be admitted."""

    reason: str
    rate: Rate
    after: float

    @property
    def retry_after(self) -> int:
        """Whole seconds, at least one."""
        return max(1, math.ceil(self.after - 1e-6))


def fields(reason: str, rate: Rate, after: int) -> bytes:
    """Header lines: the policy and what is left of it (draft-ietf-httpapi-ratelimit-headers). `after`: seconds."""
    name = reason.removesuffix("_rate")
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
    """The rate limits of one function, or of one Trigger (`reason` TRIGGER_RATE), at this gateway."""

    __slots__ = (
        "_caller",
        "_due",
        "_function",
        "_gateways",
        "_latest",
        "_old",
        "_peers",
        "_reason",
        "_room",
        "_shared",
        "_turn_at",
        "_young",
        "caller_rate",
        "rate",
    )

    def __init__(
        self,
        rate: Rate | None,
        caller_rate: Rate | None,
        peers: Peers,
        room: CallerRoom,
        reason: str = FUNCTION_RATE,
    ) -> None:
        self.rate, self.caller_rate, self._reason = rate, caller_rate, reason
        self._peers, self._room = peers, room
        self._due = -math.inf  # when the function's bucket is full again
        self._young: dict[bytes, float] = {}  # the same for each caller
        self._old: dict[bytes, float] = {}
        self._shared: list[float] = []
        self._turn_at = -math.inf
        self._latest = -math.inf  # when all who owe something have paid
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
                return Refused(self._reason, self.rate, self._due - function.slack - now)
            self._due = (self._due if self._due > now else now) + function.interval
        if pace is not None:
            self._write(caller, (seen if seen > now else now) + pace.interval)
        return None

    def ask(self, caller: bytes, now: float, cost: int = 1, *, all_callers: bool = True) -> Refused | None:
        """Why so many at once would be refused, if they would. Counts nothing. `all_callers`: look at the rate of all
        together, too."""
        if self._peers.count != self._gateways:
            self._divide(self._peers.count)
        if self._caller is not None and (after := self._caller.wait(self._seen(caller, now), now, cost)) > 0:
            assert self.caller_rate is not None
            return Refused(CALLER_RATE, self.caller_rate, after)
        if all_callers and self._function is not None and (after := self._function.wait(self._due, now, cost)) > 0:
            assert self.rate is not None
            return Refused(self._reason, self.rate, after)
        return None

    def take(self, caller: bytes, now: float, cost: int = 1) -> None:
        """Counts what `ask` let pass, just now."""
        if self._function is not None:
            self._due = max(self._due, now) + cost * self._function.interval
        if self._caller is not None:
            due = max(self._seen(caller, now), now) + cost * self._caller.interval
            self._latest = max(self._latest, due)
            self._write(caller, due)

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
        if now >= max(self._turn_at + period, self._latest):
            self._room.used -= len(self._young)
            self._young = {}
        self._old, self._young = self._young, {}
        self._turn_at = max(now + period, self._latest)  # a debt is remembered until it is paid
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
