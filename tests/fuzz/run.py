"""`make fuzz`: all targets and all property tests with fresh random inputs, for as long as SECONDS says. Exits 1 when
something is found; the shortest input that shows it is printed and kept in fuzz-results/.
"""

import argparse
import hashlib
import random
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import fuzz_properties
import hypothesis
from fuzz_all import TARGETS
from fuzz_target import Target
from hypothesis import HealthCheck, Phase

RESULTS = Path("fuzz-results")
FIRST_ROUND = 100
#: Of the time, for the property tests: a run of one of them takes seconds.
PROPERTIES_SHARE = 0.4


class OverError(BaseException):
    """The time is up: not an error of the program, so no Exception."""


class Count:
    """What became of one target so far."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.cases = 0
        self.seconds = 0.0
        self.found: dict[str, str] = {}


def attempt(count: Count, examples: int, seed: int, until: float) -> None:
    """One round of random inputs; a failure is shrunk and kept."""
    smallest: list[Any] = []

    def one(case: Any) -> None:
        if time.monotonic() > until and not smallest:
            raise OverError
        count.cases += 1
        try:
            count.target.check(case)
        except Exception:
            smallest[:] = [case]
            raise

    test = hypothesis.given(count.target.inputs)(one)
    test = hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        verbosity=hypothesis.Verbosity.quiet,
    )(test)
    begun = time.monotonic()
    try:
        hypothesis.seed(seed)(test)()
    except OverError:
        pass
    except Exception as error:
        keep(count, smallest[0] if smallest else None, error)
    finally:
        count.seconds += time.monotonic() - begun


def keep(count: Count, case: Any, error: BaseException) -> None:
    kind = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200]
    if kind in count.found:
        return
    RESULTS.mkdir(exist_ok=True)
    name = f"{count.target.name}-{hashlib.sha256(repr(case).encode()).hexdigest()[:8]}.txt"
    text = f"{count.target.name}\n{case!r}\n\n{''.join(traceback.format_exception(error))}"
    (RESULTS / name).write_text(text)
    count.found[kind] = str(RESULTS / name)
    print(f"FOUND  {count.target.name}: {kind}\n       {case!r}\n       {RESULTS / name}", flush=True)


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
    begun = time.monotonic()
    end = begun + chosen.seconds
    if machines:
        fuzz_properties.run_all(machines, source, chosen.seconds * (PROPERTIES_SHARE if counts else 1.0))
    for count in counts:
        for case in count.target.found:
            count.cases += 1
            count.target.check(case)
    turn = 0
    while counts and (now := time.monotonic()) < end:
        # Whoever had the least time so far goes next: slow targets get as much of it as quick ones.
        count = min(counts, key=lambda each: each.seconds)
        examples = max(10, FIRST_ROUND // count.target.slow)
        share = min(end, now + max(1.0, chosen.seconds / len(counts) / 4))
        attempt(count, examples, source.randrange(1 << 32), share)
        turn += 1
        if turn % len(counts) == 0:
            report(counts, begun)
    report(counts, begun)
    for machine in machines:
        print(
            f"{machine.name:18} {machine.done:6} rounds {machine.seconds:6.1f} s {len(machine.found):3} found  "
            "of the usual size, at random"
        )
    for count in counts:
        print(
            f"{count.target.name:16} {count.cases:8} cases {count.seconds:7.1f} s {len(count.found):3} found  "
            f"{count.target.what}"
        )
    return 1 if any(each.found for each in (*counts, *machines)) else 0


def report(counts: list[Count], begun: float) -> None:
    cases, found = sum(each.cases for each in counts), sum(len(each.found) for each in counts)
    print(f"{time.monotonic() - begun:6.1f} s  {cases:8} cases  {found} found", flush=True)


if __name__ == "__main__":
    sys.exit(main())
