"""`python -m kappa_gateway` as a process of its own, beside a cluster, until it is Ready."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from kappa_ports import free_port

from kappa_api import names

COMMAND = (sys.executable, "-m", "kappa_gateway")
SECRET = "test-secret"
START_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Program:
    """A gateway process that runs. `url`: of the data port. `admin`: of the admin port."""

    child: asyncio.subprocess.Process
    url: str
    admin: str
    log: Path


@dataclass(frozen=True, slots=True)
class Home:
    """Where gateways run: whose cluster they watch, where their logs go, who asks whether they are Ready."""

    kubeconfig: Path
    folder: Path
    http: aiohttp.ClientSession
    secret: str = SECRET


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells one gateway from the others on this machine."""

    name: str
    port: int
    admin: int

    @classmethod
    def new(cls, name: str) -> "Identity":
        """On ports that were free a moment ago."""
        return cls(name, free_port(), free_port())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def admin_url(self) -> str:
        return f"http://127.0.0.1:{self.admin}"

    def env(self, kubeconfig: Path, secret: str = SECRET) -> dict[str, str]:
        """The settings without which a gateway does not start."""
        return {
            "KUBECONFIG": str(kubeconfig),
            names.ENV_SECRET: secret,
            names.ENV_POD_NAME: self.name,
            names.ENV_BIND: "127.0.0.1",
            names.ENV_DATA_PORT: str(self.port),
            names.ENV_ADMIN_PORT: str(self.admin),
            "KAPPA_SHUTDOWN_DELAY": "0",
        }


@asynccontextmanager
async def gateway_program(home: Home, name: str, descriptors: int = 0, **env: str) -> AsyncIterator[Program]:
    """A gateway that is Ready, told to end afterwards. `descriptors`: how many files it may open. `env`: settings."""
    identity = Identity.new(name)
    path = home.folder / f"{name}.log"

    # Set by a shell: between fork and exec it would hold for what this process has open, too
    limit = ["sh", "-c", f'ulimit -n {descriptors} && exec "$@"', "sh"] if descriptors else []
    with path.open("wb") as log:
        child = await asyncio.create_subprocess_exec(
            *limit,
            *COMMAND,
            env={**os.environ, **identity.env(home.kubeconfig, home.secret), **env},
            stderr=log,
            stdout=log,
        )
    try:
        async with asyncio.timeout(START_SECONDS):
            while not await _ready(home.http, identity):
                assert child.returncode is None, path.read_text()
                await asyncio.sleep(0.05)
        yield Program(child, identity.url, identity.admin_url, path)
    finally:
        if child.returncode is None:
            child.terminate()
        await child.wait()


async def _ready(http: aiohttp.ClientSession, identity: Identity) -> bool:
    try:
        async with http.get(identity.admin_url + names.PATH_READYZ) as answer:
            return answer.status == 200
    except aiohttp.ClientConnectionError:
        return False
