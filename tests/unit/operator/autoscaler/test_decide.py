"""The one decision, as a table; and that its explanations are sentences."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kappa_operator.autoscaler.decide import Decision, Inputs, Policy, decide
from kappa_operator.autoscaler.keepalive import KeepPlan
from kappa_operator.autoscaler.need import Sample
from kappa_operator.autoscaler.share import Limit
from kappa_operator.autoscaler.upscale import Load, Supply

NOW = 1000.0
POLICY = Policy(min_replicas=0, max_replicas=10, idle_seconds=60, concurrency=2, window_seconds=10)
PROMISED = replace(POLICY, min_replicas=2)
TIMER = KeepPlan(5, 90, 110, "20 of 20 idle times ended after 100 s")


def inputs(current: int, waiting: int = 0, in_service: int = 0, *, idle: float = 0.0, **more: Any) -> Inputs:
    more.setdefault("supply", Supply(current))
    return Inputs(Load(waiting, in_service, 0.0, more.pop("service", 0.1)), current, last_activity=NOW - idle, **more)


def busy(load: float, peak: int, seconds_ago: float = 0.0) -> tuple[Sample, ...]:
    return (Sample(NOW - seconds_ago, 1.0, load, peak),)


ROWS = {
    "the first call": (
        inputs(0, waiting=1),
        POLICY,
        1,
        "1 waiting, 0 in service, 0 of 0 instances ready: 1 more is worth it",
    ),
    "up as far as it is worth it": (inputs(1, 10, 2, service=5.0), POLICY, 5, "4 more are worth it"),
    "they clear it themselves": (inputs(2, 1, 4), POLICY, 2, "another one would come too late"),
    "capped": (inputs(1, 300, 2, service=9.0), POLICY, 10, "maxReplicas is 10"),
    "up even when a gateway is silent": (inputs(0, waiting=1, heard=False), POLICY, 1, "1 more is worth it"),
    "a quota caps": (inputs(1, 9, 2, service=9.0, limit=Limit(2, "the quota is 2")), POLICY, 2, "the quota is 2"),
    "a quota takes away": (inputs(5, in_service=1, limit=Limit(2, "the quota is 2")), POLICY, 2, "the quota is 2"),
    "ahead of a growing load": (
        Inputs(Load(0, 2, 20, 0.5, trend=5), 2, Supply(2), NOW),
        POLICY,
        10,
        "calls come faster by 5.0 a second each second: 10 will be needed",
    ),
    "kept for the next burst": (
        Inputs(Load(0, 0, queueing=4), 9, Supply(9), NOW),
        POLICY,
        4,
        "the last 10 s needed 0, 0 in service, bursts are worth 4",
    ),
    "enough": (inputs(2, in_service=4), POLICY, 2, "as many as are needed"),
    "down to the need": (inputs(5, in_service=2, samples=busy(2, 6)), POLICY, 2, "the last 10 s needed 2"),
    "once per window": (inputs(5, in_service=2, changed=NOW - 9), POLICY, 5, "one step down per window"),
    "and then again": (inputs(5, in_service=2, changed=NOW - 10), POLICY, 1, "the last 10 s needed 0, 2 in service"),
    "older need is forgotten": (inputs(5, in_service=2, samples=busy(9, 9, 11)), POLICY, 1, "the last 10 s needed 0"),
    "never below what is in service": (inputs(5, in_service=8), POLICY, 4, "8 in service"),
    "nothing goes while something waits": (
        inputs(5, waiting=1, in_service=10),
        POLICY,
        5,
        "another one would come too late",
    ),
    "not down while a gateway is silent": (inputs(5, heard=False, idle=500), POLICY, 5, "not every gateway answers"),
    "the last one stays for idleSeconds": (inputs(3, idle=59), POLICY, 1, "the last 10 s needed 0"),
    "and goes after": (inputs(1, idle=60), POLICY, 0, "idle for 60 s: idleSeconds is 60"),
    "the histogram says sooner": (inputs(1, idle=6, keep=TIMER), POLICY, 0, "idle for 6 s: 20 of 20 idle times"),
    "one ahead of the next call": (inputs(0, idle=91, keep=TIMER), POLICY, 1, "started ahead of the next call: 20 of"),
    "kept through the window": (inputs(1, idle=105, keep=TIMER), POLICY, 1, "as many as are needed"),
    "and gone after it": (inputs(1, idle=111, keep=TIMER), POLICY, 0, "idle for 111 s"),
    "none ahead when memory is short": (inputs(0, idle=91, keep=TIMER, over_memory=True), POLICY, 0, "as many as are"),
    "idle memory is capped": (inputs(2, idle=1, over_memory=True), POLICY, 0, "idle instances hold too much memory"),
    "but a busy one stays": (inputs(1, in_service=1, over_memory=True), POLICY, 1, "as many as are needed"),
    "minReplicas keep": (inputs(5, idle=500), PROMISED, 2, "minReplicas is 2"),
    "minReplicas raise": (inputs(0, idle=500), PROMISED, 2, "minReplicas is 2"),
    "minReplicas while something waits": (inputs(0, waiting=1), PROMISED, 2, "1 more is worth it"),
    "maxReplicas lower at once": (inputs(12, in_service=24, heard=False), POLICY, 10, "maxReplicas is 10"),
    "zero stays zero": (inputs(0, idle=5000), POLICY, 0, "as many as are needed"),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_decide(row: tuple[Inputs, Policy, int, str]) -> None:
    given, policy, wanted, reason = row
    decision = decide(NOW, given, policy)
    assert decision.wanted == wanted
    assert reason in decision.reason
    assert decision.inputs is given


REVIEWS = {
    "at zero for good": (inputs(0, idle=500), math.inf),
    "at zero before the window": (inputs(0, idle=20, keep=TIMER), NOW + 70),
    "prewarmed": (inputs(0, idle=95, keep=TIMER), NOW + 15),
    "the last one": (inputs(1, idle=20), NOW + 40),
    "one step down per window": (inputs(5, in_service=2, changed=NOW - 4), NOW + 6),
    "work decides": (inputs(1, in_service=1), math.inf),
}


@pytest.mark.parametrize("row", REVIEWS.values(), ids=REVIEWS.keys())
def test_when_to_look_again(row: tuple[Inputs, float]) -> None:
    assert decide(NOW, row[0], POLICY).review == pytest.approx(row[1])


@given(
    st.builds(
        inputs,
        st.integers(0, 30),
        st.integers(0, 200),
        st.integers(0, 60),
        idle=st.floats(0, 500),
        service=st.floats(0.001, 100),
        heard=st.booleans(),
        over_memory=st.booleans(),
        keep=st.sampled_from([None, TIMER]),
    ),
    st.integers(0, 5),
)
def test_the_bounds_always_hold_and_a_second_look_changes_nothing(given_inputs: Inputs, least: int) -> None:
    policy = replace(POLICY, min_replicas=least, max_replicas=20)
    decision: Decision = decide(NOW, given_inputs, policy)
    assert min(least, given_inputs.current) <= decision.wanted <= 20
    if given_inputs.current <= 20:
        assert decision.wanted >= min(given_inputs.current, math.ceil(given_inputs.load.in_service / 2))
    if given_inputs.load.waiting and given_inputs.current <= 20:
        assert decision.wanted >= max(1, given_inputs.current)
    if not given_inputs.heard and given_inputs.current <= 20:
        assert decision.wanted >= given_inputs.current
