"""The property tests (`tests/unit/*/test_*_properties.py`) with fresh random inputs, for as long as there is time.

Each round is a process of its own with a seed and KAPPA_FUZZ (see `kappa_profiles`), as many times the usual examples
as fill a round. A round that fails is run again with the same seed, to shrink it, however little time is left.
"""

import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).parent.parent
RESULTS = Path("fuzz-results")
#: How long a round should take, once it is known how long one with the usual examples does.
ROUND_SECONDS = 15.0
MOST_FACTOR = 20
SHRINK_SECONDS = 300.0


@dataclass
class Property:
    """One file of property tests. `factor` of the next round; `done`: rounds of the usual size that were finished;
    `usual_seconds`: how long one takes, 0 when that is not known yet."""

    path: Path
    factor: int = 1
    usual_seconds: float = 0.0
    done: int = 0
    seconds: float = 0.0
    found: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.path.stem.removeprefix("test_")


def properties(only: str) -> list[Property]:
    """Those whose name contains `only`."""
    found = [Property(path) for path in sorted(TESTS.glob("unit/*/test_*_properties.py"))]
    return [each for each in found if only in each.name]


def run(each: Property, seed: int, until: float) -> None:
    """One round, cut off when the time is up."""
    begun = time.monotonic()
    if each.usual_seconds:
        fits = min(ROUND_SECONDS, 0.8 * (until - begun)) / each.usual_seconds
        each.factor = max(1, min(MOST_FACTOR, int(fits)))
    try:
        status, text = _pytest(each, seed, until - begun, shrink=False)
    except subprocess.TimeoutExpired:
        print(f"       {each.name}: no time left for a whole round", flush=True)
        return
    finally:
        each.seconds += time.monotonic() - begun
    took = time.monotonic() - begun
    print(f"       {each.name}: {each.factor} times the usual examples in {took:.1f} s, seed {seed}", flush=True)
    if status:
        _keep(each, seed, text)
        return
    each.done += each.factor
    each.usual_seconds = took / each.factor


def run_all(chosen: list[Property], source: random.Random, seconds: float) -> None:
    """In turns: whoever had the least time so far goes next."""
    until = time.monotonic() + seconds
    while chosen and time.monotonic() < until:
        run(min(chosen, key=lambda each: each.seconds), source.randrange(1 << 32), until)


def _keep(each: Property, seed: int, text: str) -> None:
    """Prints and keeps what was found, shrunk if that does not take too long."""
    again = f"KAPPA_FUZZ={each.factor} {_command(each, seed)}"
    print(f"FOUND  {each.name}: shrinking it; to see it again:\n       {again}", flush=True)
    try:
        status, shrunk = _pytest(each, seed, SHRINK_SECONDS, shrink=True)
        text = shrunk if status else f"{text}\n\nIt did not fail again.\n"
    except subprocess.TimeoutExpired:
        pass
    RESULTS.mkdir(exist_ok=True)
    kept = RESULTS / f"{each.name}-{seed}.txt"
    kept.write_text(f"{again}\n\n{text}")
    each.found.append(str(kept))
    print(f"{text[-3000:]}\n       {kept}", flush=True)


def _command(each: Property, seed: int) -> str:
    return f"python -m pytest {os.path.relpath(each.path)} --hypothesis-seed={seed}"


def _pytest(each: Property, seed: int, seconds: float, *, shrink: bool) -> tuple[int, str]:
    """Its status and what it printed. Raises TimeoutExpired."""
    command = [
        sys.executable,
        *_command(each, seed).split()[1:],
        "-q",
        "-x",
        "--show-capture=no",
        "-p",
        "no:cacheprovider",
    ]
    env = {**os.environ, "KAPPA_FUZZ": str(each.factor), "KAPPA_SHRINK": "1" if shrink else "0"}
    done = subprocess.run(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=max(0.1, seconds)
    )
    return done.returncode, done.stdout
