"""The job of one kept outcome: handed over, again after a pause, or put to the dead letters.

It goes to where its Function or Trigger says at that moment, so that a mended address serves what waits and what is
replayed; when that is gone, or says nothing any more, to where it was to go when the invocation ended.
"""

import logging
from typing import TYPE_CHECKING

from kappa_api.delivery import Destination
from kappa_gateway.events.bus import UnavailableError
from kappa_gateway.events.delivery import attempts
from kappa_gateway.events.delivery.attempts import Step
from kappa_gateway.events.delivery.job import Job
from kappa_gateway.events.delivery.verdict import Outcome, Verdict
from kappa_gateway.events.outcomes import rules
from kappa_gateway.events.outcomes.address import Address, kind_of
from kappa_gateway.events.work import Lane

if TYPE_CHECKING:
    from kappa_gateway.events.delivery.item import Item
    from kappa_gateway.events.delivery.target import Target

log = logging.getLogger(__name__)


class Sending(Job):
    """See `Job`; its one item is an outcome."""

    _posting = False

    @property
    def running(self) -> bool:
        return self._settling or self._posting

    async def _try(self, target: "Target") -> Verdict:
        (item,) = self._items
        try:
            address = Address.read(item.work.destination)
        except ValueError:
            self._items = []
            await item.die(target, attempts.MALFORMED)
            return Verdict.HOPELESS
        destinations = self._shop.destinations
        chosen = self._chosen(address)
        async with destinations.poster.gate:
            if self._stop:  # it came while others were sent
                return Verdict.DONE  # of nothing: the loop looks at the reason
            self._posting = True
            try:
                answer = await destinations.hand_over(self._lane.namespace, chosen, item.work)
            except UnavailableError:
                return Verdict.THROTTLED
            finally:
                self._posting = False
        self._settling = True
        self._items = []
        if answer.verdict is rules.Verdict.SENT:
            await item.succeed(target, Outcome(status=200))
            return Verdict.DONE
        await self._fail(item, target, chosen, answer)
        return Verdict.FAILED

    async def _fail(self, item: "Item", target: "Target", chosen: Destination, answer: rules.Answer) -> None:
        shop = self._shop
        tried = rules.Tried(item.attempts + 1, item.work.accepted_ms, shop.now_ms())
        step: Step = rules.after(target.delivery, answer, tried, shop.draw())
        if not step.due_ms:
            shop.destinations.lost(kind_of(chosen), answer.message)
        await item.fail(target, Outcome(code=answer.reason, message=answer.message), step=step)

    def _chosen(self, address: Address) -> Destination:
        owner = self._shop.targets.of(Lane(address.owner, self._lane.namespace, self._lane.name))
        if owner is None:
            return address.destination
        now = owner.delivery.on_success if address.success else owner.delivery.on_failure
        return now or address.destination
