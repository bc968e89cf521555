"""The sink: which events pass, into which lane, under which id; what is counted; failures in the middle of many."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest
from kappa_trigger_world import trigger

from kappa_api.cloudevents import CloudEvent
from kappa_gateway.events.bodies import StoredBodies
from kappa_gateway.events.bus import Receipt, TooLargeError, UnavailableError
from kappa_gateway.events.filters import PARTITIONS, partition
from kappa_gateway.events.large import LargeEvents
from kappa_gateway.events.settings import EventSettings
from kappa_gateway.events.sink import MOST, Outlet, TriggerSink, encoded, work_id
from kappa_gateway.events.triggers import Triggers
from kappa_gateway.events.work import Lane, Work


class Bus:
    """Takes messages, each after the loop has turned; drops ids that it has; fails for bodies that hold `bad`."""

    def __init__(self) -> None:
        self.settings = EventSettings()
        self.taken: list[tuple[str, Any, str]] = []
        self.ids: set[str] = set()
        self.at_once = self.most = 0

    async def publish(self, subject: str, body: bytes, headers: Mapping[str, str], *, msg_id: str) -> Receipt:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            await asyncio.sleep(0)
            if b"bad" in body:
                raise UnavailableError("no")
            if len(body) > 10_000:
                raise TooLargeError("too large")
            work = Work.read(headers, body)
            assert work.id == msg_id.partition("/")[2]
            if msg_id in self.ids:
                return Receipt(1, duplicate=True)
            self.ids.add(msg_id)
            self.taken.append((subject, json.loads(body).get("data"), msg_id))
            return Receipt(len(self.ids))
        finally:
            self.at_once -= 1


class World:
    def __init__(self, **spec: Any) -> None:
        self.bus, self.triggers, self.poked = Bus(), Triggers(), list[Lane]()
        self.triggers.put(trigger("t", {"schedule": {"cron": "@daily"}}, **spec))
        large = LargeEvents(self.bus, StoredBodies(self.bus), 100_000)  # type: ignore[arg-type]
        outlet = Outlet(self.bus, self.triggers, self.poked.append, lambda: 100.5, large)  # type: ignore[arg-type]
        self.sink = TriggerSink(outlet, "default/t")

    @property
    def counts(self) -> Any:
        return self.triggers.counts("default/t")


def event(identity: str, data: Any = None, **attributes: str) -> CloudEvent:
    return CloudEvent(id=identity, source="/s", type="t", data=data, **attributes)


async def test_what_passes_is_published_once_and_counted() -> None:
    world = World(filter={"data": {"n": [{"numeric": [">", 1]}]}})
    events = [event(str(n), {"n": n}) for n in range(4)]
    await world.sink.emit(events)
    await world.sink.emit(events)
    assert [(subject, data) for subject, data, _ in world.bus.taken] == [
        ("kappa.work.trigger.default.t", {"n": 2}),
        ("kappa.work.trigger.default.t", {"n": 3}),
    ]
    counts = world.counts
    assert (counts.received, counts.filtered, counts.duplicates, counts.last_event) == (2, 4, 2, 100.5)
    assert set(world.poked) == {Lane("trigger", "default", "t")}


async def test_a_failure_is_raised_after_all_others_are_done() -> None:
    world = World()
    with pytest.raises(UnavailableError):
        await world.sink.emit([event("1", "bad"), event("2", "good"), event("3", "fine")])
    assert sorted(data for _, data, _ in world.bus.taken) == ["fine", "good"]
    assert world.bus.at_once == 0


async def test_order_is_kept_within_a_partition() -> None:
    world = World(ordered={"key": "data.k"})
    await world.sink.emit([event(str(n), {"k": n % 5, "n": n}) for n in range(50)])
    rows: dict[str, list[int]] = {}
    for subject, data, _ in world.bus.taken:
        rows.setdefault(f"{subject} {data['k']}", []).append(data["n"])
    assert all(row == sorted(row) for row in rows.values())
    assert {subject.rpartition(".")[0] for subject, _, _ in world.bus.taken} == {"kappa.work.trigger.default.t"}


async def test_order_stops_where_it_fails() -> None:
    world = World(ordered={"key": "subject"})
    with pytest.raises(UnavailableError):
        await world.sink.emit([event("1", "a"), event("2", "bad"), event("3", "c")])
    assert [data for _, data, _ in world.bus.taken] == ["a"]


async def test_what_is_too_large_is_dropped_and_told() -> None:
    world = World()
    await world.sink.emit([event("1", "x" * 1_000_000), event("2", "y"), event("3", subject="x" * 20_000)])
    assert [data for _, data, _ in world.bus.taken] == ["y"]
    assert (world.counts.dropped, world.counts.received) == (2, 1)
    assert "too large" in world.counts.message


async def test_not_all_at_once() -> None:
    world = World()
    await world.sink.emit([event(str(n)) for n in range(MOST * 2 + 1)])
    assert world.bus.most == MOST
    assert len(world.bus.taken) == MOST * 2 + 1


async def test_a_trigger_that_is_gone_takes_nothing() -> None:
    world = World()
    world.triggers.remove("default/t")
    await world.sink.emit([event("1")])
    assert world.bus.taken == []


def test_ids_differ_with_trigger_source_and_id() -> None:
    base = event("1")
    other = CloudEvent(id="1", source="/other", type="t")
    ids = {work_id("u", base), work_id("v", base), work_id("u", other), work_id("u", event("2"))}
    assert len(ids) == 4
    assert work_id("u", base) == work_id("u", event("1", {"other": "data"}))


def test_half_characters_travel() -> None:
    body = encoded(event("1", {"x": "\ud800"}))
    assert json.loads(body)["data"] == {"x": "\ud800"}


def test_partitions_are_by_the_keys_value() -> None:
    world = World(ordered={"key": "data.a.b"})
    found = world.triggers.get("default/t")
    assert found is not None
    places = {partition(found, event("1", {"a": {"b": n}})) for n in range(200)}
    assert places == {str(n) for n in range(PARTITIONS)}
    same = {partition(found, event(str(n), {"a": {"b": "x"}, "n": n})) for n in range(9)}
    assert len(same) == 1
    assert partition(found, event("1", "text")) == partition(found, event("2", {"a": 5}))
