"""`make fuzz`: all targets and all property tests with fresh inputs, for as long as SECONDS says. Exits 1 when
something is found: the shortest input that shows it is printed, and kept in `tests/fuzz/kept` for all later test runs.

The targets run twice at the same time: at random by their strategies, and guided by coverage where atheris is there.
"""

import argparse
import random
import sys
import time

import fuzz_properties
from fuzz_all import TARGETS
from fuzz_guided import Guided, missing
from fuzz_random import Count, attempt, known

#: Of the time, for the property tests: a run of one of them takes seconds.
PROPERTIES_SHARE = 0.4
TELL_SECONDS = 10.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None, help="the seed that an earlier run printed")
    parser.add_argument("--only", default="", help="part of a target's name")
    chosen = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if chosen.seed is None else chosen.seed
    source = random.Random(seed)
    counts = [Count(target) for target in TARGETS if chosen.only in target.name]
    machines = fuzz_properties.properties(chosen.only)
    print(
        f"fuzzing {len(counts)} targets and {len(machines)} property tests for {chosen.seconds:g} s, seed {seed}",
        flush=True,
    )
    end = time.monotonic() + chosen.seconds
    guided = None
    if counts and (reason := missing()):
        print(reason, flush=True)
    elif counts:
        guided = Guided(end, seed, chosen.only)
    try:
        if machines:
            fuzz_properties.run_all(machines, source, chosen.seconds * (PROPERTIES_SHARE if counts else 1.0))
        at_random(counts, source, end, chosen.seconds)
        reached = guided.results() if guided else {}
    finally:
        if guided:
            guided.stop()
    for machine in machines:
        print(
            f"{machine.name:18} {machine.done:6} rounds {machine.seconds:6.1f} s {len(machine.found):3} found  "
            "of the usual size, at random"
        )
    print(table(counts, reached))
    return (
        1 if any(each.found for each in (*counts, *machines)) or any(each["found"] for each in reached.values()) else 0
    )


def at_random(counts: list[Count], source: random.Random, end: float, seconds: float) -> None:
    begun = told = time.monotonic()
    for count in counts:
        known(count)
    while counts and (now := time.monotonic()) < end:
        # Whoever had the least time so far goes next: slow targets get as much of it as quick ones.
        count = min(counts, key=lambda each: each.seconds)
        attempt(count, source.randrange(1 << 32), min(end, now + max(1.0, seconds / len(counts) / 4)))
        if time.monotonic() - told > TELL_SECONDS:
            told = time.monotonic()
            cases, found = sum(each.cases for each in counts), sum(len(each.found) for each in counts)
            print(f"{time.monotonic() - begun:6.1f} s  {cases:8} cases at random  {found} found", flush=True)


def table(counts: list[Count], reached: dict[str, dict[str, float | list[str]]]) -> str:
    """`edges`: branches of the code that the guided runs have been through."""
    lines = [f"{'target':16} {'at random':>10} {'guided':>10} {'edges':>7} {'found':>6}  what"]
    for count in counts:
        name = count.target.name
        guided = reached.get(name, {"runs": "-", "edges": "-", "found": []})
        found = len({*count.found.values(), *guided["found"]})
        runs, edges = guided["runs"], guided["edges"]
        lines.append(f"{name:16} {count.cases:10} {runs:>10} {edges:>7} {found:6}  {count.target.what}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
