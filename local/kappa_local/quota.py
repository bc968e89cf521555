"""ResourceQuota for the number of pods: what Kubernetes refuses, in its words. Pure.

Only `pods` and `count/pods` are counted; other resources of a quota are taken and not enforced, and no controller fills
in `status.used`.
"""

from __future__ import annotations

from collections.abc import Iterable

from kappa_local.types import Obj

COUNTED = ("count/pods", "pods")


def refused(quotas: Iterable[Obj], pods: Iterable[Obj]) -> str:
    """Why one more pod beside `pods` is one too many, empty when it is not."""
    exist = alive = 0
    for pod in pods:
        exist += 1
        alive += (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
    for quota in quotas:
        hard = (quota.get("spec") or {}).get("hard") or {}
        used = {"count/pods": exist, "pods": alive}
        over = [name for name in COUNTED if name in hard and used[name] >= int(hard[name])]
        if over:
            return (
                f"exceeded quota: {quota['metadata']['name']}, requested: {_list(dict.fromkeys(over, 1))}, "
                f"used: {_list({name: used[name] for name in over})}, "
                f"limited: {_list({name: hard[name] for name in over})}"
            )
    return ""


def _list(amounts: dict[str, object]) -> str:
    return ",".join(f"{name}={amount}" for name, amount in amounts.items())
