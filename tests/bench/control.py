"""What the control plane costs while nothing happens, and how soon it acts on a change (`make bench-control`).

On the embedded cluster with 100, 1,000 and 10,000 Functions at zero, then with 2,000 instances besides (pods without
processes; a stand-in answers for them): CPU and memory of operator and gateway at rest, the time they need to be Ready,
and the time from a changed Function until the watch shows the pool pod that the operator took to prove it.

Missed targets (the operator with 10,000 idle Functions: 300 MB, 2 % of a core; an act within 200 ms at every size) end
the program with 1, after everything is printed.
"""

import argparse
import asyncio
import contextlib
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import beds
from bench_report import RESULTS, Row, finish, pyplot
from control_world import COMPONENTS, World, answering, function
from kappa_fixtures_local import Backend, connect
from kappa_platform import free_place
from pod_watch import watching

from kappa_api import names
from kappa_local.platform import lifecycle

SIZES, EACH, HOLDERS = (100, 1_000, 10_000), 4, 500
POOL = 5
MEGABYTES, PERCENT, ACT = 300.0, 2.0, 200.0
CODE = "def handler(event, context):\n    return {0!r}\n"
MODEL = "model"


@dataclass(frozen=True, slots=True)
class Level:
    """What was measured at one size. By component: `cpu` in percent of a core, `memory` in MB. `acts`: milliseconds."""

    functions: int
    instances: int
    ready_seconds: float
    cpu: dict[str, float]
    memory: dict[str, float]
    acts: list[float]

    @property
    def name(self) -> str:
        return f"{self.functions:,} functions" + (f", {self.instances:,} instances" if self.instances else "")


class Bench:
    def __init__(self, world: World, seconds: float, rounds: int) -> None:
        self.world, self.seconds, self.rounds, self.round = world, seconds, rounds, 0
        self.changed = [f"changed-{number}" for number in range(POOL)]

    async def level(self, functions: int, instances: int) -> Level:
        """Starts the platform, lets it come to rest, measures, and stops it."""
        world = self.world
        ready = await world.start_platform()
        processes = {name: world.process(name) for name in COMPONENTS}
        await self._rest()
        before = {name: process.usage() for name, process in processes.items()}
        await asyncio.sleep(self.seconds)
        after = {name: process.usage() for name, process in processes.items()}
        acts: list[float] = []
        for _ in range(self.rounds):
            acts += await self._change()
        await world.stop_platform()
        cpu = {name: (after[name].cpu - before[name].cpu) / self.seconds * 100 for name in COMPONENTS}
        found = Level(functions, instances, ready, cpu, {n: after[n].megabytes for n in COMPONENTS}, acts)
        print(
            f"  {found.name}: operator {cpu['operator']:.1f} %, {found.memory['operator']:.0f} MB; "
            f"act {statistics.median(acts):.0f} ms",
            flush=True,
        )
        return found

    async def _rest(self, quiet: int = 2, most: int = 30) -> None:
        """Returns after so many quiet seconds in a row, or gives up waiting: then what goes on is what is measured."""
        calm = 0
        operator = self.world.process(names.COMPONENT_OPERATOR)
        used = operator.usage().cpu
        for _ in range(most):
            await asyncio.sleep(1)
            now = operator.usage().cpu
            calm = calm + 1 if now - used < 0.1 else 0
            used = now
            if calm >= quiet:
                return

    async def _change(self) -> list[float]:
        """Each of a few functions changed once, while the pool has a pod for each."""
        self.round += 1

        def at_zero() -> bool:
            return not any(self.world.pods.of(name) for name in self.changed) and self.world.pods.warm() >= POOL

        await self.world.pods.until(at_zero, "the changed functions at zero and a full pool")
        await asyncio.sleep(0.2)
        return [await self.world.change(name, CODE.format(self.round)) for name in self.changed]


async def measure(sizes: Sequence[int], seconds: float, rounds: int) -> list[Level]:
    async with contextlib.AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="kappa-bench-"))
        place = free_place(Path(folder) / "state")
        await lifecycle.start(place, lambda text: print(f"  {text}"))
        stack.callback(lifecycle.stop, place)
        api = await stack.enter_async_context(connect(Backend("local", place.kubeconfig), beds.NAMESPACE))
        await stack.enter_async_context(beds.namespace(api))
        await stack.enter_async_context(beds.pool_of(api, POOL))
        world = World(api, await stack.enter_async_context(watching(api)), lifecycle.running(place))
        bench = Bench(world, seconds, rounds)
        status = await world.prove(*(function(name, CODE.format(0)) for name in (MODEL, *bench.changed)))
        await world.stop_platform()
        levels, made = [], 1 + len(bench.changed)
        for size in sizes:
            await world.add((function(f"idle-{n}", CODE.format(0)) for n in range(made, size)), MODEL, status)
            made = size
            levels.append(await bench.level(size, 0))
        holders = [f"busy-{number}" for number in range(HOLDERS)]
        await world.add((function(name, CODE.format(0), least=EACH) for name in holders), MODEL, status)
        answers = await world.add_instances(holders, EACH, status["activeRevision"])
        await stack.enter_async_context(answering(answers))
        levels.append(await bench.level(made + HOLDERS, len(answers)))
        return levels


def rows(levels: Sequence[Level]) -> list[Row]:
    found = []
    for level in levels:
        idle = level.functions == max(SIZES) and not level.instances
        cpu, memory, worst = level.cpu, level.memory, max(level.acts)
        found += [
            Row(level.name, f"Ready after {level.ready_seconds:.1f} s"),
            Row(
                "  operator CPU at rest",
                f"{cpu['operator']:.2f} % of a core",
                f"< {PERCENT:g} %" if idle else "",
                cpu["operator"] < PERCENT if idle else None,
            ),
            Row(
                "  operator memory",
                f"{memory['operator']:.0f} MB",
                f"< {MEGABYTES:g} MB" if idle else "",
                memory["operator"] < MEGABYTES if idle else None,
            ),
            Row("  gateway CPU at rest", f"{cpu['gateway']:.2f} % of a core"),
            Row("  gateway memory", f"{memory['gateway']:.0f} MB"),
            Row(
                f"  change until act ({len(level.acts)})",
                f"p50 {statistics.median(level.acts):.0f} ms, worst {worst:.0f} ms",
                f"<= {ACT:g} ms",
                worst <= ACT,
            ),
        ]
    return found


def plot(levels: Sequence[Level]) -> None:
    found = pyplot()
    if found is None:
        return
    figure, axes = found.subplots(1, 3, figsize=(13, 3.6))
    idle = [level for level in levels if not level.instances]
    busy = [level for level in levels if level.instances]
    titles = ("CPU at rest, % of a core", "memory, MB", "change until act, ms (marks: single ones)")
    for axis, title in zip(axes, titles, strict=True):
        axis.set(xscale="log", xlabel="Functions", title=title)
    for component, color in zip(COMPONENTS, ("#4477aa", "#228833"), strict=True):
        for axis, kind in ((axes[0], "cpu"), (axes[1], "memory")):
            lines = [(level.functions, getattr(level, kind)[component]) for level in idle]
            axis.plot(*zip(*lines, strict=True), "o-", color=color, label=f"{component}, all at zero")
            for level in busy:
                label = f"{component}, {level.instances:,} instances"
                axis.plot(level.functions, getattr(level, kind)[component], "*", color=color, ms=11, label=label)
            axis.set_ylim(0, None)
            axis.legend(fontsize=7)
    for level in levels:
        axes[2].plot([level.functions] * len(level.acts), level.acts, "*" if level.instances else "_", color="#4477aa")
    axes[2].axhline(ACT, color="#cc6677", linestyle="--")
    axes[2].set_ylim(0, None)
    figure.tight_layout()
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / "control.svg")
    found.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description="CPU, memory and delay of the control plane.")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="numbers of Functions, ascending")
    parser.add_argument("--seconds", type=float, default=10.0, help="at rest, of each measurement")
    parser.add_argument("--rounds", type=int, default=2, help=f"of {POOL} changes at each size")
    chosen = parser.parse_args()
    levels = asyncio.run(measure(chosen.sizes, chosen.seconds, chosen.rounds))
    plot(levels)
    return finish("control", rows(levels), {"levels": [asdict(level) for level in levels]})


if __name__ == "__main__":
    sys.exit(main())
