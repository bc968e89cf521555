"""What the records of a run say about each event, and whether that keeps the contract. Pure.

An event lasts from `begun` to `lifted` (the fault is over, the transition done) and is watched until `end`. A call
belongs to the event during which it ended. Latency is what a call took beyond the function's own time.
"""

from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field

from chaos_load import Record

#: p99 is back when two windows in a row are below FACTOR times its old value plus FLOOR.
WINDOW, STEP, FACTOR, FLOOR = 2.0, 0.5, 1.5, 0.025
#: Seconds within which it must be.
RECOVERY = 10.0
#: Fewer calls than this in a window say nothing about a p99.
FEWEST = 20


@dataclass(frozen=True, slots=True)
class Span:
    """When an event was. `calm` is the beginning of the quiet time before it, from which the old values are.

    `graceful`: nothing may fail. Otherwise a process was killed, and calls in flight there may fail, attributed, unless
    they can be repeated. `steady`: callers must not even feel it while it lasts. `hangs`: processes did nothing any
    more, and a call that was in one of them until its deadline cannot be repeated, whatever it is.
    """

    name: str
    graceful: bool
    calm: float
    begun: float
    lifted: float
    end: float
    steady: bool = False
    hangs: bool = False
    killed_gateways: frozenset[str] = frozenset()
    note: str = ""


@dataclass(slots=True)
class Row:
    """One line of the report. Seconds; `recovered` is -1 when the latency did not come back."""

    name: str
    graceful: bool
    requests: int
    failed: int
    attributed: int
    cut: int
    lost: int
    retried: int
    p50: float
    p99: float
    old_p99: float
    recovered: float
    seconds: float
    problems: list[str] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    note: str = ""


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank; 0 without values."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def explain(records: Iterable[Record], spans: Sequence[Span], logged: Container[str]) -> None:
    """Notes what accounts for each answer that was cut: a gateway that was killed, or a gateway's log.

    `logged`: request ids of which a gateway wrote that the instance ended in the middle of the answer.
    """
    for record in records:
        if record.verdict in ("cut", "lost") and any(
            record.endpoint in span.killed_gateways and span.begun - 1 <= record.ended <= span.end for span in spans
        ):
            # Nobody is left to say it; whoever killed the gateway knows. Only what had not begun is told from this.
            if record.verdict == "cut" or record.why.startswith("no answer"):
                record.verdict, record.explained = "cut", f"the gateway {record.endpoint} was killed"
        elif record.verdict == "cut" and record.request_id and record.request_id in logged:
            record.explained = "the gateway's log: the instance ended"


def assess(span: Span, records: Sequence[Record], *, timed: bool = True) -> Row:
    """The event's row, with what breaks the contract in `problems`; the latency only when `timed`."""
    mine = [record for record in records if span.begun <= record.ended < span.end]
    during = [record for record in mine if record.ended < max(span.lifted, span.begun + WINDOW)]
    calm = [record.slow for record in records if span.calm <= record.ended < span.begun and record.verdict == "ok"]
    counts = Counter(record.verdict for record in mine)
    old = percentile(calm, 0.99)
    row = Row(
        name=span.name,
        graceful=span.graceful,
        requests=len(mine),
        failed=len(mine) - counts["ok"],
        attributed=counts["attributed"] + sum(1 for r in mine if r.verdict == "cut" and r.explained),
        cut=counts["cut"],
        lost=counts["lost"] + sum(1 for r in mine if r.verdict == "cut" and not r.explained),
        retried=sum(1 for record in mine if record.retries),
        p50=percentile([record.slow for record in during], 0.5),
        p99=percentile([record.slow for record in during], 0.99),
        old_p99=old,
        recovered=recovery(span, mine, old),
        seconds=span.lifted - span.begun,
        note=span.note,
    )
    row.failures.update(f"{r.kind}: {r.why}{f' ({r.explained})' if r.explained else ''}" for r in mine if _bad(r))
    row.problems = _problems(span, row, mine) + (_delays(span, row) if timed else [])
    return row


def _bad(record: Record) -> bool:
    return record.verdict != "ok"


def _late(record: Record) -> bool:
    """Its deadline has passed: in the hung instance, or in another one that had too little of it left."""
    return record.verdict == "attributed" and record.why.startswith("504 ")


def _problems(span: Span, row: Row, mine: Sequence[Record]) -> list[str]:
    found = []
    if not row.requests:
        found.append("no call at all")
    if row.lost:
        found.append(f"{row.lost} lost without attribution")
    if span.graceful and row.failed:
        found.append(f"{row.failed} failed in a transition in which none may")
    spoiled = sum(1 for record in mine if _bad(record) and record.repeatable and not (span.hangs and _late(record)))
    if not span.graceful and spoiled:
        found.append(f"{spoiled} failed that could have been repeated")
    return found


def _delays(span: Span, row: Row) -> list[str]:
    found = []
    if row.recovered < 0 or row.recovered > RECOVERY:
        found.append(f"p99 not back within {RECOVERY:g} s")
    if span.steady and row.p99 > bound(row.old_p99):
        found.append(f"p99 {row.p99 * 1e3:.0f} ms while it lasted, {row.old_p99 * 1e3:.0f} ms before")
    return found


def bound(old: float) -> float:
    """The p99 that counts as the old one again."""
    return FACTOR * old + FLOOR


def recovery(span: Span, records: Sequence[Record], old: float) -> float:
    """Seconds from `lifted` to the first of two windows in a row whose p99 is back; -1 when there are none."""
    at, good, first = span.lifted, 0, 0.0
    while at + WINDOW <= span.end + 1e-6:
        values = [record.slow for record in records if at <= record.ended < at + WINDOW]
        if len(values) >= FEWEST and percentile(values, 0.99) <= bound(old):
            first = at if not good else first
            good += 1
            if good == 2:
                return first - span.lifted
        else:
            good = 0
        at += STEP
    return -1.0
