"""The targets again, guided by coverage (atheris, over libFuzzer): inputs that reach new code are kept and changed
further. `run.py` starts this as a program of its own, because the code under test must be instrumented as it is
imported, and reads the results from the file that `--results` names.

The code is imported once; each target then runs in a process forked from here, which libFuzzer ends in its own ways. As
many run at a time as `--lanes` says, and each has an equal share of the time up to `--until`.
"""

import argparse
import contextlib
import io
import json
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import atheris
import guided_one
from fuzz_kept import keep_fatal
from fuzz_target import Target

PACKAGES = ["kappa_api", "kappa_operator", "kappa_gateway", "kappa_runtime"]
with (
    contextlib.redirect_stderr(io.StringIO()),
    atheris.instrument_imports(PACKAGES),
):  # it prints a line for each module
    from fuzz_all import TARGETS

#: A process that has not ended so long after its time is killed. libFuzzer ends one that hangs before that.
GRACE_SECONDS = 12.0
#: By the exit codes that libFuzzer gives; those below 0 are signals.
_TOLD = {70: "it hangs, or takes very long", 71: "it wants too much memory", 77: "the process crashed"}
_SIGNALS = "the process was ended by the signal {}"


@dataclass
class Lane:
    """A target that runs. `kill_at`: monotonic."""

    target: Target
    folder: Path
    kill_at: float
    begun: float = field(default_factory=time.monotonic)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--until", type=float, required=True, help="on the monotonic clock")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--lanes", type=int, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--results", type=Path, required=True)
    chosen = parser.parse_args()
    source = random.Random(chosen.seed)
    waiting = [target for target in TARGETS if chosen.only in target.name]
    source.shuffle(waiting)
    results = {}
    guided_one.drawn(TARGETS[0], 1, 1.0, 0)  # hypothesis reads all modules once: not in every process
    with tempfile.TemporaryDirectory(prefix="kappa-fuzz-") as place:
        running: dict[int, Lane] = {}
        while waiting or running:
            while waiting and len(running) < chosen.lanes:
                rounds = -(-len(waiting) // chosen.lanes)
                seconds = (chosen.until - time.monotonic()) / rounds
                if seconds <= 0:
                    waiting.clear()
                    break
                target = waiting.pop()
                lane = Lane(target, Path(place, target.name), time.monotonic() + seconds + GRACE_SECONDS)
                running[start(lane, seconds, source.randrange(1 << 31))] = lane
            if running and (ended := next_ended(running)) is not None:
                lane = running.pop(ended[0])
                results[lane.target.name] = result(lane, ended[1])
    chosen.results.write_text(json.dumps(results))


def start(lane: Lane, seconds: float, seed: int) -> int:
    """The id of the process in which a target runs."""
    lane.folder.mkdir()
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    try:
        guided_one.run(lane.target, lane.folder, seconds, seed)
    finally:
        os._exit(1)


def next_ended(running: dict[int, Lane]) -> tuple[int, int] | None:
    """A process that has ended, with its exit code. Kills those that do not end by themselves."""
    now = time.monotonic()
    for pid, lane in running.items():
        if now > lane.kill_at:
            lane.kill_at = now + 60
            os.kill(pid, signal.SIGKILL)
    pid, status = os.waitpid(-1, os.WNOHANG)
    if pid == 0:
        time.sleep(0.02)
        return None
    return pid, os.waitstatus_to_exitcode(status)


def result(lane: Lane, code: int) -> dict[str, object]:
    """What became of the target; an input that ended the process itself is kept here."""
    told = guided_one.Told.read(lane.folder)
    found = list(told.found)
    artifacts = sorted(path for path in lane.folder.iterdir() if path.name.startswith(guided_one.ARTIFACTS))
    how = _TOLD.get(code, _SIGNALS.format(-code))
    for path in artifacts:
        with contextlib.suppress(ValueError):
            found.append(keep_fatal(lane.target, lane.target.form.read(path.read_bytes()), how))
    if code == -signal.SIGKILL:
        print(f"       {lane.target.name}: was cut off, its time was over", flush=True)
    elif code and not found:
        text = (lane.folder / guided_one.LOG).read_text(errors="replace")
        print(f"FOUND  {lane.target.name}: ended with {code} and no input\n{text[-2000:]}", flush=True)
        found.append(f"ended with {code}")
    seconds = time.monotonic() - lane.begun
    return {"runs": told.runs, "edges": told.edges, "corpus": told.corpus, "seconds": seconds, "found": found}


if __name__ == "__main__":
    main()
