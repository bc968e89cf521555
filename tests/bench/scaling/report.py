"""Tables, targets and JSON out of the rows."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from compare import Row

#: Waits that differ by less than this are the same to a caller (and less than a demand message takes).
SAME_WAIT = 0.010
KPA_SHARE, ORACLE_SHARE, CHEAPER, COLD_SHARE = 0.6, 1.25, 0.9, 0.01
FLASH, MIX = "flash crowd", "azure mix"
#: Trace classes that show a limit of what any policy can do; they have no target.
LIMITS = ("steady for 4 h", "smooth day")


@dataclass(frozen=True)
class Target:
    """One target: what was asked, what came out."""

    trace: str
    text: str
    value: str
    met: bool


def table(rows: Iterable[Row]) -> str:
    """One line per policy, grouped by trace class."""
    by: dict[str, list[Row]] = {}
    for row in rows:
        by.setdefault(row.trace, []).append(row)
    head = f"{'trace':15} {'policy':12} {'invocations':>12} {'cold':>8} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8}"
    lines = [f"{head} {'inst-seconds':>13} {'/oracle':>8} {'/always on':>10} {'/kpa':>6}"]
    for name, group in by.items():
        found = {row.policy: row for row in group}
        for row in group:
            line = f"{name:15} {row.policy:12} {row.invocations:12,.0f} {_share(row.cold, row.invocations):>8}"
            line += f" {row.p50 * 1e3:8.0f} {row.p99 * 1e3:8.0f} {row.slowest * 1e3:8.0f} {row.seconds:13,.0f}"
            for other, width in (("oracle", 8), ("always on", 10), ("kpa", 6)):
                ratio = f"{row.seconds / found[other].seconds:.3f}" if other in found else "-"
                line += f" {ratio:>{width}}"
            lines.append(line)
        lines.append("")
    return "\n".join(lines)


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.3%}" if whole else "-"


def targets(rows: Iterable[Row]) -> list[Target]:
    """The targets of the project, checked."""
    by: dict[str, dict[str, Row]] = {}
    for row in rows:
        by.setdefault(row.trace, {})[row.policy] = row
    found: list[Target] = []
    for name, group in by.items():
        if name in LIMITS or "kpa" not in group:
            continue
        ours, kpa, oracle = group["kappa"], group["kpa"], group["oracle"]
        text = f"{ours.p99 * 1e3:.0f} ms, KPA {kpa.p99 * 1e3:.0f} ms"
        found.append(Target(name, "p99 wait no worse than KPA's", text, bool(ours.p99 <= kpa.p99 + SAME_WAIT)))
        if name != FLASH:
            ratio = ours.seconds / kpa.seconds
            found.append(Target(name, f"instance-seconds <= {KPA_SHARE} of KPA's", f"{ratio:.3f}", ratio <= KPA_SHARE))
            text = f"{ours.cold:,.0f}, KPA {kpa.cold:,.0f}"
            found.append(Target(name, "no more cold starts than KPA", text, ours.cold <= kpa.cold))
        if name in ("steady", "diurnal"):
            ratio = ours.seconds / oracle.seconds
            found.append(Target(name, f"within {ORACLE_SHARE} of the oracle", f"{ratio:.3f}", ratio <= ORACLE_SHARE))
        if name == MIX:
            cheaper = 1 - ours.seconds / group["always on"].seconds
            found.append(Target(name, f"{CHEAPER:.0%} cheaper than always on", f"{cheaper:.1%}", cheaper >= CHEAPER))
            cold = ours.cold / ours.invocations
            found.append(Target(name, f"cold < {COLD_SHARE:.0%}", f"{cold:.3%}", cold < COLD_SHARE))
    return found


def target_lines(found: Iterable[Target]) -> str:
    return "\n".join(f"{'ok    ' if t.met else 'MISSED'} {t.trace:15} {t.text:38} {t.value}" for t in found)


def as_json(rows: Iterable[Row], found: Iterable[Target], **more: Any) -> dict[str, Any]:
    return {"rows": [asdict(row) for row in rows], "targets": [asdict(target) for target in found], **more}
