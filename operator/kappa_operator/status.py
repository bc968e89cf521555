"""The status of a Function: a pure function from observations to the object that `kubectl get fn` shows.

Two conditions always, others where there is something to say:
* `Ready`: the newest spec is what serves (at zero instances too: the next call starts one). Unknown while it is
loading.
* `Serving`: somebody answers calls, be it an older revision.
* `Routes`: the function has every route it asks for.
* `Capacity`: False while the function needs more instances than it can have, and what is missing; True afterwards.
* `Pooled`: False where the function cannot use pods of the pool, and why: it starts more slowly.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kappa_api import names
from kappa_api.routes import Conflict, namespace_of
from kappa_operator.memory import keeps_serving

Json = Any

READY, SERVING, ROUTES, CAPACITY, POOLED = "Ready", "Serving", "Routes", "Capacity", "Pooled"
OURS = (READY, SERVING, ROUTES, CAPACITY, POOLED)
MAX_MESSAGE = 2000


@dataclass(frozen=True, slots=True)
class Observation:
    """What the status is made from.

    `blocked` is (reason, message) when the spec leads to no revision or its revision has failed for good; `trouble`
    is the same for what may pass. `target` is the revision of the spec, empty when there is none. `own_pods` says why
    the function cannot use the pool, empty when it can. `shortage` is (reason, message) while it cannot have the
    instances that it needs: no reason not to be Ready, as what there is serves.
    """

    name: str
    generation: int
    url: str
    target: str = ""
    active: str = ""
    failed: str = ""
    blocked: tuple[str, str] = ("", "")
    trouble: tuple[str, str] = ("", "")
    replicas: int = 0
    ready_replicas: int = 0
    wanted: int = 0
    has_routes: bool = False
    conflicts: tuple[Conflict, ...] = ()
    own_pods: str = ""
    shortage: tuple[str, str] = ("", "")


def status_patch(seen: Observation, old: Mapping[str, Json], now: str) -> dict[str, Json]:
    """The merge patch (RFC 7386) that brings `old` up to date; empty when it is. `now` is RFC 3339."""
    new: dict[str, Json] = {
        "observedGeneration": seen.generation,
        "activeRevision": seen.active or None,
        "failedRevision": seen.failed or None,
        "replicas": seen.replicas,
        "readyReplicas": seen.ready_replicas,
        "selector": f"{names.LABEL_FUNCTION}={seen.name}",
        "url": seen.url,
        "conditions": _conditions(seen, old.get("conditions") or [], now),
    }
    return {key: value for key, value in new.items() if old.get(key) != value}


def ready_condition(seen: Observation) -> tuple[str, str, str]:
    """(status, reason, message) of `Ready`."""
    reason, message = seen.blocked
    if reason:
        older = keeps_serving(seen.active) if seen.active != seen.target else ""
        return "False", reason, message + older
    reason, message = seen.trouble
    if seen.target != seen.active:
        older = keeps_serving(seen.active)
        if reason:
            return "False", reason, f"{message}; it will be tried again{older}"
        return "Unknown", "Loading", f"revision {seen.target} is being loaded{older}"
    if reason and seen.ready_replicas < seen.wanted:
        return "False", reason, f"{message}; it will be tried again"
    if seen.conflicts:
        return "False", "RouteConflict", _conflict_message(seen.conflicts)
    if seen.ready_replicas or seen.replicas:
        return "True", "Active", f"revision {seen.active} serves"
    return "True", "ScaledToZero", f"revision {seen.active} is proven; the next call starts an instance"


def _conditions(seen: Observation, old: list[Json], now: str) -> list[Json]:
    found = {READY: ready_condition(seen)}
    if seen.active:
        found[SERVING] = ("True", "RevisionActive", f"revision {seen.active} takes the calls")
    else:
        found[SERVING] = ("False", "NoRevision", "no revision has been loaded yet")
    if seen.conflicts:
        found[ROUTES] = ("False", "RouteConflict", _conflict_message(seen.conflicts))
    elif seen.has_routes:
        found[ROUTES] = ("True", "Assigned", "every route leads here")
    if seen.own_pods:
        why = f"{seen.own_pods}, so every instance gets a pod of its own, which starts more slowly than one of the pool"
        found[POOLED] = ("False", "OwnPods", why)
    before = {item.get("type"): item for item in old}
    reason, message = seen.shortage
    if reason:
        found[CAPACITY] = ("False", reason, f"no more instances: {message}")
    elif CAPACITY in before:
        found[CAPACITY] = ("True", "EnoughInstances", "nothing keeps it from the instances that it needs")
    conditions = []
    for kind, (status, reason, message) in found.items():
        was = before.get(kind, {})
        kept = was.get("lastTransitionTime") if was.get("status") == status else None
        conditions.append(
            {
                "type": kind,
                "status": status,
                "reason": reason,
                "message": message[:MAX_MESSAGE],
                "lastTransitionTime": kept or now,
                "observedGeneration": seen.generation,
            }
        )
    return conditions + [item for item in old if item.get("type") not in OURS]


def _conflict_message(conflicts: tuple[Conflict, ...]) -> str:
    routes = ", ".join(_taken(conflict) for conflict in conflicts)
    return f"{routes}: choose another host or path, or remove it there"


def _taken(conflict: Conflict) -> str:
    route, holder = conflict.route, conflict.holder
    if conflict.whole_host:
        return f"host {route.host} belongs to namespace {namespace_of(holder)} ({holder} is older)"
    return f"{' '.join(route.methods) or 'every method'} {route.host}{route.path} belongs to {holder} (older)"
