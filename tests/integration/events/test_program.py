"""`python -m kappa_gateway` with NATS, as a process: it starts without it, finds it, and ends in order."""

import asyncio
import signal
from pathlib import Path

import aiohttp
import yaml
from kappa_gateway_program import Home, gateway_program
from kappa_nats import NatsServer

from kappa_api import names
from kappa_local.cluster import spawn

CRDS = Path(__file__).resolve().parents[3] / "charts" / "kappa" / "crds"


async def metric(http: aiohttp.ClientSession, admin: str, name: str) -> float:
    async with http.get(admin + names.PATH_METRICS) as reply:
        lines = (await reply.text()).splitlines()
    return float(next(line for line in lines if line.startswith(name + " ")).split()[1])


async def test_it_finds_nats_later_and_ends_in_order(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats")
    async with spawn(tmp_path / "cluster", {}) as running, aiohttp.ClientSession() as http:
        for file in sorted(CRDS.glob("*.yaml")):
            for document in yaml.safe_load_all(file.read_text()):
                path = running.url + "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
                async with http.post(path, json=document) as reply:
                    assert reply.status < 300
        home = Home(running.kubeconfig, tmp_path, http)
        env = {names.ENV_NATS_URL: server.url, names.ENV_NATS_TOKEN: server.token}
        async with gateway_program(home, "gw-1", **env) as gateway:
            assert await metric(http, gateway.admin, "kappa_nats_up") == 0
            async with http.post(gateway.url + "/async/default/nobody") as reply:
                assert reply.status == 404
            await server.start()
            async with asyncio.timeout(5):
                while not await metric(http, gateway.admin, "kappa_nats_up"):
                    await asyncio.sleep(0.05)
            gateway.child.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(gateway.child.wait(), 20) == 0
            log = gateway.log.read_text()
            assert "Traceback" not in log
            assert log.count("NATS is away") == 1
            assert log.count("NATS is back") == 1
    await server.stop()
