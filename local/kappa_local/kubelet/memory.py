"""Memory limits: a container that holds more than its limit is killed, as the kernel does it in a cluster.

There is no cgroup to be had without root, so the resident memory of the process is read a few times a second. What
grows faster than that exceeds its limit for a moment; `OOMKilled` comes all the same. Only where there is a /proc.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from kappa_local.kubelet.env import ConfigError, quantity
from kappa_local.types import Obj

LOOK_SECONDS = 0.25
REASON = "OOMKilled"


def limit_of(container: Obj) -> int:
    """`resources.limits.memory` in bytes; 0 when there is none that can be read."""
    text = ((container.get("resources") or {}).get("limits") or {}).get("memory")
    try:
        return int(quantity(str(text))) if text else 0
    except ConfigError:
        return 0


def resident(pid: int, proc: Path = Path("/proc")) -> int:
    """Bytes that a process holds and shares with no file: what counts against the limit. 0 when it is gone."""
    try:
        fields = (proc / str(pid) / "statm").read_bytes().split()
    except OSError:
        return 0
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")


async def watch(pid: int, limit: int, exceeded: Callable[[], None], look: Callable[[int], int] = resident) -> None:
    """Calls `exceeded` once when the process is above its limit. Runs until then, or until cancelled."""
    while look(pid) <= limit:
        await asyncio.sleep(LOOK_SECONDS)
    exceeded()
