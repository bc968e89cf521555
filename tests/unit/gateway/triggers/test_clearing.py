"""Clearing up after Triggers: what is dropped, what never is, who does it, how often it is tried; on virtual time."""

import asyncio
import itertools
import json
import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from kappa_state_bucket import StateBus
from kappa_trigger_world import trigger
from kappa_virtual import VirtualLoop

from kappa_api.trigger import Trigger, parse_trigger
from kappa_gateway.events.bus import UnavailableError
from kappa_gateway.events.clearing import FIRST_PAUSE, GIVE_UP_SECONDS, LOOK_SECONDS, Clearing, Tools
from kappa_gateway.events.members import preferred
from kappa_gateway.events.metrics import EventsCollector
from kappa_gateway.events.source import SourceError, Trace
from kappa_gateway.events.state import KvState, Left
from kappa_gateway.events.triggers import Triggers

HOUR = 3600.0
GIVEN_UP = ("kappa_trigger_leftovers_given_up_total",)
LOG = "kappa_gateway.events.clearing"


def rows(secret: str) -> dict[str, Any]:
    return {"postgres": {"secretRef": {"name": secret}, "tables": ["orders"]}}


def leftovers(world: "World") -> dict[tuple[str, ...], float]:
    """The metrics of them."""
    events: Any = SimpleNamespace(host=SimpleNamespace(clearing=world.clearing))
    samples = [sample for metric in EventsCollector(events)._leftovers() for sample in metric.samples]
    return {(sample.name, *sample.labels.values()): sample.value for sample in samples}


class Members:
    def __init__(self, name: str, everybody: list[str]) -> None:
        self.name, self._everybody = name, everybody

    def present(self) -> list[str]:
        return list(self._everybody)


class Owners:
    """`taken`: who has the lease. Nobody gets it twice."""

    def __init__(self, taken: set[str]) -> None:
        self._taken = taken

    async def acquire(self, uid: str) -> Any:
        while uid in self._taken:
            await asyncio.sleep(1)
        self._taken.add(uid)
        return uid

    async def release(self, lease: Any) -> None:
        self._taken.discard(lease)


class World:
    """The API server has `live`. `outside` is what stands in other systems, by place; `trouble`: a place that cannot be
    reached; `same`: other names of a place; `log`: what was forgotten."""

    def __init__(self) -> None:
        self.loop, self.bus = VirtualLoop(), StateBus()
        self.live: dict[str, int] | None = {}
        self.log: list[str] = []
        self.trouble: dict[str, Exception] = {}
        self.same: dict[str, str] = {}
        self.text, self.server = "a slot", "here"
        self.tells_where = True
        self.everybody = ["g1"]
        self.taken: set[str] = set()
        self.asked = 0
        self.gateways: dict[str, tuple[Clearing, Triggers]] = {}
        self.clearing, self.triggers = self.gateway("g1")

    def gateway(self, name: str) -> tuple[Clearing, Triggers]:
        triggers, members, owners = Triggers(), Members(name, self.everybody), Owners(self.taken)
        triggers.heard("")
        tools: Any = Tools(
            self.bus,  # type: ignore[arg-type]
            triggers,
            owners,  # type: ignore[arg-type]
            members,  # type: ignore[arg-type]
            lambda trigger: trigger,  # type: ignore[arg-type, return-value]
            self._live,
            self._load,
            self.loop.time,
            self.loop.time,
        )
        self.gateways[name] = Clearing(tools), triggers
        return self.gateways[name]

    async def _live(self) -> dict[str, int] | None:
        self.asked += 1
        return self.live

    async def _load(self, kind: str) -> Any:
        def trace(trigger: Trigger, given: Any) -> Trace | None:
            return Trace((trigger.source.secret,), self.text, self.server) if kind == "postgres" else None

        make = Source if self.tells_where else Mute
        return SimpleNamespace(trace=trace, make=lambda trigger, given: make(self, trigger))

    # --- what tests do ------------------------------------------------------------------------------------------------
    def put(self, source: dict[str, Any], uid: str = "u", generation: int = 1) -> Trigger:
        """The API server, the watch and the book know of it; state is kept."""
        resource = trigger("t", source, uid=uid, generation=generation)
        for _, triggers in self.gateways.values():
            triggers.put(resource)
        assert self.live is not None
        self.live[uid] = generation
        found = parse_trigger(resource)
        self.do(KvState(self.bus, uid, "postgres").save("position", b"7"))  # type: ignore[arg-type]
        self.do(self.clearing.note(found, resource["spec"], found))  # type: ignore[arg-type]
        return found

    def delete(self, uid: str = "u", *, seen: bool = True) -> None:
        assert self.live is not None
        self.live.pop(uid, None)
        if seen:
            for _, triggers in self.gateways.values():
                triggers.remove("default/t")

    def do(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def look(self, name: str = "g1") -> bool:
        return bool(self.do(self.gateways[name][0].look()))

    @property
    def kept(self) -> set[str]:
        return {key.split(".")[0] for key in self.bus.kept}


class Mute:
    def __init__(self, world: World, trigger: Trigger) -> None:
        self.world, self.place = world, getattr(trigger.source, "secret", "")

    async def forget(self) -> None:
        await asyncio.sleep(0)
        if error := self.world.trouble.get(self.place):
            raise error
        self.world.log.append(self.place)


class Source(Mute):
    async def where(self) -> str:
        if error := self.world.trouble.get(self.place):
            raise error
        return self.world.same.get(self.place, self.place)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.loop.stop_all()


def test_what_a_trigger_left_that_nobody_saw_go_is_cleared(world: World) -> None:
    world.put(rows("shop"))
    world.delete()
    assert world.look()
    assert (world.log, world.kept) == (["shop"], set())
    assert world.look()
    assert (world.log, world.asked) == (["shop"], 1)


@pytest.mark.parametrize("how", ["lives", "unheard", "silent", "unsynced", "refused"])
def test_nothing_of_a_trigger_that_may_exist_is_dropped(world: World, how: str) -> None:
    """It lives; this gateway has not heard of it; the API server or the watch does not say."""
    world.put(rows("shop"))
    if how != "lives":
        world.triggers.remove("default/t")
    if how == "silent":
        world.live = None
    if how == "unsynced":
        world.triggers.synced = False
    if how == "refused":
        world.triggers.heard("403")
    if how in ("unsynced", "refused"):
        world.live = {}
    assert world.look() == (how not in ("unsynced", "refused"))
    assert (world.log, world.kept) == ([], {"u"})


def test_one_that_was_made_anew_keeps_what_is_its_own(world: World) -> None:
    world.put(rows("shop"), "first")
    world.delete("first")
    world.put(rows("shop"), "second")
    assert world.look()
    assert (world.log, world.kept) == (["shop"], {"second"})


def test_state_without_anything_elsewhere_goes_too(world: World) -> None:
    world.put({"schedule": {"cron": "@daily"}})
    world.delete()
    assert world.look()
    assert (world.log, world.kept) == ([], set())


def test_one_gateway_does_it(world: World) -> None:
    world.everybody[:] = ["g1", "g2"]
    world.gateway("g2")
    doer = preferred("u", ["g1", "g2"])
    other = "g1" if doer == "g2" else "g2"
    world.put(rows("shop"))
    world.delete()
    assert world.look(other)
    assert world.log == []
    assert world.look(doer)
    assert world.log == ["shop"]


def test_two_at_the_same_time_do_it_once(world: World) -> None:
    """Both think that they are alone: the lease, and the book, see to it."""
    world.gateway("g2")
    world.everybody[:] = ["g1"]
    world.gateways["g2"][0]._tools.members.name = "g1"
    world.put(rows("shop"))
    world.delete()

    async def both() -> None:
        await asyncio.gather(*(clearing.look() for clearing, _ in world.gateways.values()))

    world.do(both())
    assert (world.log, world.kept) == (["shop"], set())


def test_what_cannot_be_cleared_is_said_once_and_tried_for_a_day(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.put(rows("shop"))
    world.delete()
    tries: list[float] = []
    world.trouble["shop"] = SourceError("no Secret")
    forget = Mute.forget

    async def counted(self: Mute) -> None:
        tries.append(world.loop.time())
        await forget(self)

    with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.WARNING, LOG):
        patch.setattr(Mute, "forget", counted)
        task = world.loop.create_task(world.clearing.run())
        world.loop.pass_(6 * HOUR)
        assert world.clearing.waiting == ["default/t"]
        assert leftovers(world) == {("kappa_trigger_leftovers", "default", "t"): 1, GIVEN_UP: 0}
        assert [record.getMessage() for record in caplog.records] == [
            "Trigger default/t: something stays that cannot be cleared now, and is tried again for a day: no Secret. "
            "It is: a slot"
        ]
        world.loop.pass_(20 * HOUR)
        task.cancel()
    gaps = [round(after - before) for before, after in itertools.pairwise(tries)]
    assert gaps[:4] == [60, 120, 240, 480]
    assert max(gaps) <= HOUR + LOOK_SECONDS
    assert caplog.records[-1].getMessage() == (
        "Trigger default/t: given up after a day (no Secret). Remove by hand: a slot"
    )
    assert len(caplog.records) == 2
    assert (world.clearing.waiting, world.clearing.given_up, world.kept) == ([], 1, set())
    assert leftovers(world) == {GIVEN_UP: 1}
    assert tries[-1] - tries[0] >= GIVE_UP_SECONDS


def test_another_gateway_counts_on(world: World) -> None:
    """The day begins once, whoever tries."""
    world.put(rows("shop"))
    world.delete()
    world.trouble["shop"] = SourceError("no")
    world.look()
    world.loop.pass_(23 * HOUR)
    second, _ = world.gateway("g1")
    assert world.look()
    assert second.waiting == ["default/t"]
    world.loop.pass_(2 * HOUR)
    world.look()
    assert (second.given_up, world.kept) == (1, set())


def test_a_secret_that_comes_back_ends_the_waiting(world: World) -> None:
    world.put(rows("shop"))
    world.delete()
    world.trouble["shop"] = SourceError("no Secret")
    task = world.loop.create_task(world.clearing.run())
    world.loop.pass_(2 * HOUR)
    world.trouble.clear()
    world.clearing.secret_changed("other/shop")
    world.loop.settle(100)
    assert world.log == []
    world.clearing.secret_changed("default/shop")
    world.loop.settle(100)
    assert (world.log, world.clearing.waiting) == (["shop"], [])
    task.cancel()


@pytest.mark.parametrize("failure", [TimeoutError(), ValueError("a bug"), SourceError("no")])
def test_whatever_fails_it_is_tried_again(world: World, failure: Exception) -> None:
    world.put(rows("shop"))
    world.delete()
    world.trouble["shop"] = failure
    world.look()
    world.trouble.clear()
    world.loop.pass_(FIRST_PAUSE - 1)
    world.look()
    assert world.log == []
    world.loop.pass_(2)
    world.look()
    assert (world.log, world.kept) == (["shop"], set())


def test_an_outage_of_jetstream_is_nobodys_failure(world: World) -> None:
    world.put(rows("shop"))
    world.delete()
    world.bus.away = True
    with pytest.raises(UnavailableError):
        world.look()
    world.bus.away = False
    world.trouble["shop"] = UnavailableError("away")
    with pytest.raises(UnavailableError):
        world.look()
    assert world.clearing.waiting == []
    world.trouble.clear()
    world.look()
    assert world.log == ["shop"]


def test_a_spec_that_nobody_understands_any_more_is_given_up_after_a_day(world: World) -> None:
    world.put(rows("shop"))
    world.delete()
    (key,) = [key for key in world.bus.kept if "._left." in key]
    said = json.loads(world.bus.kept[key])
    world.bus.kept[key] = json.dumps({**said, "spec": {"function": "f", "source": {"kafka": {}}}, "new": 1}).encode()
    world.look()
    assert world.clearing.waiting == ["default/t"]
    world.loop.pass_(25 * HOUR)
    world.look()
    assert (world.clearing.given_up, world.kept) == (1, set())


def test_nothing_secret_is_written_down_and_nothing_twice(world: World, caplog: pytest.LogCaptureFixture) -> None:
    found = world.put(rows("shop"))
    (key,) = [key for key in world.bus.kept if "._left." in key]
    said = json.loads(world.bus.kept[key])
    assert said["spec"] == {"function": "f", "source": rows("shop")}
    writes = world.bus.writes
    world.do(world.clearing.note(found, said["spec"], found))  # type: ignore[arg-type]
    assert world.bus.writes == writes
    world.text, world.server = "a slot somewhere", ""  # its Secret is not known, or not yet
    world.do(world.clearing.note(found, said["spec"], found))  # type: ignore[arg-type]
    assert (world.bus.writes, caplog.records) == (writes, [])
    world.text, world.server = "a slot elsewhere", "there"
    world.do(world.clearing.note(found, said["spec"], found))  # type: ignore[arg-type]
    assert world.bus.writes == writes + 1
    assert [record.getMessage() for record in caplog.records] == [
        "Trigger default/t: its Secret names another server now. If it is another one, this stays: a slot"
    ]


# --- live Triggers that read elsewhere now ----------------------------------------------------------------------------
def moved(world: World, generation: int = 2, lease: Any = "held") -> bool:
    """From `shop` to `other`."""
    world.put(rows("shop"))
    now = world.put(rows("other"), generation=generation)
    left = Left.of(now, {}, Trace(("other",), ""))
    return bool(world.do(world.clearing.moved(now, left, lease)))


@pytest.mark.parametrize("lease", ["held", None])
def test_what_is_left_elsewhere_is_cleared(world: World, lease: Any) -> None:
    assert moved(world, lease=lease)
    assert world.log == ["shop"]
    assert sum("._left." in key for key in world.bus.kept) == 1
    assert "u.postgres.position" in world.bus.kept


def test_two_names_of_one_place_are_one_place(world: World) -> None:
    world.same["other"] = "shop"
    assert moved(world)
    assert world.log == []
    assert sum("._left." in key for key in world.bus.kept) == 1


def test_where_nobody_can_tell_nothing_is_dropped(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.tells_where = False
    assert moved(world)
    assert world.log == []
    assert "Remove by hand if it is so: a slot" in caplog.text


@pytest.mark.parametrize("place", ["shop", "other"])
def test_unless_both_places_answer_nothing_is_dropped(world: World, place: str) -> None:
    world.trouble[place] = SourceError("away")
    assert not moved(world)
    assert world.log == []
    assert world.clearing.waiting == ["default/t"]


def test_a_gateway_that_is_behind_takes_nothing_for_old(world: World) -> None:
    """Its watch has not told it of the newest spec, which another gateway runs already."""
    old = world.put(rows("shop"))
    world.put(rows("other"), generation=2)
    left = Left.of(old, {}, Trace(("shop",), ""))
    assert not world.do(world.clearing.moved(old, left, "held"))  # type: ignore[arg-type]
    world.live = None
    assert not world.do(world.clearing.moved(old, left, "held"))  # type: ignore[arg-type]
    assert world.log == []


def test_without_anything_old_the_api_server_is_not_asked(world: World) -> None:
    now = world.put(rows("shop"))
    left = Left.of(now, {}, Trace(("shop",), ""))
    assert world.do(world.clearing.moved(now, left, None))
    assert world.asked == 0


# --- Triggers that were seen to go ------------------------------------------------------------------------------------
def test_all_that_a_trigger_left_goes_with_it(world: World) -> None:
    """Also where it read before, and what a gateway that is behind has made anew."""
    first = world.put(rows("shop"))
    world.put(rows("other"), generation=2)
    world.delete()
    world.do(world.clearing.gone("u", Left.of(first, {"function": "f", "source": rows("shop")}, Trace(("shop",), ""))))
    assert (sorted(world.log), world.kept) == (["other", "shop"], set())
    world.do(world.clearing.gone("u", Left.of(first, {"function": "f", "source": rows("shop")}, Trace(("shop",), ""))))
    assert sorted(world.log) == ["other", "shop", "shop"]


def test_what_could_not_go_at_once_goes_later(world: World) -> None:
    world.put(rows("shop"))
    world.delete()
    world.trouble["shop"] = SourceError("away")
    world.do(world.clearing.gone("u", None))
    assert world.clearing.waiting == ["default/t"]
    world.trouble.clear()
    world.loop.pass_(FIRST_PAUSE)
    assert world.look()
    assert (world.log, world.kept, world.clearing.waiting) == (["shop"], set(), [])


def test_without_jetstream_it_goes_later(world: World) -> None:
    world.put(rows("shop"))
    world.delete()
    world.bus.away = True
    world.do(world.clearing.gone("u", None))
    world.bus.away = False
    assert world.look()
    assert (world.log, world.kept) == (["shop"], set())
