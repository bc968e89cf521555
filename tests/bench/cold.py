"""Cold starts as the caller sees them, a burst at zero and a step from idle (`make bench-cold`).

* 50 single calls of hello, each at zero with a warm pool: connect, call, whole answer, from an HTTP client on the node.
* 50 simultaneous requests at zero: concurrency 1, 100 ms of work, a pool of 5, at most 100 instances. Three times, the
  worst counts. Instances are counted by a watch: every pod that ever bore the function's label.
* A step from idle to 60 requests a second with the same function, sent on time whether answered or not.

Runs on the embedded cluster; on the cluster of KUBECONFIG or `make cluster` when Kappa is installed there; with --real
the chart is installed there first. Missed targets end the program with 1, after everything is printed.
"""

import argparse
import asyncio
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import beds
from bench_report import RESULTS, Row, finish, percentile, pyplot
from burst_oracle import Starts, best, last_answer
from caller import Reply, call, call_once
from pod_watch import PodWatch, watching

from kappa_api import names

POOL, HELLOS = 5, 8
BURST, RATE, WORK, MOST = 50, 60, 0.1, 100
#: Seconds: the slowest answer; milliseconds: p50 and p95 (0: none) of the cold start.
SLOWEST, INSTANCES = 1.5, 12
COLD = {"embedded": (20.0, 0.0), "real": (30.0, 60.0)}
HELLO = 'def handler(event, context):\n    return {"hello": "world"}\n'
WORKER = f"import time\n\n\ndef handler(event, context):\n    time.sleep({WORK})\n    return 1\n"


@dataclass(slots=True)
class Burst:
    """Many requests at once, or over time. `instances`: pods that were the function's from the first request on."""

    replies: list[Reply]
    instances: int

    @property
    def errors(self) -> list[Reply]:
        return [reply for reply in self.replies if not reply.ok]

    @property
    def slowest(self) -> float:
        return max(reply.seconds for reply in self.replies)


@dataclass(slots=True)
class Results:
    kind: str
    cold: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    bursts: list[Burst] = field(default_factory=list)
    step: Burst | None = None
    fresh: float = 0.0


class Bench:
    def __init__(self, bed: beds.Bed, pods: PodWatch) -> None:
        self.bed, self.pods, self.results = bed, pods, Results(bed.kind)

    async def apply(self, name: str, code: str, most: int) -> None:
        scaling = {"minReplicas": 0, "maxReplicas": most, "idleSeconds": 1}
        spec = {"runtime": "python", "handler": "main.handler", "code": {"inline": code}, "concurrency": 1}
        meta = {"name": name}
        function = {"apiVersion": names.API_VERSION, "kind": names.FUNCTION_KIND, "metadata": meta}
        path = f"/apis/{names.API_VERSION}/namespaces/{{ns}}/{names.FUNCTION_PLURAL}"
        (await self.bed.api.post(path, function | {"spec": spec | {"scaling": scaling}})).ok()

    async def at_zero(self, *functions: str) -> None:
        """All of them proven and at zero, nothing on its way out, and the pool full."""

        def done() -> bool:
            seen = all(self.pods.started(name) and not self.pods.of(name) for name in functions)
            return seen and self.pods.warm() >= POOL

        await self.pods.until(done, f"{', '.join(functions)} at zero and a pool of {POOL}", 180)

    async def cold_starts(self, samples: int) -> None:
        """One call after the other, in turn over a few functions: one goes to zero while others are called."""
        functions = [f"hello-{number}" for number in range(min(HELLOS, samples))]
        for name in functions:
            await self.apply(name, HELLO, 20)
        await self.at_zero(*functions)
        while len(self.results.cold) < samples and len(self.results.failed) < samples:
            name = functions[(len(self.results.cold) + len(self.results.failed)) % len(functions)]
            await self.at_zero(name)
            before = self.pods.started(name)
            reply = await self._blocking(name)
            await self.pods.until(lambda n=name, b=before: self.pods.started(n) > b, f"a new pod for {name}", 10)
            if reply.ok:
                self.results.cold.append(reply.seconds * 1000)
                self.results.warm.append((await self._blocking(name)).seconds * 1000)
            else:
                self.results.failed.append(f"{reply.status} {reply.body[:200]!r}")

    async def _blocking(self, name: str) -> Reply:
        await asyncio.sleep(0.05)  # what events there are is taken in now, not in the middle of the measurement
        return call_once(self.bed.call_url(name))

    async def burst(self, name: str) -> Burst:
        await self.at_zero(name)
        before = self.pods.started(name)
        replies = await asyncio.gather(*(call(self.bed.call_url(name)) for _ in range(BURST)))
        return await self._counted(name, replies, before)

    async def step(self, name: str, seconds: float) -> Burst:
        await self.at_zero(name)
        before = self.pods.started(name)
        loop = asyncio.get_running_loop()
        begun, tasks = loop.time(), []
        for number in range(int(RATE * seconds)):
            await asyncio.sleep(max(0.0, begun + number / RATE - loop.time()))
            tasks.append(asyncio.create_task(call(self.bed.call_url(name))))
        return await self._counted(name, await asyncio.gather(*tasks), before)

    async def _counted(self, name: str, replies: Sequence[Reply], before: int) -> Burst:
        await asyncio.sleep(0.5)  # pods that were asked for at the very end
        return Burst(list(replies), self.pods.started(name) - before)


async def measure(bed: beds.Bed, samples: int, bursts: int, seconds: float) -> Results:
    async with watching(bed.api) as pods, beds.pool_of(bed.api, POOL):
        bench = Bench(bed, pods)
        results = bench.results
        print(f"{bed.kind} cluster: {samples} cold starts ...", flush=True)
        await bench.cold_starts(samples)
        results.fresh = statistics.median(pods.start_seconds) if pods.start_seconds else 0.0
        p50, p95 = statistics.median(results.cold), percentile(results.cold, 0.95)
        print(f"  cold start: p50 {p50:.1f} ms, p95 {p95:.1f} ms", flush=True)
        await bench.apply("worker", WORKER, MOST)
        for number in range(bursts):
            results.bursts.append(await bench.burst("worker"))
            print(f"  burst {number + 1}: {_words(results.bursts[-1])}", flush=True)
        results.step = await bench.step("worker", seconds)
        print(f"  step: {_words(results.step)}", flush=True)
        return results


def _words(burst: Burst) -> str:
    failed = f", {len(burst.errors)} FAILED" if burst.errors else ""
    return f"{len(burst.replies)} answered within {burst.slowest:.2f} s by {burst.instances} instances{failed}"


def rows(results: Results) -> list[Row]:
    p50, p95 = COLD[results.kind]
    cold, warm = results.cold, statistics.median(results.warm)
    half, most = statistics.median(cold), percentile(cold, 0.95)
    bursts, step = results.bursts, results.step
    assert step is not None
    starts = Starts(POOL, half / 1000, results.fresh)
    count, oracle = best(BURST, WORK, starts, MOST)
    worst, pods = max(b.slowest for b in bursts), max(b.instances for b in bursts)
    errors = sum(len(b.errors) for b in bursts)
    ordered = [reply.seconds for reply in step.replies]
    steady = -(-int(RATE * WORK * 1000) // 1000)
    return [
        Row(f"cold start p50 ({len(cold)} calls)", f"{half:.1f} ms", f"<= {p50:g} ms", half <= p50),
        Row("cold start p95", f"{most:.1f} ms", f"<= {p95:g} ms" if p95 else "", most <= p95 if p95 else None),
        Row("cold start, best and worst", f"{min(cold):.1f} and {max(cold):.1f} ms"),
        Row("failed cold starts", str(len(results.failed)), "0", not results.failed),
        Row("warm call right after, p50", f"{warm:.1f} ms"),
        Row("pod from nothing until Ready, p50", f"{results.fresh * 1000:.0f} ms"),
        Row(f"{BURST} at once: errors ({len(bursts)} bursts)", str(errors), "0", errors == 0),
        Row(f"{BURST} at once: last answer, worst", f"{worst:.2f} s", f"<= {SLOWEST:g} s", worst <= SLOWEST),
        Row(f"{BURST} at once: instances, most", str(pods), f"<= {INSTANCES}", pods <= INSTANCES),
        Row("  the oracle (same pool, same starts)", f"{oracle:.2f} s with {count} instances"),
        Row(f"  the oracle with {INSTANCES} instances", f"{last_answer(BURST, WORK, INSTANCES, starts):.2f} s"),
        Row(f"step to {RATE}/s: errors", str(len(step.errors)), "0", not step.errors),
        Row(f"step to {RATE}/s: slowest", f"{step.slowest:.2f} s", f"<= {SLOWEST:g} s", step.slowest <= SLOWEST),
        Row(f"step to {RATE}/s: p50 and p99", f"{percentile(ordered, 0.5):.3f} and {percentile(ordered, 0.99):.3f} s"),
        Row(f"step to {RATE}/s: instances", f"{step.instances} (the oracle: {steady})"),
    ]


def plot(results: Results) -> None:
    found = pyplot()
    if found is None or results.step is None:
        return
    figure, (left, middle, right) = found.subplots(1, 3, figsize=(13, 3.6))
    cold = sorted(results.cold)
    left.step(cold, [(number + 1) / len(cold) for number in range(len(cold))], where="post", color="#4477aa")
    left.axvline(COLD[results.kind][0], color="#cc6677", linestyle="--")
    left.set(xlabel="cold start, ms (dashed: target of p50)", ylabel="share of calls", ylim=(0, 1.02), xlim=(0, None))
    for number, burst in enumerate(results.bursts):
        times = sorted(reply.seconds for reply in burst.replies)
        middle.step(
            times, range(1, len(times) + 1), where="post", label=f"run {number + 1}: {burst.instances} instances"
        )
    middle.axvline(SLOWEST, color="#cc6677", linestyle="--")
    middle.set(xlabel=f"seconds after {BURST} requests at zero", ylabel="answered", xlim=(0, None))
    middle.legend(loc="lower right", fontsize=8)
    first = min(reply.begun for reply in results.step.replies)
    right.plot([r.begun - first for r in results.step.replies], [r.seconds for r in results.step.replies], ".", ms=3)
    right.set(xlabel=f"seconds since the step to {RATE} requests/s", ylabel="seconds until the answer", ylim=(0, None))
    figure.suptitle(f"Kappa, {results.kind} cluster, pool of {POOL}")
    figure.tight_layout()
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / f"cold-{results.kind}.svg")
    found.close(figure)


def report(results: Results) -> int:
    for text in results.failed[:5]:
        print(f"  failed: {text}")
    for burst in (*results.bursts, *([results.step] if results.step else [])):
        for reply in burst.errors[:3]:
            print(f"  failed: {reply.status} after {reply.seconds:.2f} s: {reply.body[:200]!r}")
    plot(results)
    data = {
        "cluster": results.kind,
        "cold_ms": results.cold,
        "warm_ms": results.warm,
        "fresh_pod_seconds": results.fresh,
        "bursts": [{"seconds": [r.seconds for r in b.replies], "instances": b.instances} for b in results.bursts],
        "step": [(r.begun, r.seconds, r.status) for r in results.step.replies] if results.step else [],
    }
    return finish(f"cold-{results.kind}", rows(results), data)


async def run(chosen: argparse.Namespace) -> int:
    config = None if chosen.embedded else beds.kubeconfig()
    if chosen.real and config is None:
        raise beds.BedError("there is no cluster: run `make cluster` first, or set KUBECONFIG")
    here = config is not None and (chosen.real or await beds.has_kappa(config))
    async with beds.real(config) if here and config is not None else beds.embedded() as bed:
        return report(await measure(bed, chosen.samples, chosen.bursts, chosen.seconds))


def main() -> int:
    parser = argparse.ArgumentParser(description="Cold starts, bursts and steps, as callers see them.")
    parser.add_argument("--samples", type=int, default=50, help="cold starts")
    parser.add_argument("--bursts", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="of the step")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--real", action="store_true", help="on a real cluster, installing the chart if it is not there")
    where.add_argument("--embedded", action="store_true", help="on the embedded cluster, whatever else there is")
    try:
        return asyncio.run(run(parser.parse_args()))
    except (beds.BedError, TimeoutError) as error:
        print(f"bench-cold: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
