"""What `make bench-events` runs: NATS, the embedded cluster, one gateway, and an instance that answers at once.

The gateway has core 0 to itself; everything else is on core 1 (`world.py`). There is no operator: nothing scales.
"""

import asyncio
import json
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, TypeVar

import nats
from nats.aio.client import Client
from world import (
    HERE,
    NAMESPACE,
    OTHER_CORE,
    PROXY_CORE,
    Cluster,
    Process,
    World,
    free_port,
    function,
    owner,
    pod,
    wait,
)

from kappa_api import names

Json = dict[str, Any]
T = TypeVar("T")
TOKEN = "bench-token"
WORK = "KAPPA_WORK"
FUNCTIONS = f"/apis/{names.API_VERSION}/namespaces/{NAMESPACE}/{names.FUNCTION_PLURAL}"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
IN_FLIGHT, CONCURRENCY = 64, 200
#: Delivered at once and the result kept; the same without a result; accepted and not delivered; with no instance.
KEPT, UNKEPT, HELD, STUCK = "kept", "unkept", "held", "stuck"
DELIVERY: dict[str, Json] = {KEPT: {}, UNKEPT: {"resultSeconds": 0}, HELD: {"suspend": True}, STUCK: {}}


class EventsWorld:
    """Made once; every measurement leaves the streams empty."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.nats_url = f"nats://127.0.0.1:{free_port()}"
        self.nats = self._nats()
        self.cluster = world.cluster("events", 0)
        self._controls = {name: self._function(name, delivery) for name, delivery in DELIVERY.items()}
        env = {names.ENV_NATS_URL: self.nats_url, names.ENV_NATS_TOKEN: TOKEN, names.ENV_ALLOW_LOOPBACK: "true"}
        self.gateway = world.gateway("gateway-events", self.cluster, **env)
        self.base = self.gateway.url.partition(names.FUNCTION_PATH)[0]
        wait(self._accepts, "the gateway does not accept", world, "gateway-events")
        for name in DELIVERY:
            self.empty(name)

    def bare(self, count: int) -> Json:
        """The baseline, on the core that the gateway has otherwise."""
        return _run(PROXY_CORE, "events_bare.py", self.nats_url, TOKEN, str(count), str(IN_FLIGHT))

    def load(self, name: str, count: int, rate: float = 0.0) -> Json:
        url = f"{self.base}{names.ASYNC_PATH}{NAMESPACE}/{name}"
        found = _run(OTHER_CORE, "events_load.py", url, str(IN_FLIGHT), str(count), str(rate))
        if found["accepted"] != count:
            raise RuntimeError(f"{name}: {found['accepted']} of {count} accepted; others: {found['others']}")
        return found

    def ran(self, name: str) -> Json:
        """What the function's instance has noted since it was asked last."""
        with socket.create_connection(("127.0.0.1", self._controls[name])) as connection:
            text = b""
            while part := connection.recv(1 << 20):
                text += part
        found: Json = json.loads(text)
        return found

    def delivered(self, name: str, seconds: float = 120) -> None:
        """Waits until the lane is empty."""
        wait(lambda: self.backlog(name) == 0, f"{name} is not delivered", seconds=seconds)

    def backlog(self, name: str) -> int:
        return self.ask(_backlog, name)

    def empty(self, name: str) -> None:
        """Throws away what waits, and what the instance noted."""
        self.ask(_purge, name)
        if self._controls[name]:
            self.ran(name)

    def ask(self, what: Any, name: str) -> int:
        async def asked() -> int:
            client = await nats.connect(self.nats_url, token=TOKEN)
            try:
                return int(await what(client, f"kappa.work.async.{NAMESPACE}.{name}"))
            finally:
                await client.close()

        return asyncio.run(asked())

    def _nats(self) -> Process:
        beside = Path(sys.executable).with_name("nats-server")
        program = str(beside) if beside.exists() else shutil.which("nats-server") or "nats-server"
        config = self.world.folder / "nats.conf"
        listen = self.nats_url.removeprefix("nats://")
        store = self.world.folder / "nats"
        config.write_text(
            f'listen: "{listen}"\nauthorization {{ token: "{TOKEN}" }}\njetstream {{ store_dir: "{store}" }}\n'
        )
        process = self.world.start("nats", [program, "-c", str(config)], OTHER_CORE)
        wait(lambda: "Server is ready" in self.world.log("nats"), "NATS did not start", self.world, "nats")
        return process

    def _function(self, name: str, delivery: Json) -> int:
        """The Function, and its instance unless it is to have none; returns the instance's control port."""
        manifest = function(name)
        manifest["spec"]["async"] = delivery
        made = self.cluster.post(FUNCTIONS, manifest)
        if name in (HELD, STUCK):
            return 0
        instance = pod(f"{name}-1", False, CONCURRENCY)
        instance["metadata"]["labels"][names.LABEL_FUNCTION] = name
        instance["metadata"]["ownerReferences"] = [owner(made)]
        self.cluster.post(PODS, instance)
        control, address = free_port(), _address(self.cluster, f"{PODS}/{name}-1")
        command = [sys.executable, str(HERE / "events_upstream.py"), address, str(names.INSTANCE_PORT), str(control)]
        self.world.start(f"instance-{name}", command, OTHER_CORE)
        wait(lambda: _listens(control), f"the instance of {name} did not start", self.world, f"instance-{name}")
        return control

    def _accepts(self) -> bool:
        try:
            for name in DELIVERY:
                self.load(name, 1)
        except RuntimeError:
            return False
        return True


def _address(cluster: Cluster, path: str) -> str:
    end = time.monotonic() + 10
    while not (found := str(cluster.get(path).get("status", {}).get("podIP", ""))):
        if time.monotonic() > end:
            raise TimeoutError(f"{path} got no address")
        time.sleep(0.02)
    return found


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


async def _backlog(client: Client, subject: str) -> int:
    found = await client.jetstream().stream_info(WORK, subjects_filter=subject)
    return sum((found.state.subjects or {}).values())


async def _purge(client: Client, subject: str) -> int:
    return int(await client.jetstream().purge_stream(WORK, subject=subject))


def _run(core: int, program: str, *arguments: str) -> Json:
    command = ["taskset", "-c", str(core), sys.executable, str(HERE / program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RuntimeError(f"{program}: {done.stderr[-2000:]}")
    found: Json = json.loads(done.stdout)
    return found
