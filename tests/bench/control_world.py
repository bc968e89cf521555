"""An embedded cluster with very many Functions and with instances that need no process, and its operator and gateway.

Functions are made while operator and gateway are away, each with the status that the operator itself has written for
one like it: proven and at zero. So nothing is left to do when they come back, as after an upgrade of Kappa.
"""

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import beds
from kappa_fixtures_local import Api, Obj
from pod_watch import PodWatch

from kappa_api import names
from kappa_api.wire import RUNTIME_SERVING, Health
from kappa_local.kubelet.agent import NO_PROCESS

FUNCTIONS = f"/apis/{names.API_VERSION}/namespaces/{{ns}}/{names.FUNCTION_PLURAL}"
SYSTEM_PODS = f"/api/v1/namespaces/{names.SYSTEM_NAMESPACE}/pods"
PODS = "/api/v1/namespaces/{ns}/pods"
COMPONENTS = (names.COMPONENT_OPERATOR, names.COMPONENT_GATEWAY)
PARALLEL = 16


def function(name: str, code: str, least: int = 0) -> Obj:
    """A Function; `least` is its minReplicas."""
    scaling = {"minReplicas": least, "maxReplicas": max(20, least), "idleSeconds": 1}
    spec = {"runtime": "python", "handler": "main.handler", "code": {"inline": code}, "scaling": scaling}
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.FUNCTION_KIND,
        "metadata": {"name": name},
        "spec": spec,
    }


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds spent since the process began, and resident memory in MB."""

    cpu: float
    megabytes: float


class Process:
    """A process of the platform, by its id."""

    def __init__(self, pid: int) -> None:
        self.folder = Path(f"/proc/{pid}")

    def usage(self) -> Usage:
        fields = (self.folder / "stat").read_text().rpartition(")")[2].split()
        cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        status = (self.folder / "status").read_text()
        return Usage(cpu, int(status.partition("VmRSS:")[2].split()[0]) / 1024)


class World:
    """See the module."""

    def __init__(self, api: Api, pods: PodWatch, cluster: int) -> None:
        self.api, self.pods, self._cluster = api, pods, cluster
        self._manifests: list[Obj] = []

    # --- operator and gateway -----------------------------------------------------------------------------------------
    def process(self, component: str) -> Process:
        """The running process of the operator or the gateway: a child of the cluster."""
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with contextlib.suppress(OSError):
                    parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                    words = (folder / "cmdline").read_bytes().split(b"\0")
                    if f"kappa_{component}".encode() in words and self._descends(parent):
                        return Process(int(folder.name))
        raise LookupError(f"no process of {component}")

    def _descends(self, pid: int) -> bool:
        while pid > 1 and pid != self._cluster:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        return pid == self._cluster

    async def stop_platform(self) -> None:
        self._manifests = []
        for name in COMPONENTS:
            found = (await self.api.get(f"{SYSTEM_PODS}/{name}")).ok()
            meta = {key: found["metadata"][key] for key in ("name", "namespace", "labels")}
            spec = {key: value for key, value in found["spec"].items() if key != "nodeName"}
            self._manifests.append({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
            await self.api.delete(f"{SYSTEM_PODS}/{name}")
        for name in COMPONENTS:
            await self.api.until_gone(f"{SYSTEM_PODS}/{name}")

    async def start_platform(self) -> float:
        """Returns the seconds until both are Ready."""
        begun = time.monotonic()
        for manifest in self._manifests:
            (await self.api.post(SYSTEM_PODS, manifest)).ok()
        waiting = set(COMPONENTS)
        while waiting:
            await asyncio.sleep(0.1)
            for name in tuple(waiting):
                conditions = (await self.api.get(f"{SYSTEM_PODS}/{name}")).ok()["status"].get("conditions") or ()
                if any(item["type"] == "Ready" and item["status"] == "True" for item in conditions):
                    waiting.discard(name)
            if time.monotonic() - begun > 60:
                raise TimeoutError(f"{', '.join(waiting)} not Ready within 60 s")
        return time.monotonic() - begun

    # --- functions and instances --------------------------------------------------------------------------------------
    async def prove(self, *functions: Obj) -> Obj:
        """Applies Functions, waits until they are proven and at zero; returns the status of the first."""
        for item in functions:
            (await self.api.post(FUNCTIONS, item)).ok()
        listed = [item["metadata"]["name"] for item in functions]

        def at_zero() -> bool:
            return all(self.pods.started(name) and not self.pods.of(name) for name in listed)

        await self.pods.until(at_zero, "the first functions at zero")
        while True:
            status: Obj = (await self.api.get(f"{FUNCTIONS}/{listed[0]}")).ok()["status"]
            if status.get("activeRevision") and not status.get("replicas"):
                return status
            await asyncio.sleep(0.1)

    async def add(self, functions: Iterable[Obj], model: str, status: Obj) -> None:
        """Makes Functions like the proven one named `model`, whose status they get."""

        async def one(item: Obj) -> None:
            name = item["metadata"]["name"]
            (await self.api.post(FUNCTIONS, item)).ok()
            told = status | {"url": status["url"].replace(model, name), "selector": f"{names.LABEL_FUNCTION}={name}"}
            (await self.api.patch(f"{FUNCTIONS}/{name}/status", {"status": told})).ok()

        await _parallel(one(item) for item in functions)

    async def add_instances(self, functions: list[str], each: int, revision: str) -> dict[str, Obj]:
        """Serving pods without processes; returns what each address must answer when its health is asked for."""

        uids = {
            item["metadata"]["name"]: item["metadata"]["uid"] for item in (await self.api.get(FUNCTIONS)).ok()["items"]
        }

        async def one(name: str, number: int) -> None:
            by = {"apiVersion": names.API_VERSION, "kind": names.FUNCTION_KIND, "name": name, "uid": uids[name]}
            labels = {
                names.LABEL_COMPONENT: names.COMPONENT_INSTANCE,
                names.LABEL_MANAGED_BY: names.MANAGER,
                names.LABEL_FUNCTION: name,
                names.LABEL_STATE: names.STATE_SERVING,
                names.LABEL_REVISION: revision,
                names.LABEL_RUNTIME: "python",
            }
            meta = {
                "name": f"{name}-{number}",
                "labels": labels,
                "annotations": {names.ANNOTATION_CONCURRENCY: "1", NO_PROCESS: "none"},
                "ownerReferences": [{**by, "controller": True}],
            }
            spec = {"containers": [{"name": names.CONTAINER_NAME, "image": "kappa-runtime-python"}]}
            (await self.api.post(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})).ok()

        await _parallel(one(name, number) for name in functions for number in range(each))
        answers: dict[str, Obj] = {}
        for pod in (await self.api.get(PODS)).ok()["items"]:
            name = (pod["metadata"].get("labels") or {}).get(names.LABEL_FUNCTION)
            if name in functions:
                health = Health(RUNTIME_SERVING, f"{beds.NAMESPACE}/{name}", revision)
                answers[pod["status"]["podIP"]] = health.to_json()
        return answers

    async def change(self, name: str, code: str) -> float:
        """Milliseconds from sending a change until the watch shows the pod that the operator took for it."""
        before = self.pods.started(name)
        begun = time.perf_counter()
        (await self.api.patch(f"{FUNCTIONS}/{name}", {"spec": {"code": {"inline": code}}})).ok()
        await self.pods.until(lambda: self.pods.started(name) > before, f"an act for {name}", 10)
        return (time.perf_counter() - begun) * 1000


@contextlib.asynccontextmanager
async def answering(answers: dict[str, Obj]) -> AsyncIterator[None]:
    """A process that answers for instances without one."""
    program = str(Path(__file__).with_name("empty_instances.py"))
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(sys.executable, program, stdin=pipe, stdout=pipe)
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        child.stdin.write(json.dumps(answers).encode())
        child.stdin.close()
        async with asyncio.timeout(30):
            if await child.stdout.readline() != b"ready\n":
                raise RuntimeError("the stand-in for instances did not start")
        yield
    finally:
        if child.returncode is None:
            child.terminate()
        await child.wait()


async def _parallel(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Runs them a few at a time; the first error ends it."""
    pending = iter(work)

    async def worker() -> None:
        for item in pending:
            await item

    async with asyncio.TaskGroup() as group:
        for _ in range(PARALLEL):
            group.create_task(worker())
