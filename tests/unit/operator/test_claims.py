"""A claim is never made twice: whoever is killed, replaced or dies, and at whatever step."""

import asyncio
from typing import Any

import pytest
from kappa_operator_steps import SteppedWorld
from kappa_operator_unit import PODS, SETTINGS, World

from kappa_api.wire import Demand
from kappa_operator.autoscaler.loop import Autoscaler
from kappa_operator.functions import Scaler
from kappa_operator.instance import PodError, PodUnreachableError
from kappa_operator.metrics import Metrics
from kappa_operator.observed import Pod
from kappa_operator.store import function_work

Json = Any
WANTED = 2


async def story(world: SteppedWorld) -> None:
    """A function is applied and proven, and then wants two instances."""
    world.apply("one")
    await world.run(1)
    world.wants.number = WANTED
    world.wake(frozenset({function_work("ns/fn")}))
    await world.run(1)


def complete(world: World) -> bool:
    return world.state() == ["pool"] * world.pool_size + ["serving:one"] * WANTED


@pytest.mark.parametrize("pool", [0, 1, 3])
async def test_the_operator_is_killed_at_any_step(pool: int) -> None:
    for last in range(1, 200):
        world = SteppedWorld(pool, last)
        await story(world)
        stopped = world.steps.stopped
        await world.die()
        world.start()
        world.wants.number = WANTED
        await world.run(3)
        assert complete(world), f"killed at step {last}: {world.state()}"
        assert world.most() <= WANTED, f"killed at step {last}"
        assert world.ready() == ("True", "Active")
        if not stopped:
            return
    raise AssertionError("the story has more steps than were tried")


@pytest.mark.parametrize("pool", [0, 2, 3])
async def test_the_leader_changes_while_the_old_one_still_writes(pool: int) -> None:
    """A leader hangs at a step; another one takes over and finishes; then the writes of the first arrive.

    A pod of the pool cannot be claimed by both. Without a pool both may have made a pod; then one of them goes again.
    """
    for last in range(1, 200):
        world = SteppedWorld(pool)
        world.apply("one")
        await world.run(1)
        world.wants.number = 0
        await world.run(2)
        assert world.state() == ["pool"] * pool
        first = world.steps
        first.stop_after(last, asyncio.Event())
        world.wants.number = WANTED
        await world.run(1)
        world.start()
        world.wants.number = WANTED
        await world.run(2)
        assert complete(world), f"paused at step {last}: {world.state()}"
        first.go_on()
        await world.run(4)
        assert complete(world), f"paused at step {last}: {world.state()}"
        assert world.most() <= WANTED or not pool, f"paused at step {last}"
        if not first.stopped:
            return
    raise AssertionError("the story has more steps than were tried")


@pytest.mark.parametrize("death", ["gone", "ended", "unreachable", "cut off"])
@pytest.mark.parametrize("number", range(WANTED))
@pytest.mark.parametrize("patch_seconds", [0.0, 0.7])
async def test_a_pod_dies_half_way(death: str, number: int, patch_seconds: float) -> None:
    """The pod of the n-th specialize dies before it has answered: it is replaced, by one and no more."""
    world = SteppedWorld(3)
    world.slow_down(patch_seconds)
    seen: list[str] = []

    def die(pod: Pod) -> None:
        if pod.name not in seen:
            seen.append(pod.name)
        if seen.index(pod.name) != number:
            return
        path = f"{PODS}/{pod.name}"
        if death == "gone":
            world.kube.objects.pop(path, None)
        elif death == "ended" and path in world.kube.objects:
            world.kube.put(path, {**world.kube.objects[path], "status": {"phase": "Failed", "reason": "Evicted"}})
        raise PodError("the connection broke") if death == "cut off" else PodUnreachableError("refused")

    world.pods.before = die
    await story(world)
    await world.run(8)
    assert complete(world), world.state()
    assert len(seen) == WANTED + 1
    assert world.most() <= WANTED


class Scaled(SteppedWorld):
    """With the real autoscaler."""

    def scaler(self) -> Scaler:
        self.autoscaler = Autoscaler(
            self.store, SETTINGS, wake=self.wake, events=self.events, metrics=Metrics(), clock=self.time.clock()
        )
        return self.autoscaler


DEMANDS = {
    "two in one message": [Demand("g1", {"ns/fn": (2, 0)})],
    "two messages of one gateway": [Demand("g1", {"ns/fn": (1, 0)}), Demand("g1", {"ns/fn": (2, 0)})],
    "one at each of two gateways": [Demand("g1", {"ns/fn": (1, 0)}), Demand("g2", {"ns/fn": (1, 0)})],
}


@pytest.mark.parametrize("demands", DEMANDS.values(), ids=DEMANDS.keys())
@pytest.mark.parametrize("pool", [0, 3])
async def test_two_requests_together_at_zero_claim_one_pod(demands: list[Demand], pool: int) -> None:
    world = Scaled(pool)
    world.apply("one", concurrency=2)
    await world.run(1)
    await world.die()
    for path, raw in list(world.kube.objects.items()):
        if path.startswith(PODS) and raw["metadata"]["labels"].get("kappa.dev/function"):
            del world.kube.objects[path]
    world.start()
    await world.run(1)
    assert world.state() == ["pool"] * pool
    world.forget_most()
    for demand in demands:
        world.autoscaler.demand(demand)
    await world.run(2)
    assert world.state() == ["pool"] * pool + ["serving:one"]
    assert world.most() == 1
