"""State machines as tables: which event leads from which state to which, and what each of them means.

The code that runs asks the table at every step, so the table is what happens and not a description of it; the page
`docs/architecture.md` shows it as it is here (`markdown`). A step that the table does not have raises: it is a bug of
ours, and going on from a state that cannot be would hide it.
"""

from collections.abc import Mapping


class IllegalMoveError(Exception):
    """An event in a state that has no answer to it."""

    def __init__(self, machine: str, state: str, event: str) -> None:
        super().__init__(f"{machine}: {event!r} cannot happen to one that is {state!r}")
        self.machine, self.state, self.event = machine, state, event


class Moves(dict[str, str]):
    """What one event does: state -> next state. Asking for a state that it cannot happen in raises IllegalMoveError.

    A lookup costs what a dict's does: hot paths keep the Moves of their events.
    """

    def __init__(self, machine: str, event: str, moves: Mapping[str, str]) -> None:
        super().__init__(moves)
        self._machine, self._event = machine, event

    def __missing__(self, state: str) -> str:
        raise IllegalMoveError(self._machine, state, self._event)


class Machine:
    """`states` and `events` say what each one means; `moves` has for each event: state -> next state.

    The first state is where everything begins. Raises ValueError for a table that names what it does not explain, or
    explains what cannot be reached or never happens.
    """

    def __init__(
        self,
        name: str,
        states: Mapping[str, str],
        events: Mapping[str, str],
        moves: Mapping[str, Mapping[str, str]],
    ) -> None:
        self.name, self.states, self.events = name, dict(states), dict(events)
        self.first = next(iter(self.states))
        self.moves = {event: Moves(name, event, found) for event, found in moves.items()}
        used = {state for found in moves.values() for move in found.items() for state in move}
        if strange := (used - self.states.keys()) | (moves.keys() - self.events.keys()):
            raise ValueError(f"{name}: not explained: {sorted(strange)}")
        idle = {event for event in self.events if not moves.get(event)}
        if lost := (self.states.keys() - self.reachable(self.first) - {self.first}) | idle:
            raise ValueError(f"{name}: never happens: {sorted(lost)}")

    def on(self, event: str) -> Moves:
        """All that this event does."""
        return self.moves[event]

    def next(self, state: str, event: str) -> str:
        """Raises IllegalMoveError."""
        return self.moves[event][state]

    def reachable(self, state: str) -> set[str]:
        """The states that one or more events lead to."""
        found: set[str] = set()
        new = {state}
        while new:
            new = {move[state] for move in self.moves.values() for state in new & move.keys()} - found
            found |= new
        return found

    def markdown(self) -> str:
        """The table for people: a line for each state, a column for each event; `-` is what cannot happen."""
        lines = [
            "| " + " | ".join(["", *self.events]) + " |",
            "|---" * (len(self.events) + 1) + "|",
        ]
        for state in self.states:
            cells = [self.moves[event].get(state, "-") for event in self.events]
            lines.append("| " + " | ".join([f"**{state}**", *cells]) + " |")
        meanings = [f"* **{state}**: {meaning}" for state, meaning in self.states.items()]
        happenings = [f"* *{event}*: {meaning}" for event, meaning in self.events.items()]
        return "\n".join([*lines, "", *meanings, "", *happenings])

    def __repr__(self) -> str:
        return f"<Machine {self.name}: {len(self.states)} states, {len(self.events)} events>"
