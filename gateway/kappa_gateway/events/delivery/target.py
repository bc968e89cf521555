"""Where the work of a lane goes, and by which rules, at this moment: looked up anew for each attempt."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kappa_api.delivery import DEFAULT_DELIVERY, Delivery
from kappa_api.trigger import Batch
from kappa_gateway.events.delivery.attempts import FUNCTION_DELETED, TRIGGER_DELETED
from kappa_gateway.events.outcomes.rules import MOST_EACH, PATIENCE
from kappa_gateway.events.triggers import Triggers
from kappa_gateway.events.work import ASYNC, OUTCOME, Lane

if TYPE_CHECKING:
    from kappa_gateway.app import Gateway

#: Invocations of one lane that a gateway has in hand at most; messages, where several make an invocation.
MOST_IN_HAND: Final = 256
MOST_MESSAGES: Final = 2048
#: Of a lane whose function is gone: what ends together when it stays away.
MOST_MISSING: Final = 64
SINGLE: Final = Batch()


@dataclass(frozen=True, slots=True)
class Target:
    """`function`: `namespace/name`. `most`: invocations that it may run. `missing`: why there is none, as a cause of
    dead letters; empty when there is one. `shape`: of events; empty where the function gets CloudEvents over HTTP."""

    function: str
    delivery: Delivery = DEFAULT_DELIVERY
    batch: Batch = SINGLE
    most: int = 1
    shape: str = ""
    missing: str = ""

    @property
    def in_hand(self) -> int:
        """Messages that a gateway should have: as many as may run, of each as many as fit into one invocation."""
        return max(self.batch.size, min(MOST_MESSAGES, max(1, min(MOST_IN_HAND, self.most)) * self.batch.size))


class Targets:
    """Reads the catalog and the registry of Triggers. `outcomes`: by which rules outcomes are sent: whatever becomes of
    what they are the outcomes of."""

    def __init__(self, gateway: "Gateway", triggers: Triggers, outcomes: Delivery = PATIENCE) -> None:
        self._gateway, self._triggers = gateway, triggers
        self._outcomes = Target("", outcomes, most=MOST_EACH)

    def of(self, lane: Lane) -> Target | None:
        """None: not known yet."""
        if lane.kind == OUTCOME:
            return self._outcomes
        if not self._gateway.ready:
            return None
        if lane.kind == ASYNC:
            state = self._gateway.catalog.functions.get(lane.key)
            entry = state.entry if state is not None else None
            if entry is None:
                return Target(lane.key, most=MOST_MISSING, missing=FUNCTION_DELETED)
            return Target(lane.key, entry.delivery, most=entry.most)
        known = self._triggers.find(lane.key)
        if known is None:
            # As long as the API server does not give any Triggers, none of them is known to be gone
            return Target("", most=MOST_MISSING, missing=TRIGGER_DELETED) if not self._triggers.refused else None
        trigger = known.trigger
        if trigger is None:
            return None
        state = self._gateway.catalog.functions.get(trigger.function_key)
        entry = state.entry if state is not None else None
        if entry is None:
            return Target(trigger.function_key, trigger.delivery, most=MOST_MISSING, missing=FUNCTION_DELETED)
        shape = self._triggers.shape(trigger) if entry.shaped else ""
        most = 1 if lane.partition else entry.most
        return Target(trigger.function_key, trigger.delivery, trigger.batch, most, shape)
