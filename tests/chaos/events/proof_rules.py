"""What the books of a run say of each source, and whether that keeps the promise. Pure.

* lost: accepted, and neither run to success nor a dead letter: none may be.
* duplicate: a success after the first one. At least once is the promise; they are counted and must stay rare.
* a dead letter is accounted for when its attempts were used up and the function told of that many failures; those it
  could not tell of must be explained by processes that were killed while the event lived.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from proof_ledger import Dead, Item, Ledger
from proof_returns import Return, resumed

#: Of what was accepted.
DUPLICATES = 0.01
#: A source with fewer events says nothing about a share of one in a hundred: then only all of them together count.
ENOUGH = 1000
#: How Kappa names the cause of a dead letter whose attempts were used up.
USED_UP = "retries_exhausted"


@dataclass(frozen=True, slots=True)
class Expected:
    """`attempts` that an event gets. `kills`: when processes were killed that may have had events in hand; `returns`:
    when NATS was there again."""

    attempts: int
    kills: Sequence[float] = ()
    returns: Sequence[Return] = ()
    causes: Collection[str] = (USED_UP,)


@dataclass(slots=True)
class Row:
    """One line of the table; seconds. `again`: duplicates of what the sender itself handed in more than once.
    `resumed`: how long it took to go on after NATS was there again, each time."""

    source: str
    sent: int
    accepted: int
    succeeded: int
    failures: int
    duplicates: int
    again: int
    dead: int
    lost: int
    p50: float
    p99: float
    resumed: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank; 0 without values."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def unaccounted(item: Item, letter: Dead, expected: Expected) -> str:
    """Why the dead letter should not be there; empty when it is as it should be."""
    if letter.cause not in expected.causes:
        return f"{letter.id}: cause {letter.cause!r} ({letter.error[:100]})"
    if letter.attempts != expected.attempts:
        return f"{letter.id}: {letter.attempts} attempts, not {expected.attempts}"
    begun = item.accepted or item.sent
    killed = sum(1 for at in expected.kills if begun <= at <= letter.at)
    if len(item.failed) + killed < letter.attempts:
        return f"{letter.id}: {letter.attempts} attempts, but {len(item.failed)} failures and {killed} kills are known"
    return ""


def assess(source: str, ledger: Ledger, letters: Sequence[Dead], expected: Expected) -> Row:
    """The source's row, with what breaks the promise in `problems`."""
    items = ledger.of(source)
    mine = [letter for letter in letters if letter.id in items]
    died = Counter(letter.id for letter in mine)
    accepted = {ident: item for ident, item in items.items() if item.accepted}
    took = [max(0.0, item.ok[0] - item.accepted) for item in accepted.values() if item.ok]
    row = Row(
        source=source,
        sent=len(items),
        accepted=len(accepted),
        succeeded=sum(1 for item in items.values() if item.ok),
        failures=sum(len(item.failed) for item in items.values()),
        duplicates=sum(max(0, len(item.ok) - 1) for item in items.values()),
        again=sum(len(item.ok) - 1 for item in items.values() if len(item.ok) > 1 and item.tries > 1),
        dead=len(died),
        lost=sum(1 for ident, item in accepted.items() if not item.ok and ident not in died),
        p50=percentile(took, 0.5),
        p99=percentile(took, 0.99),
        resumed=resumed(accepted.values(), expected.returns),
    )
    if row.accepted < row.sent:
        row.problems.append(f"{row.sent - row.accepted} were not taken in time")
    if row.lost:
        row.problems.append(f"{row.lost} lost")
    if row.accepted >= ENOUGH and row.duplicates > DUPLICATES * row.accepted:
        row.problems.append(f"{row.duplicates} duplicates")
    if twice := sum(1 for count in died.values() if count > 1):
        row.problems.append(f"{twice} are dead letters twice")
    wrong = [why for letter in mine if (why := unaccounted(items[letter.id], letter, expected))]
    if wrong:
        row.problems.append(f"{len(wrong)} dead letters not accounted for, such as {wrong[0]}")
    return row


def overall(rows: Sequence[Row], ledger: Ledger, letters: Sequence[Dead], wanted: Collection[str]) -> list[str]:
    """What breaks the promise over all sources. `wanted`: those that should have been there."""
    found = []
    accepted, duplicates = sum(row.accepted for row in rows), sum(row.duplicates for row in rows)
    if duplicates > DUPLICATES * accepted:
        found.append(f"{duplicates} duplicates of {accepted} events")
    if ledger.strangers:
        found.append(f"{len(ledger.strangers)} runs of ids that nobody sent, such as {ledger.strangers[0]}")
    if strange := [letter for letter in letters if letter.id not in ledger.items]:
        found.append(f"{len(strange)} dead letters of nobody's, such as {strange[0]}")
    if missing := sorted(set(wanted) - {row.source for row in rows if row.sent}):
        found.append(f"nothing was sent to {', '.join(missing)}")
    return found
