"""Speed and memory of gateway and runtime, against baselines in the same run (`make bench`).

Measured in turns (A B C, A B C, ...), medians: what else the machine does then meets all of them alike. Numbers that
must hold end the program with an error when they do not:

* requests per second of the gateway, at least 2.5 times those of a plain aiohttp proxy (one core, 64 connections);
* with 1,000 functions known, as fast as with one (10 % for noise), and less than 100 MB;
* with rate limits for the function and for each caller, at most 5 % more CPU a request than without;
* callers with an API key, a JSON Web Token or a Kubernetes token: at most 15 % more CPU a request than without;
* a call of hello through gateway and runtime, on one connection, in less than 1.5 ms at the median.

nginx as a reverse proxy is printed for comparison where it is installed. Results go to bench-results/ as JSON and SVG.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import callers
from load import load
from world import OTHER_CORE, REPOSITORY, Process, World, latencies

CONNECTIONS = 64
RATIO, SAME, MEGABYTES, MILLISECONDS, LIMITS = 2.5, 0.9, 100.0, 1.5, 1.05
#: Limits that nobody meets: what counting costs.
WIDE = {"rate": {"requests": 1_000_000}, "callerRate": {"requests": 1_000_000}}
#: What was checked, and whether it holds.
Check = tuple[str, bool]
#: A process that had less of its core than this was kept from it.
FULL = 0.85


@dataclass
class Result:
    """One subject. CPU in microseconds per request, of the measured process alone."""

    name: str
    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)

    def compared_to(self, other: "Result") -> float:
        """The median of the ratios of each round: what disturbed a round disturbed both."""
        return statistics.median(mine / theirs for mine, theirs in zip(self.rates, other.rates, strict=True))

    def cpu_compared_to(self, other: "Result") -> float:
        """The same of CPU per request: for differences that are smaller than the noise of a rate."""
        return statistics.median(mine / theirs for mine, theirs in zip(self.cpu, other.cpu, strict=True))

    @property
    def micros(self) -> float:
        return statistics.median(self.cpu)

    @property
    def busy(self) -> float:
        """The share of its core that the process had, at the median."""
        return statistics.median(rate * cpu / 1e6 for rate, cpu in zip(self.rates, self.cpu, strict=True))


def measure(subjects: dict[str, Process], rounds: int, seconds: float) -> dict[str, Result]:
    """Every subject once per round, after a short warm-up."""
    results = {name: Result(name) for name in subjects}
    for process in subjects.values():
        load(process.url, CONNECTIONS, 1, OTHER_CORE)
    for number in range(rounds):
        for name, process in subjects.items():
            before = process.cpu_seconds()
            rate = load(process.url, CONNECTIONS, seconds, OTHER_CORE)
            results[name].rates.append(rate)
            results[name].cpu.append((process.cpu_seconds() - before) / (rate * seconds) * 1e6)
        print(f"  round {number + 1} of {rounds}: " + ", ".join(f"{n} {r.rates[-1]:.0f}/s" for n, r in results.items()))
    return results


def throughput(world: World, rounds: int, seconds: float) -> tuple[dict[str, Result], float]:
    """Gateways with one and with 1,000 functions, and the baselines. Also the memory of the larger gateway in MB."""
    print("starting (1,000 Functions are applied to an embedded cluster) ...")
    one, many, limited = world.cluster("one", 1), world.cluster("many", 1000), world.cluster("limited", 1, limits=WIDE)
    addresses = [cluster.instance("fast", process=False) for cluster in (one, many, limited)]
    for number, address in enumerate(addresses):
        world.upstream(f"upstream-{number}", address)
    subjects = {
        "gateway": world.gateway("gateway-one", one),
        "gateway, rate limits": world.gateway("gateway-limited", limited),
        "gateway, 1,000 functions": world.gateway("gateway-many", many),
        "plain aiohttp proxy": world.plain(addresses[0]),
    }
    if nginx := world.nginx(addresses[0]):
        subjects["nginx"] = nginx
    else:
        print("nginx is not installed: no comparison with it (Debian: apt-get install nginx-light)")
    results = measure(subjects, rounds, seconds)
    return results, subjects["gateway, 1,000 functions"].megabytes()


def latency(world: World, count: int) -> tuple[dict[str, float], Result]:
    """Median milliseconds of one call at a time, and the rate that gateway and runtime reach together."""
    cluster = world.cluster("real", 1)
    address = cluster.instance("hello", process=True)
    gateway = world.gateway("gateway-real", cluster)
    urls = {"runtime alone": f"http://{address}:8080/", "gateway + runtime": gateway.url}
    times: dict[str, list[float]] = {name: [] for name in urls}
    os.sched_setaffinity(0, {OTHER_CORE})
    for _ in range(5):
        for name, url in urls.items():
            times[name].extend(latencies(url, count // 5))
    os.sched_setaffinity(0, set(range(os.cpu_count() or 1)))
    together = measure({"gateway + runtime": gateway}, 1, 3)["gateway + runtime"]
    return {name: statistics.median(found) * 1000 for name, found in times.items()}, together


def report(
    results: dict[str, Result], megabytes: float, medians: dict[str, float], together: Result, more: list[Check]
) -> list[str]:
    """Prints the tables; returns what missed its target. `more`: checks that were made already."""
    gateway, plain = results["gateway"], results["plain aiohttp proxy"]
    print(
        f"\n{'one core, 64 connections':28}{'requests/s':>12}{'of plain':>10}{'CPU µs/request':>16}{'of its core':>13}"
    )
    for result in results.values():
        ratio = result.compared_to(plain)
        print(f"{result.name:28}{result.rate:12.0f}{ratio:9.2f}x{result.micros:16.1f}{result.busy:13.0%}")
    print(f"{'gateway + runtime, hello':28}{together.rate:12.0f}{'':10}{together.micros:16.1f}{together.busy:13.0%}")
    print(f"\n{'one connection':28}{'median ms':>12}")
    for name, median in medians.items():
        print(f"{name:28}{median:12.3f}")
    ratio, same = gateway.compared_to(plain), results["gateway, 1,000 functions"].compared_to(gateway)
    if min(gateway.busy, plain.busy) < FULL:
        # Somebody else had a part of the cores: what a full core would do is the reciprocal of the CPU per request
        ratio, same = plain.micros / gateway.micros, gateway.micros / results["gateway, 1,000 functions"].micros
        print(
            f"\nThe machine was busy with something else: the gateway had {gateway.busy:.0%} of its core, "
            f"the plain proxy {plain.busy:.0%}.\nRatios below are of CPU time per request."
        )
    limits = results["gateway, rate limits"].cpu_compared_to(gateway)
    checks = [
        (f"gateway / plain proxy: {ratio:.2f} (at least {RATIO})", ratio >= RATIO),
        (f"1,000 functions / one: {same:.2f} (at least {SAME})", same >= SAME),
        (f"CPU with rate limits / without: {limits:.3f} (at most {LIMITS})", limits <= LIMITS),
        (f"memory with 1,000 functions: {megabytes:.0f} MB (below {MEGABYTES:.0f})", megabytes < MEGABYTES),
        (
            f"gateway + runtime: {medians['gateway + runtime']:.2f} ms (below {MILLISECONDS})",
            medians["gateway + runtime"] < MILLISECONDS,
        ),
        *more,
    ]
    print()
    for text, good in checks:
        print(f"{'ok  ' if good else 'MISS'} {text}")
    return [text for text, good in checks if not good]


def save(folder: Path, results: dict[str, Result], megabytes: float, medians: dict[str, float], seconds: float) -> None:
    """JSON for machines, a picture for people."""
    folder.mkdir(exist_ok=True)
    machine = {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
    data = {
        "machine": machine,
        "connections": CONNECTIONS,
        "seconds": seconds,
        "results": {name: {**asdict(r), "rate": r.rate, "cpu_us": r.micros} for name, r in results.items()},
        "megabytes_1000_functions": megabytes,
        "median_ms": medians,
    }
    (folder / "gateway.json").write_text(json.dumps(data, indent=2) + "\n")
    try:
        import matplotlib as mpl

        mpl.use("svg")
        from matplotlib import pyplot
    except ImportError:
        print("matplotlib is not installed: no picture")
        return
    figure, axes = pyplot.subplots(figsize=(8, 0.7 * len(results) + 1.2))
    rows = list(results.values())[::-1]
    axes.barh([r.name for r in rows], [r.rate for r in rows], color="#4477aa")
    for position, row in enumerate(rows):
        axes.plot(row.rates, [position] * len(row.rates), "k|", markersize=12)
        axes.text(max(row.rates), position, f"  {row.rate:,.0f}/s, {row.micros:.0f} µs CPU", va="center")
    axes.set_xlabel(f"requests per second on one core, {CONNECTIONS} connections (marks: single rounds)")
    axes.set_xlim(0, max(max(r.rates) for r in rows) * 1.45)
    figure.tight_layout()
    figure.savefig(folder / "gateway.svg")
    print(f"written: {folder}/gateway.json, gateway.svg")


def main() -> int:
    parser = argparse.ArgumentParser(description="Speed and memory of gateway and runtime.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--calls", type=int, default=2000, help="for the latency of one connection")
    chosen = parser.parse_args()
    if (os.cpu_count() or 1) < 2:
        print("this needs two cores: one for what is measured, one for the load", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="kappa-bench-") as name, World(Path(name)) as world:
        results, megabytes = throughput(world, chosen.rounds, chosen.seconds)
    with tempfile.TemporaryDirectory(prefix="kappa-bench-") as name, World(Path(name)) as world:
        medians, together = latency(world, chosen.calls)
    with tempfile.TemporaryDirectory(prefix="kappa-bench-") as name, World(Path(name)) as world:
        kinds = callers.callers(world, chosen.rounds, chosen.seconds, CONNECTIONS)
    missed = report(results, megabytes, medians, together, callers.report(kinds))
    save(REPOSITORY / "bench-results", results, megabytes, medians, chosen.seconds)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
