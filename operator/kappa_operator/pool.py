"""The warm pool: which pool pod to take, and what to do so that a pool has its size. Pure.

A pool is the pods without code of one Runtime in one namespace. Its size is the Runtime's `pool.min` wherever at
least one Function can use it (a policy that follows the rate of claims takes the place of `size` later).
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from kappa_api import names
from kappa_api.runtime import Runtime
from kappa_operator.observed import Pod


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """How many pods to make, and which to delete, with the reason."""

    create: int = 0
    delete: tuple[tuple[str, str], ...] = ()


def size(runtime: Runtime, users: int) -> int:
    """How many pods the pool should have for `users` functions."""
    return min(runtime.pool.min, runtime.pool.max) if users else 0


def pick(pods: Iterable[Pod], image: str, reserved: Collection[str]) -> Pod | None:
    """The pool pod to claim: one that is Ready, or else the one that has been starting for longest."""
    usable = [
        pod
        for pod in pods
        if pod.live
        and pod.state == names.STATE_POOL
        and pod.image == image
        and pod.key not in reserved
        and not pod.problem[0]
    ]
    return min(usable, key=lambda pod: (not pod.ready, not pod.ip, pod.created, pod.name), default=None)


def plan_pool(
    runtime: Runtime | None,
    pods: Iterable[Pod],
    users: int,
    reserved: Collection[str],
    now: float,
    sick_seconds: float = 60.0,
) -> PoolPlan:
    """What to do about one pool. Reserved pods are on their way out and do not count."""
    delete: list[tuple[str, str]] = []
    good: list[Pod] = []
    for pod in pods:
        if pod.deleting or pod.key in reserved:
            continue
        if runtime is None:
            delete.append((pod.key, "its Runtime is gone"))
        elif pod.ended:
            delete.append((pod.key, f"ended: {pod.problem[0] or pod.phase}"))
        elif pod.image != runtime.image:
            delete.append((pod.key, f"has image {pod.image}, not {runtime.image}"))
        elif pod.phase == "Running" and not pod.ready and now - pod.unready_since > sick_seconds:
            delete.append((pod.key, f"not Ready for {sick_seconds:g} s"))
        else:
            good.append(pod)
    wanted = size(runtime, users) if runtime is not None else 0
    surplus = sorted(good, key=lambda pod: (pod.ready, pod.created, pod.name))[: max(0, len(good) - wanted)]
    delete += [(pod.key, "the pool needs fewer pods") for pod in surplus]
    return PoolPlan(max(0, wanted - len(good)), tuple(delete))
