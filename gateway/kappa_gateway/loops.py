"""The end of a chain of synchronous calls that is too long: 508 (Loop Detected, RFC 5842 section 7.2).

Only calls that say how many hops they are away come here, so all others pay one look at an integer.
"""

import logging
from typing import TYPE_CHECKING, Final

from kappa_gateway import hops
from kappa_gateway.errors import GatewayError

if TYPE_CHECKING:
    from kappa_gateway.call import Call

log = logging.getLogger(__name__)

#: Reason in the metric of refused calls.
LOOP: Final = "loop"
#: The log speaks of a function once in so long.
SAY_SECONDS: Final = 60.0
#: Functions of which is remembered when that was.
MOST_SAID: Final = 1000


class Loops:
    """`most`: hops that a call may be away; 0: any number."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._said: dict[str, float] = {}

    def check(self, call: "Call") -> None:
        """Lets the instance know the number, too. Raises GatewayError with 508."""
        away, state = call.request.hops, call.state
        assert state is not None
        if self._most and away > self._most:
            state.counters.reject(LOOP)
            self._say(state.queue.key, away, call)
            text = (
                f"{state.queue.key} would be called {away} hops away from the first call, and {self._most} are allowed"
            )
            raise GatewayError("loop_detected", f"{text}: functions call each other in a circle")
        call.extra += hops.line(away)

    def _say(self, key: str, away: int, call: "Call") -> None:
        if call.arrived < self._said.get(key, 0.0):
            return
        if len(self._said) >= MOST_SAID:
            self._said.clear()
        self._said[key] = call.arrived + SAY_SECONDS
        text = "a loop: %s would be called %d hops away from the first call; refused"
        log.warning(text, key, away, extra={"requestId": call.request_id.decode("latin-1")})
