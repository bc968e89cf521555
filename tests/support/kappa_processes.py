"""Processes that are made to stand still."""

import os
import signal
from pathlib import Path


def freeze(pid: int) -> None:
    """SIGSTOP; returns when each of its threads has stopped. The signal alone reaches one that runs a little later, and
    until then the process does what it does."""
    os.kill(pid, signal.SIGSTOP)
    while not _stands(pid):
        os.sched_yield()


def thaw(pid: int) -> None:
    """SIGCONT."""
    os.kill(pid, signal.SIGCONT)


def _stands(pid: int) -> bool:
    """proc(5): the state follows the name, which is in brackets and may hold anything."""
    stats = [thread.read_text() for thread in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(stat.rpartition(")")[2].split()[0] in "TZX" for stat in stats)
