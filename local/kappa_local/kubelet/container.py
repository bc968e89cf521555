"""One container of a pod: started, probed, restarted as the pod's policy says, stopped. Reports through its view."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import aiohttp

from kappa_local.kubelet import images, memory, probes, status, volumes
from kappa_local.kubelet.env import ConfigError, Lookup, PodFacts, environment, expand
from kappa_local.kubelet.guard import Guard
from kappa_local.kubelet.images import UnknownImageError
from kappa_local.kubelet.logs import LogFile
from kappa_local.kubelet.probes import ProbeSpec
from kappa_local.kubelet.process import CannotStartError, Process, ProcessSpec, start
from kappa_local.kubelet.status import ContainerView
from kappa_local.metadata import now
from kappa_local.types import Obj

RETRY_SECONDS = 2.0
"""How long a container waits before it looks again for a ConfigMap or Secret that it needs."""
STRAY_SECONDS = 1.0


class Reporter(Protocol):
    """Where a container tells what happened: the pod's worker."""

    def changed(self) -> None: ...

    def event(self, kind: str, reason: str, message: str) -> None: ...


@dataclass(frozen=True)
class Host:
    """What every container of a kubelet shares. `base_env`: the few variables that a process of this machine needs."""

    guard: Guard
    session: aiohttp.ClientSession
    images: Mapping[str, list[str]]
    base_env: Mapping[str, str]
    backoff: Callable[[int], float]


@dataclass
class Container:
    """`run` lives as long as the container may run; `stop` ends it."""

    pod: Obj
    spec: Obj
    facts: PodFacts
    lookup: Lookup
    base: Path
    host: Host
    reporter: Reporter
    restart_policy: str
    view: ContainerView = field(init=False)
    log: LogFile | None = None
    process: Process | None = None
    _stopping: bool = False
    _ended_by: str = ""
    _woken: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.view = ContainerView(self.spec["name"], self.spec.get("image", ""))

    def log_path(self, previous: bool = False) -> Path:
        number = self.view.restarts - 1 if previous else self.view.restarts
        return self.base / "logs" / f"{self.view.name}-{number}.log"

    async def run(self) -> None:
        """Until the container has ended for good. Its view then says how."""
        while not self._stopping:
            if not await self._run_once():
                return
            restarts = self.view.restarts
            wait = self.host.backoff(restarts)
            if wait:
                ended = self.view.state
                message = f"back-off {wait:g}s restarting failed container={self.view.name}"
                self.view.last_state = ended
                self.view.state = status.waiting("CrashLoopBackOff", message)
                self.reporter.changed()
                self.reporter.event("Warning", "BackOff", message)
                if await self._pause(wait):
                    self.view.state = ended
                    return
            else:
                self.view.last_state = self.view.state
            if self._stopping:
                return
            self.view.restarts = restarts + 1

    async def _run_once(self) -> bool:
        """One life. True when the policy wants another."""
        spec = await self._prepared()
        if spec is None:
            return False
        self.log = LogFile(self.log_path())
        started = now()
        try:
            self._launch(spec)
        except CannotStartError as e:
            self.log.close()
            self.view.state = status.terminated(128, started, now(), "StartError", str(e))
            self.reporter.event("Warning", "Failed", f"Error: {e}")
            self.reporter.changed()
            return self._again(128)
        process = self.process
        assert process is not None
        self.view.pid = process.pid
        self.view.state = status.running(started)
        self.view.started = not self.spec.get("startupProbe")
        self.view.ready = self.view.started and not self.spec.get("readinessProbe")
        self.reporter.changed()
        self.reporter.event("Normal", "Started", f"Started container {self.view.name}")
        probing = asyncio.create_task(self._probe(process, spec))
        limiting = self._limit(process)
        code = await asyncio.shield(process.ended)
        probing.cancel()
        if limiting is not None:
            limiting.cancel()
        self.log.drain_and_close()
        self.view.ready = self.view.started = False
        self.view.state = status.terminated(code, started, now(), self._ended_by, pid=process.pid)
        self.process = None
        self.reporter.changed()
        return self._again(code)

    def _again(self, code: int) -> bool:
        if self._stopping:
            return False
        return self.restart_policy == "Always" or (self.restart_policy == "OnFailure" and code != 0)

    async def _prepared(self) -> ProcessSpec | None:
        """What to run; waits for what it needs. None when the container was stopped meanwhile."""
        while not self._stopping:
            try:
                return self._process_spec()
            except ConfigError as e:
                self._hold("CreateContainerConfigError", f"Error: {e}")
                wait = RETRY_SECONDS
            except UnknownImageError as e:
                self._hold("ErrImagePull", str(e))
                wait = 3600.0
            if await self._pause(wait):
                return None
        return None

    def _hold(self, reason: str, message: str) -> None:
        state = status.waiting(reason, message)
        if self.view.state != state:
            self.view.state = state
            self.reporter.changed()
            self.reporter.event("Warning", "Failed", message)

    def _process_spec(self) -> ProcessSpec:
        volumes.make(self.pod, self.base, self.facts, self.lookup)
        root = volumes.mount(self.spec, self.base)
        home, tmp = self.base / "home", self.base / "tmp"
        env = {
            **self.host.base_env,
            "HOME": str(home),
            "TMPDIR": str(tmp),
            "HOSTNAME": self.pod["metadata"]["name"],
            "KAPPA_LOCAL_MOUNT_ROOT": str(root),
            **environment(self.pod, self.spec, self.facts, self.lookup),
        }
        argv = [expand(word, env) for word in images.command(self.spec, self.host.images)]
        cwd = home
        if self.spec.get("workingDir"):
            cwd = root / str(self.spec["workingDir"]).strip("/")
            cwd.mkdir(parents=True, exist_ok=True)
        return ProcessSpec(argv, env, cwd)

    def _limit(self, process: Process) -> asyncio.Task[None] | None:
        """Holds the process to its memory limit, if it has one."""
        limit = memory.limit_of(self.spec)
        self._ended_by = ""
        if not limit:
            return None

        def exceeded() -> None:
            self._ended_by = memory.REASON
            process.signal(signal.SIGKILL)

        return asyncio.create_task(memory.watch(process.pid, limit, exceeded))

    def _launch(self, spec: ProcessSpec) -> None:
        assert self.log is not None
        writer = self.log.pipe()
        try:
            self.process = start(spec, writer, self.host.guard)
        finally:
            os.close(writer)

    async def _probe(self, process: Process, spec: ProcessSpec) -> None:
        """Startup first; then readiness and liveness side by side."""
        ports = {port["name"]: port["containerPort"] for port in self.spec.get("ports") or () if port.get("name")}
        target = probes.Target(self.facts.ip, ports, spec.env, str(spec.cwd))

        def ask(kind: str, tell: Callable[[bool, str], bool]) -> asyncio.Task[None]:
            return asyncio.create_task(probes.watch(ProbeSpec.of(self.spec[kind]), target, self.host.session, tell))

        tasks: list[asyncio.Task[None]] = []
        try:
            if self.spec.get("startupProbe"):
                tasks.append(ask("startupProbe", lambda good, seen: self._startup(process, good, seen)))
                await tasks[0]
                if not self.view.started:
                    return
            if self.spec.get("readinessProbe"):
                tasks.append(ask("readinessProbe", self._readiness))
            if self.spec.get("livenessProbe"):
                tasks.append(ask("livenessProbe", lambda good, seen: self._liveness(process, good, seen)))
            if tasks:
                await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    def _startup(self, process: Process, good: bool, seen: str) -> bool:
        if good:
            self.view.started = True
            self.view.ready = not self.spec.get("readinessProbe")
            self.reporter.changed()
        else:
            self._unhealthy(process, "Startup", seen)
        return False

    def _readiness(self, good: bool, seen: str) -> bool:
        if self.view.ready != good:
            self.view.ready = good
            self.reporter.changed()
            if not good:
                self.reporter.event("Warning", "Unhealthy", f"Readiness probe failed: {seen}")
        return True

    def _liveness(self, process: Process, good: bool, seen: str) -> bool:
        if not good:
            self._unhealthy(process, "Liveness", seen)
        return good

    def _unhealthy(self, process: Process, kind: str, seen: str) -> None:
        self.reporter.event("Warning", "Unhealthy", f"{kind} probe failed: {seen}")
        self.reporter.event(
            "Normal", "Killing", f"Container {self.view.name} failed {kind.lower()} probe, will be restarted"
        )
        process.signal(signal.SIGTERM)
        grace = float(self.pod["spec"].get("terminationGracePeriodSeconds", 30))
        asyncio.get_running_loop().call_later(grace, process.signal, signal.SIGKILL)

    async def _pause(self, seconds: float) -> bool:
        """True when the container was stopped before the time was over."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return False
        return True

    def stop(self, number: int) -> None:
        """No more lives; the running one gets signal `number`."""
        self._stopping = True
        self._woken.set()
        if self.process is not None:
            self.process.signal(number)
