"""How many events may be posted for each Trigger: `limits` of its source, or else the gateway's own. No I/O.

What one request brings may be for several Triggers. It is asked of all of them first, and counted only when each has
room, in one piece of synchronous code: so nothing is accepted for one Trigger and refused for another.
"""

from dataclasses import dataclass

from kappa_api.limits import PostLimits, Rate
from kappa_gateway.events.triggers import Triggers
from kappa_gateway.limits import TRIGGER_RATE, CallerRoom, Limiter, Refused
from kappa_gateway.peers import Peers


@dataclass(frozen=True, slots=True)
class Claim:
    """So many events that somebody posts for one Trigger. `key`: `namespace/name`; `caller`: whose account they are on
    (`caller_keys`)."""

    key: str
    caller: bytes
    count: int = 1

    @property
    def namespace(self) -> str:
        return self.key.partition("/")[0]


@dataclass(frozen=True, slots=True)
class Defaults:
    """For Triggers that set none; None for no limit."""

    rate: Rate | None = None
    caller_rate: Rate | None = None


class TriggerRates:
    """Follows the registry. `peers`: the gateways that a rate is shared with; `room`: for callers, with all
    Functions."""

    def __init__(self, triggers: Triggers, peers: Peers, room: CallerRoom, defaults: Defaults = Defaults()) -> None:
        self._triggers, self._peers, self._room, self._defaults = triggers, peers, room, defaults
        self._limiters: dict[str, tuple[str, Limiter]] = {}  # by key: uid and limiter
        triggers.changed.append(self._changed)

    def ask(self, claim: Claim, now: float, *, all_callers: bool = True) -> Refused | None:
        """Why it would be refused, if it would. Counts nothing. `all_callers`: see `Limiter.ask`."""
        found = self._limiters.get(claim.key)
        return found[1].ask(claim.caller, now, claim.count, all_callers=all_callers) if found else None

    def take(self, claim: Claim, now: float) -> None:
        """Counts what `ask` let pass, just now."""
        if found := self._limiters.get(claim.key):
            found[1].take(claim.caller, now, claim.count)

    def blame(self, claim: Claim, now: float) -> None:
        """A request brought nothing: it is on its caller's account alone, or strangers could use up everybody's."""
        found = self._limiters.get(claim.key)
        if found and found[1].caller_rate is not None:
            found[1].charge(claim.caller, now)

    def _changed(self, key: str) -> None:
        """A change of anything but the rates leaves the accounts as they are."""
        known = self._triggers.find(key)
        source = known.trigger.source if known is not None and known.trigger is not None else None
        limits: PostLimits | None = getattr(source, "limits", None)
        rate = (limits.rate or self._defaults.rate) if limits is not None else None
        caller_rate = (limits.caller_rate or self._defaults.caller_rate) if limits is not None else None
        before = self._limiters.get(key)
        if before is not None:
            uid, limiter = before
            if known is not None and (uid, limiter.rate, limiter.caller_rate) == (known.uid, rate, caller_rate):
                return
            limiter.forget()
            del self._limiters[key]
        if known is not None and (rate or caller_rate):
            made = Limiter(rate, caller_rate, self._peers, self._room, TRIGGER_RATE)
            self._limiters[key] = (known.uid, made)

    def __repr__(self) -> str:
        return f"<TriggerRates of {len(self._limiters)} Triggers>"
