"""The tables, the JSON and the picture of a run of `make chaos-events`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench_report import RESULTS, finish, pyplot
from bench_report import Row as Line
from proof_faults import Struck
from proof_ledger import Ledger
from proof_returns import RESUME_SECONDS
from proof_rules import DUPLICATES, Row, percentile

COLUMNS = (
    *("source", "sent", "accepted", "succeeded", "duplicates", "sent again", "dead letters", "lost"),
    *("failed runs", "p50 s", "p99 s", "resumed s"),
)
Cells = Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything a run found. `problems`: of the whole. `left`: messages still in the work stream. `begun`, `sent`,
    `drained`: when sending began and ended, and when all was done. `refusals`: why something was not taken at once, and
    how often, per source."""

    rows: Sequence[Row]
    problems: Sequence[str]
    faults: Sequence[Struck]
    ledger: Ledger
    left: int
    begun: float
    sent: float
    drained: float
    refusals: Mapping[str, Mapping[str, int]]


def aligned(cells: Cells) -> str:
    """The first column to the left, the others to the right, a line below the head."""
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = []
    for first, *rest in cells:
        lines.append("  ".join([first.ljust(widths[0]), *(t.rjust(w) for t, w in zip(rest, widths[1:], strict=True))]))
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def table(rows: Sequence[Row]) -> str:
    cells = [COLUMNS]
    for row in rows:
        counts = (row.sent, row.accepted, row.succeeded, row.duplicates, row.again, row.dead, row.lost, row.failures)
        latest = f"{max(row.resumed):.2f}" if row.resumed else "-"
        cells.append((row.source, *map(str, counts), f"{row.p50:.3f}", f"{row.p99:.2f}", latest))
    return aligned(cells)


def fault_table(faults: Sequence[Struck], begun: float) -> str:
    cells = [("fault", "at", "over after", "what")]
    cells += [(f.name, f"{f.begun - begun:.1f} s", f"{f.over - f.begun:.1f} s", f.note) for f in faults]
    return aligned(cells)


def report(outcome: Outcome, name: str, *, timed: bool) -> int:
    """Prints and writes everything; returns the exit code. `timed`: how soon sources go on is judged, too."""
    rows = outcome.rows
    print("\n" + table(rows) + "\n\n" + fault_table(outcome.faults, outcome.begun))
    for source, reasons in outcome.refusals.items():
        for reason, count in sorted(reasons.items(), key=lambda pair: -pair[1])[:3]:
            print(f"  {source}: not taken at once, {count} times: {reason}")
    broken = [f"{row.source}: {problem}" for row in rows for problem in row.problems] + list(outcome.problems)
    for text in broken:
        print(f"  BROKEN {text}")
    accepted, lost = sum(row.accepted for row in rows), sum(row.lost for row in rows)
    duplicates, dead = sum(row.duplicates for row in rows), sum(row.dead for row in rows)
    share = duplicates / max(1, accepted)
    missed = [fault for fault in outcome.faults if fault.note.startswith("DID NOT HAPPEN")]
    resumed = [seconds for row in rows for seconds in row.resumed]
    counts = ", ".join(f"{sum(f.name == kind for f in outcome.faults)} x {kind}" for kind in _kinds(outcome.faults))
    lines = [
        Line("accepted", str(accepted)),
        Line("lost", str(lost), "0", lost == 0),
        Line("duplicates", f"{duplicates} ({share:.2%})", f"<= {DUPLICATES:.0%}", share <= DUPLICATES),
        Line("dead letters, each accounted for", str(dead)),
        Line("left in the work stream", str(outcome.left), "0", outcome.left == 0),
        Line("sent within", f"{outcome.sent - outcome.begun:.0f} s"),
        Line("done after the last was sent", f"{outcome.drained - outcome.sent:.1f} s"),
        Line(
            f"resumed after NATS was back ({len(resumed)} times): slowest",
            f"{max(resumed, default=0.0):.1f} s",
            f"<= {RESUME_SECONDS:g} s" if timed else "",
            not timed or max(resumed, default=0.0) <= RESUME_SECONDS,
        ),
        Line("faults", counts or "none", "at least one", bool(outcome.faults)),
        Line("faults that did not happen", str(len(missed)), "0", not missed),
        Line("promises broken", str(len(broken)), "0", not broken),
    ]
    picture(outcome, name)
    data = {
        "sources": [asdict(row) for row in rows],
        "faults": [asdict(fault) | {"at": fault.begun - outcome.begun} for fault in outcome.faults],
        "refusals": {source: dict(reasons) for source, reasons in outcome.refusals.items()},
    }
    return finish(name, lines, data)


def _kinds(faults: Sequence[Struck]) -> list[str]:
    return list(dict.fromkeys(fault.name for fault in faults))


def picture(outcome: Outcome, name: str) -> None:
    """Successes of every second, and how long after acceptance they came; the faults as bands."""
    found: Any = pyplot()
    seconds: dict[int, list[float]] = {}
    for item in outcome.ledger.items.values():
        if item.ok and item.accepted:
            seconds.setdefault(int(item.ok[0] - outcome.begun), []).append(max(0.001, item.ok[0] - item.accepted))
    if found is None or not seconds:
        return
    at = sorted(seconds)
    figure, (top, bottom) = found.subplots(2, 1, figsize=(13, 5.5), sharex=True)
    top.plot(at, [len(seconds[second]) for second in at], color="#4477aa", linewidth=0.9)
    top.set(ylabel="first successes a second", ylim=(0, None))
    for share, color in ((0.5, "#4477aa"), (0.99, "#cc6677")):
        values = [percentile(seconds[second], share) for second in at]
        bottom.plot(at, values, color=color, linewidth=0.9, label=f"p{share * 100:g} from accepted to success")
    bottom.set(yscale="log", xlabel="seconds", ylabel="s")
    bottom.legend(loc="upper left", fontsize=7)
    colors = dict(zip(_kinds(outcome.faults), ("#ddcc77", "#ee8866", "#99ddff", "#bb99cc"), strict=False))
    for fault in outcome.faults:
        for axis in (top, bottom):
            color = colors.get(fault.name, "#cccccc")
            axis.axvspan(fault.begun - outcome.begun, fault.over - outcome.begun, color=color, alpha=0.35)
        top.text(fault.begun - outcome.begun, 0, fault.name, rotation=90, fontsize=7, va="bottom")
    figure.tight_layout()
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / f"{name}.svg")
    found.close(figure)
