"""An instance whose process hangs, and callers who go on calling: what they see, and how soon it is replaced."""

import asyncio
import json
from collections import Counter
from typing import Any

import pytest
from kappa_platform import POLL_SECONDS, System, function
from kappa_processes import freeze

pytestmark = pytest.mark.asyncio(loop_scope="session")
Json = dict[str, Any]

ECHO = "async def handler(event, context):\n    return event['requestContext']['http']['method']\n"
#: The process keeps the interpreter for itself: PyDLL does not give it back, as C code that hangs does not.
HOLDS = """
import ctypes

def handler(event, context):
    if event["rawPath"] == "/hang":
        ctypes.PyDLL(None).sleep(600)
    return "ok"
"""
SLOW = """
import asyncio, time

async def handler(event, context):
    seconds = float(event["queryStringParameters"]["seconds"])
    if event["rawPath"] == "/blocks":
        time.sleep(seconds)  # nothing else of the function goes on meanwhile
    await asyncio.sleep(seconds)
    return "ok"
"""
TIMEOUT = 3


async def pods_of(system: System, name: str) -> dict[str, Json]:
    """The function's instances that are not being deleted, by name."""
    answer = await system.kubectl.run(["get", "pods", "-l", f"kappa.dev/function={name}", "-o", "json"])
    found = json.loads(answer.out)["items"]
    return {pod["metadata"]["name"]: pod for pod in found if not pod["metadata"].get("deletionTimestamp")}


async def serving(system: System, name: str, count: int, without: str = "") -> dict[str, Json]:
    """Its instances, as soon as there are so many, all Ready, and `without` is none of them."""
    async with asyncio.timeout(40):
        while True:
            found = await pods_of(system, name)
            ready = [pod for pod in found.values() if pod["status"]["containerStatuses"][0]["ready"]]
            if len(found) == len(ready) == count and without not in found:
                return found
            await asyncio.sleep(POLL_SECONDS)


def stop(pod: Json) -> None:
    """SIGSTOP: the process neither runs nor ends."""
    number = pod["status"]["containerStatuses"][0]["containerID"].removeprefix("process://")
    freeze(int(number))


async def events(system: System, name: str) -> list[str]:
    """Reason and message of the Function's Events."""
    answer = await system.kubectl.run(["get", "events", "-o", "json"])
    found = json.loads(answer.out)["items"]
    return [f"{e['reason']}: {e['message']}" for e in found if e["involvedObject"]["name"] == name]


async def told(system: System, name: str, pod: str) -> None:
    """Returns once an Event says that this instance was hung."""
    async with asyncio.timeout(20):
        while not [text for text in await events(system, name) if text.startswith("InstanceHung") and pod in text]:
            await asyncio.sleep(POLL_SECONDS)


class Callers:
    """Some that call one after the other, some with each method. `outcomes` counts (method, status, code)."""

    def __init__(self, system: System, name: str) -> None:
        self.system, self.url = system, f"{system.url}/fn/default/{name}"
        self.outcomes: Counter[tuple[str, int, str]] = Counter()
        self._tasks = [asyncio.create_task(self._call(method)) for method in ("GET", "GET", "POST", "POST")]

    async def _call(self, method: str) -> None:
        while True:
            async with self.system.http.request(method, self.url) as reply:
                source, code = reply.headers.get("kappa-error-source", ""), ""
                if source == "gateway":
                    code = (await reply.json())["error"]["code"]
                self.outcomes[method, reply.status, code or source] += 1

    async def served(self, count: int) -> None:
        """Returns once so many calls more were answered well."""
        before = self.well
        async with asyncio.timeout(40):
            while self.well < before + count:
                await asyncio.sleep(POLL_SECONDS)

    @property
    def well(self) -> int:
        return sum(count for (_, status, _), count in self.outcomes.items() if status == 200)

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            assert isinstance(result, asyncio.CancelledError), result


@pytest.mark.parametrize("concurrency", [1, 10])
async def test_a_stopped_process_under_load(system: System, concurrency: int) -> None:
    name = f"stopped{concurrency}"
    scaling = {"minReplicas": 2, "maxReplicas": 2}
    answer = await system.apply(function(name, ECHO, concurrency=concurrency, timeoutSeconds=TIMEOUT, scaling=scaling))
    assert answer.ok, answer.text
    before = await serving(system, name, 2)
    callers = Callers(system, name)
    await callers.served(50)
    victim, pod = next(iter(before.items()))
    stop(pod)
    await serving(system, name, 2, without=victim)
    await callers.served(50)
    await callers.end()
    failed = {outcome: count for outcome, count in callers.outcomes.items() if outcome[1] != 200}
    # What was in it: at its deadline, or when it was ended.
    assert set(failed) <= {("GET", 504, "deadline"), ("POST", 504, "deadline"), ("POST", 502, "instance_died")}
    assert 1 <= sum(failed.values()) <= concurrency
    await told(system, name, victim)
    await system.kubectl.run(["delete", "fn", name])


async def test_code_that_keeps_the_interpreter(system: System) -> None:
    answer = await system.apply(function("holds", HOLDS, timeoutSeconds=TIMEOUT, scaling={"maxReplicas": 1}))
    assert answer.ok, answer.text
    await system.ready("holds")
    url = f"{system.url}/fn/default/holds"
    async with system.http.get(url) as reply:
        assert (reply.status, await reply.json()) == (200, "ok")
    (victim,) = await serving(system, "holds", 1)
    async with system.http.get(f"{url}/hang") as reply:
        assert (reply.status, reply.headers["kappa-error-source"]) == (504, "gateway")
    await told(system, "holds", victim)
    await serving(system, "holds", 1, without=victim)
    async with system.http.get(url) as reply:
        assert (reply.status, await reply.json()) == (200, "ok")
    await system.kubectl.run(["delete", "fn", "holds"])


async def test_slow_code_is_not_hung(system: System) -> None:
    """Not within its deadline, however long it blocks; nor beyond it, as long as it can be stopped."""
    scaling = {"minReplicas": 1, "maxReplicas": 1}
    answer = await system.apply(function("slow", SLOW, concurrency=4, timeoutSeconds=6, scaling=scaling))
    assert answer.ok, answer.text
    before = await serving(system, "slow", 1)
    url = f"{system.url}/fn/default/slow"

    async def call(path: str) -> tuple[int, str]:
        async with system.http.get(f"{url}{path}") as reply:
            return reply.status, reply.headers.get("kappa-error-source", "")

    assert await asyncio.gather(call("/?seconds=60"), call("/blocks?seconds=2")) == [(504, "function"), (200, "")]
    assert await call("/?seconds=0") == (200, "")
    after = await serving(system, "slow", 1)
    assert before.keys() == after.keys()
    assert not [text for text in await events(system, "slow") if text.startswith("InstanceHung")]
    await system.kubectl.run(["delete", "fn", "slow"])
