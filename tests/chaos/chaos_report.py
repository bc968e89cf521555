"""The table, the JSON and the picture of a run."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bench_report import RESULTS, finish, pyplot
from bench_report import Row as Line
from chaos_load import MOST_LATE, Load
from chaos_rules import Row, Span, percentile

#: Calls over all graceful transitions of a whole run.
ENOUGH = 100_000
COLUMNS = ("event", "calls", "failed", "attributed", "lost", "retried", "p50 ms", "p99 ms", "before", "back after")


def table(rows: Sequence[Row], never: str = "never") -> str:
    """The rows as aligned text. p50 and p99 are those while the event lasted; `before` is the p99 before it. `never`:
    what stands for a latency that did not come back while it was watched."""
    cells = [COLUMNS]
    for row in rows:
        back = f"{row.recovered:.1f} s" if row.recovered >= 0 else never
        cells.append(
            (
                *(row.name, str(row.requests), str(row.failed), str(row.attributed), str(row.lost), str(row.retried)),
                *(f"{row.p50 * 1e3:.1f}", f"{row.p99 * 1e3:.0f}", f"{row.old_p99 * 1e3:.0f}", back),
            )
        )
    widths = [max(len(line[column]) for line in cells) for column in range(len(COLUMNS))]
    lines = []
    for line in cells:
        first, *rest = (text for text in line)
        lines.append("  ".join([first.ljust(widths[0]), *(t.rjust(w) for t, w in zip(rest, widths[1:], strict=True))]))
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def report(kind: str, rows: Sequence[Row], spans: Sequence[Span], load: Load, *, quick: bool, whole: bool) -> int:
    """Prints and writes everything; returns the exit code."""
    print("\n" + table(rows, "-" if quick else "never"))
    for row in rows:
        for problem in row.problems:
            print(f"  BROKEN {row.name}: {problem}")
    graceful = [row for row in rows if row.graceful]
    calls, failed = sum(row.requests for row in graceful), sum(row.failed for row in graceful)
    lost = sum(row.lost for row in rows)
    happened = [row.name for row in rows if row.note.startswith("DID NOT HAPPEN")]
    wanted = f">= {ENOUGH}" if whole and not quick else ""
    lines = [
        Line("calls in graceful transitions", str(calls), wanted, calls >= ENOUGH if wanted else None),
        Line("failed of them", str(failed), "0", failed == 0),
        Line("lost without attribution, anywhere", str(lost), "0", lost == 0),
        Line("calls in all", str(len(load.records))),
        Line("events that did not happen", ", ".join(happened) or "none", "none", not happened),
        Line("events that broke the contract", str(sum(bool(row.problems) for row in rows)), "0", _kept(rows)),
        Line("longest stop of this machine", f"{load.late:.1f} s", f"< {MOST_LATE:g} s", load.late < MOST_LATE),
        Line("calls the caller could not begin", str(load.overflow), "0", not load.overflow and not load.bugs),
    ]
    name = f"chaos-{kind}{'-quick' if quick else ''}"
    picture(rows, spans, load, name)
    data = {"events": [asdict(row) | {"failures": dict(row.failures)} for row in rows], "rate": load.rate}
    return finish(name, lines, data)


def _kept(rows: Sequence[Row]) -> bool:
    return not any(row.problems for row in rows)


def picture(rows: Sequence[Row], spans: Sequence[Span], load: Load, name: str) -> None:
    """p50 and p99 of every second of the run, the events as bands, failures as dots."""
    found: Any = pyplot()
    if found is None or not load.records or not spans:
        return
    start, end = spans[0].calm, spans[-1].end
    seconds: dict[int, list[float]] = {}
    for record in load.records:
        if start <= record.ended < end:
            seconds.setdefault(int(record.ended - start), []).append(record.slow)
    at = sorted(seconds)
    figure, axis = found.subplots(figsize=(14, 4.5))
    for share, color in ((0.5, "#4477aa"), (0.99, "#cc6677")):
        values = [max(0.1, percentile(seconds[second], share) * 1e3) for second in at]
        axis.plot(at, values, color=color, linewidth=0.9, label=f"p{share * 100:g} beyond the function's own time")
    for row, span in zip(rows, spans, strict=True):
        axis.axvspan(
            span.begun - start, span.lifted - start, color="#ddcc77" if span.graceful else "#ee8866", alpha=0.3
        )
        text = f"{row.name}" + (f" ({row.failed})" if row.failed else "")
        axis.text(span.begun - start, 0.11, text, rotation=90, fontsize=7, va="bottom")
    bad = [record for record in load.records if record.verdict != "ok" and start <= record.ended < end]
    for lost, color in ((False, "#888888"), (True, "#ff0000")):
        dots = [r for r in bad if (r.verdict == "lost" or (r.verdict == "cut" and not r.explained)) is lost]
        label = "lost" if lost else "failed, attributed"
        axis.plot(
            [r.ended - start for r in dots], [max(0.1, r.slow * 1e3) for r in dots], ".", color=color, label=label
        )
    axis.set(yscale="log", xlabel="seconds", ylabel="ms")
    axis.legend(loc="upper left", fontsize=7, ncols=4)
    figure.tight_layout()
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / f"{name}.svg")
    found.close(figure)
