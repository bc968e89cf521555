"""How many pods a pool holds after the claims it has seen, in virtual time."""

import random

import pytest

from kappa_operator.pool_size import ClaimHistory, SizePolicy

POLICY = SizePolicy(hold_seconds=300, half_life_seconds=300)


def history(*claims: float, starts: tuple[float, ...] = (1.0,)) -> ClaimHistory:
    made = ClaimHistory(POLICY)
    for seconds in starts:
        made.started(seconds)
    for at in claims:
        made.claimed(at)
    return made


BURST = (10.0,) * 8
ROWS = {
    "no claims": (history(), 0.0, 1, 5, 1),
    "no claims and no minimum": (history(), 0.0, 0, 5, 0),
    "one claim": (history(10), 10.0, 0, 5, 1),
    "claims further apart than a start need one pod": (history(10, 11, 12, 13), 13.0, 1, 5, 1),
    "two within one start": (history(10, 10.9), 11.0, 1, 5, 2),
    "slower starts need more": (history(10, 11, 12, 13, starts=(4.0,)), 13.0, 1, 5, 4),
    "one slow start is no rule": (history(10, 11, 12, 13, starts=(1, 1, 1, 1, 9)), 13.0, 1, 5, 1),
    "not measured yet": (history(10, 11.4, starts=()), 12.0, 1, 5, 2),
    "a burst": (history(*BURST), 10.0, 1, 20, 8),
    "the upper bound": (history(*BURST), 10.0, 1, 5, 5),
    "the lower bound": (history(10), 10.0, 3, 5, 3),
    "a burst is remembered": (history(*BURST), 310.0, 1, 20, 8),
    "then by halves": (history(*BURST), 610.0, 1, 20, 4),
    "and again": (history(*BURST), 910.0, 1, 20, 2),
    "a smaller burst does not make it forget": (history(*BURST, 200, 200), 310.0, 1, 20, 8),
    "an equal one renews it": (history(*BURST, *(200.0,) * 8), 500.0, 1, 20, 8),
    "a smaller one counts when the large one is forgotten": (history(*BURST, *(1000.0,) * 3), 1300.0, 1, 20, 3),
    "in the end nothing is left of it": (history(*BURST), 3000.0, 0, 20, 0),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_size(row: tuple[ClaimHistory, float, int, int, int]) -> None:
    made, now, low, high, expected = row
    assert made.size(low, high, now) == expected


def test_what_an_earlier_leader_kept_is_taken_over_and_let_go() -> None:
    made = history()
    made.found(4, 0.0)
    assert [made.size(1, 9, now) for now in (0.0, 300.0, 600.0, 900.0, 1200.0)] == [4, 4, 2, 1, 1]


def test_a_start_is_bounded() -> None:
    assert history(starts=(0.0,)).start_seconds == 0.2
    assert history(starts=(500.0,)).start_seconds == 30.0
    assert history(starts=()).start_seconds == 1.5


@pytest.mark.parametrize("rate", [0.5, 2.0, 5.0])
def test_under_a_steady_rate_nearly_every_claim_finds_a_pod_and_the_pool_is_calm(rate: float) -> None:
    """Claims come by chance; each one is replaced after a start of one second."""
    chance = random.Random(7)
    made = history()
    now, misses, changes, claims = 0.0, 0, 0, 0
    starting: list[float] = []
    ready = size = made.size(1, 50, now)
    while now < 3600:
        now += chance.expovariate(rate)
        ready += sum(at <= now for at in starting)
        starting = [at for at in starting if at > now]
        if now > 600:
            claims += 1
            misses += ready == 0
        ready = max(0, ready - 1)
        made.claimed(now)
        wanted = made.size(1, 50, now)
        starting += [now + 1.0] * max(0, wanted - ready - len(starting))
        ready -= min(ready, max(0, ready + len(starting) - wanted))
        changes += now > 600 and wanted != size
        size = wanted
    assert misses / claims < 0.01
    assert changes < 40
    assert size < 6 * rate + 5
