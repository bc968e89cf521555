"""A real redis-server for tests, from this machine or out of Debian's packages, on a loopback port."""

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import redis.asyncio
from kappa_ports import free_port
from kappa_servers import server
from redis.exceptions import RedisError

PASSWORD = "pw-for-tests"
START_SECONDS = 30.0


class RedisServer:
    """It writes every command to disk before it answers, so that `kill` and `start` lose nothing."""

    def __init__(self, folder: Path, *, options: Sequence[str] = ()) -> None:
        self.folder, self.options, self.port = folder, options, free_port()
        self._child: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"

    async def start(self) -> None:
        """Returns when it answers."""
        found = server("redis-server", "redis-server")
        with (self.folder / "log").open("ab") as log:
            self._child = await asyncio.create_subprocess_exec(
                str(found.program),
                *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", ""),
                *("--requirepass", PASSWORD, "--appendonly", "yes", "--appendfsync", "always"),
                *self.options,
                stdout=log,
                stderr=log,
                env=found.env(),
            )
        async with asyncio.timeout(START_SECONDS):
            while True:
                assert self._child.returncode is None, (self.folder / "log").read_text()[-2000:]
                try:
                    async with self.client() as client:
                        await client.ping()
                        return
                except (RedisError, OSError):
                    await asyncio.sleep(0.02)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[redis.asyncio.Redis]:
        client = redis.asyncio.Redis(port=self.port, password=PASSWORD, decode_responses=True, protocol=2)
        try:
            yield client
        finally:
            await client.aclose()

    async def kill(self) -> None:
        child, self._child = self._child, None
        if child is not None and child.returncode is None:
            child.send_signal(signal.SIGKILL)
            await child.wait()


@asynccontextmanager
async def redis_server(*, options: Sequence[str] = ()) -> AsyncIterator[RedisServer]:
    """A running server, gone afterwards."""
    with TemporaryDirectory(prefix="kappa-redis-") as folder:
        found = RedisServer(Path(folder), options=options)
        try:
            await found.start()
            yield found
        finally:
            await found.kill()
