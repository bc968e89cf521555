"""Where the chaos happens: what every bed can do, and the embedded one with two gateways and two operators.

Each platform pod has an address of its own, as in a cluster; nothing restarts them but the kubelet and this module,
which plays the Deployment's part. Operators and gateways reach the API server through a `Gate`; nobody else does.
"""

import contextlib
import copy
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from chaos_pods import (
    SYSTEM_PODS,
    Endpoints,
    eventually,
    following,
    name_of,
    ready,
    system_pods,
)
from kappa_fixtures_local import Api, Backend, connect
from kappa_gate import Gate

from kappa_api import names
from kappa_api.tokens import internal_token
from kappa_local.platform.kubectl import Kubectl
from kappa_local.platform.resources import RUNTIME_IMAGE, custom_resource_definitions, platform
from kappa_local.platform.settings import Place

Json = dict[str, Any]
NAMESPACE = "kappa-chaos"
MEMORY_LIMIT = "192Mi"
POOL = {"min": 2, "max": 4}
GATEWAY_PORT, GATEWAY_ADMIN_PORT, OPERATOR_ADMIN_PORT = 8080, 8081, 8082
SHUTDOWN_DELAY = "2"


class BedError(RuntimeError):
    """There is no place to run; the message says what to do."""


class Bed(Protocol):
    """What the events need. `api` is the test's own way to the API server, which no fault touches."""

    kind: str
    api: Api
    endpoints: Endpoints

    async def replace_gateways(self) -> None: ...
    async def replace_operator(self, name: str) -> None: ...
    async def operators(self, count: int, *, kill: bool = False) -> None: ...
    async def kill(self, pod: Json) -> None: ...
    async def hang(self, pod: Json) -> None: ...
    async def api_down(self) -> None: ...
    async def api_silent(self) -> None: ...
    async def api_slow(self, seconds: float) -> None: ...
    async def api_back(self) -> None: ...
    async def cut_watches(self) -> int: ...
    def can(self, what: str) -> bool: ...


class Embedded:
    """Implements Bed. Use `embedded()`."""

    kind = "embedded"

    def __init__(self, api: Api, gate: Gate, parts: dict[str, Json], cluster_pid: int, secret: str) -> None:
        self.api, self.gate, self._parts, self.cluster_pid = api, gate, parts, cluster_pid
        self.inside = {"authorization": f"Bearer {internal_token(secret.encode())}"}
        self.endpoints = Endpoints(api, GATEWAY_PORT)
        self._number = 0

    def can(self, what: str) -> bool:
        return True

    async def start(self) -> None:
        """Two of each, Ready, and one operator leads."""
        made = [await self._create(component) for component in self._parts for _ in range(2)]
        for name in made:
            await self._until_ready(name)

    async def replace_gateways(self) -> None:
        """As a Deployment rolls: a new one becomes Ready before an old one is told to go."""
        for pod in await system_pods(self.api, names.COMPONENT_GATEWAY):
            await self._until_ready(await self._create(names.COMPONENT_GATEWAY))
            await self._delete(name_of(pod))
            await self._until_gone(name_of(pod))

    async def replace_killed(self, pod: Json) -> None:
        """A gateway at another address in place of one that was killed, at once: a kubelet would wait longer and longer
        with each kill before it starts the same one again."""
        await self._delete(name_of(pod), grace=0)
        await self._until_ready(await self._create(names.COMPONENT_GATEWAY))
        await self._until_gone(name_of(pod))

    async def replace_operator(self, name: str) -> None:
        await self._delete(name)
        await self._until_ready(await self._create(names.COMPONENT_OPERATOR))
        await self._until_gone(name)

    async def operators(self, count: int, *, kill: bool = False) -> None:
        """Brings their number to `count`; `kill`: without a chance to hand anything over."""
        there = await system_pods(self.api, names.COMPONENT_OPERATOR)
        for pod in there[count:]:
            await self._delete(name_of(pod), grace=0 if kill else None)
        for pod in there[count:]:
            await self._until_gone(name_of(pod))
        made = [await self._create(names.COMPONENT_OPERATOR) for _ in range(count - len(there))]
        for name in made:
            await self._until_ready(name)

    async def kill(self, pod: Json) -> None:
        """SIGKILL to the container's process."""
        os.killpg(self.pid(pod), signal.SIGKILL)

    async def hang(self, pod: Json) -> None:
        """SIGSTOP to the container's process: it keeps its connections and its address, and does nothing."""
        os.killpg(self.pid(pod), signal.SIGSTOP)

    @staticmethod
    def pid(pod: Json) -> int:
        """Of the container's process on this machine."""
        return int(pod["status"]["containerStatuses"][0]["containerID"].removeprefix("process://"))

    async def api_down(self) -> None:
        await self.gate.down()

    async def api_silent(self) -> None:
        self.gate.silent = True

    async def api_slow(self, seconds: float) -> None:
        self.gate.delay = seconds

    async def api_back(self) -> None:
        self.gate.delay = 0.0
        if self.gate.silent:
            self.gate.cut(watches_only=False)  # what was swallowed meanwhile cannot be made good
        await self.gate.up()

    async def cut_watches(self) -> int:
        return self.gate.cut()

    async def _create(self, component: str) -> str:
        self._number += 1
        pod = copy.deepcopy(self._parts[component])
        pod["metadata"]["name"] = f"{component}-{self._number}"
        (await self.api.post(SYSTEM_PODS, pod)).ok()
        return name_of(pod)

    async def _delete(self, name: str, grace: int | None = None) -> None:
        query = {} if grace is None else {"gracePeriodSeconds": grace}
        await self.api.delete(f"{SYSTEM_PODS}/{name}", **query)

    async def _until_ready(self, name: str) -> None:
        async def look() -> bool:
            return ready((await self.api.get(f"{SYSTEM_PODS}/{name}")).ok())

        await eventually(look, 30, f"{name} Ready")

    async def _until_gone(self, name: str) -> None:
        async def look() -> bool:
            return (await self.api.get(f"{SYSTEM_PODS}/{name}")).status == 404

        await eventually(look, 60, f"{name} gone")


@contextlib.asynccontextmanager
async def embedded(gateway_env: Mapping[str, str] | None = None, namespace: str = NAMESPACE) -> AsyncIterator[Embedded]:
    """A platform of its own, gone afterwards. `gateway_env`: more settings of the gateways. `namespace`: of the
    Functions."""
    with tempfile.TemporaryDirectory(prefix="kappa-chaos-") as folder, _cluster(Path(folder)) as (config, pid):
        async with (
            connect(Backend("local", config), namespace) as api,
            Gate(int(api.server.rpartition(":")[2])) as gate,
        ):
            gated = Path(folder) / "gated-kubeconfig"
            gated.write_text(config.read_text().replace(api.server, f"http://127.0.0.1:{gate.port}"))
            place = Place(Path(folder), 0, GATEWAY_PORT, GATEWAY_ADMIN_PORT, OPERATOR_ADMIN_PORT)
            secret = secrets.token_hex(32)
            objects = platform(place, secret)
            runtime = next(item for item in objects if item["kind"] == names.RUNTIME_KIND)
            runtime["spec"] |= {"pool": POOL, "resources": {"limits": {"memory": MEMORY_LIMIT}}}
            kubectl = Kubectl(config)
            await kubectl.apply(custom_resource_definitions())
            await kubectl.apply([item for item in objects if item["kind"] != "Pod"])
            await kubectl.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}])
            parts = {pod["metadata"]["name"]: _own_address(pod, gated) for pod in objects if pod["kind"] == "Pod"}
            _set_env(parts[names.COMPONENT_GATEWAY], gateway_env or {})
            bed = Embedded(api, gate, parts, pid, secret)
            async with following(bed.endpoints):
                await bed.start()
                yield bed


def _own_address(pod: Json, kubeconfig: Path) -> Json:
    """The embedded platform's pod, moved from the host's address to one of its own, and behind the gate."""
    del pod["spec"]["hostNetwork"]
    container = pod["spec"]["containers"][0]
    container["env"] = [item for item in container["env"] if item["name"] != names.ENV_BIND]
    container["env"].append({"name": names.ENV_BIND, "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}})
    _set_env(pod, {"KUBECONFIG": str(kubeconfig), "KAPPA_SHUTDOWN_DELAY": SHUTDOWN_DELAY})
    return pod


def _set_env(pod: Json, changed: Mapping[str, str]) -> None:
    container = pod["spec"]["containers"][0]
    kept = [item for item in container["env"] if item["name"] not in changed]
    container["env"] = kept + [{"name": name, "value": value} for name, value in changed.items()]


@contextlib.contextmanager
def _cluster(folder: Path) -> Iterator[tuple[Path, int]]:
    """The embedded cluster as a child: its kubeconfig and process id."""
    state = folder / "state"
    command = [sys.executable, "-m", "kappa_local", "serve", "--port", "0", "--state-dir", str(state)]
    command += ["--image", f"{RUNTIME_IMAGE}={sys.executable} -m kappa_runtime"]
    environment = os.environ | {"PYTHONSAFEPATH": "1"}
    with (folder / "cluster.log").open("wb") as log:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment)
        try:
            assert child.stdout is not None
            if not child.stdout.readline().startswith(b"ready "):
                raise BedError(f"the embedded cluster did not start:\n{(folder / 'cluster.log').read_text()[-2000:]}")
            yield state / "kubeconfig", child.pid
        finally:
            child.terminate()
            try:
                child.wait(30)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
