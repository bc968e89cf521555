"""A platform for the security tests: the embedded cluster, one operator and one gateway, each behind a proxy that
records what it asks of the Kubernetes API, and each with the platform secret in a folder of its own."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from kappa_rbac import Recorder, recording

from kappa_api import names
from kappa_local.cluster import spawn
from kappa_local.kubeconfig import render

Json = Any

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "kappa"
PODS, SYSTEM = "/api/v1/namespaces/default/pods", f"/api/v1/namespaces/{names.SYSTEM_NAMESPACE}"
FUNCTIONS = f"/apis/{names.API_VERSION}/namespaces/default/{names.FUNCTION_PLURAL}"
MERGE = {"Content-Type": "application/merge-patch+json"}
FIRST = "first-platform-secret"


@dataclass
class SecretFolder:
    """What a mounted Secret looks like to the process that mounts it."""

    path: Path

    def hold(self, secret: str, previous: str = "") -> None:
        """The kubelet swaps a folder as a whole; here the previous secret comes first, and goes first."""
        old = self.path / "previous"
        old.write_text(previous)
        fresh = self.path / "secret.new"
        fresh.write_text(secret)
        fresh.rename(self.path / "secret")


@dataclass
class Platform:
    """What a test works with."""

    url: str
    http: aiohttp.ClientSession
    folder: Path
    proxies: dict[str, Recorder]
    secrets: dict[str, SecretFolder]
    ports: dict[str, int] = field(default_factory=dict)

    async def api(self, method: str, path: str, body: Json = None, headers: dict[str, str] | None = None) -> Json:
        async with self.http.request(method, self.url + path, json=body, headers=headers) as answer:
            text = await answer.text()
            if answer.status == 404 and method in ("GET", "DELETE"):
                return None
            assert answer.status < 300, f"{method} {path}: {answer.status} {text}"
            return json.loads(text) if answer.content_type == "application/json" else text

    async def apply(self, name: str, spec: Json) -> None:
        body = {
            "apiVersion": names.API_VERSION,
            "kind": names.FUNCTION_KIND,
            "metadata": {"name": name},
            "spec": spec,
        }
        if await self.api("GET", f"{FUNCTIONS}/{name}") is None:
            await self.api("POST", FUNCTIONS, body)
        else:
            await self.api("PATCH", f"{FUNCTIONS}/{name}", {"spec": spec}, MERGE)

    async def ready(self, name: str, reason: str = "") -> Json:
        """The status once `Ready` is True for the newest generation, or has this reason."""

        async def found() -> Json:
            function = await self.api("GET", f"{FUNCTIONS}/{name}")
            status = function.get("status") or {}
            fresh = status.get("observedGeneration") == function["metadata"]["generation"]
            ready: Json = next((c for c in status.get("conditions", ()) if c["type"] == "Ready"), {})
            good = ready.get("reason") == reason if reason else ready.get("status") == "True"
            return status if fresh and good else None

        return await self.until(found, f"{name} to be {reason or 'ready'}")

    async def call(self, name: str, method: str = "GET", token: str = "") -> tuple[int, str]:
        """Calls a function through the gateway's data port."""
        url = f"http://127.0.0.1:{self.ports['data']}/fn/default/{name}"
        headers = {"authorization": f"Bearer {token}"} if token else None
        timeout = aiohttp.ClientTimeout(total=40)
        async with self.http.request(method, url, headers=headers, timeout=timeout) as answer:
            return answer.status, await answer.text()

    async def pods(self, selector: str) -> list[Json]:
        items = (await self.api("GET", f"{PODS}?labelSelector={selector}"))["items"]
        return [pod for pod in items if not pod["metadata"].get("deletionTimestamp")]

    async def log(self, component: str) -> str:
        return str(await self.api("GET", f"{SYSTEM}/pods/{component}/log") or "")

    async def until(self, what: Callable[[], Awaitable[Any]], words: str, seconds: float = 30.0) -> Any:
        """Asks until the answer is true; returns it."""
        deadline = time.monotonic() + seconds
        while not (found := await what()):
            if time.monotonic() > deadline:
                logs = "\n".join([f"--- {name}\n{(await self.log(name))[-4000:]}" for name in self.secrets])
                raise AssertionError(f"waited {seconds} s for {words}\n{logs}")
            await asyncio.sleep(0.05)
        return found


@asynccontextmanager
async def platform(folder: Path, free_port: Callable[[], int]) -> AsyncIterator[Platform]:
    """The platform, once it answers."""
    programs = {f"kappa-{name}": f"{sys.executable} -m kappa_{name}" for name in ("operator", "gateway")}
    images = {"runtime-python": f"{sys.executable} -m kappa_runtime", **programs}
    async with (
        spawn(folder / "cluster", images) as running,
        recording(running.url) as first,
        recording(running.url) as second,
        aiohttp.ClientSession() as http,
    ):
        proxies = {names.COMPONENT_OPERATOR: first, names.COMPONENT_GATEWAY: second}
        secrets = {}
        for name in proxies:
            secrets[name] = SecretFolder(folder / f"secret-{name}")
            secrets[name].path.mkdir()
            secrets[name].hold(FIRST)
        world = Platform(running.url, http, folder, proxies, secrets)
        await _install(world, free_port)
        yield world


async def _install(world: Platform, free_port: Callable[[], int]) -> None:
    for file in sorted((CHART / "crds").glob("*.yaml")):
        crd = yaml.safe_load(file.read_text())
        await world.api("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": names.SYSTEM_NAMESPACE}}
    await world.api("POST", "/api/v1/namespaces", namespace)
    runtime = {
        "apiVersion": names.API_VERSION,
        "kind": names.RUNTIME_KIND,
        "metadata": {"name": "python"},
        "spec": {"image": "runtime-python", "pool": {"min": 1, "max": 3}},
    }

    async def served() -> bool:
        async with world.http.post(f"{world.url}/apis/{names.API_VERSION}/runtimes", json=runtime) as answer:
            return answer.status in (201, 409)

    await world.until(served, "the CRDs to be served")
    world.ports = {name: free_port() for name in ("data", "gateway", "operator")}
    for name in world.proxies:
        await world.api("POST", f"{SYSTEM}/pods", _component(world, name))

    async def answers() -> bool:
        try:
            for name in world.proxies:
                async with world.http.get(f"http://127.0.0.1:{world.ports[name]}{names.PATH_READYZ}") as answer:
                    if answer.status != 200:
                        return False
        except aiohttp.ClientError:
            return False
        return True

    await world.until(answers, "operator and gateway")


def _component(world: Platform, name: str) -> Json:
    kubeconfig = world.folder / f"kubeconfig-{name}"
    kubeconfig.write_text(render(world.proxies[name].url, None))
    env = {
        "KUBECONFIG": str(kubeconfig),
        names.ENV_SECRET_FILE: str(world.secrets[name].path / "secret"),
        names.ENV_BIND: "127.0.0.1",
        names.ENV_DATA_PORT: str(world.ports["data"]),
        names.ENV_ADMIN_PORT: str(world.ports[name]),
        "KAPPA_SCRAPE_SECONDS": "0.2",
        "KAPPA_DOWN_WINDOW_SECONDS": "0.5",
        "KAPPA_SHUTDOWN_DELAY": "0",
        "KAPPA_API_KEY_NAMESPACES": "default",
        # There is no NATS; the gateway reads Triggers and their Secrets all the same.
        names.ENV_NATS_URL: "nats://127.0.0.1:1",
        "KAPPA_SOURCE_SECRET_NAMESPACES": "default",
        "PATH": os.environ["PATH"],
    }
    fields = {names.ENV_POD_NAME: "metadata.name", names.ENV_POD_IP: "status.podIP"}
    container = {
        "name": name,
        "image": f"kappa-{name}",
        "env": [{"name": key, "value": value} for key, value in env.items()]
        + [{"name": key, "valueFrom": {"fieldRef": {"fieldPath": path}}} for key, path in fields.items()],
        "ports": [{"name": names.ADMIN_PORT_NAME, "containerPort": world.ports[name]}],
    }
    meta = {"name": name, "labels": {names.LABEL_COMPONENT: name, names.LABEL_PART_OF: "kappa"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta,
        "spec": {"hostNetwork": True, "restartPolicy": "Always", "containers": [container]},
    }
