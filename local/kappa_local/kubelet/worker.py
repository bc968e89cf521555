"""One pod's life: init containers in order, then its containers together, until the pod ends or is deleted."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from kappa_local.errors import bad_request
from kappa_local.kubelet import logs
from kappa_local.kubelet.container import Container, Host
from kappa_local.kubelet.env import Lookup, PodFacts
from kappa_local.kubelet.logs import LogFile, LogOptions
from kappa_local.kubelet.status import ContainerView, pod_status
from kappa_local.metadata import now
from kappa_local.types import Obj


class PodWriter(Protocol):
    """How a worker changes its pod in the API."""

    def write(self, uid: str, status: Callable[[Obj], Obj]) -> None: ...

    def finished(self, uid: str) -> None: ...

    def event(self, pod: Obj, kind: str, reason: str, message: str) -> None: ...


@dataclass
class Worker:
    pod: Obj
    facts: PodFacts
    base: Path
    host: Host
    lookup: Lookup
    writer: PodWriter
    inits: list[Container] = field(default_factory=list)
    mains: list[Container] = field(default_factory=list)
    _stopping: bool = False
    _dirty: bool = False
    _timer: asyncio.TimerHandle | None = None

    def __post_init__(self) -> None:
        spec = self.pod["spec"]
        policy = spec.get("restartPolicy", "Always")
        init_policy = "Never" if policy == "Never" else "OnFailure"
        self.inits = [self._container(raw, init_policy) for raw in spec.get("initContainers") or ()]
        self.mains = [self._container(raw, policy) for raw in spec["containers"]]
        for container in self.mains if self.inits else ():
            container.view.state = {"waiting": {"reason": "PodInitializing"}}

    def _container(self, raw: Obj, policy: str) -> Container:
        return Container(self.pod, raw, self.facts, self.lookup, self.base, self.host, self, policy)

    @property
    def uid(self) -> str:
        return str(self.pod["metadata"]["uid"])

    async def run(self) -> None:
        """Until every container has ended for good; then, when the pod is being deleted, removes it."""
        for name in ("home", "tmp", "logs", "volumes"):
            (self.base / name).mkdir(parents=True, exist_ok=True)
        try:
            for container in self.inits:
                await container.run()
                if container.view.exit_code != 0:
                    break
            else:
                await asyncio.gather(*(container.run() for container in self.mains))
        finally:
            self._flush()
            if self._timer is not None:
                self._timer.cancel()
        if self._stopping:
            self.writer.finished(self.uid)

    def stop(self, grace: float) -> None:
        """Ends the pod: SIGTERM now, SIGKILL after `grace` seconds. A second call can only shorten the time."""
        first = not self._stopping
        self._stopping = True
        containers = (*self.inits, *self.mains)
        if grace <= 0:
            for container in containers:
                container.stop(signal.SIGKILL)
            return
        if first:
            for container in self.mains:
                if container.view.running:
                    self.event("Normal", "Killing", f"Stopping container {container.view.name}")
            for container in containers:
                container.stop(signal.SIGTERM)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(grace, self.stop, 0)

    def changed(self) -> None:
        """Writes the status once per turn of the loop, whatever changed in it."""
        if not self._dirty:
            self._dirty = True
            asyncio.get_running_loop().call_soon(self._flush)

    def event(self, kind: str, reason: str, message: str) -> None:
        self.writer.event(self.pod, kind, reason, message)

    def _flush(self) -> None:
        if self._dirty:
            self._dirty = False
            self.writer.write(self.uid, self.status)

    def status(self, pod: Obj) -> Obj:
        """The pod's status as this worker sees it now."""
        return pod_status(
            pod,
            self.facts.ip,
            self.facts.host_ip,
            _views(self.inits),
            _views(self.mains),
            now(),
            stopping=self._stopping,
        )

    def clean(self) -> None:
        shutil.rmtree(self.base, ignore_errors=True)

    async def logs(self, name: str, previous: bool, options: LogOptions) -> AsyncIterator[bytes]:
        """The log of one container. Raises 400 when it has none yet."""
        chosen = next((c for c in (*self.inits, *self.mains) if c.view.name == name), None)
        assert chosen is not None
        path = chosen.log_path(previous)
        if not path.exists():
            what = "previous terminated container" if previous else "container"
            pod_name = self.pod["metadata"]["name"]
            if previous:
                raise bad_request(f'{what} "{name}" in pod "{pod_name}" not found')
            reason = (chosen.view.state.get("waiting") or {}).get("reason", "ContainerCreating")
            raise bad_request(f'container "{name}" in pod "{pod_name}" is waiting to start: {reason}')

        def live() -> LogFile | None:
            return chosen.log if chosen.log is not None and chosen.log.path == path else None

        async for chunk in logs.read(path, live, options):
            yield chunk


def _views(containers: list[Container]) -> list[ContainerView]:
    return [container.view for container in containers]
