"""The chaos on a real cluster: the chart with two gateways and two operators, replaced by their Deployments.

Killing a process, and stopping the API server, need a cluster whose node is this machine (`make cluster`); elsewhere
the events that need them are left out, and the run says so.
"""

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "cluster"))

import beds
import cluster_control
import cluster_processes
from chaos_bed import GATEWAY_PORT, NAMESPACE, BedError
from chaos_pods import SYSTEM_PODS, Endpoints, eventually, following, name_of, ready, system_pods
from cluster_settings import Settings, load
from kappa_fixtures_local import Api

from kappa_api import names

Json = dict[str, Any]
DEPLOYMENTS = f"/apis/apps/v1/namespaces/{names.SYSTEM_NAMESPACE}/deployments"
STRATEGIC = "application/strategic-merge-patch+json"
API_SERVER = "kube-apiserver"
#: What the events need and only the own cluster can do.
ONLY_HERE = frozenset({"api", "kill"})
PROC = Path("/proc")


class Real:
    """Implements `chaos_bed.Bed`. Use `real()`."""

    kind = "real"

    def __init__(self, api: Api, settings: Settings | None) -> None:
        self.api, self._settings = api, settings
        self.endpoints = Endpoints(api, GATEWAY_PORT)
        self._stopped = 0

    def can(self, what: str) -> bool:
        return what in ONLY_HERE and self._settings is not None

    async def replace_gateways(self) -> None:
        before = {name_of(pod) for pod in await system_pods(self.api, names.COMPONENT_GATEWAY)}
        stamp = {"kappa.dev/chaos": datetime.now(UTC).isoformat()}
        patch = {"spec": {"template": {"metadata": {"annotations": stamp}}}}
        (await self.api.patch(f"{DEPLOYMENTS}/kappa-gateway", patch, STRATEGIC)).ok()
        await self._until(names.COMPONENT_GATEWAY, lambda pods: before.isdisjoint(map(name_of, pods)), 2, 240)

    async def replace_operator(self, name: str) -> None:
        await self.api.delete(f"{SYSTEM_PODS}/{name}")
        await self._until(names.COMPONENT_OPERATOR, lambda pods: name not in map(name_of, pods), 2, 90)

    async def operators(self, count: int, *, kill: bool = False) -> None:
        (await self.api.patch(f"{DEPLOYMENTS}/kappa-operator", {"spec": {"replicas": count}}, STRATEGIC)).ok()
        if kill:
            for pod in await system_pods(self.api, names.COMPONENT_OPERATOR):
                await self.api.delete(f"{SYSTEM_PODS}/{name_of(pod)}", gracePeriodSeconds=0)
        await self._until(names.COMPONENT_OPERATOR, lambda pods: len(pods) == count, count, 90)

    async def kill(self, pod: Json) -> None:
        """SIGKILL to every process of the pod but the one that only holds its namespaces."""
        self._signal(pod, signal.SIGKILL)

    async def hang(self, pod: Json) -> None:
        """SIGSTOP to the same processes."""
        self._signal(pod, signal.SIGSTOP)

    @staticmethod
    def _signal(pod: Json, number: signal.Signals) -> None:
        found = processes_of(pod["metadata"]["uid"])
        if not found:
            raise BedError(f"no process of {name_of(pod)} is on this machine")
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    async def api_down(self) -> None:
        assert self._settings is not None
        await asyncio.to_thread(cluster_processes.stop, self._settings, API_SERVER)

    async def api_silent(self) -> None:
        self._stopped = self._api_server().pid
        os.kill(self._stopped, signal.SIGSTOP)

    async def api_slow(self, seconds: float) -> None:
        """Left out: there is nothing between the processes and the API server here."""

    async def api_back(self) -> None:
        if self._settings is None:
            return
        if self._stopped:
            os.kill(self._stopped, signal.SIGCONT)
            self._stopped = 0
        elif not any(record.name == API_SERVER for record in cluster_processes.running(self._settings)):
            await asyncio.to_thread(cluster_control.launch_api_server, self._settings)
        await eventually(self._answers, 90, "the API server")

    async def cut_watches(self) -> int:
        return 0

    async def _answers(self) -> bool:
        try:
            return (await self.api.get("/readyz")).status == 200
        except OSError:  # aiohttp's connection errors are such
            return False

    def _api_server(self) -> cluster_processes.Record:
        assert self._settings is not None
        for record in cluster_processes.running(self._settings):
            if record.name == API_SERVER:
                return record
        raise BedError("the API server does not run")

    async def _until(self, component: str, done: Any, count: int, seconds: float) -> None:
        async def look() -> bool:
            found = await system_pods(self.api, component)
            return bool(done(found)) and sum(map(ready, found)) >= count

        await eventually(look, seconds, f"{count} of {component}")


def processes_of(uid: str, proc: Path = PROC) -> list[int]:
    """The processes of a pod on this machine, by their cgroup, without the pause process."""
    pattern = re.compile(uid.replace("-", "[-_]"))
    found = []
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if pattern.search((entry / "cgroup").read_text()) and (entry / "comm").read_text().strip() != "pause":
                found.append(int(entry.name))
    return found


def own_cluster(config: Path) -> Settings | None:
    """The settings of the cluster that runs on this machine, if `config` is its."""
    settings = load()
    if config.resolve() != settings.kubeconfig.resolve() or not settings.pids.exists():
        return None
    return settings


@contextlib.asynccontextmanager
async def real() -> AsyncIterator[Real]:
    """The cluster of KUBECONFIG or of `make cluster`. What was stopped is started again, whatever happens."""
    config = beds.kubeconfig()
    if config is None:
        raise BedError("there is no cluster: run `make cluster` first, or set KUBECONFIG")
    try:
        async with beds.real(config, NAMESPACE, gateways=2) as found:
            bed = Real(found.api, own_cluster(config))
            await bed._until(names.COMPONENT_GATEWAY, lambda pods: len(pods) >= 2, 2, 120)
            async with following(bed.endpoints):
                try:
                    yield bed
                finally:
                    await bed.api_back()
    except beds.BedError as error:
        raise BedError(str(error)) from error
