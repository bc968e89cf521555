"""Pools over time: growth with the claims, a new image, pods that are of no use, and a new leader."""

import itertools
from typing import Any

import pytest
from kappa_operator_unit import PODS, World

from kappa_api.wire import Specialize
from kappa_operator.observed import rfc3339
from kappa_operator.store import function_work, pool_work

Json = Any
POOL = pool_work("ns", "python")


def pool(world: World) -> dict[str, str]:
    """The image of each pod of the pool, by name."""
    return {
        pod.name: pod.image
        for pod in world.store.pool("ns", "python")
        if pod.live and not world.pods.held.get(pod.name)
    }


async def wants(world: World, number: int, seconds: float = 1.0) -> None:
    world.wants.number = number
    world.wake(frozenset({function_work("ns/fn")}))
    await world.run(seconds)


async def test_it_grows_with_a_burst_and_shrinks_slowly_when_that_is_forgotten() -> None:
    world = World(pool=1, most=6)
    world.apply("one")
    await world.run(1)
    assert len(pool(world)) == 1
    await wants(world, 5)
    assert len(pool(world)) == 4
    await wants(world, 0, 280)
    assert len(pool(world)) == 4
    sizes = []
    for _ in range(90):
        before = set(pool(world))
        await world.run(15)
        assert set(pool(world)) <= before, "a pool that shrinks makes no pod"
        sizes.append(len(pool(world)))
    assert all(0 <= a - b <= 1 for a, b in itertools.pairwise(sizes))
    assert sizes[-1] == 1


async def test_it_never_grows_over_its_bound() -> None:
    world = World(pool=1, most=2)
    world.apply("one")
    await world.run(1)
    await wants(world, 9)
    assert len(pool(world)) == 2


async def test_a_new_leader_keeps_what_it_finds() -> None:
    world = World(pool=1, most=6)
    world.apply("one")
    await world.run(1)
    await wants(world, 5)
    there = set(pool(world))
    await world.die()
    world.start()
    world.wants.number = 5
    await world.run(60)
    assert set(pool(world)) == there


async def test_a_new_image_replaces_the_pods_without_an_empty_pool() -> None:
    world = World(pool=3)
    world.apply("one")
    await world.run(1)
    world.image = "img:2"
    least = 3

    def count(method: str, path: str, body: Json) -> None:
        nonlocal least
        ready = sum(pod.live and pod.ready for pod in world.store.pool("ns", "python"))
        least = min(least, ready - (method == "DELETE"))

    world.kube.before = count
    spec = {"image": "img:2", "pool": {"min": 3, "max": 3}}
    world.wake(world.store.put_runtime({"metadata": {"name": "python", "uid": "r"}, "spec": spec}))
    await world.run(3)
    assert set(pool(world).values()) == {"img:2"}
    assert (len(pool(world)), least) == (3, 3)


async def test_new_resources_replace_the_pods_too_but_new_bounds_do_not() -> None:
    world = World(pool=2)
    world.apply("one")
    await world.run(1)
    first = set(pool(world))
    for spec, same in (
        ({"image": "img", "pool": {"min": 2, "max": 7}}, True),
        ({"image": "img", "pool": {"min": 2, "max": 7}, "resources": {"limits": {"memory": "1Gi"}}}, False),
    ):
        world.wake(world.store.put_runtime({"metadata": {"name": "python", "uid": "r"}, "spec": spec}))
        await world.run(3)
        assert (set(pool(world)) == first) is same
        assert len(pool(world)) == 2
    assert not set(pool(world)) & first


async def test_code_that_was_sent_but_never_labelled_is_found_by_the_next_leader() -> None:
    world = World(pool=2)
    world.apply("one")
    await world.run(1)
    name = next(iter(pool(world)))
    world.pods.held[name] = Specialize("ns", "other", "r", "h", "event", {"main.py": b"secret"})
    await world.run(60)
    assert f"{PODS}/{name}" in world.kube.objects, "a pod that this leader made is not asked"
    await world.die()
    world.start()
    await world.run(1)
    assert f"{PODS}/{name}" not in world.kube.objects
    assert len(pool(world)) == 2


@pytest.mark.parametrize("problem", ["Error", "OOMKilled"])
async def test_pods_that_end_as_soon_as_they_start_are_made_ever_more_slowly(problem: str) -> None:
    world = World(pool=2)
    made = 0

    def crash() -> None:
        nonlocal made
        for path, raw in list(world.kube.objects.items()):
            if path.startswith(PODS) and "-pool-" in path and (raw.get("status") or {}).get("phase") != "Failed":
                made += 1
                meta = {**raw["metadata"], "creationTimestamp": rfc3339(world.time.now)}
                world.kube.put(path, {**raw, "metadata": meta, "status": {"phase": "Failed", "reason": problem}})

    world.kubelet = crash  # type: ignore[method-assign]
    world.apply("one")
    await world.run(120)
    assert made <= 20


async def test_where_there_is_no_room_for_instances_it_gives_way_at_once_and_comes_back() -> None:
    world = World(pool=3, most=6)
    world.apply("one")
    await world.run(1)
    assert len(pool(world)) == 3
    world.pools.full = lambda namespace: namespace == "ns"
    world.wake(frozenset({POOL}))
    await world.run(1)
    assert pool(world) == {}
    await wants(world, 2)
    assert pool(world) == {}, "nor is it filled again"
    world.pools.full = lambda namespace: False
    world.wake(frozenset({POOL}))
    await world.run(1)
    assert len(pool(world)) == 3
