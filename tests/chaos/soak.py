"""`make soak`: half the load of `make chaos` for some minutes, and what each process holds meanwhile. Only flat passes.

Functions roll out and scale from zero to several instances and back now and then, so that what the operators and the
gateways keep of things that are gone would show. Judged are the processes that lived through the whole time after the
warm-up; docs/no-drop.md says how.
"""

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import soak_trend
import uvloop
from bench_report import RESULTS, Row, finish, pyplot
from chaos_bed import NAMESPACE, BedError, embedded
from chaos_client import Client
from chaos_events import Stage
from chaos_functions import FUNCTIONS, LEAKS
from chaos_kinds import KINDS
from chaos_load import MOST_LATE, Load
from chaos_pods import function_path
from soak_samples import Sample, Sampler, Series

from kappa_api import names

RATE = 200.0
#: Seconds that caches, pools and the allocator get to settle: the embedded cluster keeps what happened in the last two
#: minutes, and an operator's collections of garbage are minutes apart. A leak made on purpose is found sooner.
WARM, WARM_LEAK = 300.0, 45.0
CHURN_SECONDS = 20.0
#: Of a runtime, besides those that run sync handlers.
OWN_THREADS = 6
MEASURES = ("rss", "fds", "threads", "tasks")
#: What moves between gateways with their callers' connections.
SHARED = {"fds", "tasks"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """One measure of one process."""

    series: Series
    measure: str
    trend: soak_trend.Trend


async def churn(stage: Stage) -> None:
    """A burst at zero and a rollout of one function, again and again."""
    while True:
        await asyncio.sleep(CHURN_SECONDS)
        await stage.load.burst(40, 2.0)
        await stage.roll_out("short")


async def soak(minutes: float, leak: str) -> tuple[list[Series], Load, float]:
    """(all series, the load, when the warm-up was over)."""
    async with embedded() as bed:
        load = Load(Client(bed.endpoints, random.Random(2)), f"{names.FUNCTION_PATH}{NAMESPACE}/", RATE)
        stage = Stage(bed, load)
        for function in FUNCTIONS.values():
            code = LEAKS[leak] if leak and function.name == "async" else ""
            (await bed.api.post(function_path(), function.manifest("r0", code))).ok()
        await stage.whole()
        sampler = Sampler(bed)
        warm = WARM_LEAK if leak else WARM
        print(f"soak: {minutes:g} minutes at {RATE:g} calls a second, after {warm:.0f} s of warm-up", flush=True)
        tasks = [asyncio.create_task(work) for work in (load.run(), churn(stage), sampler.run())]
        begun = time.monotonic()
        # A crowd at first, so that what grows with the most that was ever under way at a time has grown.
        await asyncio.gather(*(load.burst(40, 3.0, kind) for kind in KINDS if kind.function != "asgi"))
        try:
            done, _ = await asyncio.wait(tasks, timeout=warm + minutes * 60, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # none of them ends by itself
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await load.settle()
            load.client.close()
        return list(sampler.series.values()), load, begun + warm


def workers(kind: str) -> float:
    """The most threads that an instance of this function may have: one for each invocation at a time, and its own."""
    function = FUNCTIONS.get(kind)
    return function.spec["concurrency"] + OWN_THREADS if function is not None else 0.0


def judge(all_series: list[Series], since: float) -> list[Verdict]:
    """Of the processes that were there from `since` to the end."""
    last = max((series.samples[-1].at for series in all_series if series.samples), default=0.0)
    whole = [s for s in all_series if s.samples and s.samples[0].at <= since and last - s.samples[-1].at < 15]
    gateways = [series for series in whole if series.kind == names.COMPONENT_GATEWAY]
    found = []
    for series in [*whole, *together(gateways)]:
        samples = [sample for sample in series.samples if sample.at >= since]
        for measure in judged(series, whole):
            points = [(s.at, float(getattr(s, measure))) for s in samples if getattr(s, measure) >= 0]
            times, values = [at for at, _ in points], [value for _, value in points]
            if measure == "rss":
                trend = soak_trend.memory(times, values)
            else:
                trend = soak_trend.count(times, values, workers(series.kind) if measure == "threads" else 0.0)
            found.append(Verdict(series, measure, trend))
    return found


def judged(series: Series, whole: list[Series]) -> list[str]:
    """The measures of a process by itself, or of the gateways together, that tell of a leak."""
    if series.kind != names.COMPONENT_GATEWAY:
        return list(MEASURES)
    return [measure for measure in MEASURES if (measure in SHARED) is (series not in whole)]


def together(gateways: list[Series]) -> list[Series]:
    """All gateways as one: callers' connections, with their descriptors and tasks, move from one to another."""
    if not gateways:
        return []
    sums = [
        Sample(parts[0].at, *(sum(getattr(part, name) for part in parts) for name in ("rss", "uss", *MEASURES[1:])))
        for parts in zip(*(series.samples[::-1] for series in gateways), strict=False)
    ]
    return [Series("together", names.COMPONENT_GATEWAY, 0, sums[::-1])]


def rows(verdicts: list[Verdict], load: Load) -> list[Row]:
    lines = []
    for verdict in verdicts:
        trend = verdict.trend
        what = f"{verdict.series.kind} {verdict.series.name}: {verdict.measure}"
        if verdict.measure == "rss":
            result, target = f"{trend.middle / 2**20:.1f} MiB, {trend.share:+.2%}", f"< {soak_trend.MOST_GROWTH:.0%}"
        else:
            result, target = f"{trend.middle:.0f}, {trend.growth:+.1f}", "no growth"
        lines.append(Row(what, result + (f": {trend.why}" if trend.why else ""), target, not trend.why))
    bad = sum(record.verdict != "ok" for record in load.records)
    why = Counter(f"{record.kind}: {record.why}" for record in load.records if record.verdict != "ok")
    for text, count in why.most_common(5):
        print(f"  {count} x {text}")
    kinds = {verdict.series.kind for verdict in verdicts}
    lines.append(Row("calls", str(len(load.records))))
    lines.append(Row("calls that failed", str(bad), "0", bad == 0))
    late = f"{load.late:.1f} s"
    lines.append(Row("longest stop of this machine", late, f"< {MOST_LATE:g} s", load.late < MOST_LATE))
    missing = {names.COMPONENT_OPERATOR, names.COMPONENT_GATEWAY, "api", "async", "asgi"} - kinds
    lines.append(Row("kinds of process that were not judged", ", ".join(missing) or "none", "none", not missing))
    return lines


def picture(all_series: list[Series], since: float) -> None:
    """A panel for each measure, a line for each process."""
    found = pyplot()
    if found is None:
        return
    start = min(series.samples[0].at for series in all_series)
    figure, panels = found.subplots(len(MEASURES), 1, figsize=(12, 11), sharex=True)
    colors = {"operator": "#aa3377", "gateway": "#4477aa", "api": "#222222", "pool": "#bbbbbb"}
    for panel, measure in zip(panels, MEASURES, strict=True):
        seen: set[str] = set()
        for series in all_series:
            points = [(s.at - start, getattr(s, measure)) for s in series.samples if getattr(s, measure) >= 0]
            scale = 2**20 if measure == "rss" else 1
            kind = series.kind if series.kind in colors else "instances"
            label = kind if kind not in seen else None
            seen.add(kind)
            color = colors.get(series.kind, "#66aa55")
            panel.plot([at for at, _ in points], [v / scale for _, v in points], color=color, lw=0.8, label=label)
        panel.axvline(since - start, color="#888888", linestyle=":")
        panel.set(ylabel="RSS, MiB" if measure == "rss" else measure, ylim=(0, None))
    panels[0].legend(loc="upper left", fontsize=7, ncols=5)
    panels[-1].set(xlabel="seconds (dotted: the end of the warm-up)")
    figure.tight_layout()
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / "soak.svg")
    found.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="after the warm-up (default %(default)g)")
    parser.add_argument("--leak", choices=sorted(LEAKS), default="", help="leak this on purpose: the run must fail")
    args = parser.parse_args()
    try:
        all_series, load, since = uvloop.run(soak(args.minutes, args.leak))
    except (BedError, TimeoutError) as error:
        print(f"soak: {error}", file=sys.stderr)
        return 2
    picture(all_series, since)
    data = {
        "series": [
            {
                "name": series.name,
                "kind": series.kind,
                "samples": [[round(s.at - since, 1), s.rss, s.uss, s.fds, s.threads, s.tasks] for s in series.samples],
            }
            for series in all_series
        ],
        "columns": ["seconds", "rss", "uss", "fds", "threads", "tasks"],
        "leak": args.leak,
    }
    return finish("soak", rows(judge(all_series, since), load), data)


if __name__ == "__main__":
    sys.exit(main())
