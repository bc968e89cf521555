"""How long a start takes: the median of the last ones, not fooled by a pull."""

import pytest

from kappa_operator.start_times import COLD_SECONDS, KEPT, MOST_KEYS, WARM_SECONDS, Start, StartTimes

WARM, COLD = Start("ns/fn", "python", True), Start("ns/fn", "python", False)
OTHER = Start("ns/other", "python", False)


def measured(*seconds: float, start: Start = COLD) -> StartTimes:
    times = StartTimes()
    for value in seconds:
        times.add(start, value)
    return times


ROWS = {
    # readings of one function, what another one of its runtime will take
    "nothing measured": ((), COLD_SECONDS),
    "one reading, however long, rules nothing": ((30.0,), COLD_SECONDS),
    "two are as good as the assumption": ((3.0, 3.0), 2.0),
    "three are more": ((3.0, 3.0, 3.0), 3.0),
    "an image that had to be pulled": ((1.4, 1.5, 28.0, 1.4, 1.6, 1.5), 1.45),
    "a faster cluster": ((0.4,) * 6, 0.4),
    "only the last ones count": ((9.0,) * 50 + (0.5,) * KEPT, 0.5),
    "nothing is faster than the least": ((0.0,) * 9, 0.005),
    "nor slower than the most": ((500.0,) * 9, 60.0),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_seconds(row: tuple[tuple[float, ...], float]) -> None:
    readings, expected = row
    assert measured(*readings).seconds(OTHER) == pytest.approx(expected)


def test_the_pool_and_own_pods_are_two_things_and_so_are_runtimes() -> None:
    times = measured(*(5.0,) * 9)
    assert times.seconds(WARM) == WARM_SECONDS
    assert times.seconds(Start("ns/x", "node", False)) == COLD_SECONDS


def test_a_function_with_starts_of_its_own_is_judged_by_them() -> None:
    times = measured(*(4.0,) * 5)
    for _ in range(20):
        times.add(OTHER, 0.5)
    assert times.seconds(COLD) == 4.0
    assert times.seconds(OTHER) == 0.5


def test_memory_is_bounded_and_those_measured_long_ago_go_first() -> None:
    times = StartTimes()
    for number in range(2 * MOST_KEYS):
        times.add(Start(f"ns/f{number}", "python", True), 0.2)
    assert repr(times) == f"<StartTimes {MOST_KEYS} measured>"
    assert times.seconds(Start("ns/new", "python", True)) == 0.2
