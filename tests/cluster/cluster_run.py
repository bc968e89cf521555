"""Running commands, and telling a human what goes on: one line per thing that happened, with how long it took."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PROGRESS_SECONDS = 10.0
"""A long step says something this often: rare enough for a CI log, often enough to see that it lives."""


class ClusterError(Exception):
    """Something the person at the keyboard can act on. The message says what to do."""


def say(text: str) -> None:
    """Print one line at once, also when standard output is a pipe."""
    print(text, flush=True)


@dataclass
class Steps:
    """Times the steps of a command, prints one line per step and a table at the end."""

    clock: Callable[[], float] = time.monotonic
    taken: list[tuple[str, float]] = field(default_factory=list)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Announce the step when it ends well. One that fails prints nothing: its error follows anyway."""
        begin = self.clock()
        yield
        seconds = self.clock() - begin
        self.taken.append((name, seconds))
        say(f"  {name:<42} {seconds:6.1f} s")

    @property
    def total(self) -> float:
        return sum(seconds for _, seconds in self.taken)


def tail(path: Path, lines: int = 30) -> str:
    """The last lines of a log, for an error message; empty when there is no log."""
    try:
        text = path.read_text(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def run(
    command: Sequence[str | Path],
    *,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    check: bool = True,
    cwd: Path | None = None,
) -> str:
    """Run a short command and return its standard output. `ClusterError` with its standard error when it fails."""
    arguments = [str(part) for part in command]
    try:
        done = subprocess.run(
            arguments,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            env=dict(env) if env is not None else None,
            cwd=cwd,
        )
    except FileNotFoundError as e:
        raise ClusterError(f"{arguments[0]} is not installed") from e
    if check and done.returncode != 0:
        raise ClusterError(f"`{' '.join(arguments)}` failed ({done.returncode}): {done.stderr.strip()[-2000:]}")
    return done.stdout


def run_logged(
    command: Sequence[str | Path],
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    progress: Callable[[], str] | None = None,
    priority: int = 0,
) -> None:
    """Run a long command, its output to `log`, saying `progress()` every ten seconds; a failure shows the log's end.

    `priority` is the niceness. An interrupt (Ctrl-C, SIGTERM as KeyboardInterrupt) stops the command and its children:
    it has a process group of its own.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    arguments = [str(part) for part in command]
    if priority:
        arguments = ["nice", "-n", str(priority), *arguments]
    with log.open("ab") as output:
        begin = time.monotonic()
        try:
            child = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(env) if env is not None else None,
                cwd=cwd,
                start_new_session=True,
            )
        except FileNotFoundError as e:
            raise ClusterError(f"{arguments[0]} is not installed") from e
        try:
            while True:
                try:
                    code = child.wait(PROGRESS_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    note = progress() if progress else Path(arguments[0]).name
                    say(f"    ... {note}, {time.monotonic() - begin:.0f} s")
        except BaseException:
            _stop_group(child)
            raise
    if code != 0:
        raise ClusterError(f"`{' '.join(arguments)}` failed ({code}). The end of {log}:\n{tail(log)}")


def _stop_group(child: subprocess.Popen[bytes]) -> None:
    for signal_number in (15, 9):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal_number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(5)
            return


def wait_for(what: str, ready: Callable[[], bool], seconds: float, log: Path | None = None, pause: float = 0.1) -> None:
    """Poll `ready` until it is true. `ClusterError` with the log's tail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            end = f" The end of {log}:\n{tail(log)}" if log else ""
            raise ClusterError(f"{what}: not within {seconds:.0f} s.{end}")
        time.sleep(pause)
