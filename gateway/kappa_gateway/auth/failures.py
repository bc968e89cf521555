"""How often the callers of one address may fail to prove who they are, of all functions together.

To check a credential takes a signature check, or two questions to the API server: strangers could keep the gateway busy
with nothing but garbage. So each failure is charged to the address that it came from, and while that has none to spare,
nothing of it is checked any more. It never touches

* callers who are remembered, and API keys that open: there is nothing to check, whoever else is behind their address;
* a credential that has passed before, when it must be checked again: remembered for a day, or until it fails once.

Checks that wait for an answer have not failed yet. Once half of the burst is used up, they count as if they had:
otherwise as many as an address can send at once would slip in whenever one is due.
"""

from typing import TYPE_CHECKING, Final

from kappa_api.limits import Rate
from kappa_gateway import caller_keys
from kappa_gateway.auth.cache import Cache, Digests
from kappa_gateway.errors import GatewayError
from kappa_gateway.limits import CallerRoom, Limiter
from kappa_gateway.peers import Peers

if TYPE_CHECKING:
    from kappa_gateway.call import Call

#: The reason, as in the metric.
AUTH_FAILURES: Final = "auth_failures"
#: Refusals that say that a credential is no good. Others are our own fault.
DENIED: Final = frozenset({"unauthorized", "forbidden"})
PASSED_SECONDS: Final = 86_400.0


class Attempt:
    """A credential that is being checked."""

    __slots__ = ("address", "credential")

    def __init__(self, address: bytes, credential: bytes) -> None:
        self.address, self.credential = address, credential


class Failures:
    """See the module. `rate`: failures of one address, shared with the `peers`; None for no limit. `size`: addresses to
    remember, and credentials that have passed. `hops`: proxies in front, see `caller_keys`."""

    def __init__(self, rate: Rate | None, peers: Peers, size: int, hops: int = 0) -> None:
        self.room = CallerRoom(size, size)
        self._limiter = Limiter(None, rate, peers, self.room) if rate is not None else None
        self._hops = hops
        self._running: dict[bytes, int] = {}
        self._passed: Cache[bool] = Cache(size)
        self._digests = Digests()

    def begin(self, call: "Call", now: float) -> Attempt | None:
        """Before a check. None when nothing is limited. Raises GatewayError (429)."""
        limiter = self._limiter
        if limiter is None:
            return None
        request = call.request
        address = caller_keys.by_forwarded(request.forwarded_for, self._hops, call.client.caller)
        assert call.entry is not None
        presented = b"\n".join((call.entry.key.encode(), *(value for _, value, _ in request.credentials)))
        attempt = Attempt(address, self._digests.of(presented))
        left, after = limiter.left(address, now)
        running = self._running.get(address, 0)
        short = left < 1 or (left < limiter.burst / 2 and running >= int(left))
        if short and not self._passed.get(attempt.credential, now):
            raise self._too_many(after)
        self._running[address] = running + 1
        return attempt

    def end(self, attempt: Attempt | None, now: float, failed: bool | None) -> None:
        """After it. `failed`: None when nothing was found out."""
        if attempt is None or self._limiter is None:
            return
        address = attempt.address
        if running := self._running.pop(address) - 1:
            self._running[address] = running
        if failed:
            self._limiter.charge(address, now)
            self._passed.discard(attempt.credential)
        elif failed is False:
            self._passed.put(attempt.credential, True, now + PASSED_SECONDS)

    def turned_away(self, call: "Call", now: float) -> None:
        """A credential was no good, and no check was needed to tell. Raises GatewayError (429) when there were too many
        before."""
        limiter = self._limiter
        if limiter is None or not call.request.credentials:
            return
        address = caller_keys.by_forwarded(call.request.forwarded_for, self._hops, call.client.caller)
        left, after = limiter.left(address, now)
        if left < 1:
            raise self._too_many(after)
        limiter.charge(address, now)

    def sweep(self, now: float) -> None:
        """To be called every few seconds."""
        self.room.sweep(now)

    def _too_many(self, after: int) -> GatewayError:
        return GatewayError(
            "rate_limited", "too many credentials from this address were not accepted", retry_after=after
        )

    def __repr__(self) -> str:
        return f"<Failures {self._limiter!r} running={sum(self._running.values())}>"
