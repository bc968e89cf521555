"""A new platform secret while calls go on, warm and cold ones: none may fail, whoever learns of it first."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from kappa_ports import free_port
from kappa_security_world import FIRST, Platform, platform

from kappa_api.keyring import key_id
from kappa_api.tokens import internal_token

Json = Any

SECOND = "second-platform-secret"
CODE = "import os\n\ndef handler(event, context):\n    return {'pod': os.environ['POD_NAME']}\n"
COLD = 4


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Platform]:
    async with platform(tmp_path, free_port) as found:
        yield found


class Load:
    """Calls one warm function all the time, and in turn functions that are at zero most of the time."""

    def __init__(self, world: Platform) -> None:
        self.world, self.warm, self.cold = world, 0, 0
        self.failed: list[str] = []
        self.cold_done = asyncio.Condition()

    async def prepare(self) -> None:
        base = {"runtime": "python", "handler": "main.handler", "code": {"inline": CODE}}
        await self.world.apply("warm", {**base, "scaling": {"minReplicas": 1}, "concurrency": 4})
        for number in range(COLD):
            await self.world.apply(f"cold-{number}", {**base, "scaling": {"idleSeconds": 1}})
        for name in ("warm", *(f"cold-{number}" for number in range(COLD))):
            await self.world.ready(name)

    async def keep_warm(self) -> None:
        while True:
            await self._call("warm")
            self.warm += 1

    async def keep_cold(self) -> None:
        number = 0
        while True:
            name = f"cold-{number % COLD}"
            await self.world.until(lambda name=name: self._at_zero(name), f"{name} to go to zero")
            await self._call(name)
            number += 1
            async with self.cold_done:
                self.cold += 1
                self.cold_done.notify_all()

    async def _at_zero(self, name: str) -> bool:
        return not await self.world.pods(f"kappa.dev/function={name}")

    async def _call(self, name: str) -> None:
        status, text = await self.world.call(name)
        if status != 200:
            self.failed.append(f"{name}: {status} {text[:200]}")

    async def more_cold_starts(self, count: int = 2) -> None:
        goal = self.cold + count
        async with self.cold_done:
            await asyncio.wait_for(self.cold_done.wait_for(lambda: self.cold >= goal), 40)


async def told(world: Platform, component: str, *ids: str) -> None:
    """The component has read its secrets again and accepts these."""

    async def found() -> bool:
        said = [line for line in (await world.log(component)).splitlines() if "the platform secret changed" in line]
        words = f"signing with {ids[0]}, accepting {' and '.join(ids)}"
        return bool(said) and words in said[-1] and f"{words} and" not in said[-1]

    await world.until(found, f"the {component} to take the secrets {ids}")


async def status(world: Platform, component: str, secret: str) -> int:
    """What an internal endpoint of the component answers to the token of this secret."""
    paths = {"gateway": ("GET", "/v1/stats"), "operator": ("POST", "/v1/demand")}
    method, path = paths[component]
    url = f"http://127.0.0.1:{world.ports[component]}{path}"
    headers = {"Authorization": f"Bearer {internal_token(secret.encode())}"}
    async with world.http.request(method, url, json={"gateway": "g", "functions": {}}, headers=headers) as answer:
        return answer.status


@pytest.mark.parametrize("first", ["gateway", "operator"])
async def test_no_call_fails_while_the_secret_is_rotated(world: Platform, first: str) -> None:
    second = "operator" if first == "gateway" else "gateway"
    old, new = key_id(FIRST.encode()), key_id(SECOND.encode())
    load = Load(world)
    await load.prepare()
    tasks = [asyncio.create_task(work) for work in (load.keep_warm(), load.keep_warm(), load.keep_cold())]
    try:
        await load.more_cold_starts()
        # One component has the new secret, the other has not heard of it yet.
        world.secrets[first].hold(SECOND, previous=FIRST)
        await told(world, first, new, old)
        await load.more_cold_starts(3)
        assert (await status(world, second, SECOND)) == 401
        world.secrets[second].hold(SECOND, previous=FIRST)
        await told(world, second, new, old)
        await load.more_cold_starts(3)
        for component in (first, second):
            assert await status(world, component, SECOND) < 300
            assert await status(world, component, FIRST) < 300

        # The pool is made anew with the new secret; instances with the old one go on serving.
        async def renewed() -> bool:
            pool = await world.pods("kappa.dev/state=pool")
            return bool(pool) and all(pod["metadata"]["labels"]["kappa.dev/secret-id"] == new for pod in pool)

        await world.until(renewed, "the pool to carry the new secret")
        (warm,) = await world.pods("kappa.dev/function=warm,kappa.dev/state=serving")
        assert warm["metadata"]["labels"]["kappa.dev/secret-id"] == old

        # Nobody was turned away for good: who knows both secrets has tried the other one.
        for component in (first, second):
            assert not re.search(r"(?<![,\d])401\b", await world.log(component))  # a time may end with ,401

        # The old secret is taken away; what was made with it is still drained and replaced without a failed call.
        for component in (first, second):
            world.secrets[component].hold(SECOND)
            await told(world, component, new)
        await load.more_cold_starts(3)
        for component in (first, second):
            assert await status(world, component, FIRST) == 401
        base = {"runtime": "python", "handler": "main.handler", "concurrency": 4, "scaling": {"minReplicas": 1}}
        await world.apply("warm", {**base, "code": {"inline": CODE + "# rolled out\n"}})

        async def rolled_out() -> bool:
            pods = await world.pods("kappa.dev/function=warm")
            return bool(pods) and all(pod["metadata"]["labels"]["kappa.dev/secret-id"] == new for pod in pods)

        await world.until(rolled_out, "the warm function to run on the new secret")
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [r for r in results if not isinstance(r, asyncio.CancelledError | aiohttp.ClientError)] == []
    print(f"{load.warm} warm and {load.cold} cold calls, {len(load.failed)} failed")
    assert load.failed == []
    assert load.warm > 100
    assert load.cold >= 11
