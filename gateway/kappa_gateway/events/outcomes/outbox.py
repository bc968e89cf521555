"""Keeping an outcome as work of its own, so that the invocation need not wait for the receiver.

Its lane is its owner's: slow receivers of one owner hold up no others. When the work stream is full, keeping could only
wait for room that the very invocation makes: then the receiver gets it at once, or it becomes a dead letter.
"""

import logging
import time
from collections.abc import Awaitable, Callable

from kappa_api.delivery import Destination
from kappa_gateway.events.bus import Bus, RefusedError
from kappa_gateway.events.dead import Dead, Death
from kappa_gateway.events.delivery.attempts import DESTINATION_FAILED
from kappa_gateway.events.outcomes.address import Address
from kappa_gateway.events.outcomes.rules import Answer, Verdict
from kappa_gateway.events.work import OUTCOME, Lane, Work

log = logging.getLogger(__name__)

#: Makes one attempt, for this namespace.
HandOver = Callable[[str, Destination, Work], Awaitable[Answer]]


class Outbox:
    """`poke` is told the lane of what was kept. Raises UnavailableError and TooLargeError."""

    def __init__(
        self, bus: Bus, dead: Dead, poke: Callable[[Lane], None], wall: Callable[[], float] = time.time
    ) -> None:
        self._bus, self._dead, self._poke, self._wall = bus, dead, poke, wall

    async def keep(self, lane: Lane, address: Address, key: str, body: bytes, hand_over: HandOver) -> None:
        """Returns when it is kept, or there. `lane`: whose outcome it is; `key`: the event's id: the same again makes
        no second one."""
        mine = Lane(OUTCOME, lane.namespace, lane.name)
        # The id is none that `GET /async/<id>` could be asked with
        work = Work(key, int(self._wall() * 1000), body, destination=address.to_text())
        try:
            await self._bus.publish(mine.subject, body, work.headers(), msg_id=f"outcome/{key}")
        except RefusedError as error:
            if not error.full:
                raise
            await self._without_room(mine, address, work, hand_over)
            return
        self._poke(mine)

    async def _without_room(self, lane: Lane, address: Address, work: Work, hand_over: HandOver) -> None:
        answer = await hand_over(lane.namespace, address.destination, work)
        if answer.verdict is Verdict.SENT:
            return
        log.warning("outcome %s: the work stream is full, and %s", lane.key, answer.message)
        death = Death(DESTINATION_FAILED, 1, {"type": "no_room", "message": answer.message})
        await self._dead.put(lane, work.headers(), work.body, death, msg_id=f"dead/outcome/{work.id}")
