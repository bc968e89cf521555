"""When not everybody can have everything: quotas, a full cluster, idle memory; and what people are told of it."""

from typing import Any

import pytest
from kappa_scaling_world import MISSING, ScalingWorld

A, B, C = "a/hog", "a/small", "b/other"


def total(world: ScalingWorld, *keys: str) -> int:
    return sum(world.wanted(key) for key in keys)


def test_a_quota_of_a_namespace_holds_from_the_first_moment_and_in_it_only() -> None:
    world = ScalingWorld(A, B, C)
    world.quota("a", 4)
    world.calls = {A: 12, B: 12, C: 12}
    for _ in range(30):
        world.step()
        assert total(world, A, B) <= 4
    assert (world.wanted(A), world.wanted(B)) == (2, 2)
    assert world.wanted(C) > 4
    assert world.scaler.shortage(A) == (
        "NamespaceQuota",
        "the quota of namespace a is 4 instances, 2 of them for this function",
    )
    assert len(world.events.bad("NamespaceQuota")) == 2
    assert world.scaler.shortage(C) == ("", "")


def test_a_namespace_says_more_than_the_default_and_nonsense_says_nothing() -> None:
    world = ScalingWorld(A, C, settings={"max_instances_per_namespace": 3})
    world.quota("a", 5)
    world.quota("b", "many")
    world.calls = {A: 12, C: 12}
    world.run(10)
    assert (world.wanted(A), world.wanted(C)) == (5, 3)


def test_a_quota_that_is_lowered_takes_back_what_is_too_much_and_one_that_is_lifted_ends_the_shortage() -> None:
    world = ScalingWorld(A, B)
    world.quota("a", 8)
    world.calls = {A: 20}
    world.run(10)
    assert world.wanted(A) == 8
    world.calls = {A: 3}
    world.quota("a", 4)
    world.run(3)
    assert world.wanted(A) == 4
    world.calls = {A: 20}
    world.run(5)
    assert world.scaler.shortage(A)[0] == "NamespaceQuota"
    world.store.put_namespace({"metadata": {"name": "a"}})
    world.run(30)
    assert world.wanted(A) > 8
    assert world.scaler.shortage(A) == ("", "")
    assert any(said.startswith("hog EnoughInstances: NamespaceQuota is over") for said in world.events.said)


def test_min_replicas_do_not_break_a_quota() -> None:
    world = ScalingWorld(A, B)
    world.function(A, minReplicas=6)
    world.quota("a", 4)
    world.run(3)
    assert world.wanted(A) == 4


def test_a_hog_in_a_quota_gives_a_first_instance_to_who_has_none() -> None:
    world = ScalingWorld(A, B)
    world.quota("a", 4)
    world.calls = {A: 20}
    world.run(10)
    assert world.wanted(A) == 4
    world.calls[B] = 1
    world.step()
    assert (world.wanted(A), world.wanted(B)) == (3, 1)
    world.run(20)
    assert (world.wanted(A), world.wanted(B)) == (3, 1)


def test_a_hog_in_a_full_cluster_gives_way_to_others_up_to_their_fair_share() -> None:
    world = ScalingWorld(A, C, room=10)
    world.calls = {A: 30}
    world.run(20)
    assert len(world.serving(A)) == 10
    world.calls[C] = 1
    world.run(6)
    assert len(world.serving(C)) == 1
    assert len(world.serving(A)) == 9
    world.calls[C] = 30
    world.run(40)
    assert (len(world.serving(A)), len(world.serving(C))) == (5, 5)


def test_in_a_full_cluster_no_pods_pile_up_that_nobody_can_place() -> None:
    world = ScalingWorld(A, C, room=4)
    world.function(A, maxReplicas=1000)
    world.calls = {A: 12}
    world.run(5)
    before = len(world.pending(A))
    world.calls = {A: 800}
    world.run(60)
    assert len(world.pending(A)) <= before
    assert world.scaler.shortage(A) == ("Unschedulable", MISSING)


def test_idle_functions_give_way_to_calls() -> None:
    keys = [f"idle/f{n}" for n in range(4)]
    world = ScalingWorld(*keys, A, room=4)
    world.function(A, maxReplicas=2)
    world.calls = dict.fromkeys(keys, 1)
    world.run(3)
    world.calls = dict.fromkeys(keys, 0)
    world.run(5)
    assert total(world, *keys) == 4
    world.calls[A] = 2
    world.run(10)
    assert len(world.serving(A)) >= 1
    assert total(world, *keys) <= 3


def test_the_room_of_who_is_no_longer_stuck_is_not_taken_at_once_again() -> None:
    """Else the hog's next pods would be stuck, and push it away again, for ever."""
    world = ScalingWorld(A, C, room=10)
    world.calls = {A: 30}
    world.run(20)
    world.calls[C] = 1
    world.run(10)
    changes = 0
    before = world.wanted(C)
    for _ in range(100):
        world.step()
        changes += world.wanted(C) != before
        before = world.wanted(C)
    assert not changes
    assert len(world.serving(C)) == 1


def test_one_that_fits_nowhere_does_not_starve_the_others() -> None:
    world = ScalingWorld(A, C, room=10)
    world.calls = {A: 30}
    world.run(20)
    world.calls[C] = 1
    world.misfits = {C}
    world.run(30)
    assert len(world.serving(A)) == 9
    world.run(60)
    assert len(world.serving(A)) == 10
    assert world.scaler.shortage(C) == ("Unschedulable", MISSING)


def test_a_full_cluster_is_told_once_and_its_end_once() -> None:
    world = ScalingWorld(A, room=2)
    world.calls = {A: 4}
    world.run(60)
    assert world.events.bad() == [f"!hog Unschedulable: no more instances: {MISSING}"]
    assert world.scaler.shortage(A) == ("Unschedulable", MISSING)
    world.room = 10
    world.run(40)
    assert world.scaler.shortage(A) == ("", "")
    assert [said for said in world.events.said if "EnoughInstances" in said] == [
        f"hog EnoughInstances: Unschedulable is over: {MISSING}"
    ]
    assert world.wanted(A) > 2


def test_a_pod_that_is_placed_a_moment_later_is_no_news() -> None:
    world = ScalingWorld(A, room=2)
    world.function(A, maxReplicas=3)
    world.calls = {A: 3}
    world.step()
    world.room = 3
    world.run(30)
    assert not world.events.bad()


def test_max_replicas_are_told_when_calls_wait_for_long() -> None:
    world = ScalingWorld(A)
    world.function(A, maxReplicas=2)
    world.calls = {A: 9}
    world.run(4)
    assert not world.events.bad()
    world.run(10)
    assert world.events.bad() == ["!hog MaxReplicas: no more instances: invocations wait, and maxReplicas is 2"]
    world.calls = {A: 0}
    world.run(30)
    assert world.scaler.shortage(A) == ("", "")


IDLE = {"idle_memory_bytes": 3 * 128 << 20}


def idle_world(count: int, **settings: Any) -> tuple[ScalingWorld, list[str]]:
    """Functions that were called one after the other, and are idle now."""
    keys = [f"idle/f{n}" for n in range(count)]
    world = ScalingWorld(*keys, settings=settings)
    for key in keys:
        world.calls = {key: 1}
        world.step()
    world.calls = dict.fromkeys(keys, 0)
    return world, keys


def test_idle_memory_has_a_cap_and_those_idle_longest_go_first() -> None:
    world, keys = idle_world(5, **IDLE)
    world.run(3)
    assert [world.wanted(key) for key in keys] == [0, 0, 1, 1, 1]
    assert any("idle instances hold too much memory" in said for said in world.events.said)
    free, keys = idle_world(5)
    free.run(3)
    assert total(free, *keys) == 5


def test_busy_instances_and_promised_ones_do_not_count_as_idle() -> None:
    world, keys = idle_world(3, **IDLE)
    world.function("idle/kept", minReplicas=4)
    world.calls[A] = 0
    world.function(A)
    world.calls[A] = 6
    world.run(5)
    assert total(world, *keys) == 3
    assert world.wanted("idle/kept") == 4
    assert world.wanted(A) >= 2


def test_the_ones_expected_to_be_called_stay_and_nobody_is_started_ahead_only_to_go_again() -> None:
    world = ScalingWorld("t/timer", *(f"idle/f{n}" for n in range(3)), settings=IDLE)
    for _ in range(12):
        world.calls = {"t/timer": 1}
        world.step()
        world.calls = {"t/timer": 0}
        world.run(99)
    assert world.wanted("t/timer") == 1, "started ahead of the next call"
    world.calls |= {f"idle/f{n}": 1 for n in range(3)}
    world.step()
    world.calls = dict.fromkeys(world.calls, 0)
    seen = []
    for _ in range(4):
        world.step()
        seen.append(world.wanted("t/timer"))
    assert seen[0] == seen[-1], seen
    assert len([s for s in world.events.said if s.startswith("timer Scaled")]) < 60


@pytest.mark.parametrize("room", [0, 1])
def test_nothing_breaks_where_there_is_no_room_at_all(room: int) -> None:
    world = ScalingWorld(A, B, C, room=room)
    world.calls = {A: 3, B: 3, C: 3}
    world.run(120)
    assert sum(len(world.serving(key)) for key in (A, B, C)) == room
    assert len(world.events.said) < 60
