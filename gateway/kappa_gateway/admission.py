"""Whether a call may go on to the instances: its function's queue and rate limits, before its body is read.

Refusing is the cheapest thing the gateway does, so what is refused is refused here: what one function gets too much of
costs the others as little as can be. The full queue comes first: a call refused for that costs its caller nothing of
its rate.
"""

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from kappa_api.limits import Rate
from kappa_gateway import caller_keys
from kappa_gateway.errors import GatewayError
from kappa_gateway.limits import CALLER_RATE, CallerRoom, Limiter, Refused, fields
from kappa_gateway.peers import Peers
from kappa_gateway.settings import Settings

if TYPE_CHECKING:
    from kappa_gateway.auth.identity import Identity
    from kappa_gateway.call import Call
    from kappa_gateway.catalog import State

#: Reasons beside those of `limits.py`, as in the metric.
QUEUE_FULL: Final = "queue_full"
HELD_BODIES: Final = "held_bodies"


class Admission:
    """`peers`: the gateways that a rate is shared with."""

    def __init__(self, settings: Settings, peers: Peers) -> None:
        self._limits = settings.limits
        self._hops = settings.forwarded_hops if settings.trust_forwarded else 0
        self.peers = peers
        self.room = CallerRoom(settings.limits.callers, settings.limits.callers_per_function)

    def apply(self, state: "State") -> None:
        """The function was added, changed or deleted: the limits it asks for, or else the gateway's own, hold now.

        A change of anything but its rates leaves its callers' accounts as they are.
        """
        own = self._limits
        wanted = state.entry.limits if state.entry is not None else None
        asked = wanted.max_waiting if wanted is not None else 0
        state.max_waiting = min(asked, own.waiting_most) if asked else own.waiting_per_function
        rate = (wanted.rate or own.rate) if wanted is not None else None
        caller_rate = (wanted.caller_rate or own.caller_rate) if wanted is not None else None
        limiter = state.limiter
        if limiter is not None:
            if (limiter.rate, limiter.caller_rate) == (rate, caller_rate):
                return
            limiter.forget()
        state.limiter = Limiter(rate, caller_rate, self.peers, self.room) if rate or caller_rate else None

    def check(self, call: "Call") -> None:
        """Raises GatewayError with 429."""
        state = call.state
        assert state is not None
        queue = state.queue
        most = state.max_waiting
        if queue.waiting >= most and queue.callers_waiting >= most and not call.request.later:
            queue.arrivals += 1  # more instances would have helped: the autoscaler is to know
            state.counters.reject(QUEUE_FULL)
            raise GatewayError("queue_full", f"{queue.waiting} invocations already wait for {queue.key}")
        limiter = state.limiter
        if limiter is not None:
            refused = limiter.admit(
                self.caller(call, call.identity) if limiter.caller_rate is not None else b"", call.arrived
            )
            if refused is not None:
                state.counters.reject(refused.reason)
                raise too_often(queue.key, refused)

    def sweep(self, now: float) -> None:
        """To be called every few seconds."""
        self.room.sweep(now)

    def caller(self, call: "Call", identity: "Identity | None") -> bytes:
        """Whose account a request is on: of whom it is proven to be from, or else of its address."""
        if identity is not None:
            return caller_keys.by_identity(f"{identity.type}/{identity.principal}")
        return caller_keys.by_forwarded(call.request.forwarded_for, self._hops, call.client.caller)


def too_often(key: str, refused: Refused) -> GatewayError:
    """`key`: whose limit it is, as callers know it."""
    after = refused.retry_after
    message, lines = _words(key, refused.reason, refused.rate, after)
    return GatewayError("rate_limited", message, retry_after=after, lines=lines)


@lru_cache(maxsize=256)
def _words(key: str, reason: str, rate: Rate, after: int) -> tuple[str, bytes]:
    whose = "this caller" if reason == CALLER_RATE else "all callers together"
    allowed = f"{rate.requests} in {rate.per_seconds} s" if rate.per_seconds > 1 else f"{rate.requests} per second"
    return f"{key} takes {allowed} from {whose}", fields(reason, rate, after)
