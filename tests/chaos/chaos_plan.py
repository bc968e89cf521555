"""The table of events, in the order in which they happen, and what each may cost."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import chaos_events as events
from chaos_events import Stage


@dataclass(frozen=True, slots=True)
class Event:
    """`graceful`: nothing may fail. `steady`: callers must not feel it while it lasts. `hangs`: a call that is in a
    hung instance until its deadline may fail then. `needs`: what the bed must be able to do. `quick`: part of the short
    run. `then`: done after the fault is lifted, before the event is left alone.
    """

    name: str
    title: str
    run: Callable[[Stage], Awaitable[None]]
    graceful: bool = True
    steady: bool = False
    hangs: bool = False
    quick: bool = False
    needs: str = ""
    then: Callable[[Stage], Awaitable[None]] | None = None


PLAN = (
    Event("cycles", "N to 0 to N", events.cycles, quick=True),
    Event("rollouts", "rollouts", events.rollouts, quick=True),
    Event("broken", "broken rollout", events.broken_rollout),
    Event("delete", "instances deleted", events.delete_pods, quick=True),
    Event("gateways", "gateways replaced", events.gateways_replaced, quick=True),
    Event("leader", "leader change", events.leader_change),
    Event("pool", "pool empty", events.pool_empty),
    Event("watches", "watches cut", events.watches_cut, needs="watches", quick=True),
    Event("slow", "API answers after 1 s", events.api_slow, needs="slow"),
    Event("operator-kill", "operator SIGKILL", events.operator_killed, needs="kill", quick=True),
    Event("operators", "both operators down", events.operators_down, steady=True),
    Event("api", "API server down", events.api_down, steady=True, needs="api", then=events.after_api, quick=True),
    Event("silent", "API server silent", events.api_silent, steady=True, needs="api", then=events.after_api),
    Event("force", "instances force-deleted", events.force_delete, graceful=False),
    Event("crash", "instances SIGKILL", events.crash, graceful=False, needs="kill", quick=True),
    Event("hang", "instances hang (SIGSTOP)", events.hang, graceful=False, hangs=True, needs="kill"),
    Event("oom", "instance out of memory", events.out_of_memory, graceful=True),
    Event("gateway-kill", "gateway SIGKILL", events.gateway_killed, graceful=False, needs="kill", quick=True),
    Event("together", "all of it at once", events.together, graceful=False, needs="kill"),
)


def chosen(wanted: list[str], *, quick: bool, can: Callable[[str], bool]) -> list[Event]:
    """The events to run. Raises ValueError for a name that is none."""
    known = {event.name for event in PLAN}
    if unknown := set(wanted) - known:
        raise ValueError(f"no event {', '.join(sorted(unknown))}; there are: {', '.join(sorted(known))}")
    return [
        event
        for event in PLAN
        if (event.name in wanted if wanted else event.quick or not quick) and (not event.needs or can(event.needs))
    ]
