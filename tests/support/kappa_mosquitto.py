"""A real mosquitto broker and its client programs for tests, from this machine or out of Debian's packages."""

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from kappa_ports import free_port
from kappa_servers import Server, server

USER, PASSWORD = "device", "pw-for-tests"
START_SECONDS = 30.0
_PACKAGES = ("mosquitto", "mosquitto-clients")


def client_program(name: str) -> Server:
    """mosquitto_pub or mosquitto_sub."""
    return server(name, *_PACKAGES)


async def publish(port: int, topic: str, *payloads: str | bytes, qos: int = 1, options: Sequence[str] = ()) -> None:
    """What a device does: all payloads in one connection, acknowledged as the QoS says. One of bytes goes alone."""
    found = client_program("mosquitto_pub")
    command = [str(found.program), "-h", "127.0.0.1", "-p", str(port), "-q", str(qos), "-t", topic, *options]
    command += ["-s"] if isinstance(payloads[0], bytes) else ["-l"]
    content = payloads[0] if isinstance(payloads[0], bytes) else "".join(f"{one!s}\n" for one in payloads).encode()
    child = await asyncio.create_subprocess_exec(
        *command, env=found.env(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    async with asyncio.timeout(START_SECONDS):
        told, _ = await child.communicate(content)
    assert child.returncode == 0, told.decode()


def _write_passwords(path: Path) -> None:
    tool = client_program("mosquitto_passwd")
    subprocess.run([tool.program, "-c", "-b", path, USER, PASSWORD], env=tool.env(), check=True, timeout=60)


class Mosquitto:
    """It keeps sessions in `folder`, so that `stop` and `start` lose nothing. `options`: more lines of its
    configuration."""

    def __init__(self, folder: Path, *, options: Sequence[str] = ()) -> None:
        self.folder, self.options, self.port = folder, options, free_port()
        self._child: asyncio.subprocess.Process | None = None

    @property
    def login(self) -> list[str]:
        """For `publish`."""
        return ["-u", USER, "-P", PASSWORD]

    async def start(self) -> None:
        """Returns when it listens."""
        found = server("mosquitto", *_PACKAGES)
        passwords = self.folder / "passwords"
        if not passwords.exists():
            await asyncio.to_thread(_write_passwords, passwords)
        lines = [
            f"listener {self.port} 127.0.0.1",
            *self.options,
            "user root",
            "allow_anonymous false",
            f"password_file {passwords}",
            "persistence true",
            f"persistence_location {self.folder}/",
            "autosave_on_changes true",
            "autosave_interval 1",
        ]
        config = self.folder / "mosquitto.conf"
        config.write_text("\n".join(lines) + "\n")
        with (self.folder / "log").open("ab") as log:
            self._child = await asyncio.create_subprocess_exec(
                str(found.program), "-c", str(config), stdout=log, stderr=log, env=found.env()
            )
        async with asyncio.timeout(START_SECONDS):
            while True:
                assert self._child.returncode is None, (self.folder / "log").read_text()[-2000:]
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    return
                except OSError:
                    await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """In order: sessions are written down."""
        child, self._child = self._child, None
        if child is not None and child.returncode is None:
            child.send_signal(signal.SIGTERM)
            await child.wait()


@asynccontextmanager
async def mosquitto(*, options: Sequence[str] = ()) -> AsyncIterator[Mosquitto]:
    """A running broker, gone afterwards."""
    with TemporaryDirectory(prefix="kappa-mosquitto-") as folder:
        found = Mosquitto(Path(folder), options=options)
        try:
            await found.start()
            yield found
        finally:
            await found.stop()
