"""Scaling down takes the instance that has nothing to do, as the gateways tell it."""

import re

from kappa_operator_world import World, inline, traffic

HELLO = "def handler(event, context):\n    return 'hello'\n"


async def scrapes(world: World) -> float:
    """How often the operator has read the gateway."""
    async with world.http.get(f"http://127.0.0.1:{world.operators[0].port}/metrics") as answer:
        found = re.search(r'gateway_scrapes_total\{result="read"\} (\S+)', await answer.text())
    return float(found[1]) if found else 0.0


async def test_the_emptiest_instance_goes_first(gateway: World) -> None:
    world = gateway
    await world.apply("fn", inline(HELLO, scaling={"minReplicas": 3, "maxReplicas": 3}))
    pods = await world.until(lambda: world.serving("fn"), lambda pods: len(pods) == 3)
    # Of pods of which nothing is known the newest would go: so the empty one is to be the oldest.
    pods.sort(key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))
    names = [pod["metadata"]["name"] for pod in pods]
    born = pods[0]["metadata"]["creationTimestamp"]
    empty = [name for name, pod in zip(names, pods, strict=True) if pod["metadata"]["creationTimestamp"] == born][-1]
    (admin,) = await world.pods("app.kubernetes.io/component=gateway", "kappa-system")
    says = {
        "functions": {"default/fn": traffic(arrivals=2, inService=2)},
        "draining": {},
        "instances": {f"default/{name}": 1 for name in names if name != empty},
    }
    async with world.http.post(f"http://{admin['status']['podIP']}:8081/set", json=says) as answer:
        assert answer.status == 200
    before = await scrapes(world)
    await world.until(lambda: scrapes(world), lambda count: count >= before + 2)
    await world.apply("fn", inline(HELLO, scaling={"minReplicas": 2, "maxReplicas": 2}))
    left = await world.until(lambda: world.serving("fn"), lambda pods: len(pods) == 2)
    assert sorted(pod["metadata"]["name"] for pod in left) == sorted(name for name in names if name != empty)
