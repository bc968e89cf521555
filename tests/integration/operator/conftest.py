"""The operator as a process against the embedded cluster and the real runtime; a fake gateway tells the signals."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from kappa_operator_world import World

from kappa_local.cluster import spawn

Json = Any

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


@pytest.fixture
async def bare(tmp_path: Path) -> AsyncIterator[World]:
    """A cluster with the CRDs, a Runtime `python` with a pool of one, and no operator."""
    images = {
        "runtime-python": "python -m kappa_runtime",
        "fake-gateway": f"python {HERE / 'fake_gateway.py'}",
        "image-server": f"python {HERE / 'image_server.py'}",
    }
    async with spawn(tmp_path / "cluster", images) as running, aiohttp.ClientSession() as http:
        world = World(running.url, running.kubeconfig, http, tmp_path)
        for name in ("functions", "runtimes"):
            crd = yaml.safe_load((ROOT / f"charts/kappa/crds/{name}.yaml").read_text())
            await world.call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)
        system = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kappa-system"}}
        await world.call("POST", "/api/v1/namespaces", system)
        runtime = {
            "apiVersion": "kappa.dev/v1",
            "kind": "Runtime",
            "metadata": {"name": "python"},
            "spec": {"image": "runtime-python", "pool": {"min": 1, "max": 3}},
        }

        async def make_runtime() -> Json:
            async with http.post(f"{world.url}/apis/kappa.dev/v1/runtimes", json=runtime) as answer:
                return answer.status

        await world.until(make_runtime, lambda status: status in (201, 409))
        try:
            yield world
        finally:
            for operator in world.operators:
                await operator.stop(kill=True)


@pytest.fixture
async def world(bare: World) -> World:
    """The same with one operator that leads."""
    operator = await bare.operator()

    async def role() -> str:
        try:
            async with bare.http.get(f"http://127.0.0.1:{operator.port}/readyz") as answer:
                return await answer.text()
        except aiohttp.ClientError:
            return ""

    await bare.until(role, lambda found: found == "leader\n")
    return bare


@pytest.fixture
async def gateway(world: World) -> World:
    """The same with a fake gateway that reports no traffic."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "gateway-0", "labels": {"app.kubernetes.io/component": "gateway"}},
        "spec": {
            "containers": [
                {
                    "name": "gateway",
                    "image": "fake-gateway",
                    "ports": [{"name": "admin", "containerPort": 8081}],
                    "env": [
                        {"name": "POD_NAME", "value": "gateway-0"},
                        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                    ],
                }
            ]
        },
    }
    await world.call("POST", "/api/v1/namespaces/kappa-system/pods", pod)

    async def listening() -> bool:
        try:
            await world.gateway_says({})
        except (aiohttp.ClientError, KeyError, IndexError):
            return False
        return True

    await world.until(listening, bool)
    return world
