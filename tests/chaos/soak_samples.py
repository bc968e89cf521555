"""What each process holds, every few seconds: memory, descriptors and threads from /proc, tasks from its metrics."""

import asyncio
import contextlib
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from chaos_bed import GATEWAY_ADMIN_PORT, OPERATOR_ADMIN_PORT, Embedded
from chaos_pods import all_pods, label, name_of, ready, system_pods

from kappa_api import names

PROC = Path("/proc")
_TASKS = re.compile(r"^kappa_\w+_tasks (\S+)$|\"tasks\": (\d+)", re.MULTILINE)
LOOK = aiohttp.ClientTimeout(total=3)


@dataclass(frozen=True, slots=True)
class Sample:
    """Bytes and counts of one process. `tasks` is -1 where nobody told. `rss`: resident; `uss`: what is its alone."""

    at: float
    rss: int
    uss: int
    fds: int
    threads: int
    tasks: int


@dataclass(slots=True)
class Series:
    """One process. `kind`: operator, gateway, api, or the name of a function, or pool."""

    name: str
    kind: str
    pid: int
    samples: list[Sample] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Target:
    """A process that is to be looked at. `url`: where it tells its tasks, or empty."""

    name: str
    kind: str
    pid: int
    url: str = ""


def look(pid: int, proc: Path = PROC) -> tuple[int, int, int, int]:
    """(resident bytes, bytes of its own, descriptors, threads). Raises OSError when the process is gone."""
    here = proc / str(pid)
    rolled = (here / "smaps_rollup").read_text()
    sizes = {key: int(value) * 1024 for key, value in re.findall(r"^(\w+):\s+(\d+) kB", rolled, re.MULTILINE)}
    own = sizes.get("Private_Clean", 0) + sizes.get("Private_Dirty", 0)
    return sizes.get("Rss", 0), own, len(os.listdir(here / "fd")), len(os.listdir(here / "task"))


def tasks_in(text: str) -> int:
    """The number of tasks in a metrics page or a runtime's health; -1 when there is none."""
    found = _TASKS.search(text)
    return int(float(found[1] or found[2])) if found else -1


async def targets(bed: Embedded) -> list[Target]:
    """Every process of the platform and of the functions that is ready."""
    found = [Target("api", "api", bed.cluster_pid, f"{bed.api.server}/metrics")]
    ports = {names.COMPONENT_GATEWAY: GATEWAY_ADMIN_PORT, names.COMPONENT_OPERATOR: OPERATOR_ADMIN_PORT}
    for component, port in ports.items():
        for pod in await system_pods(bed.api, component):
            url = f"http://{pod['status'].get('podIP')}:{port}{names.PATH_METRICS}"
            found.append(Target(name_of(pod), component, bed.pid(pod), url))
    for pod in await all_pods(bed.api):
        if ready(pod):
            kind = label(pod, names.LABEL_FUNCTION) or "pool"
            url = f"http://{pod['status']['podIP']}:{names.INSTANCE_PORT}{names.PATH_HEALTH}"
            found.append(Target(name_of(pod), kind, bed.pid(pod), url))
    return found


@dataclass
class Sampler:
    """`run` samples until cancelled. A process that is replaced begins a series of its own."""

    bed: Embedded
    seconds: float = 3.0
    clock: Callable[[], float] = time.monotonic
    series: dict[int, Series] = field(default_factory=dict)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                await self.once()
            await asyncio.sleep(self.seconds)

    async def once(self) -> None:
        """One sample of everything."""
        for target in await targets(self.bed):
            tasks = await self._tasks(target.url)
            try:
                rss, uss, fds, threads = look(target.pid)
            except OSError:
                continue
            series = self.series.setdefault(target.pid, Series(target.name, target.kind, target.pid))
            series.kind = target.kind  # a pod of the pool becomes an instance
            series.samples.append(Sample(self.clock(), rss, uss, fds, threads, tasks))

    async def _tasks(self, url: str) -> int:
        try:
            async with self.bed.api.session.get(url, timeout=LOOK, headers=self.bed.inside) as answer:
                return tasks_in(await answer.text())
        except (aiohttp.ClientError, OSError, TimeoutError):
            return -1
