"""The operator may end at any moment: the next one goes on, and nothing is lost or doubled."""

import asyncio
import random
import signal
import time

import aiohttp
import pytest
from kappa_gate import Gate
from kappa_operator_world import World, inline
from kappa_processes import freeze, thaw

from kappa_api.tokens import internal_token

HELLO = "def handler(event, context):\n    return 'hello'\n"


async def test_killed_at_any_moment(bare: World) -> None:
    """Every few hundred milliseconds another operator dies, while functions come and change."""
    world = bare
    chance = random.Random(4)
    for number in range(6):
        operator = await world.operator()
        spec = inline(HELLO + f"# {number % 3}\n", scaling={"minReplicas": 1})
        await world.apply(f"fn{number % 3}", spec)
        await asyncio.sleep(chance.uniform(0.8, 2.0))
        await operator.stop(kill=True)
    await world.operator()
    for number in range(3):
        await world.ready(f"fn{number}")
        pods = await world.until(lambda n=number: world.pods(f"kappa.dev/function=fn{n}"), lambda pods: len(pods) == 1)
        assert pods[0]["metadata"]["labels"]["kappa.dev/state"] == "serving"
        assert (await world.invoke(pods[0]))[0] == 200
    # Three functions claimed at about the same time, so the pool may have grown; never over its bounds.
    await world.until(lambda: world.pods("kappa.dev/state=pool"), lambda pods: 1 <= len(pods) <= 3)


async def test_a_standby_takes_over(world: World) -> None:
    standby = await world.operator()
    leader = world.operators[0]
    await world.apply("fn", inline(HELLO))
    await world.ready("fn")

    async def health(port: int, path: str) -> int:
        headers = {"Authorization": f"Bearer {internal_token(b'integration-secret')}"}
        try:
            method = "POST" if path == "/v1/demand" else "GET"
            async with world.http.request(
                method, f"http://127.0.0.1:{port}{path}", json={"gateway": "g", "functions": {}}, headers=headers
            ) as answer:
                return answer.status
        except aiohttp.ClientError:
            return 0

    await world.until(lambda: health(standby.port, "/readyz"), lambda status: status == 200)
    assert await health(standby.port, "/v1/demand") == 421
    begun = time.monotonic()
    assert await leader.stop() == 0
    await world.until(lambda: health(standby.port, "/v1/demand"), lambda status: status == 204)
    taken = time.monotonic() - begun
    await world.apply("fn", inline(HELLO + "# two\n"))
    lease = await world.call("GET", "/apis/coordination.k8s.io/v1/namespaces/kappa-system/leases/kappa-operator")
    assert lease["metadata"]["annotations"]["kappa.dev/address"] == f"127.0.0.1:{standby.port}"
    await world.ready("fn")
    assert taken < 3.0


async def test_a_leader_that_sleeps_too_long_ends_itself(world: World) -> None:
    await world.apply("fn", inline(HELLO))
    await world.ready("fn")
    leader = world.operators[0]
    await world.operator()
    freeze(leader.process.pid)
    await world.until(lambda: world.demand_of(world.operators[1], "fn"), lambda status: status == 204)
    thaw(leader.process.pid)
    assert await asyncio.wait_for(leader.process.wait(), 10) == 75


@pytest.mark.parametrize("state", ["serving", "pool"])
async def test_a_pod_that_dies_is_replaced(world: World, state: str) -> None:
    await world.apply("fn", inline(HELLO, scaling={"minReplicas": 1}))
    await world.ready("fn")
    (pod,) = await world.until(lambda: world.pods(f"kappa.dev/state={state}"), lambda pods: len(pods) == 1)
    await world.call("DELETE", f"/api/v1/namespaces/default/pods/{pod['metadata']['name']}")
    await world.until(
        lambda: world.pods(f"kappa.dev/state={state}"),
        lambda pods: len(pods) == 1 and pods[0]["metadata"]["name"] != pod["metadata"]["name"],
    )


async def test_a_deleted_function_takes_its_pods_along(world: World) -> None:
    await world.apply("fn", inline(HELLO, scaling={"minReplicas": 2}))
    await world.until(lambda: world.serving("fn"), lambda pods: len(pods) == 2)
    await world.call("DELETE", "/apis/kappa.dev/v1/namespaces/default/functions/fn")
    await world.until(lambda: world.pods(), lambda pods: not pods)


@pytest.mark.parametrize("moment", [0.3, 0.6, 0.8, 1.0, 1.5])
async def test_told_to_end_at_any_moment_it_ends_well(bare: World, moment: float) -> None:
    operator = await bare.operator()
    await asyncio.sleep(moment)
    begun = time.monotonic()
    code = await operator.stop()
    # Before Python has set its handlers, the signal ends the process by itself.
    assert code == 0 or (code == -signal.SIGTERM and "leading" not in operator.log.read_text())
    assert time.monotonic() - begun < 3
    lease = await bare.call("GET", "/apis/coordination.k8s.io/v1/namespaces/kappa-system/leases/kappa-operator")
    assert lease is None or lease["spec"]["holderIdentity"] == ""


async def test_what_is_deleted_while_a_watch_begins_is_not_missed(bare: World) -> None:
    """The leader has read the cluster; before kopf's own list a pod goes, of which no event tells."""
    world = bare
    first = await world.operator()
    await world.apply("fn", inline(HELLO, scaling={"minReplicas": 2}))
    pods = await world.until(lambda: world.serving("fn"), lambda found: len(found) == 2)
    await first.stop()
    lists = 0

    def second_list(request: bytes) -> bool:
        """kopf's list of the pods: the leader's own comes before it."""
        nonlocal lists
        lists += request.startswith(b"GET /api/v1/pods?") and b"watch=" not in request.split(b"\r\n", 1)[0]
        return lists == 2

    async with Gate(int(world.url.rpartition(":")[2])) as gate:
        gate.hold = second_list
        gated = world.state / "gated"
        gated.write_text(world.kubeconfig.read_text().replace(world.url, f"http://127.0.0.1:{gate.port}"))
        await world.operator(KUBECONFIG=str(gated))
        async with asyncio.timeout(20):
            await gate.held.wait()
        gone = pods[0]["metadata"]["name"]
        await world.call("DELETE", f"/api/v1/namespaces/default/pods/{gone}?gracePeriodSeconds=0")
        gate.release()
        found = await world.until(lambda: world.serving("fn"), lambda found: len(found) == 2)
        assert gone not in [pod["metadata"]["name"] for pod in found]
        for operator in world.operators:
            await operator.stop(kill=True)
