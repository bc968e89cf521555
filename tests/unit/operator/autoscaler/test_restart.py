"""What is known of idle times outlives the operator: the next leader makes the same plans."""

import asyncio
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kappa_operator_fakes import ApiError, FakeKube, Time
from kappa_scaling_world import ScalingWorld

from kappa_operator.autoscaler import remembered
from kappa_operator.autoscaler.idle_times import WRITE_SECONDS, IdleTimes
from kappa_operator.autoscaler.keepalive import IdleHistogram, KeepPolicy
from kappa_operator.autoscaler.remembered import SHARDS, Remembered, decode, encode, shard_of

TIMER, RARE = "t/timer", "t/rare"


class Configs(FakeKube):
    """A FakeKube that lists what it holds."""

    async def items(self, path: str, selector: str = "") -> Any:
        self.before("LIST", path, None)
        for name, raw in list(self.objects.items()):
            if name.startswith(path):
                yield raw


def keeper(world: ScalingWorld, kube: FakeKube, time: Time | None = None) -> IdleTimes:
    clock = (time or Time()).clock()
    past = world.scaler.past
    found = IdleTimes(kube, "kappa-system", past.recall, past.remember, clock)  # type: ignore[arg-type]
    past.learnt = found.changed
    return found


async def learnt(calls: int = 12, period: int = 100) -> tuple[ScalingWorld, Configs, IdleTimes]:
    """A timer of a known period, and a function that is called now and then."""
    world, kube = ScalingWorld(TIMER, RARE), Configs()
    times = keeper(world, kube)
    assert await times.read()
    for number in range(calls):
        world.calls = {TIMER: 1, RARE: number % 4 == 0}
        world.step()
        world.calls = {TIMER: 0, RARE: 0}
        world.run(period - 1)
    await times.write()
    return world, kube, times


def one_more_call(world: ScalingWorld) -> None:
    """Ends in the middle of an idle period, at zero."""
    world.calls[TIMER] = 1
    world.step()
    world.calls[TIMER] = 0
    world.run(40)


def plan(world: ScalingWorld, key: str) -> tuple[float, float, float]:
    target = world.scaler._targets.get(key)
    assert target is not None
    found = target.idle.plan(KeepPolicy())
    return (round(found.keep, 2), round(found.prestart, 2), round(found.until, 2))


async def test_the_next_leader_makes_the_same_plans_and_starts_ahead_of_the_next_call() -> None:
    world, kube, times = await learnt()
    one_more_call(world)
    await times.write()
    assert world.wanted(TIMER) == 0
    plans = {key: plan(world, key) for key in (TIMER, RARE)}
    before = len(world.events.said)
    world.start()
    times = keeper(world, kube)
    assert await times.read()
    world.step()
    assert {key: plan(world, key) for key in (TIMER, RARE)} == plans
    world.run(58)
    assert world.wanted(TIMER) == 1
    assert any("started ahead of the next call" in said for said in world.events.said[before:])


async def test_without_memory_it_would_not_be_started_ahead() -> None:
    world, _, _ = await learnt()
    one_more_call(world)
    world.start()
    world.run(59)
    assert world.wanted(TIMER) == 0


async def test_a_function_with_instances_keeps_its_idle_times_too() -> None:
    world, kube, _ = await learnt()
    world.calls[TIMER] = 1
    world.run(3)
    plans = plan(world, TIMER)
    world.start()
    await keeper(world, kube).read()
    assert world.wanted(TIMER) > 0
    assert plan(world, TIMER) == plans


async def test_only_changed_shards_are_written_and_deleted_functions_vanish() -> None:
    world, kube, times = await learnt()
    assert {call[0] for call in kube.written()} == {"POST"}
    assert len(kube.written()) == len({shard_of(TIMER), shard_of(RARE)})
    kube.calls.clear()
    await times.write()
    assert kube.written() == []
    world.store.drop_function(TIMER)
    world.scaler.forget(TIMER)
    await times.write()
    assert len(kube.written()) == 1
    fresh = ScalingWorld(TIMER, RARE)
    assert await keeper(fresh, kube).read()
    assert fresh.scaler._targets.get(TIMER) is None


async def test_a_function_made_anew_under_the_old_name_knows_nothing() -> None:
    _, kube, _ = await learnt()
    world = ScalingWorld(RARE)
    world.store.put_function(
        {
            "metadata": {"name": "timer", "namespace": "t", "uid": "another", "resourceVersion": "999"},
            "spec": {"runtime": "python", "handler": "main.handler", "code": {"inline": ""}},
        }
    )
    times = keeper(world, kube)
    assert await times.read()
    assert world.scaler._targets.get(TIMER) is None
    assert TIMER not in world.scaler.past._untaken
    await times.write()
    again = ScalingWorld(TIMER)
    await keeper(again, kube).read()
    assert again.scaler._targets.get(TIMER) is None


async def test_what_could_not_be_read_is_not_overwritten() -> None:
    world, kube, _ = await learnt()
    held = {path: dict(raw) for path, raw in kube.objects.items()}

    def fail(method: str, path: str, body: Any) -> None:
        if method == "LIST":
            raise ApiError(500, "InternalError", "etcd is away")

    kube.before = fail
    world.start()
    time = Time()
    times = keeper(world, kube, time)
    assert not await times.read()
    running = asyncio.create_task(times.run())
    world.calls[TIMER] = 1
    world.run(10)
    await times.write()
    await time.pass_(WRITE_SECONDS * 2)
    assert kube.objects == held
    kube.before = lambda *_: None
    await time.pass_(WRITE_SECONDS * 2)
    assert plan(world, TIMER)[1] > 0
    running.cancel()


async def test_a_shard_that_somebody_deleted_is_made_again() -> None:
    world, kube, times = await learnt()
    kube.objects.clear()
    world.calls[TIMER] = 1
    world.run(2)
    world.calls[TIMER] = 0
    world.run(100)
    await times.write()
    await times.write()
    assert any(path.endswith(f"-{shard_of(TIMER)}") for path in kube.objects)


def histogram(*seconds: float) -> IdleHistogram:
    found = IdleHistogram()
    for value in seconds:
        found.add(value)
    return found


@given(st.lists(st.floats(5, 100_000), min_size=1, max_size=400))
def test_there_and_back_it_is_the_same_to_the_millisecond(seconds: list[float]) -> None:
    old = histogram(*seconds)
    data = encode({"n/f": Remembered("uid", old, 123.456)})
    found = decode(data)["n/f"]
    assert (found.uid, found.active_at) == ("uid", 123.456)
    assert found.idle.count == pytest.approx(old.count, abs=0.001)
    assert found.idle.bins.keys() == old.bins.keys()
    for index, was in old.bins.items():
        now = found.idle.bins[index]
        assert (now.count, now.low, now.high) == pytest.approx((was.count, was.low, was.high), abs=0.001)
    assert encode({"n/f": found}) == data


def test_ten_thousand_functions_fit() -> None:
    chance = random.Random(5)
    shards: dict[int, dict[str, Remembered]] = {}
    for number in range(10_000):
        key = f"team-{number % 40}/function-{number}"
        times = [chance.lognormvariate(6, 1.5) for _ in range(30)]
        shards.setdefault(shard_of(key), {})[key] = Remembered("01234567", histogram(*times), 1_700_000_000.123)
    sizes = [len(encode(functions)) for functions in list(shards.values())[:4]]
    assert len(shards) == SHARDS
    assert max(sizes) < remembered.MOST_BYTES / 3


def test_a_shard_that_would_be_too_large_keeps_those_known_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "MOST_BYTES", 600)
    functions = {f"n/f{n}": Remembered("u", histogram(*range(10, 11 + n))) for n in range(100)}
    found = decode(encode(functions))
    assert 0 < len(found) < 100
    assert "n/f99" in found
    assert "n/f0" not in found


@pytest.mark.parametrize("junk", [b"", b"junk", encode({})[:-5], b"\x1f\x8b\x08\x00"])
def test_junk_is_as_good_as_nothing(junk: bytes) -> None:
    assert decode(junk) == {}
