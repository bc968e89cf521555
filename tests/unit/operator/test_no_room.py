"""No room for more instances, as the reconciler sees it: told to the scaler, no reason not to be Ready, no hot loop.

And what is measured of claims.
"""

from collections.abc import Callable
from typing import Any

import pytest
from kappa_operator_fakes import ApiError
from kappa_operator_unit import PODS, World

from kappa_api.runtime import own_pod_reason
from kappa_operator.autoscaler.room import Stuck
from kappa_operator.metrics import REASONS

Json = Any
REFUSED = 'pods "x" is forbidden: exceeded quota: team-a, requested: pods=1, used: pods=4, limited: pods=4'
USED_UP = "ResourceQuota team-a is used up: one more instance needs pods=1; used pods=4 of pods=4"
LOST = "0/3 nodes are available: 3 Insufficient memory."


def refuse(world: World) -> None:
    def quota(method: str, path: str, body: Json) -> None:
        if method == "POST" and path.endswith("/pods"):
            raise ApiError(403, "Forbidden", REFUSED)

    world.kube.before = quota


def allow(world: World) -> None:
    world.kube.before = lambda *_: None


async def serving(pool: int = 0) -> World:
    world = World(pool)
    world.apply("one")
    await world.run(1)
    assert world.ready() == ("True", "Active")
    return world


def creations(world: World) -> int:
    return world.kube.calls.count(("POST", PODS))


async def test_a_used_up_quota_is_told_by_name_and_asked_ever_more_rarely() -> None:
    world = await serving()
    refuse(world)
    world.wants.number = 4
    before = creations(world)
    await world.run(5)
    assert world.wants.is_stuck == Stuck("QuotaExceeded", USED_UP)
    assert world.ready() == ("True", "Active")
    tries = [creations(world) - before]
    for _ in range(3):
        await world.run(60)
        tries.append(creations(world) - before)
    assert tries[-1] - tries[-2] <= 2, "three are missing, and one of them is tried about once a minute"
    assert 9 <= tries[-1] <= 20
    allow(world)
    await world.run(61)
    assert len(world.state()) == 4
    assert world.wants.is_stuck is None


async def test_refusals_of_one_try_count_as_one() -> None:
    world = await serving()
    refuse(world)
    world.wants.number = 20
    await world.run()
    allow(world)
    await world.run(2)
    assert len(world.state()) == 20


async def test_a_first_revision_that_finds_no_room_is_not_ready_and_says_why() -> None:
    world = World(0)
    refuse(world)
    world.apply("one")
    await world.run(1)
    assert world.ready() == ("False", "QuotaExceeded")
    assert world.wants.is_stuck is None, "no instance of a proven revision is missing"


async def test_other_refusals_stand_in_ready() -> None:
    world = await serving()

    def forbid(method: str, path: str, body: Json) -> None:
        if method == "POST" and path.endswith("/pods"):
            raise ApiError(403, "Forbidden", 'violates PodSecurity "restricted:latest"')

    world.kube.before = forbid
    world.wants.number = 2
    await world.run(3)
    assert world.ready() == ("False", "PodRefused")
    assert world.wants.is_stuck is None


def unschedulable(world: World) -> Callable[[], None]:
    """From now on no node takes new pods; what is returned lets them again."""
    place = world.kubelet

    def lose() -> None:
        for path, raw in list(world.kube.objects.items()):
            if path.startswith(PODS) and not raw.get("status"):
                lost = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": LOST}
                raw = world.kube.put(path, {**raw, "status": {"phase": "Pending", "conditions": [lost]}})
                world.wake(world.store.put_pod(raw))

    def again() -> None:
        world.kubelet = place  # type: ignore[method-assign]
        for path, raw in list(world.kube.objects.items()):
            if path.startswith(PODS) and raw["status"].get("phase") == "Pending":
                world.kube.put(path, {**raw, "status": {}})

    world.kubelet = lose  # type: ignore[method-assign]
    return again


async def test_pods_that_nobody_can_place_are_told_and_do_not_make_ready_flap() -> None:
    world = await serving()
    again = unschedulable(world)
    world.wants.number = 3
    await world.run(30)
    assert world.wants.is_stuck == Stuck("Unschedulable", LOST)
    assert world.ready() == ("True", "Active")
    assert (world.status["replicas"], world.status["readyReplicas"]) == (3, 1)
    again()
    await world.run(3)
    assert world.wants.is_stuck is None
    assert world.status["readyReplicas"] == 3


async def test_a_shortage_stands_in_a_condition_of_its_own_until_it_is_over_and_after() -> None:
    world = await serving()

    def capacity() -> Json:
        return next((c for c in world.status["conditions"] if c["type"] == "Capacity"), None)

    assert capacity() is None
    world.wants.short = ("Unschedulable", LOST)
    await world.run(1)
    assert (capacity()["status"], capacity()["reason"]) == ("False", "Unschedulable")
    assert capacity()["message"] == f"no more instances: {LOST}"
    assert world.ready() == ("True", "Active")
    world.wants.short = ("", "")
    await world.run(1)
    assert (capacity()["status"], capacity()["reason"]) == ("True", "EnoughInstances")


def counted(world: World) -> dict[tuple[str, str], float]:
    return {
        (sample.labels["source"], sample.labels["reason"]): sample.value
        for metric in world.metrics.claims.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    }


def pool(world: World) -> dict[str, float]:
    found = [sample for metric in world.metrics.pool_pods.collect() for sample in metric.samples]
    return {sample.labels["state"]: sample.value for sample in found}


async def test_claims_are_counted_by_where_they_were_served_from() -> None:
    world = await serving(pool=1)
    assert counted(world) == {("own", "pool_empty"): 1}, "the pool is made when there is somebody to use it"
    assert pool(world) == {"wanted": 1, "ready": 1}
    world.wants.number = 2
    await world.run(3)
    assert counted(world) == {("own", "pool_empty"): 1, ("pool", "ready"): 1}
    world.apply("two", envFrom=[{"secretRef": {"name": "s"}}])
    await world.run(3)
    assert counted(world)["own", "env"] >= 1


async def test_a_pool_that_is_no_more_has_no_metrics() -> None:
    world = await serving(pool=1)
    world.wake(world.store.drop_runtime("python"))
    del world.kube.objects["/apis/kappa.dev/v1/namespaces/ns/functions/fn"]
    world.wake(world.store.drop_function("ns/fn"))
    await world.run(3)
    assert pool(world) == {}


async def test_starts_are_measured_from_the_claim_to_the_loaded_code() -> None:
    world = await serving(pool=1)
    assert [start.pooled for start, _ in world.wants.starts] == [False]
    world.wants.starts.clear()
    world.pods.load = [0.5, 2.0]
    world.wants.number = 3
    await world.run(6)
    found = sorted((start.function, start.runtime, start.pooled, round(took, 1)) for start, took in world.wants.starts)
    assert found == [("ns/fn", "python", False, 2.0), ("ns/fn", "python", True, 0.5)]


async def test_a_start_that_this_leader_has_not_seen_from_the_beginning_is_not_measured() -> None:
    world = await serving()
    world.wants.starts.clear()
    world.pods.load = [5.0]
    world.wants.number = 2
    await world.run(1)
    await world.die()
    world.start()
    world.wants.number = 2
    await world.run(10)
    assert world.wants.starts == []


@pytest.mark.parametrize("text", sorted(set(REASONS) - {"ready", "starting"}))
def test_each_reason_for_an_own_pod_has_a_label_of_few_words(text: str) -> None:
    assert REASONS[text].replace("_", "").isalpha()


def test_no_reason_is_without_a_label() -> None:
    source = own_pod_reason.__code__.co_consts
    texts = {c for c in source if isinstance(c, str) and " " in c and not c.startswith("Why")}
    assert len(texts) > 4
    assert texts <= set(REASONS)
