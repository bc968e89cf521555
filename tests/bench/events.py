"""Asynchronous invocations and events: what they cost, how soon they run, how late schedules are (`make bench-events`).

* Accepted invocations per second and core of the gateway (messages by its CPU time), beside nats-py alone, which
  publishes and consumes as many messages in one process: rounds in turn, the median of the rounds' ratios counts.
  `accepted`: the function is suspended, so that acceptance is all there is. `accepted and delivered`: dispatched, run
  by an instance, result kept, acknowledged.
* From the time that a call was due until it runs, with calls on time at half the rate that is accepted and delivered.
* How late schedules fire.
* Memory of gateway and NATS for 100,000 invocations that wait.

Missed targets end the program with 1, after everything is printed. docs/events-proof.md has the figures.
"""

import argparse
import asyncio
import math
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import events_schedules
from bench_report import RESULTS, Row, finish, percentile, pyplot
from events_schedules import Lateness
from events_world import HELD, KEPT, STUCK, UNKEPT, EventsWorld
from world import World

#: Of the rate of nats-py alone.
RATIO = 0.5
#: Seconds, at the median.
LATE_WARM, LATE_COLD = 0.1, 0.2
BACKLOG = 100_000
#: Of a curve.
POINTS = 500


@dataclass
class Rates:
    """Messages per second and core, of each round."""

    bare: list[float] = field(default_factory=list)
    accepted: list[float] = field(default_factory=list)
    delivered: list[float] = field(default_factory=list)
    unkept: list[float] = field(default_factory=list)

    def ratio(self, mine: list[float]) -> float:
        """The median of the rounds' ratios: what disturbed a round disturbed both."""
        return statistics.median(a / b for a, b in zip(mine, self.bare, strict=True))


@dataclass(frozen=True, slots=True)
class Memory:
    """Megabytes that BACKLOG more messages cost. `stuck`: the gateway's when it tries to deliver them and cannot."""

    gateway: float
    stuck: float
    nats: float


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds, with `rate` calls a second: until the 202, and until the handler's instance has it; quantiles."""

    rate: float
    accepted: list[float]
    run: list[float]


def rates(world: EventsWorld, rounds: int, count: int) -> Rates:
    found = Rates()
    for number in range(rounds):
        bare = world.bare(count)
        found.bare.append(bare["messages"] / bare["cpu"])
        found.accepted.append(_accepted(world, count))
        found.delivered.append(_delivered(world, KEPT, count))
        found.unkept.append(_delivered(world, UNKEPT, count))
        told = ", ".join(f"{name} {values[-1]:,.0f}" for name, values in asdict(found).items())
        print(f"  round {number + 1} of {rounds}, messages per core and second: {told}", flush=True)
    return found


def _accepted(world: EventsWorld, count: int) -> float:
    before = world.gateway.cpu_seconds()
    world.load(HELD, count)
    used = world.gateway.cpu_seconds() - before
    world.empty(HELD)
    return count / used


def _delivered(world: EventsWorld, name: str, count: int) -> float:
    before = world.gateway.cpu_seconds()
    world.load(name, count)
    world.delivered(name)
    used = world.gateway.cpu_seconds() - before
    ran = world.ran(name)["count"]
    if ran != count:
        raise RuntimeError(f"{name}: {count} were accepted, and {ran} ran")
    return count / used


def latency(world: EventsWorld, rate: float, seconds: float) -> Latency:
    world.ran(KEPT)
    found = world.load(KEPT, int(rate * seconds), rate)
    world.delivered(KEPT)
    return Latency(rate, quantiles(found["took"]), quantiles(world.ran(KEPT)["late"]))


def memory(world: EventsWorld) -> Memory:
    """The gateway has had as many through its hands before: what it keeps for itself is not counted."""
    gateway, server = world.gateway, world.nats
    before = gateway.megabytes(), server.megabytes()
    world.load(HELD, BACKLOG)
    waiting = gateway.megabytes() - before[0], server.megabytes() - before[1]
    world.empty(HELD)
    before = gateway.megabytes(), server.megabytes()
    world.load(STUCK, BACKLOG)
    time.sleep(3)  # what it takes into its hands, it has by now
    stuck = gateway.megabytes() - before[0]
    world.empty(STUCK)
    return Memory(waiting[0], stuck, waiting[1])


def rows(found: Rates | None, slow: Latency | None, kept: Memory | None, late: Lateness | None) -> list[Row]:
    lines = []
    if found is not None:
        accepted, delivered, unkept = (found.ratio(v) for v in (found.accepted, found.delivered, found.unkept))
        lines += [
            Row("nats-py alone: published and consumed", _rate(found.bare)),
            Row("accepted", _rate(found.accepted)),
            Row("  of the rate of nats-py alone", f"{accepted:.2f}", f">= {RATIO:g}", accepted >= RATIO),
            Row("accepted and delivered", _rate(found.delivered)),
            Row("  of the rate of nats-py alone", f"{delivered:.2f}"),
            Row("accepted and delivered, no result kept", _rate(found.unkept)),
            Row("  of the rate of nats-py alone", f"{unkept:.2f}"),
        ]
    if slow is not None:
        lines += [
            Row(f"until the 202, at {slow.rate:,.0f}/s: p50 and p99", _millis(slow.accepted)),
            Row(f"until it runs, at {slow.rate:,.0f}/s: p50 and p99", _millis(slow.run)),
        ]
    if kept is not None:
        lines += [
            Row(f"gateway's memory for {BACKLOG:,} that wait", f"{kept.gateway:.1f} MB"),
            Row("  the same while it tries to deliver them", f"{kept.stuck:.1f} MB"),
            Row("  NATS's", f"{kept.nats:.1f} MB"),
        ]
    if late is not None:
        never = [math.inf]
        warm, cold = percentile(late.warm or never, 0.5), percentile(late.cold or never, 0.5)
        lines += [
            Row(
                f"schedule, warm: late at the median ({len(late.warm)})",
                f"{warm * 1e3:.1f} ms",
                "<= 100 ms",
                warm <= 0.1,
            ),
            Row("  p99", f"{percentile(late.warm or never, 0.99) * 1e3:.1f} ms"),
            Row(
                f"schedule, from zero: at the median ({len(late.cold)})",
                f"{cold * 1e3:.1f} ms",
                "<= 200 ms",
                cold <= 0.2,
            ),
            Row("  p99", f"{percentile(late.cold or never, 0.99) * 1e3:.1f} ms"),
            Row(
                "  firings that did not come, or twice",
                f"{late.missed}, {late.again}",
                "0, 0",
                not late.missed + late.again,
            ),
        ]
    return lines


def _rate(values: list[float]) -> str:
    middle = statistics.median(values)
    return f"{middle:,.0f} per core and second ({1e6 / middle:.0f} µs)"


def _millis(values: list[float]) -> str:
    return f"{percentile(values, 0.5) * 1e3:.1f} and {percentile(values, 0.99) * 1e3:.1f} ms"


def plot(slow: Latency | None, late: Lateness | None) -> None:
    """Shares of calls by milliseconds."""
    found = pyplot()
    if found is None:
        return
    figure, (left, right) = found.subplots(1, 2, figsize=(11, 3.6))
    if slow is not None:
        for values, label in ((slow.accepted, "until the 202"), (slow.run, "until it runs")):
            _curve(left, values, label)
        left.set(xlabel=f"ms, at {slow.rate:,.0f} asynchronous invocations a second", xscale="log")
    if late is not None:
        for values, label in ((late.warm, "function warm"), (late.cold, "from zero, warm pool")):
            _curve(right, values, label)
        right.set(xlabel="ms that a schedule fires late", xlim=(0, None))
    for axis in (left, right):
        axis.set(ylabel="share", ylim=(0, 1.02))
        if axis.lines:
            axis.legend(loc="lower right", fontsize=8)
    figure.tight_layout()
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / "events.svg")
    found.close(figure)


def quantiles(values: list[float]) -> list[float]:
    """So many of the values, from the least to the greatest, that a picture shows no more."""
    return [percentile(values, (number + 1) / POINTS) for number in range(POINTS)] if len(values) > POINTS else values


def _curve(axis: Any, values: list[float], label: str) -> None:
    ordered = sorted(value * 1e3 for value in quantiles(values))
    share = [(number + 1) / len(ordered) for number in range(len(ordered))]
    axis.step(ordered, share, where="post", label=label)


def main() -> int:
    parser = argparse.ArgumentParser(description="Asynchronous invocations, schedules and backlogs, measured.")
    parser.add_argument("parts", nargs="*", help="of rates, latency, memory, schedules; without: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=20_000, help="messages of each round")
    parser.add_argument("--seconds", type=float, default=15.0, help="of the latency")
    parser.add_argument("--firings", type=int, default=40, help="of schedules, each way")
    args = parser.parse_args()
    parts = set(args.parts or ("rates", "latency", "memory", "schedules"))
    found, slow, kept, late = None, None, None, None
    if parts & {"rates", "latency", "memory"}:
        with tempfile.TemporaryDirectory(prefix="kappa-bench-") as folder, World(Path(folder)) as world:
            events = EventsWorld(world)
            if parts & {"rates", "latency"}:
                found = rates(events, args.rounds, args.count)
            if found is not None and "latency" in parts:
                slow = latency(events, statistics.median(found.delivered) / 2, args.seconds)
            if "memory" in parts:
                kept = memory(events)
    if "schedules" in parts:
        late = asyncio.run(events_schedules.measure(args.firings, 2))
    plot(slow, late)
    data = {"rates": asdict(found) if found else None, "memory": asdict(kept) if kept else None}
    data |= {"latency": asdict(slow) if slow else None, "schedules": asdict(late) if late else None}
    return finish("events", rows(found, slow, kept, late), data)


if __name__ == "__main__":
    sys.exit(main())
