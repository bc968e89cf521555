"""The warm pool: which pool pod to take, and what to do so that a pool has its size. Pure.

A pool is the pods without code of one Runtime in one namespace. How many it should have says pool_size.py. Here is how
it gets there without ever being empty for it:
1. A pod that is of no use (ended, sick, stuck) goes, and another is made.
2. A pod made from an earlier spec of the Runtime stays until a new one is Ready in its place, a few at a time; until
   then it may still be claimed.
3. Pods too many go one by one.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from kappa_api import names
from kappa_api.runtime import Runtime
from kappa_operator.observed import Pod

FEWER = "the pool needs fewer pods"
UNSCHEDULABLE = "Unschedulable"


@dataclass(frozen=True, slots=True)
class PoolState:
    """Everything `plan_pool` looks at. Times are epoch seconds.

    `template` is the digest of the manifest that a new pod would have; `wanted` the size, `users` the functions that
    can use the pool. Reserved pods are on their way out and do not count. `hold`: no new pods now (back-off).
    `shed`: one pod that is still good may go now. `stuck_seconds`: a pod that cannot start gets another chance, perhaps
    on another node.
    """

    runtime: Runtime | None
    template: str
    pods: tuple[Pod, ...]
    users: int
    wanted: int
    reserved: Collection[str] = frozenset()
    now: float = 0.0
    hold: bool = False
    shed: bool = False
    sick_seconds: float = 60.0
    start_seconds: float = 120.0
    stuck_seconds: float = 600.0


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """How many pods to make, and which to delete, with the reason. `shed`: a good one is among them."""

    create: int = 0
    delete: tuple[tuple[str, str], ...] = ()
    shed: bool = False


def pick(pods: Iterable[Pod], template: str, reserved: Collection[str], *, exact: bool = False) -> Pod | None:
    """The pool pod to claim: a Ready one, of the newest spec if there is one; else the one starting for longest.

    `exact`: one of an earlier spec will not do.
    """
    usable = [
        pod
        for pod in pods
        if pod.live
        and pod.state == names.STATE_POOL
        and pod.key not in reserved
        and not pod.problem[0]
        and (pod.template == template or (pod.ready and not exact))
    ]
    return min(
        usable,
        key=lambda pod: (not pod.ready, pod.template != template, not pod.ip, pod.created, pod.name),
        default=None,
    )


def plan_pool(s: PoolState) -> PoolPlan:
    """What to do about one pool. Doing it and planning again comes to rest with nothing to do."""
    present = [pod for pod in s.pods if not pod.deleting and pod.key not in s.reserved]
    if s.runtime is None:
        return PoolPlan(delete=tuple((pod.key, "its Runtime is gone") for pod in present))
    delete: list[tuple[str, str]] = []
    new: list[Pod] = []
    old: list[Pod] = []
    for pod in present:
        if why := _useless(pod, s):
            delete.append((pod.key, why))
        else:
            (new if pod.template == s.template else old).append(pod)
    wanted = s.wanted if s.users else 0

    # An old one has served its purpose when a new one is Ready in its place.
    old = _worst_first(old)
    kept = max(0, wanted - sum(pod.ready for pod in new))
    gone, old = old[: max(0, len(old) - kept)], old[max(0, len(old) - kept) :]
    delete += [(pod.key, "was made from an earlier spec of its Runtime") for pod in gone]
    surge = max(1, wanted // 4)
    create = min(wanted - len(new), wanted + surge - len(new) - len(old))

    shed: list[tuple[str, str]] = []
    if any(pod.problem[0] == UNSCHEDULABLE and s.now - pod.created > s.sick_seconds for pod in new):
        shed = [(pod.key, "makes room for one of the newest spec") for pod in old]
    surplus = _worst_first(new)[: max(0, len(new) - wanted)]
    at_once = len(surplus) if not s.users else max(0, len(new) - s.runtime.pool.max)
    delete += [(pod.key, FEWER) for pod in surplus[:at_once]]
    shed += [(pod.key, FEWER) for pod in surplus[at_once:]]
    shed = shed[: int(s.shed)]
    return PoolPlan(0 if s.hold else max(0, create), tuple(delete + shed), bool(shed))


def _useless(pod: Pod, s: PoolState) -> str:
    """Why this pod is no good, empty when it is."""
    if pod.ended:
        return f"ended: {pod.problem[0] or pod.phase}"
    if pod.ready:
        return ""
    if pod.template != s.template:
        return "was made from an earlier spec of its Runtime"
    if pod.phase == "Running" and s.now - pod.unready_since > s.sick_seconds:
        return f"not Ready for {s.sick_seconds:g} s"
    age = s.now - pod.created
    if pod.phase == "Pending" and not pod.problem[0] and age > s.start_seconds:
        return f"did not start within {s.start_seconds:g} s"
    if pod.phase == "Pending" and pod.problem[0] != UNSCHEDULABLE and age > s.stuck_seconds:
        return f"did not start within {s.stuck_seconds:g} s: {pod.problem[0]}"
    return ""


def _worst_first(pods: Iterable[Pod]) -> list[Pod]:
    return sorted(pods, key=lambda pod: (pod.ready, pod.created, pod.name))
