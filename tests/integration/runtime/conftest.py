"""A runtime process as the pod runs it, on a loopback address, and clients that speak to it byte by byte."""

import base64
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from kappa_ports import free_port

HOST = "127.91.0.1"
TOKEN = "a-pod-token"
PATIENCE = 20.0


@dataclass
class Reply:
    """A whole HTTP reply; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Logs:
    """The pod's output, line by line; `wait` blocks until a line fits."""

    lines: list[dict[str, Any]] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def follow(self, stream: Any) -> None:
        for line in stream:
            with self.changed:
                self.raw.append(line)
                try:
                    self.lines.append(json.loads(line))
                except ValueError:
                    pass
                self.changed.notify_all()

    def wait(self, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        with self.changed:
            found = self.changed.wait_for(lambda: next((x for x in self.lines if fits(x)), None), PATIENCE)
        assert found is not None, self.lines
        return found

    def message(self, text: str) -> dict[str, Any]:
        """The first line whose message has `text` in it."""
        return self.wait(lambda line: text in line["message"])


class Pod:
    """One `python -m kappa_runtime`."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.port = free_port()
        env = {key: value for key, value in os.environ.items() if not key.startswith("KAPPA_")}
        env |= {"POD_IP": HOST, "PORT": str(self.port), "POD_NAME": "pod-1"}
        env["KAPPA_POD_TOKEN"] = str(settings.pop("token", TOKEN))
        env["KAPPA_GATEWAY_URL"] = str(settings.pop("gateway_url", ""))
        env |= {"TMPDIR": str(folder), "PYTHONSAFEPATH": "1"}
        env |= {f"KAPPA_RUNTIME_{key.upper()}": str(value) for key, value in settings.items()}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kappa_runtime"],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )
        self.logs = Logs()
        self._reader = threading.Thread(target=self.logs.follow, args=(self.process.stdout,), daemon=True)
        self._reader.start()
        self.logs.message("listening on")

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    def request(
        self, method: str, path: str, body: bytes | str | None = None, headers: dict[str, str] | None = None
    ) -> Reply:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body, headers or {})
            reply = connection.getresponse()
            return Reply(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read())
        finally:
            connection.close()

    def get(self, path: str = "/", **headers: str) -> Reply:
        return self.request("GET", path, headers={key.replace("_", "-"): value for key, value in headers.items()})

    def platform(self, method: str, path: str, body: bytes | str | None = None) -> Reply:
        return self.request(method, path, body, {"authorization": f"Bearer {TOKEN}"})

    def health(self) -> dict[str, Any]:
        found: dict[str, Any] = self.get("/_kappa/health").json()
        return found

    def specialize(self, code: str | dict[str, str | bytes], handler: str = "main.handler", **more: Any) -> Reply:
        return self.platform("PUT", "/_kappa/revision", json.dumps(message(code, handler, **more)))

    def load(self, code: str | dict[str, str | bytes], handler: str = "main.handler", **more: Any) -> "Pod":
        reply = self.specialize(code, handler, **more)
        assert reply.status == 200, reply.body.decode()
        return self

    def drain(self) -> Reply:
        return self.platform("POST", "/_kappa/drain")

    def connect(self) -> socket.socket:
        return socket.create_connection((HOST, self.port), timeout=PATIENCE)

    def raw(self, data: bytes) -> bytes:
        """Sends these bytes on a fresh connection, closes our half, and returns all that comes back."""
        with self.connect() as client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            return read_all(client)

    def exchange(self, data: bytes) -> bytes:
        """Like `raw`, but leaves our half open: the answer ends when the runtime closes."""
        with self.connect() as client:
            client.sendall(data)
            return read_all(client)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        return self.process.wait(PATIENCE)

    def stop(self) -> int:
        """Ends the process and returns its exit code."""
        if self.process.poll() is None:
            self.terminate()
        try:
            code = self.wait()
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self._reader.join(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def rss_kib(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0])


def message(code: str | dict[str, str | bytes], handler: str = "main.handler", **more: Any) -> dict[str, Any]:
    """A specialize message."""
    files = code if isinstance(code, dict) else {"main.py": code}
    data = {path: text.encode() if isinstance(text, str) else text for path, text in files.items()}
    return {
        "function": {"namespace": "default", "name": "hello"},
        "revision": "rev1",
        "handler": handler,
        "signature": "event",
        "files": {path: base64.b64encode(content).decode() for path, content in data.items()},
    } | more


def read_all(client: socket.socket) -> bytes:
    data = b""
    try:
        while part := client.recv(65536):
            data += part
    except ConnectionResetError:
        data += b"<reset>"
    return data


def read_until(client: socket.socket, end: bytes) -> bytes:
    data = b""
    while end not in data:
        part = client.recv(65536)
        assert part, data
        data += part
    return data


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    pod = Pod(tmp_path)
    yield pod
    pod.stop()


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[Callable[..., Pod]]:
    """Makes pods with settings of their own: `pods(grace_seconds=0.1)`."""
    made: list[Pod] = []

    def make(**settings: object) -> Pod:
        made.append(Pod(tmp_path, **settings))
        return made[-1]

    yield make
    for pod in made:
        pod.stop()


@pytest.fixture(scope="module")
def module_pods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Pod]]:
    """Like `pods`, for pods that the tests of a module share."""
    made: list[Pod] = []

    def make(**settings: object) -> Pod:
        made.append(Pod(tmp_path_factory.mktemp("pod"), **settings))
        return made[-1]

    yield make
    for pod in made:
        pod.stop()


@pytest.fixture
def gate() -> Iterator["Gate"]:
    gate = Gate()
    yield gate
    gate.close()


class Gate:
    """Something that code in the pod waits at. `WAIT_AT_GATE` defines `wait_at_gate(name)` for it."""

    def __init__(self) -> None:
        self._listener = socket.create_server((HOST, 0))
        self._listener.settimeout(PATIENCE)
        self._waiting: list[socket.socket] = []
        self.env = {"GATE": f"{HOST}:{self._listener.getsockname()[1]}"}

    def arrived(self, count: int = 1) -> None:
        """Waits until so many more have come to the gate."""
        for _ in range(count):
            self._waiting.append(self._listener.accept()[0])

    def open(self) -> None:
        """Lets all go on who have come."""
        for waiting in self._waiting:
            try:
                waiting.sendall(b"!")
            except OSError:
                pass
            waiting.close()
        self._waiting.clear()

    def close(self) -> None:
        self.open()
        self._listener.close()


WAIT_AT_GATE = """
import os, socket
def wait_at_gate():
    host, _, port = os.environ["GATE"].partition(":")
    with socket.create_connection((host, int(port))) as gate:
        gate.recv(1)
async def wait_at_gate_async():
    import asyncio
    host, _, port = os.environ["GATE"].partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        await reader.read(1)
    finally:
        writer.close()
"""


class Background:
    """Runs something on a thread; `result` waits for it."""

    def __init__(self, target: Callable[[], Any]) -> None:
        self._target, self._found, self._error = target, None, None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._found = self._target()
        except BaseException as error:
            self._error = error

    def result(self) -> Any:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "takes too long"
        if self._error is not None:
            raise self._error
        return self._found


@pytest.fixture
def background() -> type[Background]:
    return Background


@pytest.fixture
def until() -> Callable[[socket.socket, bytes], bytes]:
    return read_until


@pytest.fixture
def everything() -> Callable[[socket.socket], bytes]:
    return read_all


@pytest.fixture
def specialize_message() -> Callable[..., dict[str, Any]]:
    return message


@pytest.fixture
def wait_at_gate() -> str:
    """Code to put before a function's: see Gate."""
    return WAIT_AT_GATE
