"""Limits of real gateway processes on the embedded cluster: shares of several gateways, settings, scarce descriptors.

Instances are scripted servers of this test at the addresses of pods without processes.
"""

import asyncio
import json
import os
import resource
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml
from kappa_gateway_program import Home, Program, gateway_program
from kappa_gateway_rig import Upstream, controller_reference, reply

from kappa_api import names
from kappa_local.cluster import Running, spawn

CRDS = Path(__file__).resolve().parents[3] / "charts" / "kappa" / "crds"
FUNCTIONS = f"/apis/{names.API_VERSION}/namespaces/default/{names.FUNCTION_PLURAL}"
GATEWAYS = f"/api/v1/namespaces/{names.SYSTEM_NAMESPACE}/pods"
NO_PROCESS = {"kappa.dev/local-process": "none"}
pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass
class World:
    """The cluster's API. Everything that is opened is closed with `stack`."""

    running: Running
    http: aiohttp.ClientSession
    folder: Path
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    @property
    def home(self) -> Home:
        return Home(self.running.kubeconfig, self.folder, self.http)

    async def api(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"content-type": "application/merge-patch+json" if method == "PATCH" else "application/json"}
        data = json.dumps(body) if body is not None else None
        async with self.http.request(method, self.running.url + path, data=data, headers=headers) as answer:
            found = await answer.json()
            assert answer.status < 300, json.dumps(found)
            return found

    async def function(self, name: str, concurrency: int = 50, **http: Any) -> Upstream:
        """A function with one instance that answers at once."""
        spec = {
            "runtime": "python",
            "handler": "main.handler",
            "code": {"inline": "x = 1"},
            "concurrency": concurrency,
            "http": http,
        }
        kind = {"apiVersion": names.API_VERSION, "kind": names.FUNCTION_KIND}
        made = await self.api("POST", FUNCTIONS, {**kind, "metadata": {"name": name}, "spec": spec})
        labels = {names.LABEL_FUNCTION: name, names.LABEL_STATE: names.STATE_SERVING, names.LABEL_REVISION: "r1"}
        meta = {
            "name": f"{name}-1",
            "labels": labels,
            "annotations": {**NO_PROCESS, names.ANNOTATION_CONCURRENCY: str(concurrency)},
            "ownerReferences": [
                controller_reference(name, made["metadata"]["uid"]) | {"apiVersion": names.API_VERSION}
            ],
        }
        await self.api("POST", "/api/v1/namespaces/default/pods", a_pod(meta))
        address = ""
        while not address:
            found = await self.api("GET", f"/api/v1/namespaces/default/pods/{name}-1")
            address = (found.get("status") or {}).get("podIP", "")
            await asyncio.sleep(0.01)
        upstream = Upstream(address, names.INSTANCE_PORT)
        await upstream.start()
        self.stack.push_async_callback(upstream.stop)
        return upstream

    async def gateway_pod(self, name: str) -> None:
        """What the cluster shows of a gateway that is Ready."""
        labels = {names.LABEL_PART_OF: "kappa", names.LABEL_COMPONENT: names.COMPONENT_GATEWAY}
        await self.api("POST", GATEWAYS, a_pod({"name": name, "labels": labels, "annotations": NO_PROCESS}))

    async def metrics(self, gateway: Program) -> dict[str, float]:
        async with self.http.get(gateway.admin + names.PATH_METRICS) as answer:
            lines = (await answer.text()).splitlines()
        return {
            series: float(value) for series, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")
        }

    async def until(self, gateway: Program, series: str, value: float) -> None:
        async with asyncio.timeout(15):
            while (await self.metrics(gateway)).get(series) != value:
                await asyncio.sleep(0.02)

    async def call(self, gateway: Program, name: str, **options: Any) -> tuple[int, Any]:
        async with self.http.get(f"{gateway.url}/fn/default/{name}", **options) as answer:
            await answer.read()
            return answer.status, answer.headers


def a_pod(meta: dict[str, Any]) -> dict[str, Any]:
    containers = [{"name": names.CONTAINER_NAME, "image": "none"}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": containers}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("limits")
    async with spawn(folder / "cluster", {}) as running, aiohttp.ClientSession() as http:
        found = World(running, http, folder)
        async with found.stack:
            for file in sorted(CRDS.glob("*.yaml")):
                for document in yaml.safe_load_all(file.read_text()):
                    await found.api("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", document)
            async with asyncio.timeout(15):
                while True:
                    async with http.get(running.url + FUNCTIONS) as answer:
                        if answer.status == 200:
                            break
                    await asyncio.sleep(0.02)
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": names.SYSTEM_NAMESPACE}}
            await found.api("POST", "/api/v1/namespaces", namespace)
            yield found


async def test_gateways_share_a_rate(world: World) -> None:
    """Each admits its part; when one goes, the other has all of it."""
    hello = await world.function("hello", limits={"rate": {"requests": 10, "perSeconds": 600}})
    for name in ("share-1", "share-2"):
        await world.gateway_pod(name)
    async with gateway_program(world.home, "share-1") as first, gateway_program(world.home, "share-2") as second:
        for gateway in (first, second):
            await world.until(gateway, "kappa_gateway_gateways", 2)
        for gateway in (first, second):
            answers = [await world.call(gateway, "hello") for _ in range(8)]
            assert [status for status, _ in answers] == [200] * 5 + [429] * 3
            headers = answers[-1][1]
            assert headers["ratelimit-policy"] == '"function";q=10;w=600'
            assert 100 < int(headers["retry-after"]) <= 120  # 5 in 600 s: the share
        assert len(hello.seen) == 10, "together they admitted what the function takes"
        series = 'kappa_gateway_rejected_total{function="hello",namespace="default",reason="function_rate"}'
        assert (await world.metrics(second))[series] == 3
        await world.api("DELETE", f"{GATEWAYS}/share-2")
        await world.until(first, "kappa_gateway_gateways", 1)
        known = (await world.metrics(first))["kappa_gateway_functions"]
        await world.function("later", limits={"rate": {"requests": 10, "perSeconds": 600}})
        await world.until(first, "kappa_gateway_functions", known + 1)
        answers = [await world.call(first, "later") for _ in range(12)]
        assert [status for status, _ in answers] == [200] * 10 + [429] * 2
    await world.api("DELETE", f"{GATEWAYS}/share-1")


async def test_limits_are_applied_with_kubectl_and_change_at_once(world: World) -> None:
    await world.function("edited", limits={"callerRate": {"requests": 1, "perSeconds": 600}})
    async with gateway_program(world.home, "edit-1") as gateway:
        assert [(await world.call(gateway, "edited"))[0] for _ in range(2)] == [200, 429]
        await world.api("PATCH", f"{FUNCTIONS}/edited", {"spec": {"http": {"limits": None}}})
        async with asyncio.timeout(10):
            while (await world.call(gateway, "edited"))[0] != 200:
                await asyncio.sleep(0.02)
        bad = {"spec": {"http": {"limits": {"rate": {"requests": 0}}}}}
        with pytest.raises(AssertionError, match=r"spec\.http\.limits\.rate\.requests"):
            await world.api("PATCH", f"{FUNCTIONS}/edited", bad)


async def test_settings_of_the_gateway(world: World) -> None:
    await world.function("plain")
    env = {"KAPPA_RATE": "2/600", "KAPPA_MAX_CONNECTIONS": "4", "KAPPA_MAX_CONNECTIONS_PER_ADDRESS": "3"}
    async with gateway_program(world.home, "set-1", **env) as gateway:
        await world.until(gateway, "kappa_gateway_gateways", 1)
        assert [(await world.call(gateway, "plain"))[0] for _ in range(3)] == [200, 200, 429]
        host, port = gateway.url.removeprefix("http://").split(":")
        opened = [await asyncio.open_connection(host, int(port)) for _ in range(4)]
        found = await asyncio.wait_for(opened[-1][0].read(), 10)
        assert found.startswith(b"HTTP/1.1 503 ")
        metrics = await world.metrics(gateway)
        assert metrics['kappa_gateway_connections_turned_away_total{reason="address"}'] >= 1
        assert metrics["kappa_gateway_client_connections_limit"] == 4
        for _, writer in opened:
            writer.close()


async def test_a_gateway_without_descriptors_lives_on(world: World) -> None:
    """It takes as many connections as it has descriptors for, tells the others, and still reaches its instances."""
    slow = await world.function("scarce")
    release = asyncio.Event()

    async def hold(seen: Any, reader: Any, writer: Any) -> None:
        await release.wait()
        writer.write(reply())

    async with gateway_program(world.home, "scarce-1", descriptors=100) as gateway:
        cap = int((await world.metrics(gateway))["kappa_gateway_client_connections_limit"])
        assert cap == 25
        host, port = gateway.url.removeprefix("http://").split(":")
        flood = []
        for number in range(150):  # from several addresses, so that the cap for all is met
            local = (f"127.0.0.{2 + number % 5}", 0)
            with_timeout = asyncio.open_connection(host, int(port), local_addr=local)
            flood.append(await asyncio.wait_for(with_timeout, 10))
        # All are open until the gateway has seen each of them: else it would have room for the last ones
        await world.until(gateway, 'kappa_gateway_connections_turned_away_total{reason="total"}', 150 - cap)
        for _, writer in flood:
            writer.close()
        await world.until(gateway, "kappa_gateway_client_connections", 0)
        slow.behave = hold
        calls = [asyncio.create_task(world.call(gateway, "scarce")) for _ in range(12)]  # half the cap: one address
        await world.until(gateway, 'kappa_gateway_in_service{function="scarce",namespace="default"}', 12)
        release.set()
        assert [status for status, _ in await asyncio.gather(*calls)] == [200] * 12
        assert gateway.child.returncode is None
    assert "Traceback" not in (world.folder / "scarce-1.log").read_text()


async def test_descriptors_that_run_out_all_the_same(world: World) -> None:
    """The cap is set wrongly on purpose: more connections than descriptors. Nothing ends but those connections."""
    await world.function("exhausted")
    async with gateway_program(world.home, "out-1", descriptors=100) as gateway:
        pid = gateway.child.pid
        open_now = len(os.listdir(f"/proc/{pid}/fd"))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (open_now + 5, 100))
        host, port = gateway.url.removeprefix("http://").split(":")
        flood = [await asyncio.open_connection(host, int(port)) for _ in range(20)]
        ended = [asyncio.create_task(reader.read()) for reader, _ in flood]
        await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED, timeout=10)
        assert any(task.done() for task in ended), "some were closed, for want of descriptors"
        for _, writer in flood:
            writer.close()
        await asyncio.gather(*ended, return_exceptions=True)
        async with asyncio.timeout(10):
            while True:
                try:
                    if (await world.call(gateway, "exhausted"))[0] == 200:
                        break
                except aiohttp.ClientConnectionError:
                    pass
                await asyncio.sleep(0.05)
        assert gateway.child.returncode is None
