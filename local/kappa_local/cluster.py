"""The embedded cluster as one thing: started in this process (`Cluster`, for tests and for `serve`) or as a child
(`spawn`).

async with Cluster(Settings(state_dir=tmp_path)) as cluster: ...  # cluster.url, cluster.kubeconfig, cluster.rest

async with spawn(state_dir=tmp_path) as running: ...  # running.url, running.kubeconfig
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO

from aiohttp import web

from kappa_local import kubeconfig
from kappa_local.contents import Contents
from kappa_local.gc import GarbageCollector
from kappa_local.kubelet.addresses import Network, claim
from kappa_local.kubelet.agent import Kubelet, KubeletSettings
from kappa_local.metadata import now
from kappa_local.node import node
from kappa_local.recorder import Forgetter
from kappa_local.resources import Registry
from kappa_local.rest import Rest
from kappa_local.server import ApiServer
from kappa_local.store import Store
from kappa_local.writes import WriteOptions

KEEPALIVE_SECONDS = 3600.0
NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")


class ClusterError(Exception):
    """The cluster cannot start; the message says what to do."""


class PortTakenError(ClusterError):
    """Something else listens on the port."""


class StateTakenError(ClusterError):
    """Another cluster uses the state directory."""


@dataclass(frozen=True)
class Settings:
    """`port` 0 takes a free one. `state_dir` holds the kubeconfig, pod directories and logs; it is not a database:
    objects are lost at stop. `token` None lets every local program in; with one, kubectl stays out (it sends none
    over plain HTTP). `images`: image name -> command line. `backoff`: seconds before a crashed container's second
    restart.
    """

    state_dir: Path
    port: int = 0
    host: str = "127.0.0.1"
    token: str | None = None
    images: Mapping[str, Sequence[str]] = field(default_factory=dict)
    backoff: float = 10.0
    node: str = "kappa-local"


class Cluster:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.rest = Rest(Store(), Registry.with_builtins())
        self.url = ""
        self._network: Network | None = None
        self._kubelet: Kubelet | None = None
        self._runner: web.ServerRunner | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._lock: IO[str] | None = None

    @property
    def kubeconfig(self) -> Path:
        return self.settings.state_dir / "kubeconfig"

    async def start(self) -> None:
        """Listening, ready and with its kubeconfig written when this returns. Raises PortTakenError."""
        settings = self.settings
        settings.state_dir.mkdir(parents=True, exist_ok=True)
        self._lock = hold(settings.state_dir / "lock")
        shutil.rmtree(settings.state_dir / "pods", ignore_errors=True)
        self._network = claim(moment=time.time())
        images = {name: list(command) for name, command in settings.images.items()}
        kubelet_settings = KubeletSettings(settings.state_dir, images, settings.node, settings.backoff)
        self._kubelet = Kubelet(self.rest, self._network, kubelet_settings)
        collector, contents = GarbageCollector(self.rest), Contents(self.rest)
        self.rest.store.listen(collector.observe)
        self.rest.store.listen(contents.observe)
        self.rest.store.listen(Forgetter(self.rest).observe)
        try:
            await self._kubelet.start()
            self._tasks = [asyncio.create_task(collector.run()), asyncio.create_task(contents.run())]
            self._furnish()
            await self._listen(ApiServer(self.rest, self._kubelet, settings.token))
        except BaseException:
            await self.stop()
            raise
        self.kubeconfig.write_text(kubeconfig.render(self.url, settings.token))
        self.kubeconfig.chmod(0o600)

    def _furnish(self) -> None:
        options = WriteOptions("kappa-local")
        for name in NAMESPACES:
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            self.rest.create(self.rest.builtin("namespaces"), "", body, options)
        assert self._network is not None
        body = node(self.settings.node, self._network.node, now())
        entry = self.rest.create(self.rest.builtin("nodes"), "", body, options)
        self.rest.store.put(
            "nodes.", entry.key, {**entry.obj, "metadata": dict(entry.obj["metadata"]), "status": body["status"]}
        )

    async def _listen(self, api: ApiServer) -> None:
        server = web.Server(api.handle, access_log=None, handler_cancellation=True, keepalive_timeout=KEEPALIVE_SECONDS)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.settings.host, self.settings.port, backlog=1024)
        try:
            await site.start()
        except OSError as e:
            if e.errno == errno.EADDRINUSE:
                raise PortTakenError(
                    f"port {self.settings.port} on {self.settings.host} is taken: choose another with --port"
                ) from e
            raise
        host, port = self._runner.addresses[0][:2]
        api.address = f"{host}:{port}"
        self.url = f"http://{host}:{port}"

    async def stop(self) -> None:
        """Stops serving, ends every pod's processes. Nothing is left but the state directory."""
        for task in self._tasks:
            task.cancel()
        for table in self.rest.store.tables().values():
            table.close_watchers()
        if self._kubelet is not None:
            await self._kubelet.stop()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._network is not None:
            self._network.close()
        if self._lock is not None:
            self._lock.close()

    async def __aenter__(self) -> Cluster:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


def hold(path: Path) -> IO[str]:
    """An exclusive lock on a file, freed when the process ends. Raises StateTakenError."""
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        file.close()
        raise StateTakenError(f"{path.parent} belongs to a cluster that is running: choose another --state-dir") from e
    return file


async def serve(settings: Settings, ready: Callable[[Cluster], None], stop: asyncio.Event | None = None) -> None:
    """Runs a cluster until SIGTERM, SIGINT or `stop`; calls `ready` once it answers."""
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with Cluster(settings) as cluster:
        ready(cluster)
        await stop.wait()


@dataclass(frozen=True)
class Running:
    """A cluster in a process of its own."""

    url: str
    kubeconfig: Path
    process: asyncio.subprocess.Process


@contextlib.asynccontextmanager
async def spawn(state_dir: Path, images: Mapping[str, str] | None = None, port: int = 0) -> AsyncIterator[Running]:
    """`python -m kappa_local serve` as a child, stopped at the end. `images`: image name -> command line."""
    argv = [sys.executable, "-m", "kappa_local", "serve", "--port", str(port), "--state-dir", str(state_dir)]
    for name, command in (images or {}).items():
        argv += ["--image", f"{name}={command}"]
    child = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    try:
        assert child.stdout is not None
        line = (await child.stdout.readline()).decode().strip()
        if not line.startswith("ready "):
            raise RuntimeError(f"kappa_local did not start: {line or 'no output'}")
        yield Running(line.split()[1], state_dir / "kubeconfig", child)
    finally:
        if child.returncode is None:
            child.terminate()
        await child.wait()
