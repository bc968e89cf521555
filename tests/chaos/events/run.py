"""`make chaos-events`: hands events to every kind of source while processes are killed, and accounts for each of them.

Two gateways, two operators and the functions on the embedded cluster, three NATS servers that replicate, and real
servers where a source reads from one. Ends with 1 when an event was lost, when duplicates are not rare, or when a dead
letter is not accounted for. docs/events-proof.md says how it is counted.
"""

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "support"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import proof_schedules as schedules
import uvloop
from chaos_bed import BedError
from kappa_collector import Collector
from proof_faults import Field, Struck, strike
from proof_feed import Driver, Feed, Retrying
from proof_feeds import FEEDS
from proof_ledger import Ledger
from proof_letters import Letters
from proof_report import Outcome, report
from proof_rules import Expected, assess, overall
from proof_setup import FUNCTIONS, furnish, laid, opened, whole

RETRYING = Retrying()
ASYNC = "async"
#: Seconds within which all must be done when everything is sent: a message in the hand of a gateway that died is
#: given to another one after 15, and has two more attempts.
DRAIN_SECONDS = 150.0


@dataclass(frozen=True, slots=True)
class Pace:
    """`calls`: asynchronous invocations; `events`: of each source; `firings`: of schedules. All within `seconds`, with
    a fault every `breath` seconds."""

    calls: int = 20_000
    events: int = 5_000
    firings: int = 240
    seconds: float = 300.0
    breath: float = 8.0

    def count(self, source: str) -> int:
        return {ASYNC: self.calls, schedules.SOURCE: self.firings}.get(source, self.events)


FULL = Pace()
QUICK = Pace(calls=500, events=100, firings=20, seconds=40.0, breath=2.5)


class Clock:
    """Epoch seconds that never jump: the times of dead letters can be compared with them."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def __call__(self) -> float:
        return time.monotonic() + self._offset


@dataclass
class Proof:
    """One run. `begun`, `sent`, `done`: when sending began and ended, and when everything was done."""

    pace: Pace
    chosen: Sequence[str]
    clock: Clock = field(default_factory=Clock)
    ledger: Ledger = field(default_factory=Ledger)
    struck: list[Struck] = field(default_factory=list)
    drivers: list[Driver] = field(default_factory=list)
    begun: float = 0.0
    sent: float = 0.0
    done: float = 0.0

    def hear(self, words: list[str]) -> None:
        """A line of the function: `run <id> ok|failed`."""
        self.ledger.run(words[1], words[2] == "ok", self.clock())

    def note(self, fault: Struck) -> None:
        self.struck.append(fault)
        at, state = fault.begun - self.begun, f"{self.ledger.done} of {len(self.ledger.items)} done"
        print(f"  {at:6.1f} s {fault.name} ({fault.note}); {state}", flush=True)

    async def send(self, feeds: Sequence[Feed], faults: Field) -> None:
        """Everything is handed in while faults go on."""
        self.begun = self.clock()
        end = self.begun + self.pace.seconds + DRAIN_SECONDS
        self.drivers = [Driver(feed, self.ledger, self.clock, end) for feed in feeds]
        breaking = asyncio.create_task(strike(faults, self.pace.breath, self.note))
        try:
            async with asyncio.TaskGroup() as group:
                for driver in self.drivers:
                    group.create_task(driver.run(self.pace.count(driver.feed.name), self.pace.seconds))
        finally:
            breaking.cancel()
            await asyncio.gather(breaking, return_exceptions=True)
        self.sent = self.clock()

    async def drain(self, letters: Letters) -> int:
        """Waits until all that was accepted is done and the work stream is empty; what is left in it."""
        end, told = self.clock() + DRAIN_SECONDS, 0.0
        while True:
            waiting, left = len(self.ledger.open(await letters.ids())), await letters.backlog()
            self.done = self.clock()
            if (not waiting and not left) or self.done > end:
                return left
            if self.done - told > 5:
                told = self.done
                print(f"  waiting for {waiting} events; {left} messages in the work stream", flush=True)
            await asyncio.sleep(0.5)

    def outcome(self, letters: Letters, faults: Field, left: int) -> Outcome:
        expected = Expected(RETRYING.retries + 1, faults.kills, faults.returns)
        names = list(dict.fromkeys(item.source for item in self.ledger.items.values()))
        rows = [assess(name, self.ledger, letters.found, expected) for name in names]
        problems = overall(rows, self.ledger, letters.found, self.chosen)
        refusals = {driver.feed.name: driver.refusals for driver in self.drivers if driver.refusals}
        return Outcome(rows, problems, self.struck, self.ledger, left, self.begun, self.sent, self.done, refusals)


async def run(args: argparse.Namespace) -> int:
    known = [*FEEDS, schedules.SOURCE]
    if unknown := set(args.sources) - set(known):
        raise BedError(f"no source {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    proof = Proof(QUICK if args.quick else FULL, args.sources or known)
    draw = random.Random(args.seed)
    async with Collector(proof.hear) as collector, laid(draw) as (ground, bed, cluster):
        async with opened([name for name in proof.chosen if name in FEEDS], ground) as feeds:
            await furnish(ground, feeds, collector.port, RETRYING)
            print(f"chaos-events: {', '.join(feed.name for feed in feeds)} are ready", flush=True)
            if schedules.SOURCE in proof.chosen:
                first = proof.clock() + schedules.LEAD_SECONDS
                at = schedules.times(proof.pace.firings, first, proof.pace.seconds)
                await schedules.plan(ground.api, proof.ledger, at, FUNCTIONS[1], RETRYING)
            faults = Field(bed, cluster, FUNCTIONS, proof.clock, draw, ground.nats)
            await proof.send(feeds, faults)
            await whole(cluster)
            letters = Letters(ground.nats)
            left = await proof.drain(letters)
            outcome = proof.outcome(letters, faults, left)
        if args.ledger is not None:
            args.ledger.write_text(proof.ledger.text(proof.begun))
        return report(outcome, f"chaos-events{'-quick' if args.quick else ''}", timed=not args.quick)


def main() -> int:
    parser = argparse.ArgumentParser(description="Events of every source while processes are killed: none may be lost.")
    parser.add_argument("sources", nargs="*", help="only these sources")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="the short run: 500 invocations, 100 events of each source, without judging time",
    )
    parser.add_argument("--ledger", type=Path, help="a file for the books: a line for each event, seconds of the run")
    parser.add_argument("--seed", type=int, default=5, help="which processes are killed")
    try:
        return uvloop.run(run(parser.parse_args()))
    except BedError as error:
        print(f"chaos-events: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
