"""Runners: when a source is started, started anew, left running, stopped, and asked to forget; on virtual time."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from kappa_state_bucket import StateBus
from kappa_trigger_world import trigger
from kappa_virtual import VirtualLoop

from kappa_api.trigger import Trigger
from kappa_gateway.events.bus import RefusedError, UnavailableError
from kappa_gateway.events.clearing import Clearing, Tools
from kappa_gateway.events.owners import Lease
from kappa_gateway.events.runners import AWAY_PAUSE, LAST_PAUSE, Runners, Yard
from kappa_gateway.events.source import Place, SourceError, Trace
from kappa_gateway.events.triggers import Triggers

DAILY = {"schedule": {"cron": "@daily"}}
HOURLY = {"schedule": {"cron": "@hourly"}}
OTHER = {"kv": {"bucket": "default_b"}}


class Members:
    name = "g1"

    def present(self) -> list[str]:
        return ["g1"]


class Owners:
    """Leases that are given when the test says so."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.leases: list[Lease] = []
        self.released: list[str] = []

    async def acquire(self, uid: str) -> Lease:
        await self.open.wait()
        self.leases.append(Lease(uid, 1, 0, 10, 0))
        return self.leases[-1]

    async def release(self, lease: Lease) -> None:
        self.released.append(lease.uid)


class World:
    """Sources that write down what happens to them, and do what `script` says when they run."""

    given: Any = None

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.log: list[str] = []
        self.script: list[Any] = []
        self.place = Place.EACH
        self.triggers, self.owners = Triggers(), Owners()
        bus: Any = StateBus()
        self.bus = bus
        owners: Any = self.owners
        members: Any = Members()
        tools = Tools(bus, self.triggers, owners, members, lambda _: self.given, self.live, self.load)
        yard = Yard(bus, self.triggers, owners, self.surround, Clearing(tools), self.load, lambda: 0.5)
        self.runners = Runners(yard)
        self.task = self.loop.create_task(self.runners.run())
        self.connected: Callable[[], None] = lambda: None

    def surround(self, trigger: Trigger, connected: Callable[[], None]) -> Any:
        self.connected = connected
        return self.given

    async def load(self, kind: str) -> Any:
        def trace(trigger: Trigger, given: Any) -> Trace:
            return Trace((), kind)

        return SimpleNamespace(PLACE=self.place, make=lambda trigger, given: Source(self, trigger), trace=trace)

    async def live(self) -> dict[str, int]:
        return {row["uid"]: row["generation"] for row in self.triggers.report()}

    def put(self, source: Any = DAILY, generation: int = 1, **spec: Any) -> None:
        self.triggers.put(trigger("t", source, generation=generation, **spec))
        self.settle()

    def settle(self) -> None:
        self.loop.settle(200)

    def pass_(self, seconds: float) -> None:
        self.loop.pass_(seconds)
        self.settle()

    def row(self) -> Any:
        return self.triggers.report()[0]


class Source:
    def __init__(self, world: World, trigger: Trigger) -> None:
        self.world, self.name = world, trigger.kind

    async def run(self) -> None:
        step = self.world.script.pop(0) if self.world.script else None
        self.world.log.append(f"run {self.name}")
        try:
            if isinstance(step, Exception):
                raise step
            if step != "end":
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.world.log.append(f"stop {self.name}")
            raise

    async def forget(self) -> None:
        self.world.log.append(f"forget {self.name}")


@pytest.fixture
def world() -> Any:
    made = World()
    yield made
    made.loop.stop_all()


def test_a_source_runs_until_its_trigger_is_gone(world: World) -> None:
    world.put()
    assert (world.log, world.row()["running"]) == (["run schedule"], True)
    world.owners.open.set()
    world.triggers.remove("default/t")
    world.settle()
    assert world.log == ["run schedule", "stop schedule", "forget schedule"]
    assert world.owners.released == ["uid-t"]


@pytest.mark.parametrize(
    ("source", "spec", "log"),
    [
        (DAILY, {"filter": {"type": ["x"]}}, ["run schedule"]),
        (DAILY, {"retries": 7}, ["run schedule"]),
        (HOURLY, {}, ["run schedule", "stop schedule", "run schedule"]),
        (DAILY, {"suspend": True}, ["run schedule", "stop schedule"]),
        ({"schedule": {"cron": "bad"}}, {}, ["run schedule", "stop schedule"]),
        (OTHER, {}, ["run schedule", "stop schedule", "forget schedule", "run kv"]),
        (DAILY, {"ordered": {"key": "subject"}}, ["run schedule", "stop schedule", "run schedule"]),
    ],
)
def test_what_a_change_does(world: World, source: Any, spec: Any, log: list[str]) -> None:
    world.owners.open.set()
    world.put()
    world.put(source, 2, **spec)
    assert world.log == log


def test_a_suspended_trigger_goes_on(world: World) -> None:
    world.put(suspend=True)
    assert (world.log, world.row()["message"]) == ([], "suspended")
    world.put(generation=2)
    assert world.log == ["run schedule"]


def test_failures_are_told_and_tried_again_with_longer_pauses(world: World) -> None:
    world.script = [SourceError("no luck")] * 12
    world.put()
    assert world.row()["message"] == "no luck"
    runs = []
    for _ in range(240):
        world.pass_(0.5)
        runs.append(len(world.log))
    # 0.5, 1, 2, 4, 8, 16, 30, 30 ... seconds
    assert [runs[n] for n in (0, 2, 6, 14, 30, 62, 122, 182)] == [2, 3, 4, 5, 6, 7, 8, 9]
    assert LAST_PAUSE == 30


def test_what_failed_for_want_of_nats_is_tried_again_when_nats_is_there(world: World) -> None:
    world.bus.away = True
    world.script = [UnavailableError("away")] * 8 + [None]
    world.put()
    world.pass_(80)  # the pauses are long by now
    before = len(world.log)
    assert before < 8
    world.bus.away = False
    world.script = [None]
    for listener in world.bus.heard:
        listener()
    world.settle()
    assert len(world.log) == before + 1


def test_what_failed_otherwise_keeps_its_pause(world: World) -> None:
    world.script = [SourceError("no luck")] * 8
    world.put()
    world.pass_(40)
    before = len(world.log)
    for listener in world.bus.heard:
        listener()
    world.settle()
    assert len(world.log) == before


def test_while_nats_has_no_leader_it_is_looked_for_every_two_seconds(world: World) -> None:
    world.script = [UnavailableError("no leader")] * 60
    world.put()
    world.pass_(60)
    begun = len(world.log)
    for _ in range(10):
        world.pass_(AWAY_PAUSE)
    assert len(world.log) == begun + 10


def test_a_lease_is_kept_while_jetstream_is_away_and_given_back_when_it_refuses(world: World) -> None:
    world.place = Place.ONE
    world.owners.open.set()
    world.script = [UnavailableError("away"), UnavailableError("away"), RefusedError(10077, "full"), None]
    world.put()
    world.pass_(1.6)
    assert (len(world.owners.leases), world.owners.released) == (1, ["uid-t"])
    assert len(world.log) == 3
    world.pass_(4)
    assert (len(world.owners.leases), len(world.log)) == (2, 4)


def test_a_lease_that_is_lost_while_jetstream_is_away_is_taken_anew(world: World) -> None:
    world.place = Place.ONE
    world.owners.open.set()
    world.script = [UnavailableError("away"), None]
    world.put()
    world.owners.leases[0].over.set()
    world.pass_(1)
    assert (len(world.owners.leases), world.owners.released) == (2, ["uid-t"])


def test_one_that_had_connected_begins_with_a_short_pause(world: World) -> None:
    world.script = [SourceError("a")] * 5 + [None]
    world.put()
    world.pass_(40)
    assert len(world.log) == 6
    world.connected()
    world.script = [SourceError("b"), None]
    world.runners.asked("uid-t", "default/s")
    world.runners.secret_changed("default/s")
    world.settle()
    assert world.row()["message"] == "b"
    world.pass_(0.6)
    assert world.log[-1] == "run schedule"
    assert len(world.log) == 9  # it was stopped once


@pytest.mark.parametrize("failure", [UnavailableError("x"), ValueError("a bug"), "end"])
def test_whatever_a_source_does_it_is_run_again(world: World, failure: Any) -> None:
    world.script = [failure]
    world.put()
    assert world.row()["message"]
    world.pass_(1)
    assert world.log == ["run schedule", "run schedule"]


def test_one_reader_waits_for_the_lease_and_stops_with_it(world: World) -> None:
    world.place = Place.ONE
    world.put()
    assert (world.log, world.row()["running"]) == ([], False)
    world.owners.open.set()
    world.settle()
    assert world.log == ["run schedule"]
    world.owners.open.clear()
    world.owners.leases[0].over.set()
    world.settle()
    assert (world.log, world.owners.released) == (["run schedule", "stop schedule"], ["uid-t"])
    world.owners.open.set()
    world.settle()
    assert world.log[-1] == "run schedule"


def test_a_failed_reader_gives_its_lease_to_others(world: World) -> None:
    world.place = Place.ONE
    world.owners.open.set()
    world.script = [SourceError("no")]
    world.put()
    assert world.owners.released == ["uid-t"]
    world.pass_(1)
    assert world.log == ["run schedule", "run schedule"]


def test_kinds_that_are_called_do_not_run(world: World) -> None:
    world.place = Place.NONE
    world.put()
    world.put(generation=2, retries=5)
    world.triggers.remove("default/t")
    world.settle()
    assert world.log == []


def test_a_trigger_made_anew_under_its_name(world: World) -> None:
    world.owners.open.set()
    world.put()
    world.triggers.put(trigger("t", DAILY, uid="second"))
    world.settle()
    assert sorted(world.log) == ["forget schedule", "run schedule", "run schedule", "stop schedule"]
    assert world.row()["running"]


def test_everything_stops_with_the_gateway(world: World) -> None:
    world.place = Place.ONE
    world.owners.open.set()
    world.put()
    world.task.cancel()
    world.settle()
    assert (world.log, world.owners.released) == (["run schedule", "stop schedule"], ["uid-t"])
