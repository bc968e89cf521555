"""Starting the cluster's daemons, and stopping exactly those.

A record per daemon (`/run/kappa-cluster/pids/NAME.json`) holds the PID together with the process's start time and the
machine's boot id. A PID alone would, after a crash and some days, name somebody else's process; nothing is ever looked
up by name.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster_run import ClusterError, tail
from cluster_settings import Settings

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Record:
    """A daemon that was started. `started` is in clock ticks since boot, as in proc(5)."""

    name: str
    pid: int
    started: int
    boot: str
    command: list[str]
    log: str


def start_ticks(pid: int) -> int | None:
    """When the process started, or None when there is none (a zombie counts as none)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the command's name may hold spaces and parentheses
    return None if fields[0] in "ZX" else int(fields[19])


def start(settings: Settings, name: str, command: Sequence[str | Path]) -> Record:
    """Start a daemon in a session of its own, so that Ctrl-C here does not reach it, and record it."""
    settings.pids.mkdir(parents=True, exist_ok=True)
    settings.logs.mkdir(parents=True, exist_ok=True)
    log = settings.logs / f"{name}.log"
    arguments = [str(part) for part in command]
    with log.open("ab") as output:
        try:
            child = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_environment(),
                cwd="/",
                start_new_session=True,
            )
        except FileNotFoundError as e:
            raise ClusterError(f"{name}: {arguments[0]} is not there") from e
    ticks = start_ticks(child.pid)
    child.returncode = 0  # it outlives this process on purpose; keeps Popen from warning about it
    if ticks is None:
        raise ClusterError(f"{name} ended at once. The end of {log}:\n{tail(log)}")
    record = Record(name, child.pid, ticks, _BOOT_ID.read_text().strip(), arguments, str(log))
    target = settings.pids / f"{name}.json"
    fresh = target.with_suffix(".new")
    fresh.write_text(json.dumps(asdict(record)))
    fresh.rename(target)
    return record


def _environment() -> dict[str, str]:
    """What a daemon sees: nothing of ours. No proxies (its traffic is local), no credentials, no Python settings."""
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": path, "HOME": "/root", "LANG": "C.UTF-8"}


def records(settings: Settings) -> list[Record]:
    """All records, running or not, in the order in which they were started."""
    found = []
    for path in settings.pids.glob("*.json"):
        with contextlib.suppress(ValueError, TypeError, FileNotFoundError):
            found.append(Record(**json.loads(path.read_text())))
    return sorted(found, key=lambda record: (record.started, record.pid))


def is_running(record: Record) -> bool:
    """Whether the very process that was started still runs."""
    return record.boot == _BOOT_ID.read_text().strip() and start_ticks(record.pid) == record.started


def running(settings: Settings) -> list[Record]:
    """The daemons that run."""
    return [record for record in records(settings) if is_running(record)]


def died(settings: Settings) -> list[Record]:
    """The daemons that were started and run no more."""
    return [record for record in records(settings) if not is_running(record)]


def stop(settings: Settings, name: str, seconds: float = 10.0) -> None:
    """SIGTERM, wait, SIGKILL; then forget the record. Nothing happens when it does not run."""
    path = settings.pids / f"{name}.json"
    for record in records(settings):
        if record.name == name and is_running(record):
            end(record.pid, record.started, seconds)
    path.unlink(missing_ok=True)


def end(pid: int, started: int, seconds: float) -> None:
    """End one process that is known by PID and start time."""
    for number, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, 5.0)):
        if start_ticks(pid) != started:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + patience
        while start_ticks(pid) == started and time.monotonic() < deadline:
            _reap(pid)
            time.sleep(0.02)


def kill_all(pids: Iterable[int]) -> None:
    """SIGKILL these processes and wait until they are gone. Only for processes known to be this cluster's."""
    known = {pid: start_ticks(pid) for pid in pids}
    for pid in known:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 5.0
    while any(ticks is not None and start_ticks(pid) == ticks for pid, ticks in known.items()):
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)


def _reap(pid: int) -> None:
    """Collect it when it is a child of ours (an `up` that failed cleans up behind itself)."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
