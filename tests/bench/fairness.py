"""Whether one function's overload touches another's latency (`make bench-fairness`).

One gateway, two functions. `quiet` is called 200 times per second all the time; `hog` gets, in turns,

* nothing;
* ten times what its instance can do, so that its queue is full and most of its calls are refused;
* calls as fast as 200 connections can send them: there the gateway's core itself is what is fought for.

Printed: the median and the 99th percentile of `quiet` in each, and their ratios to those of the same round without the
hog. The second must stay within bounds, the third within wider ones. Load, instances and `quiet`'s caller share the
other core (there the hog's have the lower priority), so a part of what is seen is theirs: `hog 10x elsewhere` sends the
load to a second gateway while `quiet` calls the first, and shows that part.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from world import FUNCTION, NAMESPACE, OTHER_CORE, REPOSITORY, Cluster, Process, World, owner, pod, wait

from kappa_api import names

QUIET_RATE = 200.0
SLOTS, SERVICE = 10, 0.02  # of the hog's instance: 500 calls per second
OVERLOAD = 10 * SLOTS / SERVICE
BODY = 4096
#: At most so many times the p99 that `quiet` has alone, or so many milliseconds more: below that it is the machine.
BOUNDS = {"hog 10x": (2.0, 2.0), "hog floods": (5.0, 5.0)}
MODES = {"alone": "", "hog 10x": f"{OVERLOAD:.0f}", "hog 10x elsewhere": f"{OVERLOAD:.0f}", "hog floods": "0"}


@dataclass
class Seen:
    """Latencies of `quiet` in milliseconds, of each round."""

    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    worst: list[float] = field(default_factory=list)

    def add(self, found: list[float]) -> None:
        found.sort()
        self.p50.append(found[len(found) // 2])
        self.p99.append(found[int(len(found) * 0.99)])
        self.worst.append(found[-1])


# --- quiet's caller ---------------------------------------------------------------------------------------------------
async def call_quietly(url: str, seconds: float) -> list[float]:
    """Latencies in milliseconds. Calls leave on time whether or not earlier ones were answered."""
    host, _, path = url.removeprefix("http://").partition("/")
    name, port = host.split(":")
    request = f"GET /{path} HTTP/1.1\r\nhost: {host}\r\n\r\n".encode()
    found: list[float] = []
    idle = [await asyncio.open_connection(name, int(port)) for _ in range(8)]

    async def call() -> None:
        before = time.perf_counter()
        reader, writer = idle.pop() if idle else await asyncio.open_connection(name, int(port))
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{url}: {head[:200]!r}")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
        await reader.readexactly(int(length))
        found.append((time.perf_counter() - before) * 1000)
        idle.append((reader, writer))

    begun, calls = time.perf_counter(), []
    for number in range(int(QUIET_RATE * seconds)):
        await asyncio.sleep(max(0.0, begun + number / QUIET_RATE - time.perf_counter()))
        calls.append(asyncio.create_task(call()))
    await asyncio.gather(*calls)
    for _, writer in idle:
        writer.close()
    return found


# --- the hog's load, a process of its own -----------------------------------------------------------------------------
class Caller(asyncio.Protocol):
    """A connection that tells when it is free again. Counts replies by status."""

    def __init__(self, free: "list[Caller]", counts: dict[int, int], again: bytes) -> None:
        self.free, self.counts, self.again, self.buffer = free, counts, again, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.free.append(self)

    def send(self, request: bytes) -> None:
        self.transport.write(request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
        if not found or len(body) < int(length or b"0"):
            return
        self.buffer = b""
        status = int(head[9:12])
        self.counts[status] = self.counts.get(status, 0) + 1
        if self.again:
            self.send(self.again)
        else:
            self.free.append(self)


async def hog(url: str, rate: float, seconds: float) -> None:
    """`rate` calls per second, 0 for as many as go. Prints `loaded` when it has begun, then the answers' statuses."""
    host, _, path = url.removeprefix("http://").partition("/")
    name, port = host.split(":")
    request = f"POST /{path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {BODY}\r\n\r\n".encode() + bytes(BODY)
    loop, counts = asyncio.get_running_loop(), dict[int, int]()
    free: list[Caller] = []
    for _ in range(1500 if rate else 1200):  # a thousand of them wait in the queue
        await loop.create_connection(lambda: Caller(free, counts, b"" if rate else request), name, int(port))
    sent, skipped, begun = 0, 0, loop.time()
    if not rate:
        for caller in free:
            caller.send(request)
    print("loaded", flush=True)
    while (now := loop.time()) < begun + seconds:
        while rate and sent + skipped < (now - begun) * rate:
            if free:
                free.pop().send(request)
                sent += 1
            else:
                skipped += 1
        await asyncio.sleep(0.002)
    print(json.dumps({"seconds": seconds, "skipped": skipped, "statuses": counts}), flush=True)


class Slow(asyncio.Protocol):
    """The hog's instance: answers each request SERVICE seconds after its body."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.buffer = transport, b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        _, found, body = self.buffer.partition(b"\r\n\r\n")
        if found and len(body) >= BODY:
            self.buffer = b""
            asyncio.get_running_loop().call_later(SERVICE, self._answer)

    def _answer(self) -> None:
        self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")  # type: ignore[attr-defined]


async def serve_slowly(address: str) -> None:
    server = await asyncio.get_running_loop().create_server(Slow, address, names.INSTANCE_PORT, backlog=1024)
    await server.serve_forever()


# --- the run ----------------------------------------------------------------------------------------------------------
def add_hog(world: World, cluster: Cluster) -> None:
    """The second function and its instance."""
    path = f"/apis/{names.API_VERSION}/namespaces/{NAMESPACE}/{names.FUNCTION_PLURAL}"
    quiet = cluster.get(f"{path}/{FUNCTION}")
    spec = {**quiet["spec"], "concurrency": SLOTS}
    made = cluster.post(
        path, {**{key: quiet[key] for key in ("apiVersion", "kind")}, "metadata": {"name": "hog"}, "spec": spec}
    )
    manifest = pod("hog-1", False, SLOTS)
    manifest["metadata"]["labels"][names.LABEL_FUNCTION] = "hog"
    manifest["metadata"]["ownerReferences"] = [owner(made)]
    pods = f"/api/v1/namespaces/{NAMESPACE}/pods"
    cluster.post(pods, manifest)
    ip: list[str] = []

    def has_address() -> bool:
        ip[:] = [str((cluster.get(f"{pods}/hog-1").get("status") or {}).get("podIP", ""))]
        return bool(ip[0])

    wait(has_address, "the hog's pod got no address")
    world.start("slow", ["nice", "-n", "10", sys.executable, __file__, "serve", ip[0]], OTHER_CORE)


@contextmanager
def hogging(url: str, mode: str, seconds: float) -> Iterator[None]:
    """The hog's load while the block runs; it has begun, and its queue is full."""
    if not mode:
        yield
        return
    command = [
        "nice",
        "-n",
        "15",
        "taskset",
        "-c",
        str(OTHER_CORE),
        sys.executable,
        __file__,
        "hog",
        url,
        mode,
        str(seconds + 2),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        if child.stdout.readline().strip() != "loaded":
            raise RuntimeError("the hog's load did not begin")
        time.sleep(1)
        yield
        print(f"    hog: {child.stdout.readline().strip()}")


def measure(gateway: Process, other: Process, rounds: int, seconds: float) -> dict[str, Seen]:
    seen = {mode: Seen() for mode in MODES}
    os.sched_setaffinity(0, {OTHER_CORE})
    for number in range(rounds):
        for mode, rate in MODES.items():
            target = other if "elsewhere" in mode else gateway
            with hogging(target.url.replace(f"/{FUNCTION}", "/hog"), rate, seconds):
                seen[mode].add(asyncio.run(call_quietly(gateway.url, seconds)))
            last = seen[mode]
            print(f"  round {number + 1}, {mode}: p50 {last.p50[-1]:.2f} ms, p99 {last.p99[-1]:.2f} ms")
    return seen


def report(seen: dict[str, Seen]) -> bool:
    """Prints the table; whether all is well."""
    alone = seen["alone"]
    print(f"\n{'quiet, ms (median of rounds)':30}{'p50':>9}{'p99':>9}{'worst':>9}{'p50 ratio':>11}{'p99 ratio':>11}")
    for mode, found in seen.items():
        ratios = [
            statistics.median(a / b for a, b in zip(x, y, strict=True))
            for x, y in ((found.p50, alone.p50), (found.p99, alone.p99))
        ]
        numbers = [statistics.median(values) for values in (found.p50, found.p99, found.worst)]
        print(f"{mode:30}{numbers[0]:9.2f}{numbers[1]:9.2f}{numbers[2]:9.1f}{ratios[0]:10.2f}x{ratios[1]:10.2f}x")
    print()
    good = True
    for mode, (most, more) in BOUNDS.items():
        pairs = list(zip(seen[mode].p99, alone.p99, strict=True))
        ratio, plus = statistics.median(a / b for a, b in pairs), statistics.median(a - b for a, b in pairs)
        kept = ratio <= most or plus <= more
        good = good and kept
        word = "ok  " if kept else "MISS"
        print(f"{word} p99 of quiet, {mode}: {ratio:.2f}x, {plus:+.2f} ms (at most {most:g}x, or {more:+g} ms)")
    return good


def main() -> int:
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve_slowly(sys.argv[2]))
    if sys.argv[1:2] == ["hog"]:
        import uvloop

        uvloop.run(hog(sys.argv[2], float(sys.argv[3]), float(sys.argv[4])))
        return 0
    parser = argparse.ArgumentParser(description="Whether one function's overload touches another's latency.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    chosen = parser.parse_args()
    if (os.cpu_count() or 1) < 2:
        print("this needs two cores: one for the gateway, one for the load", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="kappa-bench-") as name, World(Path(name)) as world:
        print("starting ...")
        cluster = world.cluster("one", 1)
        world.upstream("upstream", cluster.instance("fast", process=False))
        add_hog(world, cluster)
        gateways = [world.gateway(f"gateway-{number}", cluster) for number in (1, 2)]
        seen = measure(gateways[0], gateways[1], chosen.rounds, chosen.seconds)
    good = report(seen)
    folder = REPOSITORY / "bench-results"
    folder.mkdir(exist_ok=True)
    data = {mode: {"p50": found.p50, "p99": found.p99, "worst": found.worst} for mode, found in seen.items()}
    (folder / "fairness.json").write_text(json.dumps({"milliseconds_of_quiet": data}, indent=2) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
