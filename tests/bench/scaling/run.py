"""`make bench-scaling`: the autoscaler's own decisions against traces and baselines, in virtual time.

    python tests/bench/scaling/run.py                     all traces, tables, targets, JSON, plots (about four minutes)
    python tests/bench/scaling/run.py --csv calls.csv     replay your own: columns time,function,duration (seconds)
    python tests/bench/scaling/run.py --only steady bursty --start 0.1

Every trace is drawn once per seed, and the figures are those of all of them together: one draw says little about a
percentile. The policies were tuned on seeds 1 to 6, 101 to 103 and 201 to 203; those here are others.

Ends with 1 when a target is missed (not with --csv or --only). Results go to bench-results/, which git ignores;
`--images docs/images` redraws the plots of docs/scaling.md.
"""

import argparse
import json
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import azure
import plots
import report
import traces
from compare import IDLE_SECONDS, Row, compare, policies
from scenarios import scenarios

#: Knative's cold start on the reference node, and the one of a warm pool: both measured on a real cluster, seconds.
KPA_START, POOL_START = 0.855, 0.030
RESULTS = Path("bench-results")
SEEDS = (301, 302, 303)
_work: list[tuple[traces.TraceClass, str, float, float]] = []


def main() -> int:
    options = _options()
    if options.csv:
        found = [traces.read_csv(options.csv)]
    else:
        found = [one for one in _drawn(options.seeds) if not options.only or one.name in options.only]
    if not found:
        sys.exit("no such trace class")
    begun = time.monotonic()
    rows = _rows(found, options.start, options.idle_seconds)
    print(f"Every start takes {options.start * 1e3:.0f} ms, idleSeconds is {options.idle_seconds:g}.\n")
    print(report.table(rows))
    if options.csv or options.only:
        return 0
    own = _own_starts([one for one in found if one.name != report.MIX and one.name not in report.LIMITS], options)
    print(f"With the start latency of each system: Kappa {POOL_START * 1e3:.0f} ms, KPA {KPA_START * 1e3:.0f} ms.\n")
    print(report.table(own))
    bursts = scenarios()
    for burst in bursts:
        print(f"{burst.name}: slowest answer {burst.slowest * 1e3:.0f} ms, {burst.started} instances started")
    checked = report.targets(rows)
    print("\n" + report.target_lines(checked))
    for burst in bursts:
        most = f", at most {burst.most_started} started" if burst.most_started else ""
        print(f"{'ok    ' if burst.met else 'MISSED'} {burst.name}: answered within {burst.limit:g} s{most}")
    RESULTS.mkdir(exist_ok=True)
    result = report.as_json(rows, checked, own_starts=[asdict(r) for r in own], bursts=[asdict(b) for b in bursts])
    (RESULTS / "scaling.json").write_text(json.dumps(result, indent=1) + "\n")
    images = options.images or RESULTS
    plots.cost([row for row in rows if row.trace not in report.LIMITS], images / "scaling-cost.svg")
    for one, begin, end in ((found[2], 600, 1200), (found[6], 580, 900)):
        name = f"scaling-{one.name.replace(' ', '-')}.svg"
        plots.over_time(one, options.start, begin, end, options.idle_seconds, images / name)
    print(f"\n{time.monotonic() - begun:.0f} s; {RESULTS / 'scaling.json'}, plots in {images}")
    return 0 if all(one.met for one in (*checked, *bursts)) else 1


def _drawn(seeds: list[int]) -> list[traces.TraceClass]:
    """Every trace class, with the functions of all seeds."""
    drawn = []
    for seed in seeds:
        traces.SEED = azure.SEED = seed
        drawn.append([*traces.classes(), azure.mix(), *traces.limits()])
    return [replace(same[0], functions=[f for one in same for f in one.functions]) for same in zip(*drawn, strict=True)]


def _rows(found: list[traces.TraceClass], start: float, idle_seconds: float) -> list[Row]:
    return _compared([(one, name, start, idle_seconds) for one in found for name in policies(idle_seconds)])


def _own_starts(found: list[traces.TraceClass], options: argparse.Namespace) -> list[Row]:
    starts = {"kappa": POOL_START, "kpa": KPA_START}
    return _compared([(one, name, at, options.idle_seconds) for one in found for name, at in starts.items()])


def _compared(tasks: list[tuple[traces.TraceClass, str, float, float]]) -> list[Row]:
    """The rows in the order of the tasks, the longest ones begun first; tells how far it is."""
    order = sorted(range(len(tasks)), key=lambda n: -sum(len(f.arrivals) for f in tasks[n][0].functions))
    rows: dict[int, Row] = {}
    # The traces are too large to be sent: forked processes have them already.
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(os.cpu_count(), fork, initializer=_begin, initargs=(tasks,)) as pool:
        for at, row in zip(order, pool.map(_row, order), strict=True):
            rows[at] = row
            print(f"  {len(rows)} of {len(tasks)}: {row.trace}, {row.policy}", file=sys.stderr)
    return [rows[n] for n in range(len(tasks))]


def _begin(tasks: list[tuple[traces.TraceClass, str, float, float]]) -> None:
    """In a worker: what `_row` takes its task from."""
    _work.extend(tasks)


def _row(number: int) -> Row:
    one, name, start, idle_seconds = _work[number]
    return compare(one, name, policies(idle_seconds)[name], start)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, help="replay this file: columns time,function,duration")
    parser.add_argument("--only", nargs="+", default=[], help="names of trace classes")
    parser.add_argument("--start", type=float, default=0.85, help="start latency of every policy, in seconds")
    parser.add_argument("--idle-seconds", type=float, default=IDLE_SECONDS, help="idleSeconds of the functions")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="draws of all traces, taken together")
    parser.add_argument("--images", type=Path, help="where the plots go")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
