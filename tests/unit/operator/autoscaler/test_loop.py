"""The loop around the decisions, in virtual time: what it remembers, and when it looks."""

import math
from typing import Any

import pytest

from kappa_api.wire import Demand, FunctionStats, Stats
from kappa_operator.autoscaler.loop import Autoscaler
from kappa_operator.clock import Clock
from kappa_operator.metrics import Metrics
from kappa_operator.settings import Settings
from kappa_operator.store import Store

KEY = "default/fn"
GATEWAY = {
    "metadata": {
        "name": "g",
        "namespace": "kappa-system",
        "uid": "g",
        "resourceVersion": "1",
        "labels": {"app.kubernetes.io/component": "gateway"},
    },
    "spec": {"containers": [{"name": "gateway", "ports": [{"name": "admin", "containerPort": 8081}]}]},
    "status": {"phase": "Running", "podIP": "10.0.0.1"},
}


class Events:
    """Collects the Events instead of posting them."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def normal(self, about: Any, reason: str, message: str) -> None:
        self.said.append(f"{reason}: {message}")

    def warning(self, about: Any, reason: str, message: str) -> None:
        self.said.append(f"!{reason}: {message}")


class World:
    """An autoscaler whose gateway and pods do what a test says, one second per step."""

    def __init__(self, **scaling: int) -> None:
        self.now = 0.0
        self.store, self.events, self.woken = Store(), Events(), set[str]()
        self.store.put_pod(GATEWAY)
        self.store.put_function(
            {
                "metadata": {"name": "fn", "namespace": "default", "uid": "u", "resourceVersion": "1"},
                "spec": {
                    "runtime": "python",
                    "handler": "main.handler",
                    "code": {"inline": ""},
                    "scaling": {"idleSeconds": 60, "maxReplicas": 8, **scaling},
                },
            }
        )
        self.scaler = Autoscaler(
            self.store,
            Settings(b"secret", "me"),
            wake=self.woken.update,
            events=self.events,  # type: ignore[arg-type]
            metrics=Metrics(),
            clock=Clock(lambda: self.now, lambda: self.now),
        )
        self.arrived = self.ended = 0
        self.served = 0.0
        self.history: list[int] = []

    def step(self, calls: int = 0, took: float = 0.1, waiting: int = 0, in_service: int = 0) -> int:
        """One second in which `calls` came and ended; what is wanted after it."""
        self.now += 1
        self.arrived, self.ended, self.served = self.arrived + calls, self.ended + calls, self.served + calls * took
        reading = FunctionStats(
            arrivals=self.arrived,
            invocations=self.ended,
            service_seconds=self.served,
            waiting=waiting,
            in_service=in_service,
        )
        self.scaler.review(self.scaler.signals.observe("g", Stats("g", "e", self.now, {KEY: reading}), self.now))
        self.history.append(self.wanted)
        return self.wanted

    def call(self, waiting: int = 1) -> int:
        """A demand message."""
        self.scaler.demand(Demand("g", {KEY: (waiting, 0)}))
        return self.wanted

    @property
    def wanted(self) -> int:
        function = self.store.functions[KEY].function
        assert function is not None
        return self.scaler.wanted(function, 0)


def test_demand_decides_at_once_and_says_why() -> None:
    world = World()
    world.step()
    assert world.call() == 1
    assert world.woken
    assert world.events.said == [
        "ScaledUp: 0 -> 1 instances: 1 waiting, 0 in service, 0 of 0 instances ready: 1 more is worth it"
    ]
    assert world.scaler.decisions()[KEY][0]["inputs"]["load"]["waiting"] == 1


def test_idle_seconds_rule_without_history() -> None:
    world = World()
    world.step()
    world.call()
    world.step(calls=1)
    assert [world.step() for _ in range(70)].index(0) == 59
    assert world.events.said[-1].startswith("ScaledDown: 1 -> 0 instances: idle for 60 s: idleSeconds is 60")


@pytest.mark.parametrize("period", [300, 1000])
def test_a_timer_is_learnt_and_started_ahead_of(period: int) -> None:
    world = World()
    cold, up = [], []
    for _ in range(14):
        cold.append(world.wanted == 0)
        world.call()
        world.step(calls=1)
        up.append(sum(world.step() > 0 for _ in range(period - 1)))
    assert cold[0]
    assert not any(cold[9:])
    assert up[0] >= 58
    assert max(up[9:]) < 15
    assert any("started ahead of the next call" in said for said in world.events.said)


def test_a_gateway_that_is_silent_takes_nothing_away() -> None:
    world = World()
    world.step()
    world.call()
    for _ in range(200):
        world.now += 1
        world.scaler.review(())
    assert world.wanted == 1


def test_functions_at_zero_without_a_date_are_not_looked_at() -> None:
    world = World()
    world.step()
    world.call()
    world.step(calls=1)
    for _ in range(70):
        world.step()
    target = world.scaler._targets.get(KEY)
    assert target is not None
    assert target.wanted == 0
    assert target.review == math.inf
    assert not world.scaler._targets.up()
    assert not world.scaler._targets.due(math.inf)


def test_a_deleted_function_leaves_nothing() -> None:
    world = World()
    world.step()
    world.call()
    world.scaler.forget(KEY)
    assert world.wanted == 0
    assert KEY not in world.scaler._targets
