"""`python -m kappa_gateway` against the embedded cluster, with instances that are real runtimes in pods."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml
from kappa_gateway_program import COMMAND, SECRET, Home, Program, gateway_program
from kappa_gateway_rig import controller_reference
from kappa_ports import free_port
from kappa_processes import freeze, thaw

from kappa_api import names
from kappa_api.tokens import internal_token, pod_token
from kappa_api.wire import Specialize, Stats
from kappa_local.cluster import Running, spawn

CRDS = Path(__file__).resolve().parents[3] / "charts" / "kappa" / "crds"
IMAGE = "kappa-runtime-python"
CODE = """
import asyncio, os, time

def handler(event, context):
    time.sleep(float((event.get("queryStringParameters") or {}).get("sleep", 0)))
    return {"pod": os.environ["POD_NAME"], "path": event["rawPath"], "body": event.get("body")}
"""
FUNCTIONS = f"/apis/{names.API_VERSION}/namespaces/default/{names.FUNCTION_PLURAL}"
PODS = "/api/v1/namespaces/default/pods"


@dataclass
class World:
    """The cluster's API and an HTTP client; `gateway` is one gateway that all tests of the module use."""

    api: str
    kubeconfig: Path
    http: aiohttp.ClientSession
    folder: Path
    gateway: Program | None = None

    @property
    def home(self) -> Home:
        return Home(self.kubeconfig, self.folder, self.http)

    async def write(self, path: str, body: Any, method: str = "POST") -> Any:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        async with self.http.request(
            method, self.api + path, data=json.dumps(body), headers={"content-type": kind}
        ) as reply:
            found = await reply.json()
            assert reply.status < 300, found
            return found

    async def function(self, name: str, **spec: Any) -> None:
        base = {"runtime": "python", "handler": "main.handler", "code": {"inline": CODE}}
        meta = {"name": name, "namespace": "default"}
        body = {
            "apiVersion": names.API_VERSION,
            "kind": names.FUNCTION_KIND,
            "metadata": meta,
            "spec": {**base, **spec},
        }
        await self.write(FUNCTIONS, body)

    async def pod(self, pod: str, function: str, *, concurrency: int = 1, state: str = names.STATE_SERVING) -> str:
        """A runtime in a pod, not specialized yet. Returns its address."""
        env: list[Any] = [
            {"name": names.ENV_POD_TOKEN, "value": pod_token(SECRET.encode(), "default", pod)},
            {"name": names.ENV_POD_NAME, "value": pod},
            {"name": names.ENV_POD_IP, "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        ]
        labels = {names.LABEL_FUNCTION: function, names.LABEL_STATE: state, names.LABEL_REVISION: "r1"}
        async with self.http.get(f"{self.api}{FUNCTIONS}/{function}") as reply:
            uid = (await reply.json())["metadata"]["uid"]
        meta = {
            "name": pod,
            "labels": labels,
            "annotations": {names.ANNOTATION_CONCURRENCY: str(concurrency)},
            "ownerReferences": [controller_reference(function, uid)],
        }
        spec = {"containers": [{"name": names.CONTAINER_NAME, "image": IMAGE, "env": env}]}
        await self.write(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
        async with asyncio.timeout(10):
            while True:
                async with self.http.get(f"{self.api}{PODS}/{pod}") as reply:
                    if address := (await reply.json()).get("status", {}).get("podIP"):
                        return str(address)
                await asyncio.sleep(0.02)

    async def specialize(self, address: str, pod: str, function: str, concurrency: int = 1) -> None:
        files = {"main.py": CODE.encode()}
        message = Specialize("default", function, "r1", "main.handler", "event", files, concurrency=concurrency)
        token = pod_token(SECRET.encode(), "default", pod)
        async with asyncio.timeout(15):
            while True:
                try:
                    async with self.http.put(
                        f"http://{address}:{names.INSTANCE_PORT}{names.PATH_REVISION}",
                        json=message.to_json(),
                        headers={"authorization": f"Bearer {token}"},
                    ) as reply:
                        assert reply.status == 200, await reply.text()
                        return
                except aiohttp.ClientConnectionError:
                    await asyncio.sleep(0.05)

    async def call(self, path: str, method: str = "GET", **options: Any) -> tuple[int, Any]:
        assert self.gateway is not None
        async with self.http.request(method, self.gateway.url + path, **options) as reply:
            return reply.status, await reply.json()

    async def stats(self) -> Stats:
        assert self.gateway is not None
        bearer = {"authorization": f"Bearer {internal_token(SECRET.encode())}"}
        async with self.http.get(self.gateway.admin + names.PATH_STATS, headers=bearer) as reply:
            return Stats.from_json(await reply.json())

    async def functions(self) -> int:
        """How many the gateway knows."""
        assert self.gateway is not None
        async with self.http.get(self.gateway.admin + names.PATH_METRICS) as reply:
            lines = (await reply.text()).splitlines()
        return int(float(next(line for line in lines if line.startswith("kappa_gateway_functions ")).split()[1]))

    async def until(self, check: Any) -> None:
        async with asyncio.timeout(10):
            while not await check():
                await asyncio.sleep(0.02)

    async def known(self, path: str) -> None:
        """Waits until the gateway has heard of the function."""

        async def look() -> bool:
            return (await self.call(path, "PROPFIND"))[0] != 404  # a runtime answers it like any other method

        await self.until(look)


async def prepare(running: Running, http: aiohttp.ClientSession, folder: Path) -> World:
    world = World(running.url, running.kubeconfig, http, folder)
    for file in sorted(CRDS.glob("*.yaml")):
        for document in yaml.safe_load_all(file.read_text()):
            await world.write("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", document)

    async def served() -> bool:
        async with http.get(running.url + FUNCTIONS) as reply:
            return reply.status == 200

    await world.until(served)
    return world


IMAGES = {IMAGE: f"{sys.executable} -m kappa_runtime"}
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("gateway")
    async with spawn(folder / "cluster", IMAGES) as running, aiohttp.ClientSession() as http:
        found = await prepare(running, http, folder)
        async with gateway_program(found.home, "gw-1") as found.gateway:
            yield found


async def test_a_function_is_called_through_the_gateway(world: World) -> None:
    await world.function("hello")
    address = await world.pod("hello-1", "hello")
    await world.specialize(address, "hello-1", "hello")
    await world.known("/fn/default/hello")
    status, body = await world.call("/fn/default/hello/a/b", "POST", data="text")
    assert (status, body) == (200, {"pod": "hello-1", "path": "/a/b", "body": "text"})
    status, body = await world.call("/fn/default/nobody")
    assert (status, body["error"]["code"]) == (404, "not_found")
    stats = (await world.stats()).functions["default/hello"]
    assert stats.errors == 0


async def test_calls_wait_while_the_code_is_loaded(world: World) -> None:
    """The operator labels a pod before its runtime has the code: nobody sees that."""
    before = await world.functions()
    await world.function("cold", concurrency=2)

    async def heard() -> bool:
        return await world.functions() > before

    await world.until(heard)
    calls = [asyncio.create_task(world.call("/fn/default/cold", "POST")) for _ in range(2)]

    async def waiting() -> bool:
        found = (await world.stats()).functions.get("default/cold")
        return found is not None and found.waiting == 2

    await world.until(waiting)
    address = await world.pod("cold-1", "cold", concurrency=2)
    await world.specialize(address, "cold-1", "cold", concurrency=2)
    for call in calls:
        status, body = await asyncio.wait_for(call, 10)
        assert (status, body["pod"]) == (200, "cold-1")
    stats = (await world.stats()).functions["default/cold"]
    assert stats.cold_starts == 2
    assert stats.errors == 0


async def test_two_gateways_share_an_instance_of_one_slot(world: World) -> None:
    """Each believes the slot is free; the runtime refuses one of them, and that call waits its turn."""
    await world.function("shared")
    address = await world.pod("shared-1", "shared")
    await world.specialize(address, "shared-1", "shared")
    await world.known("/fn/default/shared")
    async with gateway_program(world.home, "gw-2") as other:

        async def call(url: str) -> int:
            async with world.http.post(url + "/fn/default/shared?sleep=0.05") as reply:
                return reply.status

        assert world.gateway is not None
        urls = [world.gateway.url, other.url] * 4
        assert await asyncio.gather(*map(call, urls)) == [200] * 8
        async with world.http.get(world.gateway.admin + names.PATH_METRICS) as reply:
            first = await reply.text()
        async with world.http.get(other.admin + names.PATH_METRICS) as reply:
            assert 'kappa_gateway_retries_total{reason="busy"}' in first + await reply.text()


async def test_draining_and_deletion(world: World) -> None:
    await world.function("moving")
    for pod in ("moving-1", "moving-2"):
        await world.specialize(await world.pod(pod, "moving"), pod, "moving")
    await world.known("/fn/default/moving")
    slow = asyncio.create_task(world.call("/fn/default/moving?sleep=1", "POST"))

    async def busy() -> bool:
        return (await world.stats()).functions["default/moving"].in_service == 1

    await world.until(busy)
    other = (await world.call("/fn/default/moving"))[1]["pod"]
    occupied = {"moving-1": "moving-2", "moving-2": "moving-1"}[other]
    await world.write(
        f"{PODS}/{occupied}", {"metadata": {"labels": {names.LABEL_STATE: names.STATE_DRAINING}}}, "PATCH"
    )

    async def drains() -> bool:
        return (await world.stats()).draining.get(f"default/{occupied}") == 1

    await world.until(drains)
    assert (await slow)[1]["pod"] == occupied
    assert {(await world.call("/fn/default/moving"))[1]["pod"] for _ in range(5)} == {other}

    async def drained() -> bool:
        return (await world.stats()).draining.get(f"default/{occupied}") == 0

    await world.until(drained)
    await world.http.delete(f"{world.api}{FUNCTIONS}/moving")

    async def gone() -> bool:
        return (await world.call("/fn/default/moving"))[0] == 404

    await world.until(gone)


async def test_host_routes_follow_the_cluster(world: World) -> None:
    routes = {"routes": [{"host": "api.example.org", "path": "/items/{id}"}]}
    await world.function("routed", http=routes)
    await world.specialize(await world.pod("routed-1", "routed"), "routed-1", "routed")
    host = {"host": "api.example.org"}

    async def answers(code: int) -> bool:
        return (await world.call("/items/7", headers=host))[0] == code

    await world.until(lambda: answers(200))
    await world.write(f"{FUNCTIONS}/routed", {"spec": {"http": None}}, "PATCH")
    await world.until(lambda: answers(404))


async def test_sigterm_ends_it_with_zero_and_without_a_failed_call(world: World) -> None:
    await world.function("steady", concurrency=10)
    await world.specialize(await world.pod("steady-1", "steady", concurrency=10), "steady-1", "steady", 10)
    async with gateway_program(world.home, "gw-3") as other:
        answered = 0

        async def work() -> None:
            nonlocal answered
            async with aiohttp.ClientSession() as session:
                while True:
                    try:
                        async with session.post(other.url + "/fn/default/steady?sleep=0.01") as reply:
                            assert reply.status == 200, await reply.text()
                            answered += 1
                    except aiohttp.ClientConnectorError:
                        return  # nobody listens any more: a Service would have sent it to another gateway

        async def known() -> bool:
            async with world.http.get(other.url + "/fn/default/steady") as reply:
                return reply.status == 200

        await world.until(known)
        workers = [asyncio.create_task(work()) for _ in range(5)]
        while answered < 50:
            await asyncio.sleep(0.01)
        other.child.send_signal(signal.SIGTERM)
        await asyncio.wait_for(asyncio.gather(*workers), 20)
        assert await asyncio.wait_for(other.child.wait(), 20) == 0


async def test_it_serves_while_the_api_server_is_away(tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as http:
        port = free_port()
        async with spawn(tmp_path / "cluster", IMAGES, port) as running:
            world = await prepare(running, http, tmp_path)
            await world.function("hello")
            async with gateway_program(world.home, "gw-4") as world.gateway:
                address = await world.pod("hello-1", "hello")
                await world.specialize(address, "hello-1", "hello")
                await world.known("/fn/default/hello")
                freeze(running.process.pid)
                try:
                    assert (await world.call("/fn/default/hello"))[0] == 200
                finally:
                    thaw(running.process.pid)
                await world.function("later")
                await world.specialize(await world.pod("later-1", "later"), "later-1", "later")
                await world.known("/fn/default/later")


async def test_what_is_missing_is_said(tmp_path: Path) -> None:
    env = {key: value for key, value in os.environ.items() if not key.startswith(("KAPPA", "KUBE"))}
    for extra, words in (({}, "KAPPA_PLATFORM_SECRET"), ({names.ENV_SECRET: "x"}, "KUBECONFIG")):
        child = await asyncio.create_subprocess_exec(*COMMAND, env={**env, **extra}, stderr=asyncio.subprocess.PIPE)
        _, text = await asyncio.wait_for(child.communicate(), 20)
        assert child.returncode == 2
        assert words in text.decode()
        assert "Traceback" not in text.decode()
