"""Plots of the comparison: cost and waiting per trace class, and the instances over time around a burst."""

from pathlib import Path

import matplotlib as mpl
from compare import Row, kappa, kpa
from policies import KpaSettings
from traces import TraceClass

mpl.use("svg")
import matplotlib.pyplot as plt

SHOWN = ("kappa", "kpa", "keep 10 min", "always on")
COLORS = {"kappa": "#1b7f5c", "kpa": "#c2562d", "keep 10 min": "#8a8a8a", "always on": "#c9c9c9", "oracle": "#222222"}
mpl.rcParams.update({"svg.hashsalt": "kappa", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False})
mpl.rcParams.update({"axes.spines.right": False, "figure.constrained_layout.use": True})


def cost(rows: list[Row], path: Path) -> None:
    """Instance-seconds as multiples of the oracle's, and p99 waits, per trace class."""
    names = list(dict.fromkeys(row.trace for row in rows))
    found = {(row.trace, row.policy): row for row in rows}
    figure, axes = plt.subplots(2, 1, figsize=(9, 6), sharex=True)
    for place, policy in enumerate(SHOWN):
        at = [index + (place - 1.5) * 0.2 for index in range(len(names))]
        ratios = [found[name, policy].seconds / found[name, "oracle"].seconds for name in names]
        axes[0].bar(at, ratios, 0.19, label=policy, color=COLORS[policy])
        waits = [max(0.5, found[name, policy].p99 * 1e3) for name in names]
        axes[1].bar(at, waits, 0.19, color=COLORS[policy])
    axes[0].axhline(1, color=COLORS["oracle"], linewidth=0.8)
    for axis, label in zip(axes, ("instance-seconds / oracle's", "p99 wait, ms"), strict=True):
        axis.set_yscale("log")
        axis.set_ylabel(label)
    axes[1].set_xticks(range(len(names)), names, rotation=20, ha="right")
    axes[0].legend(ncols=4, frameon=False)
    _save(figure, path)


def over_time(traces: TraceClass, start: float, begin: float, end: float, idle_seconds: float, path: Path) -> None:
    """Instances of Kappa and of the KPA while one function lives through `begin` to `end`."""
    function = traces.functions[0]
    figure, axis = plt.subplots(figsize=(9, 3))
    for name, runner in (("kpa", kpa(KpaSettings(), True)), ("kappa", kappa(idle_seconds, True))):
        line = runner(function, start).timeline
        before = [count for at, count in line if at < begin]
        times = [begin, *(at for at, _ in line if begin <= at <= end), end]
        counts = [before[-1] if before else 0, *(count for at, count in line if begin <= at <= end)]
        axis.step(times, [*counts, counts[-1]], where="post", label=name, color=COLORS[name])
    axis.set_xlabel("seconds")
    axis.set_ylabel("instances")
    axis.set_title(f"{traces.name}: {traces.about}", fontsize=9)
    axis.legend(frameon=False)
    _save(figure, path)


def _save(figure: plt.Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    # The same data make the same file: no trailing blanks for a linter to find.
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")
