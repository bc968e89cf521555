"""Whether what is posted may be taken now: the rates of the Triggers that want it, and their namespace's share of the
work stream.

A request is taken for all Triggers that want what it brings, or refused as a whole, and then costs nothing. Before its
body is read it is refused only when none of the Triggers that it may be for has room: then it cannot be taken.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from kappa_gateway.admission import QUEUE_FULL, too_often
from kappa_gateway.errors import GatewayError
from kappa_gateway.events.rates import Claim
from kappa_gateway.events.work import TRIGGER

if TYPE_CHECKING:
    from kappa_gateway.app import Gateway
    from kappa_gateway.events.engine import Events

#: A backlog that is too long does not go away within a second.
CROWDED_SECONDS: Final = 5


class Quota:
    """See the module."""

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway

    def early(self, events: "Events", claims: Sequence[Claim], *, brings: bool = True) -> None:
        """Before the body: raises GatewayError when nothing could be taken for any of these Triggers. `brings`: whether
        a request of this kind can bring events; else only its caller's account counts."""
        now = self._gateway.clock()
        problems = [self._problem(events, claim, now, brings=brings) for claim in claims]
        self._refuse(events, claims, problems if all(problems) else ())

    def take(self, events: "Events", claims: Sequence[Claim]) -> None:
        """Counts all of them, or raises GatewayError and counts none. To be followed at once by putting them into the
        stream."""
        now = self._gateway.clock()
        self._refuse(events, claims, [self._problem(events, claim, now) for claim in claims])
        for claim in claims:
            events.rates.take(claim, now)

    def blame(self, events: "Events", claim: Claim) -> None:
        """The request brought nothing."""
        events.rates.blame(claim, self._gateway.clock())

    def _problem(
        self, events: "Events", claim: Claim, now: float, *, brings: bool = True
    ) -> tuple[str, GatewayError] | None:
        """The reason, as in the metric, and what its caller is told."""
        refused = events.rates.ask(claim, now, all_callers=brings)
        if refused is not None:
            return refused.reason, too_often(f"the Trigger {claim.key}", refused)
        if brings and (crowd := events.shares.crowded(TRIGGER, claim.key)):
            return QUEUE_FULL, GatewayError("queue_full", crowd, retry_after=CROWDED_SECONDS)
        return None

    def _refuse(
        self, events: "Events", claims: Sequence[Claim], problems: Sequence[tuple[str, GatewayError] | None]
    ) -> None:
        """Raises what takes longest to pass, if there is anything."""
        worst: GatewayError | None = None
        for claim, problem in zip(claims, problems, strict=False):
            if problem is None:
                continue
            reason, error = problem
            events.host.triggers.counts(claim.key).reject(reason)
            if worst is None or error.retry_after > worst.retry_after:
                worst = error
        if worst is not None:
            raise worst
