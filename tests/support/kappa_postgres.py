"""A real PostgreSQL for tests: its own folder, a loopback port, logical decoding on, fast and forgetful."""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
from kappa_ports import free_port
from kappa_servers import library_path, unpacked

PACKAGE = "postgresql-15"
USER, PASSWORD, DATABASE = "kappa", "pw-for-tests", "shop"
START_SECONDS = 60.0


def programs(folder: Path) -> tuple[Path, dict[str, str]]:
    """The folder with initdb and postgres, and what to add to their environment. Skips the test if there is none.
    `folder`: into which they are copied if they are where only root may read."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    if installed:
        return installed[-1].parent, {}
    root = unpacked(PACKAGE)
    if os.geteuid() == 0:
        root = Path(shutil.copytree(root, folder / "programs", symlinks=True))
    return next(root.glob("usr/lib/postgresql/*/bin")), {"LD_LIBRARY_PATH": library_path(root)}


class PostgresServer:
    """One server; `stop`, `kill` and `start` again as a test likes. Its superuser is `postgres`, without password."""

    def __init__(self, *, settings: Sequence[str] = ()) -> None:
        # Below /tmp, because the server runs as somebody who may not read root's folders.
        self.folder = Path(tempfile.mkdtemp(prefix="kappa-postgres-"))
        self.port = free_port()
        self.settings = settings
        self._bin, self._more = programs(self.folder)
        self._child: asyncio.subprocess.Process | None = None

    def url(self, user: str = USER, password: str = PASSWORD, database: str = DATABASE) -> str:
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    @property
    def admin_url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{DATABASE}"

    async def start(self) -> None:
        """Returns when it takes connections; the first time with the user, and the database that belongs to it."""
        fresh = not (self.folder / "data" / "PG_VERSION").exists()
        if fresh:
            await self._initialise()
        with (self.folder / "log").open("ab") as log:
            self._child = await asyncio.create_subprocess_exec(
                *self._as_other_user(),
                str(self._bin / "postgres"),
                *("-D", str(self.folder / "data"), "-p", str(self.port), "-k", str(self.folder)),
                *(option for setting in self.settings for option in ("-c", setting)),
                stdout=log,
                stderr=log,
                env=self._environment(),
                cwd=self.folder,
            )
        await self._until_up()
        if fresh:
            statements = (
                f"CREATE ROLE {USER} LOGIN REPLICATION PASSWORD '{PASSWORD}'",
                f"CREATE DATABASE {DATABASE} OWNER {USER}",
            )
            for statement in statements:
                await self.execute(statement, url=self.admin_url.replace(DATABASE, "postgres"))

    async def stop(self) -> None:
        await self._end(signal.SIGINT)  # fast shutdown: connections are cut

    async def kill(self) -> None:
        """As a crash: nothing is written any more. The children notice and end."""
        await self._end(signal.SIGKILL)

    async def remove(self) -> None:
        await self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    async def execute(self, *statements: str, url: str = "") -> list[tuple[Any, ...]]:
        """Each on its own, as the user that owns the database; the rows of the last one."""
        async with await psycopg.AsyncConnection.connect(url or self.url(), autocommit=True) as connection:
            rows: list[tuple[Any, ...]] = []
            for statement in statements:
                cursor = await connection.execute(statement)
                rows = await cursor.fetchall() if cursor.description else []
        return rows

    def place(self, name: str, content: bytes) -> None:
        """Writes a file in the server's folder that only the server may read."""
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_bytes(content)
        if os.geteuid() == 0:
            shutil.chown(path, *_OTHER)

    async def _initialise(self) -> None:
        if os.geteuid() == 0:
            shutil.chown(self.folder, *_OTHER)
        command = (str(self._bin / "initdb"), "-D", str(self.folder / "data"), "-U", "postgres", "--no-sync")
        child = await asyncio.create_subprocess_exec(
            *(*self._as_other_user(), *command, "-E", "UTF8", "--locale=C", "-A", "trust"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._environment(),
            cwd=self.folder,
        )
        output, _ = await child.communicate()
        assert child.returncode == 0, output.decode()
        hba = self.folder / "data" / "pg_hba.conf"
        lines = (
            f"host replication {USER} 127.0.0.1/32 scram-sha-256",
            "host all postgres 127.0.0.1/32 trust",
            "host all all 127.0.0.1/32 scram-sha-256",
        )
        hba.write_text("\n".join(lines) + "\n")
        with (self.folder / "data" / "postgresql.conf").open("a") as file:
            file.write(
                "listen_addresses = '127.0.0.1'\nwal_level = logical\nmax_connections = 40\nshared_buffers = 32MB\n"
                "fsync = on\nsynchronous_commit = on\nmax_replication_slots = 8\nmax_wal_senders = 8\njit = off\n"
            )

    async def _until_up(self) -> None:
        async with asyncio.timeout(START_SECONDS):
            while True:
                assert self._child is not None
                assert self._child.returncode is None, (self.folder / "log").read_text()[-2000:]
                try:
                    await self.execute("SELECT 1", url=self.admin_url.replace(DATABASE, "postgres"))
                    return
                except psycopg.OperationalError:
                    await asyncio.sleep(0.05)

    async def _end(self, how: signal.Signals) -> None:
        child, self._child = self._child, None
        if child is not None and child.returncode is None:
            child.send_signal(how)
            await child.wait()

    def _as_other_user(self) -> tuple[str, ...]:
        """PostgreSQL refuses to run as root."""
        if os.geteuid() != 0:
            return ()
        return ("setpriv", "--reuid", _OTHER[0], "--regid", _OTHER[1], "--clear-groups")

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC", **self._more}


_OTHER = ("nobody", "nogroup")


@asynccontextmanager
async def postgres(*, settings: Sequence[str] = ()) -> AsyncIterator[PostgresServer]:
    """A running server, gone afterwards."""
    server = PostgresServer(settings=settings)
    try:
        await server.start()
        yield server
    finally:
        await server.remove()
