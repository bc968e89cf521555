"""`make chaos`: calls Kappa steadily, breaks and changes everything around it, and accounts for every single call.

Ends with 1 when a call was lost without attribution, when one failed in a graceful transition, or when the latency was
not back in time. docs/no-drop.md has the contract.
"""

import argparse
import asyncio
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import uvloop
from chaos_bed import NAMESPACE, Bed, BedError, embedded
from chaos_client import Client
from chaos_events import Stage
from chaos_functions import FUNCTIONS
from chaos_load import Load
from chaos_logs import Logs
from chaos_plan import Event, chosen
from chaos_pods import following, function_path
from chaos_real import real
from chaos_report import report
from chaos_rules import Span, assess, explain

from kappa_api import names

WARM_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds. `calm`: before each event. `watch`: after it. `outage`: of the long outages. `size`: of repetitions.

    `timed`: the latency counts. Not in the short run, which other work on the same machine must not fail.
    """

    calm: float = 5.0
    watch: float = 13.0
    outage: float = 60.0
    size: float = 1.0
    rate: float = 400.0
    timed: bool = True


FULL = Pace()
QUICK = Pace(calm=2.0, watch=4.0, outage=8.0, size=0.2, rate=200.0, timed=False)


async def furnish(bed: Bed, stage: Stage) -> None:
    """The Functions, serving."""
    for function in FUNCTIONS.values():
        (await bed.api.post(function_path(), function.manifest("r0"))).ok()
    await stage.whole()


async def play(stage: Stage, event: Event, pace: Pace) -> Span:
    """One event with its quiet time before and after."""
    calm = time.monotonic()
    await asyncio.sleep(pace.calm)
    begun = time.monotonic()
    stage.note, trouble = "", ""
    stage.killed_gateways.clear()
    try:
        await event.run(stage)
        lifted = time.monotonic()
        if event.then is not None:
            await event.then(stage)
            stage.note = f"a rollout went through {time.monotonic() - lifted:.1f} s later"
    except Exception as error:
        lifted = time.monotonic()
        trouble = f"{type(error).__name__}: {error}"
    await asyncio.sleep(max(0.0, lifted + pace.watch - time.monotonic()))
    killed = frozenset(stage.killed_gateways)
    note = f"DID NOT HAPPEN: {trouble}" if trouble else stage.note
    times = (calm, begun, lifted, time.monotonic())
    return Span(event.title, event.graceful, *times, event.steady, event.hangs, killed, note)


def slow_calls(span: Span, load: Load) -> str:
    """The calls of an event, and of the calm before it, that took a second more than they should."""
    lines = [
        f"{span.name} {record.begun - span.begun:+.2f} s: {record.kind} took {record.slow:.2f} s at {record.endpoint}"
        f" ({record.verdict}, {record.retries} retries, {record.request_id})\n"
        for record in load.records
        if span.calm <= record.ended < span.end and record.slow > 1.0
    ]
    return "".join(lines)


async def run(args: argparse.Namespace) -> int:
    pace = QUICK if args.quick else FULL
    async with real() if args.real else embedded() as bed, following(Logs(bed.api, args.logs)) as logs:
        events = chosen(args.events, quick=args.quick, can=bed.can)
        left_out = [e.name for e in chosen(args.events, quick=args.quick, can=lambda what: True) if e not in events]
        if left_out:
            print(f"chaos: this cluster cannot do: {', '.join(left_out)}", flush=True)
        client = Client(bed.endpoints, random.Random(2))
        load = Load(client, f"{names.FUNCTION_PATH}{NAMESPACE}/", args.rate or pace.rate)
        stage = Stage(bed, load, outage=pace.outage, size=pace.size)
        await furnish(bed, stage)
        print(f"chaos: {len(events)} events at {load.rate:g} calls a second on the {bed.kind} cluster", flush=True)
        steady = asyncio.create_task(load.run())
        spans: list[Span] = []
        try:
            await asyncio.sleep(WARM_SECONDS)
            for event in events:
                span = await play(stage, event, pace)
                spans.append(span)
                explain(load.records, spans, logs.ids)
                row = assess(span, load.records, timed=pace.timed)
                if args.logs is not None:
                    with (args.logs / "slow-calls.log").open("a") as file:
                        file.write(slow_calls(span, load))
                words = "; ".join(row.problems) or "ok"
                print(f"  {row.name}: {row.requests} calls, {row.failed} failed: {words} {row.note}", flush=True)
                for why, count in row.failures.most_common(5):
                    print(f"      {count} x {why}", flush=True)
        finally:
            steady.cancel()
            await asyncio.gather(steady, return_exceptions=True)
            left = await load.settle()
            client.close()
        if left or load.overflow or load.bugs:
            print(f"  {left} calls never ended, {load.overflow} could not be begun; bugs: {load.bugs[:3]}")
        explain(load.records, spans, logs.ids)
        rows = [assess(span, load.records, timed=pace.timed) for span in spans]
        return report(bed.kind, rows, spans, load, quick=args.quick, whole=not args.events)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("events", nargs="*", help="only these events (see chaos_plan.py)")
    parser.add_argument("--real", action="store_true", help="on a real cluster: KUBECONFIG, or that of `make cluster`")
    parser.add_argument("--quick", action="store_true", help="the short run: fewer repetitions, short outages")
    parser.add_argument("--logs", type=Path, help="an existing folder in which the platform's logs are kept")
    parser.add_argument("--rate", type=float, default=0.0, help="calls a second (default 400; 200 in the short run)")
    try:
        return uvloop.run(run(parser.parse_args()))
    except (BedError, ValueError) as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
