"""Brings the platform up as processes of its own and takes it down again, by process id, leaving nothing behind."""

import asyncio
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from kappa_local.platform.kubectl import Kubectl
from kappa_local.platform.resources import RUNTIME_IMAGE, custom_resource_definitions, platform
from kappa_local.platform.settings import Place, SetupError, check_ports

START_SECONDS = 30.0
STOP_SECONDS = 45.0
POLL_SECONDS = 0.05
PARTS = ("operator", "gateway", "nats")


def running(where: Place) -> int:
    """The process id of the cluster that `up` started here, or 0."""
    try:
        pid = int(where.pid_file.read_text())
    except (OSError, ValueError):
        return 0
    return pid if _is_ours(pid) else 0


async def start(where: Place, say: Callable[[str], None]) -> Kubectl:
    """Starts cluster, operator, gateway and NATS, and returns when all are Ready. Raises SetupError with the reason."""
    if running(where):
        raise SetupError(f"Kappa is already up (state in {where.state.name}/): `make down` stops it")
    check_ports(where)
    shutil.rmtree(where.state, ignore_errors=True)
    where.state.mkdir(parents=True)
    begun = time.monotonic()
    process = _spawn(where)
    try:
        await _until(lambda: where.kubeconfig.exists(), process, where, "the embedded cluster")
        kubectl = Kubectl(where.kubeconfig)
        say(f"embedded cluster: API on 127.0.0.1:{where.api_port} after {time.monotonic() - begun:.1f} s")
        await kubectl.apply(custom_resource_definitions())
        await kubectl.apply(platform(where, secrets.token_hex(32), secrets.token_hex(16)))
        answer = await kubectl.run(
            ["-n", "kappa-system", "wait", "--for=condition=Ready", *(f"pod/{name}" for name in PARTS), "--timeout=30s"]
        )
        if not answer.ok:
            raise SetupError(f"{', '.join(PARTS)} did not become Ready: {answer.text}\n{await _logs(kubectl)}")
        say(f"operator, gateway and NATS Ready after {time.monotonic() - begun:.1f} s; gateway on {where.gateway_url}")
    except BaseException:
        stop(where)
        raise
    return kubectl


def stop(where: Place) -> bool:
    """Stops the cluster with all its pods and removes the state folder; False when nothing ran."""
    pid = running(where)
    if pid:
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while _is_ours(pid) and time.monotonic() < deadline:
            _reap(pid)
            time.sleep(POLL_SECONDS)
        if _is_ours(pid):
            os.kill(pid, signal.SIGKILL)
            _reap(pid)
    shutil.rmtree(where.state, ignore_errors=True)
    return bool(pid)


def _spawn(where: Place) -> subprocess.Popen[bytes]:
    """The cluster in a session of its own: it outlives this command, and Ctrl-C here does not reach it half-way."""
    command = [sys.executable, "-m", "kappa_local", "serve", "--port", str(where.api_port)]
    command += ["--state-dir", str(where.state), "--image", f"{RUNTIME_IMAGE}={sys.executable} -m kappa_runtime"]
    with where.log_file.open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    where.pid_file.write_text(str(process.pid))
    return process


async def _until(done: Callable[[], bool], process: subprocess.Popen[bytes], where: Place, what: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not done():
        if process.poll() is not None or time.monotonic() > deadline:
            tail = where.log_file.read_text(errors="replace")[-2000:]
            raise SetupError(f"{what} did not start:\n{tail}")
        await asyncio.sleep(POLL_SECONDS)


async def _logs(kubectl: Kubectl) -> str:
    answers = [await kubectl.run(["-n", "kappa-system", "logs", name, "--tail=15"]) for name in PARTS]
    return "\n".join(answer.text for answer in answers)


def _is_ours(pid: int) -> bool:
    """Whether this process is alive and is a cluster of ours: a process id may have been given to another since."""
    proc = Path(f"/proc/{pid}")
    if proc.parent.exists():
        try:
            return b"kappa_local" in (proc / "cmdline").read_bytes()
        except OSError:
            return False
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def _reap(pid: int) -> None:
    """Collects the exit status if it is our own child (a zombie would seem alive); elsewhere init does it."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass
