"""What the demo prints, on a terminal and elsewhere."""

import io

from kappa_local.demo.load import Tally
from kappa_local.demo.screen import Screen, bars


def test_bars_are_scaled_to_the_largest_value() -> None:
    assert bars([0, 4, 8]) == " ▄█"
    assert bars([0, 0]) == "  "
    assert bars([]) == ""


def test_more_values_than_columns_are_averaged_in_groups() -> None:
    assert bars([0, 0, 8, 8, 4], width=3) == " █▄"


def test_a_file_gets_the_whole_chart_once_at_the_end() -> None:
    out = io.StringIO()
    Screen(out).chart_done([("replicas", [0, 1, 2], "2")])
    assert out.getvalue() == "     replicas  ▄█ 2\n"


def test_a_terminal_is_redrawn_in_place() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    screen = Screen(out)
    for _ in range(2):
        screen.chart([("replicas", [1], "1")])
    assert out.getvalue().count("\x1b[1A") == 1


def test_a_tally_counts_everything_but_200_as_failed() -> None:
    tally = Tally()
    tally.statuses.update({200: 5, 503: 2, 0: 1})
    tally.seconds = [0.1, 0.2, 0.3]
    assert tally.failed == 3
    assert tally.quantile(0.5) == 0.2
    assert Tally().quantile(0.5) == 0
