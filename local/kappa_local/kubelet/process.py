"""One process: started in a group of its own, watched until it ends, signalled as a group."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kappa_local.kubelet.guard import Guard, kill_group


class CannotStartError(Exception):
    """The program does not exist or may not be run (terminated reason StartError)."""


@dataclass(frozen=True)
class ProcessSpec:
    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: Path


class Process:
    """A running program. `ended` gets its exit code: the program's own, or 128 + the signal that ended it."""

    def __init__(self, child: subprocess.Popen[bytes], guard: Guard) -> None:
        self.pid = child.pid
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._child = child
        self._guard = guard
        self._watch()

    def __repr__(self) -> str:
        state = self.ended.result() if self.ended.done() else "running"
        return f"<Process {self.pid} {state}>"

    def signal(self, number: int) -> None:
        if not self.ended.done():
            kill_group(self.pid, number)

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            fd = os.pidfd_open(self.pid)
        except (AttributeError, OSError):
            threading.Thread(target=self._wait, args=(loop,), daemon=True).start()
            return

        def readable() -> None:
            loop.remove_reader(fd)
            os.close(fd)
            self._finish(self._child.wait())

        loop.add_reader(fd, readable)

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        code = self._child.wait()
        loop.call_soon_threadsafe(self._finish, code)

    def _finish(self, code: int) -> None:
        # What the program left behind in its group dies with it, as in a container.
        kill_group(self.pid, signal.SIGKILL)
        self._guard.forget(self.pid)
        if not self.ended.done():
            self.ended.set_result(code if code >= 0 else 128 - code)


def start(spec: ProcessSpec, output: int, guard: Guard) -> Process:
    """Starts the program with `output` (a file descriptor) as stdout and stderr. Blocks for about a millisecond."""
    program = spec.argv[0]
    found = program if os.path.isabs(program) else shutil.which(program, path=spec.env.get("PATH"))
    if found is None:
        raise CannotStartError(f'exec: "{program}": executable file not found in $PATH')
    try:
        child = subprocess.Popen(
            [found, *spec.argv[1:]],
            env=dict(spec.env),
            cwd=spec.cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    except OSError as e:
        raise CannotStartError(f'exec: "{program}": {e.strerror}') from e
    guard.add(child.pid)
    return Process(child, guard)
