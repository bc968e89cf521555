"""State machines as tables, and that docs/architecture.md shows the ones that run."""

import re
from pathlib import Path

import pytest

from kappa_api.machine import IllegalMoveError, Machine
from kappa_gateway import states as gateway
from kappa_operator import states as operator

PAGE = Path(__file__).resolve().parents[3] / "docs" / "architecture.md"
MACHINES = {machine.name: machine for machine in (operator.POD, operator.CLAIM, gateway.INSTANCE, gateway.INVOCATION)}
ENDS = {gateway.GONE, gateway.OVER, operator.GONE, operator.OVER}

STATES = {"shut": "nobody can go in", "open": "everybody can"}
EVENTS = {"push": "somebody pushes", "lock": "somebody locks it"}
DOOR = Machine("door", STATES, EVENTS, {"push": {"shut": "open", "open": "open"}, "lock": {"open": "shut"}})


def test_a_move() -> None:
    assert DOOR.first == "shut"
    assert DOOR.next("shut", "push") == "open"
    assert DOOR.on("push")["open"] == "open"
    with pytest.raises(IllegalMoveError, match="door: 'lock' cannot happen to one that is 'shut'"):
        DOOR.next("shut", "lock")


def test_what_can_be_reached() -> None:
    assert DOOR.reachable("shut") == {"open", "shut"}
    end = Machine("end", STATES, {"push": ""}, {"push": {"shut": "open"}})
    assert (end.reachable("shut"), end.reachable("open")) == ({"open"}, set())


@pytest.mark.parametrize(
    ("moves", "problem"),
    [
        ({"push": {"shut": "ajar"}, "lock": {"open": "shut"}}, r"not explained: \['ajar'\]"),
        ({"push": {"shut": "open"}, "lock": {"open": "shut"}, "kick": {}}, r"not explained: \['kick'\]"),
        ({"push": {"shut": "open"}}, r"never happens: \['lock'\]"),
        ({"push": {"shut": "shut"}, "lock": {"open": "shut"}}, r"never happens: \['open'\]"),
    ],
)
def test_a_table_that_does_not_fit(moves: dict[str, dict[str, str]], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Machine("door", STATES, EVENTS, moves)


def test_for_people() -> None:
    assert repr(DOOR) == "<Machine door: 2 states, 2 events>"
    assert DOOR.markdown() == (
        "|  | push | lock |\n|---|---|---|\n| **shut** | open | - |\n| **open** | open | shut |\n\n"
        "* **shut**: nobody can go in\n* **open**: everybody can\n\n"
        "* *push*: somebody pushes\n* *lock*: somebody locks it"
    )


@pytest.mark.parametrize("name", MACHINES)
def test_the_page_shows_what_runs(name: str) -> None:
    """It is written by hand, and compared: the failure has the text."""
    found = re.search(rf"<!-- table: {name} -->\n(.*?)\n<!-- end -->", PAGE.read_text(), re.DOTALL)
    assert found is not None, f"docs/architecture.md has no table of {name}"
    assert found[1] == MACHINES[name].markdown()


@pytest.mark.parametrize("name", MACHINES)
def test_every_state_has_an_end(name: str) -> None:
    machine = MACHINES[name]
    end = ENDS & machine.states.keys()
    for state in machine.states.keys() - end:
        assert end <= machine.reachable(state), state
    for state in end:
        assert machine.reachable(state) <= end, "comes back"
