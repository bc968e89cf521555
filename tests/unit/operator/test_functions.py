"""Functions, actions and pools together against a fake API server and fake pods, in virtual time."""

import asyncio
from typing import Any

import pytest
from kappa_operator_fakes import ApiError
from kappa_operator_unit import FUNCTION, PODS, World

from kappa_api.wire import LoadError, Specialize
from kappa_operator.instance import LoadFailedError, PodTimeoutError
from kappa_operator.store import function_work

Json = Any


@pytest.fixture
async def world() -> World:
    return World()


async def test_from_an_applied_function_to_an_instance(world: World) -> None:
    world.apply("one")
    await world.run(1)
    assert world.state() == ["pool", "serving:one"]
    assert world.ready() == ("True", "Active")
    assert (world.status["replicas"], world.status["url"]) == (1, "http://g/fn/ns/fn")


async def test_a_proven_revision_is_labelled_while_it_loads(world: World) -> None:
    world.apply("one")
    await world.run(1)
    world.pods.load = [0.3]
    world.wants.number = 2
    world.wake(frozenset({function_work("ns/fn")}))
    await world.run()
    assert world.state() == ["pool", "serving", "serving:one"]
    await world.run(1)
    assert world.state() == ["pool", "serving:one", "serving:one"]


async def test_an_unproven_one_is_not(world: World) -> None:
    world.pods.load = [0.3]
    world.apply("one")
    await world.run()
    assert world.state() == ["pool", "starting"]
    await world.run(1)
    assert world.state() == ["pool", "serving:one"]


async def test_an_empty_pool_makes_a_pod_for_the_function() -> None:
    world = World(pool=0)
    world.apply("one")
    await world.run(1)
    assert world.state() == ["serving:one"]
    (name,) = world.pods.held
    assert name.startswith("fn-")


async def test_to_zero_drains_first(world: World) -> None:
    world.pods.drain_seconds = 3
    world.apply("one")
    await world.run(1)
    world.wants.number = 0
    await world.run(1)
    assert world.state() == ["draining:one", "pool"]
    await world.run(4)
    assert world.state() == ["pool"]
    assert len(world.pods.drained) == 1
    assert world.ready() == ("True", "ScaledToZero")


async def test_a_drain_has_an_end(world: World) -> None:
    world.pods.drain_seconds = 1000
    world.apply("one", timeoutSeconds=10)
    await world.run(1)
    world.wants.number = 0
    await world.run(14)
    assert world.state() == ["draining:one", "pool"]
    await world.run(3)
    assert world.state() == ["pool"]


async def test_a_roll_out(world: World) -> None:
    world.apply("one")
    await world.run(1)
    world.wants.number = 2
    await world.run(1)
    first = world.status["activeRevision"]
    world.apply("two")
    await world.run(3)
    assert world.state() == ["pool", "serving:two", "serving:two"]
    assert world.status["activeRevision"] != first


async def test_code_that_does_not_load_leaves_the_old_serving_and_is_not_tried_again(world: World) -> None:
    world.apply("one")
    await world.run(1)
    first = world.status["activeRevision"]
    world.pods.load = [LoadFailedError(LoadError("ImportError", "no module", file="main.py", line=3))]
    world.apply("two")
    await world.run(200)
    assert world.ready() == ("False", "LoadFailed")
    second = world.status["failedRevision"]
    assert world.status["conditions"][0]["message"] == (
        f"revision {second} failed to load: ImportError: no module (main.py line 3); revision {first} keeps serving"
    )
    assert world.state() == ["pool", "serving:one"]
    assert world.pods.load == []

    await world.die()
    world.start()
    await world.run(100)
    assert world.ready() == ("False", "LoadFailed")
    assert world.state() == ["pool", "serving:one"]

    world.apply("three")
    await world.run(2)
    assert world.state() == ["pool", "serving:three"]
    assert "failedRevision" not in world.status


async def test_the_old_revision_is_started_again_from_its_snapshot(world: World) -> None:
    world.apply("one")
    await world.run(1)
    world.pods.load = [LoadFailedError(LoadError("E", "m"))]
    world.apply("two")
    await world.run(2)
    world.wants.number = 0
    await world.run(2)
    assert world.state() == ["pool"]
    await world.die()
    world.start()
    world.wants.number = 2
    await world.run(3)
    assert world.state() == ["pool", "serving:one", "serving:one"]


async def test_a_pod_that_is_gone_is_passed_over(world: World) -> None:
    world.apply("one")
    await world.run(1)
    (pool,) = world.store.pool("ns", "python")
    world.pods.silent.add(pool.name)
    world.wants.number = 2
    await world.run(2)
    assert world.state() == ["pool", "serving:one", "serving:one"]
    assert f"{PODS}/{pool.name}" not in world.kube.objects


async def test_a_pod_that_was_taken_meanwhile_is_passed_over(world: World) -> None:
    world.apply("one")
    await world.run(1)
    (pool,) = world.store.pool("ns", "python")
    del world.kube.objects[f"{PODS}/{pool.name}"]
    world.wants.number = 2
    await world.functions.reconcile("ns/fn")
    await world.run(2)
    assert world.state() == ["pool", "serving:one", "serving:one"]


async def test_a_pool_pod_that_holds_code_is_deleted(world: World) -> None:
    world.apply("one")
    await world.run(1)
    (pool,) = world.store.pool("ns", "python")
    world.pods.held[pool.name] = Specialize("ns", "other", "r", "h", "event", {"main.py": b"secret"})
    world.wants.number = 2
    await world.run(2)
    assert world.state() == ["pool", "serving:one", "serving:one"]


async def test_a_load_that_hangs_says_so_and_is_tried_again_with_back_off(world: World) -> None:
    world.pods.load = [PodTimeoutError("no answer"), None]
    world.apply("one")
    await world.run(0)
    await world.run(0.2)
    assert world.ready() == ("False", "LoadTimeout")
    assert "activeRevision" not in world.status
    await world.run(2)
    assert world.ready() == ("True", "Active")


async def test_a_refused_pod_is_told(world: World) -> None:
    world = World(pool=0)

    def quota(method: str, path: str, body: Json) -> None:
        if method == "POST" and path == PODS:
            raise ApiError(403, "Forbidden", "exceeded quota: pods")

    world.kube.before = quota
    world.apply("one")
    await world.run(3)
    assert world.ready() == ("False", "PodRefused")
    assert "exceeded quota" in world.status["conditions"][0]["message"]
    world.kube.before = lambda method, path, body: None
    await world.run(60)
    assert world.ready() == ("True", "Active")


async def test_an_image_drains_by_the_gateways_count() -> None:
    world = World(pool=0)
    spec = {"code": {"image": "web:1"}, "timeoutSeconds": 10}
    meta = {"name": "fn", "namespace": "ns", "generation": 1}
    world.wake(world.store.put_function(world.kube.put(FUNCTION, {"metadata": meta, "spec": spec})))
    await world.run(2)
    assert world.state() == ["serving"]
    assert world.pods.held == {}
    world.wants.number, world.wants.is_drained = 0, False
    await world.run(5)
    assert world.state() == ["draining"]
    world.wants.is_drained = True
    await world.run(2)
    assert world.state() == []


async def test_a_bad_spec_keeps_what_serves(world: World) -> None:
    world.apply("one")
    await world.run(1)
    world.apply("two", timeoutSeconds=0)
    await world.run(5)
    assert world.ready() == ("False", "InvalidSpec")
    assert "spec.timeoutSeconds: 0 is out of range" in world.status["conditions"][0]["message"]
    assert world.state() == ["serving:one"]


async def test_a_leader_that_dies_at_any_write_is_followed_without_loss() -> None:
    """The operator is killed at its n-th write, for every n: the next one ends in the same state."""
    for fatal in range(1, 40):
        world = World()
        writes = 0

        def count(method: str, path: str, body: Json, world: World = world, fatal: int = fatal) -> None:
            nonlocal writes
            writes += 1
            if writes == fatal:
                # The write itself happens; the answer is never read.
                asyncio.get_running_loop().call_soon(lambda: [t.cancel() for t in world.actions._tasks])

        world.kube.before = count
        world.apply("one")
        await world.run(1)
        world.wants.number = 2
        world.apply("two")
        await world.run(1)
        world.kube.before = lambda method, path, body: None
        await world.die()
        world.start()
        await world.run(30)
        assert world.state() == ["pool", "serving:two", "serving:two"], f"killed at write {fatal}"
        assert world.ready() == ("True", "Active")
        if writes < fatal:
            break
    else:
        raise AssertionError("the story has more writes than were tried")


async def test_a_spec_that_became_invalid_does_not_stop_the_scaling(world: World) -> None:
    """The last good revision goes on serving, by the last good spec: to zero when idle, and up when it is called."""
    world.apply("one")
    await world.run(1)
    world.apply("one", timeoutSeconds=-5)
    await world.run(1)
    assert (world.ready(), world.state()) == (("False", "InvalidSpec"), ["serving:one"])
    world.wants.number = 0
    await world.run(2)
    assert world.state() == []
    world.wants.number = 2
    await world.run(3)
    assert world.state() == ["serving:one"] * 2
    record = world.store.functions["ns/fn"]
    assert record.function is None
    assert record.scaled is not None
    assert record.scaled.spec.timeout_seconds == 30
