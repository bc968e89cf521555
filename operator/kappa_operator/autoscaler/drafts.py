"""What one function wants, were it alone, and what it therefore asks of all (`sharing`). Pure."""

import math
from dataclasses import dataclass

from kappa_api.function import Function
from kappa_operator.autoscaler.decide import Decision, Inputs, Policy
from kappa_operator.autoscaler.share import Claim
from kappa_operator.autoscaler.sharing import chance
from kappa_operator.autoscaler.targets import Target
from kappa_operator.observed import FunctionRecord


@dataclass(frozen=True, slots=True)
class Draft:
    """A decision that nobody else was asked about: `free`, made from `inputs`."""

    record: FunctionRecord
    function: Function
    target: Target
    inputs: Inputs
    policy: Policy
    free: Decision

    @property
    def idle(self) -> bool:
        """Whether it has no call at all."""
        return not (self.inputs.load.waiting or self.inputs.load.in_service)


def claim_of(key: str, draft: Draft, now: float) -> Claim:
    """What the function asks for."""
    # Where calls wait, every instance is busy all the time, and none could ever be given to others. So there what is
    # busy is no reason to keep it: it takes no more calls, and goes when those it has have ended.
    load = draft.inputs.load
    busy = 0 if load.waiting else math.ceil(load.in_service / draft.policy.concurrency)
    likely = expected(draft, now) if draft.idle and draft.free.wanted else 0.0
    return Claim(key, draft.free.wanted, busy, draft.policy.min_replicas, draft.idle, likely)


def expected(draft: Draft, now: float) -> float:
    """The chance that an idle function is called while its instance would still stay."""
    keep, idle = draft.inputs.keep, now - draft.inputs.last_activity
    until = keep.next_change(idle) if keep is not None else draft.policy.idle_seconds
    return chance(draft.target.idle, idle, until if math.isfinite(until) else draft.policy.idle_seconds)
