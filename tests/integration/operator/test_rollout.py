"""A new revision takes over without a failed call, and capacity never falls below what is wanted."""

import asyncio
import time
from typing import Any

import aiohttp
from kappa_operator_world import World, inline

from kappa_api.names import HEADER_REFUSED, INSTANCE_PORT

Json = Any


def code(text: str) -> str:
    return f"import time\n\ndef handler(event, context):\n    time.sleep(0.02)\n    return '{text}'\n"


class Caller:
    """Calls without end like a gateway: any serving pod, again elsewhere when the pod refuses or is gone."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.answers: list[bytes] = []
        self.failures: list[str] = []
        self.fewest = 1000

    async def run(self) -> None:
        while True:
            await self._call()

    async def _call(self) -> None:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            pods = [pod for pod in await self.world.serving(self.name) if pod["status"].get("podIP")]
            self.fewest = min(self.fewest, len(pods))
            for pod in pods:
                try:
                    async with self.world.http.post(f"http://{pod['status']['podIP']}:{INSTANCE_PORT}/") as answer:
                        body = await answer.read()
                        if HEADER_REFUSED in answer.headers:
                            continue
                        if answer.status != 200:
                            self.failures.append(f"{answer.status} {body[:200]!r}")
                        self.answers.append(body)
                        return
                except aiohttp.ClientConnectorError:
                    continue
                except aiohttp.ClientError as error:
                    self.failures.append(repr(error))
                    return
            await asyncio.sleep(0.01)
        self.failures.append("no instance before the deadline")


async def test_one_replica_rolls_under_load_without_a_failed_call(world: World) -> None:
    await world.apply("fn", inline(code("one"), scaling={"minReplicas": 1}))
    first = (await world.ready("fn"))["activeRevision"]
    caller = Caller(world, "fn")
    tasks = [asyncio.create_task(caller.run()) for _ in range(3)]
    for text in ("two", "three", "four"):
        await asyncio.sleep(0.3)
        await world.apply("fn", inline(code(text), scaling={"minReplicas": 1}))
        first = (await world.ready("fn", revision_after=first))["activeRevision"]
    await world.until(lambda: world.pods("kappa.dev/function=fn"), lambda pods: len(pods) == 1)
    await asyncio.sleep(0.3)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert caller.failures == []
    assert caller.answers[0] == b'"one"'
    assert caller.answers[-1] == b'"four"'
    assert caller.fewest >= 1
    assert len(caller.answers) > 50


async def test_many_replicas_are_replaced_one_by_one(world: World) -> None:
    await world.apply("fn", inline(code("one"), scaling={"minReplicas": 3}))
    first = (await world.ready("fn"))["activeRevision"]
    await world.until(lambda: world.serving("fn"), lambda pods: len(pods) == 3)
    fewest = 3

    async def watch() -> None:
        nonlocal fewest
        while True:
            fewest = min(fewest, len(await world.serving("fn")))

    task = asyncio.create_task(watch())
    await world.apply("fn", inline(code("two"), scaling={"minReplicas": 3}))
    second = (await world.ready("fn", revision_after=first))["activeRevision"]

    async def revisions() -> list[str]:
        return [pod["metadata"]["labels"]["kappa.dev/revision"] for pod in await world.pods("kappa.dev/function=fn")]

    await world.until(revisions, lambda found: found == [second] * 3, 20)
    task.cancel()
    assert fewest == 3


async def test_kubectl_scale_raises_the_minimum(world: World) -> None:
    await world.apply("fn", inline(code("one")))
    await world.ready("fn")
    path = "/apis/kappa.dev/v1/namespaces/default/functions/fn/scale"
    scale = await world.call("GET", path)
    assert scale["status"]["selector"] == "kappa.dev/function=fn"
    patch = {"spec": {"replicas": 3}}
    await world.call("PATCH", path, patch, {"Content-Type": "application/merge-patch+json"})
    await world.until(lambda: world.serving("fn"), lambda pods: len(pods) == 3)
    await world.status("fn", lambda s: (s["replicas"], s["readyReplicas"]) == (3, 3))
