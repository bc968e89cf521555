"""The histogram decides where it knows something, idleSeconds where it does not."""

import math
import random

import pytest

from kappa_operator.autoscaler.keepalive import FADE_AT, IdleHistogram, KeepPlan, KeepPolicy

POLICY = KeepPolicy(idle_seconds=60, worth=300, lead=1)


def histogram(*idle: float) -> IdleHistogram:
    found = IdleHistogram()
    for seconds in idle:
        found.add(seconds)
    return found


ROWS = {
    # idle times, keep, prewarmed?
    "nothing known": ([], 60, False),
    "too little known": ([3600.0] * 5, 60, False),
    "only days": ([100_000.0] * 10, 60, False),
    "always soon again": ([10.0, 11.0, 12.0, 9.0] * 5, 60, False),
    "long and anywhere": ([600.0 * (1 + i * 7 % 11) for i in range(40)], 5, False),
    "a timer": ([900.0 + i % 3 for i in range(20)], 5, True),
    "an hourly timer is known to the second": ([3600.0 + i % 3 for i in range(20)], 5, True),
    "sessions of close calls, then hours": ([8.0, 9.0, 7.0, 8.0, 4000.0, 9000.0, 20_000.0, 700.0] * 4, 9.9, False),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_plan(row: tuple[list[float], float, bool]) -> None:
    idle, keep, prewarmed = row
    plan = histogram(*idle).plan(POLICY)
    assert plan.keep == pytest.approx(keep)
    assert bool(plan.until) is prewarmed
    assert plan.reason


def test_the_prewarm_window_covers_the_timer_and_opens_a_start_earlier() -> None:
    plan = histogram(*(900.0 + i % 3 for i in range(20))).plan(POLICY)
    assert 895 < plan.prestart <= 899
    assert 902 < plan.until < 905
    assert plan.reason == "0% of 20 idle times ended within 5 s; the others mostly end after 900 to 902 s"


@pytest.mark.parametrize("seed", range(20))
def test_one_idle_period_never_costs_more_than_idle_seconds(seed: int) -> None:
    draw = random.Random(seed)
    found = IdleHistogram()
    policy = KeepPolicy(idle_seconds=draw.choice([1, 10, 60, 600]), worth=draw.choice([10, 300, 5000]))
    for _ in range(300):
        found.add(draw.choice([draw.expovariate(1 / 30), draw.gauss(300, 5), draw.expovariate(1 / 3000)]))
        plan = found.plan(policy)
        assert plan.keep + max(0.0, plan.until - plan.prestart) <= policy.idle_seconds + 1e-9
        assert plan.prestart >= plan.keep or not plan.until


def test_dearer_cold_starts_keep_longer() -> None:
    idle = [10.0, 20.0, 40.0, 500.0, 800.0, 2000.0, 50.0, 3000.0] * 4
    keeps = [histogram(*idle).plan(KeepPolicy(idle_seconds=120, worth=worth)).keep for worth in (1, 50, 200, 5000)]
    assert keeps == sorted(keeps)
    assert keeps[0] == 5
    assert keeps[-1] > 50


def test_old_habits_fade() -> None:
    found = histogram(*[900.0] * int(FADE_AT))
    assert found.count == FADE_AT / 2
    for _ in range(1200):
        found.add(10.0)
    assert found.plan(POLICY).until == 0
    assert found.plan(POLICY).keep == 60


def test_what_a_plan_says_at_each_moment() -> None:
    plan = KeepPlan(keep=5, prestart=90, until=110)
    assert [plan.holds(idle) for idle in (0, 4.9, 5, 89, 90, 109, 110)] == [True, True, False, False, True, True, False]
    assert [plan.next_change(idle) for idle in (0, 5, 90, 110)] == [5, 90, 110, math.inf]


def test_a_plan_is_made_anew_only_when_enough_has_been_learnt() -> None:
    found = histogram(*[900.0 + i % 3 for i in range(100)])
    plan = found.plan(POLICY)
    found.add(910.0)
    assert found.plan(POLICY) is plan
    for _ in range(6):
        found.add(910.0)
    assert found.plan(POLICY) is not plan
