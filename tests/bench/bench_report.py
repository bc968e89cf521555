"""What a benchmark says at its end: a table of targets and results, JSON for machines, and the exit code."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[2] / "bench-results"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `ok` is None for what has no target. Empty `target` too."""

    what: str
    result: str
    target: str = ""
    ok: bool | None = None

    @property
    def verdict(self) -> str:
        return {None: "", True: "ok", False: "MISSED"}[self.ok]


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned text."""
    cells = [("", "result", "target", "")] + [(row.what, row.result, row.target, row.verdict) for row in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join([lines[0], "-" * len(max(lines, key=len)), *lines[1:]])


def finish(name: str, rows: Sequence[Row], data: dict[str, Any]) -> int:
    """Prints the table and writes `name`.json; returns the exit code."""
    print("\n" + table(rows))
    RESULTS.mkdir(exist_ok=True)
    machine = {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
    whole = {"machine": machine, "rows": [asdict(row) for row in rows], **data}
    (RESULTS / f"{name}.json").write_text(json.dumps(whole, indent=2) + "\n")
    missed = [row.what for row in rows if row.ok is False]
    print(f"\nwritten: {RESULTS.name}/{name}.json" + (f"; MISSED: {', '.join(missed)}" if missed else "; all reached"))
    return 1 if missed else 0


def pyplot() -> Any:
    """matplotlib's pyplot for SVG files, or None when it is not installed."""
    try:
        import matplotlib as mpl

        mpl.use("svg")
        from matplotlib import pyplot as found
    except ImportError:
        print("matplotlib is not installed: no picture")
        return None
    return found


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]
