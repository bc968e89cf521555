"""The books of `make chaos-events`: what was handed in, what ran, what became a dead letter. No clock of its own.

Times are seconds of one monotonic clock. An id is `proof-<source>-<number>` and travels inside the event, whatever
shape that takes on its way.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

ID = re.compile(r"proof-([a-z0-9]+)-\d+")


def identity(source: str, number: int) -> str:
    return f"proof-{source}-{number}"


@dataclass(slots=True)
class Item:
    """One event. `accepted` is 0 until whoever took it said so. `tries`: how often it was handed in; more than once
    means that an earlier answer did not come, and that nobody knows whether it was taken. `ok`, `failed`: the runs."""

    source: str
    sent: float
    accepted: float = 0.0
    tries: int = 0
    ok: list[float] = field(default_factory=list)
    failed: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Dead:
    """One dead letter. `attempts` as its header says; `at`: when the stream got it."""

    id: str
    cause: str
    attempts: int
    at: float
    error: str = ""


@dataclass(slots=True)
class Ledger:
    """`strangers`: runs of ids that nobody sent."""

    items: dict[str, Item] = field(default_factory=dict)
    strangers: list[str] = field(default_factory=list)
    done: int = 0  # ids with at least one success

    def send(self, ident: str, now: float) -> None:
        """It is handed in, for the first time or again."""
        found = ID.fullmatch(ident)
        assert found, ident
        item = self.items.setdefault(ident, Item(found[1], now))
        item.tries += 1

    def accept(self, ident: str, now: float) -> None:
        self.items[ident].accepted = now

    def run(self, ident: str, ok: bool, now: float) -> None:
        """The function told that it ran."""
        item = self.items.get(ident)
        if item is None:
            self.strangers.append(ident)
            return
        if ok and not item.ok:
            self.done += 1
        (item.ok if ok else item.failed).append(now)

    def of(self, source: str) -> dict[str, Item]:
        return {ident: item for ident, item in self.items.items() if item.source == source}

    def open(self, dead: Iterable[str]) -> list[str]:
        """What was accepted and has neither succeeded nor died yet."""
        gone = set(dead)
        return [ident for ident, item in self.items.items() if item.accepted and not item.ok and ident not in gone]

    def text(self, begun: float) -> str:
        """A line for each event: id, when it was sent and accepted, how often handed in, its successes and failures."""

        def at(moments: Iterable[float]) -> str:
            return ",".join(f"{moment - begun:.3f}" for moment in moments)

        lines = [
            f"{ident}\t{at([item.sent, item.accepted])}\t{item.tries}\t{at(item.ok)}\t{at(item.failed)}\n"
            for ident, item in self.items.items()
        ]
        return "".join(lines)
