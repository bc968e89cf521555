"""What the operator reads of a gateway: exact, and no more than has changed."""

from dataclasses import dataclass
from typing import Any

from kappa_api.wire import Stats
from kappa_gateway import states
from kappa_gateway.catalog import Catalog, State
from kappa_gateway.dispatch import Instance
from kappa_gateway.stats import Readings

KEY = "default/hello"


@dataclass(eq=False)
class Call:
    """An invocation that waits for nothing."""

    deadline: float = 1e9
    expired: bool = False
    place: str = states.NEW
    order: int = 0
    since: float = 0.0
    instance: Instance | None = None

    def granted(self, now: float) -> None: ...

    def rejected(self, error: Exception) -> None: ...


class World:
    def __init__(self, *pods: str, concurrency: int = 5) -> None:
        self.catalog = Catalog(lambda: 0.0, routes_stale=lambda: None, instance_gone=lambda key: None)
        self.readings = Readings(self.catalog, "g", "e")
        self.state = self.function(KEY)
        self.instances = [Instance(f"default/{name}", f"10.0.0.{n}", concurrency) for n, name in enumerate(pods)]
        for instance in self.instances:
            self.state.queue.put(instance, 0.0)

    def function(self, key: str) -> State:
        state = self.catalog.functions[key] = State(key)
        return state

    def call(self, now: float, state: State | None = None) -> Call:
        call = Call()
        (state or self.state).queue.enter(call, now)
        return call

    def end(self, call: Call, now: float) -> None:
        self.state.queue.release(call, now)
        self.state.counters.finish(200, 0.1, failed=False)

    def keys(self, now: float, since: float = 0.0) -> list[str]:
        return sorted(self.readings.take(now, since).functions)


def test_in_service_is_told_per_instance_where_there_is_more_than_one() -> None:
    world = World("p", "q", "r")
    for _ in range(4):
        world.call(1.0)
    found = world.readings.take(2.0).instances
    assert found is not None
    assert sorted(found.values()) == [1, 1, 2]
    for call in [world.call(2.0) for _ in range(2)]:
        world.end(call, 3.0)
    one = World("p")
    one.call(1.0)
    assert one.readings.take(2.0).instances == {}


def test_an_idle_instance_and_one_that_drains_are_not_among_them() -> None:
    world = World("p", "q", "r")
    first = world.call(1.0)
    assert first.instance is not None
    busy = world.call(1.0).instance
    assert busy is not None
    world.state.queue.drain(first.instance)
    assert world.readings.take(2.0).instances == {busy.key: 1}


def test_moments_are_tenths_of_a_second_with_an_arrival() -> None:
    world = World("p", concurrency=100)
    for now in (0.0, 0.05, 0.09, 0.1, 0.3, 0.31, 0.95):
        world.call(now)
    found = world.readings.take(1.0).functions[KEY]
    assert (found.arrivals, found.moments) == (7, 4)


def test_who_has_read_before_is_told_what_has_changed() -> None:
    world = World("p")
    world.function("default/never")
    call = world.call(1.0)
    assert world.keys(2.0) == [KEY]
    assert world.keys(3.0, since=2.0) == [KEY], "an invocation is in service"
    world.end(call, 3.5)
    assert world.keys(4.0, since=3.0) == [KEY], "it has ended since"
    assert world.keys(5.0, since=4.0) == []
    assert world.keys(5.5) == [KEY], "whole readings have all"
    assert world.keys(6.0, since=3.0) == [KEY], "a reader that missed the last readings"
    world.end(world.call(6.1), 6.2)
    assert world.keys(7.0, since=6.0) == [KEY]
    assert world.keys(8.0, since=7.0) == []


def test_two_readers_do_not_take_news_from_each_other() -> None:
    world = World("p")
    world.end(world.call(1.0), 1.5)
    assert world.keys(2.0, since=1.0) == [KEY]
    assert world.keys(2.1, since=1.1) == [KEY]
    assert world.keys(3.0, since=2.0) == []
    assert world.keys(3.1, since=2.1) == []


def test_one_that_waits_is_always_told() -> None:
    world = World()
    world.call(1.0)
    assert world.keys(2.0, since=1.9) == [KEY]
    assert world.keys(3.0, since=2.0) == [KEY]


def test_a_function_made_anew_is_news_though_its_counts_are_the_same() -> None:
    world = World("p")
    world.end(world.call(1.0), 1.5)
    world.keys(2.0)
    instance = Instance("default/p2", "10.0.0.9", 1)
    world.state = world.function(KEY)
    world.state.queue.put(instance, 3.0)
    world.end(world.call(3.0), 3.5)
    assert world.keys(4.0, since=2.0) == [KEY]


def test_the_memory_of_what_was_quiet_does_not_grow_without_end() -> None:
    world = World("p")
    for number in range(1000):
        key = f"default/f{number}"
        state = world.function(key)
        state.queue.put(Instance(f"default/i{number}", "10.0.0.3", 1), 0.0)
        call = world.call(number, state)
        state.queue.release(call, number)
        world.keys(number + 0.5)
        del world.catalog.functions[key]
    assert len(world.readings._quiet) < 300


def test_the_answer_can_be_read_back() -> None:
    world = World("p", "q")
    world.call(1.0)
    world.call(1.0)
    found: Any = world.readings.take(2.0, 1.5)
    assert Stats.from_json(found.to_json()) == found
