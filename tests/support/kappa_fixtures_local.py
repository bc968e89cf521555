"""Helpers of the API behaviour suite: a raw HTTP client for a Kubernetes API, `kubectl`, and the embedded cluster as
a child.

Raw HTTP on purpose: a client library would hide the differences that the suite looks for.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml

Obj = dict[str, Any]
MERGE = "application/merge-patch+json"
JSON = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
WATCH_SECONDS = 60
"""The real garbage collector looks for new resources twice a minute."""


@dataclass(frozen=True)
class Backend:
    """A Kubernetes API under test."""

    name: str
    kubeconfig: Path

    @property
    def local(self) -> bool:
        return self.name == "local"


@dataclass(frozen=True)
class Reply:
    status: int
    body: Any
    headers: dict[str, str]

    def ok(self) -> Any:
        """The body; fails the test when the answer is an error."""
        assert self.status < 300, f"{self.status}: {self.body}"
        return self.body

    def refused(self, code: int, reason: str) -> str:
        """The message of an expected error."""
        assert self.status == code, f"{self.status}: {self.body}"
        assert isinstance(self.body, dict), self.body
        assert (self.body["kind"], self.body["status"], self.body["code"]) == ("Status", "Failure", code)
        assert self.body.get("reason", "") == reason, self.body
        return str(self.body["message"])


@dataclass
class Api:
    """One client. Paths are relative to the server's root; {ns} stands for the module's namespace."""

    backend: Backend
    session: aiohttp.ClientSession
    server: str
    ns: str
    tls: ssl.SSLContext | bool = False
    _watches: list[asyncio.Task[None]] = field(default_factory=list)

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        kind: str = "application/json",
        accept: str = "application/json",
        **query: Any,
    ) -> Reply:
        data = body if isinstance(body, (str, bytes)) or body is None else json.dumps(body)
        async with self.session.request(
            method,
            self.server + path.replace("{ns}", self.ns),
            data=data,
            params={name: str(value) for name, value in query.items()},
            headers={"Content-Type": kind, "Accept": accept, "User-Agent": "suite/1"},
            ssl=self.tls,
        ) as response:
            text = await response.text()
            parsed = json.loads(text) if "json" in response.headers.get("Content-Type", "") else text
            return Reply(response.status, parsed, dict(response.headers))

    async def get(self, path: str, **query: Any) -> Reply:
        return await self.call("GET", path, **query)

    async def post(self, path: str, body: Any, **query: Any) -> Reply:
        return await self.call("POST", path, body, **query)

    async def put(self, path: str, body: Any, **query: Any) -> Reply:
        return await self.call("PUT", path, body, **query)

    async def patch(self, path: str, body: Any, kind: str = MERGE, **query: Any) -> Reply:
        return await self.call("PATCH", path, body, kind, **query)

    async def delete(self, path: str, body: Any = None, **query: Any) -> Reply:
        return await self.call("DELETE", path, body, **query)

    @contextlib.asynccontextmanager
    async def watch(self, path: str, **query: Any) -> AsyncIterator[Watch]:
        """An open watch, closed at the end."""
        params = {"watch": "true", "timeoutSeconds": str(WATCH_SECONDS), **{k: str(v) for k, v in query.items()}}
        async with self.session.get(
            self.server + path.replace("{ns}", self.ns), params=params, ssl=self.tls
        ) as response:
            yield Watch(response)

    async def until_gone(self, path: str) -> None:
        """Waits, by a watch, until the object at `path` no longer exists."""
        reply = await self.get(path)
        if reply.status == 404:
            return
        folder, _, name = path.rpartition("/")
        selector = f"metadata.name={name}"
        version = reply.ok()["metadata"]["resourceVersion"]
        async with self.watch(folder, fieldSelector=selector, resourceVersion=version) as watch:
            await watch.until(lambda event: event["type"] == "DELETED")

    def kubectl(self, *args: str, stdin: str | None = None, check: bool = True) -> str:
        """Runs kubectl in the module's namespace; its output, errors included when `check` is off."""
        return kubectl(self.backend, "-n", self.ns, *args, stdin=stdin, check=check)


class Watch:
    """A stream of watch events."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def next(self, seconds: float = WATCH_SECONDS) -> Obj:
        async with asyncio.timeout(seconds):
            line = await self.response.content.readline()
        if not line:
            raise EOFError("the watch ended")
        event: Obj = json.loads(line)
        return event

    async def until(self, wanted: Any) -> Obj:
        while True:
            event = await self.next()
            if wanted(event):
                return event

    async def rest(self) -> list[Obj]:
        """Every event until the server ends the watch."""
        events = []
        with contextlib.suppress(EOFError):
            while True:
                events.append(await self.next())
        return events


def kubectl_path() -> str | None:
    """KAPPA_TEST_KUBECTL, else the one of this virtual environment, else the one on the PATH."""
    if named := os.environ.get("KAPPA_TEST_KUBECTL"):
        return named
    beside = Path(sys.executable).with_name("kubectl")
    return str(beside) if beside.exists() else shutil.which("kubectl")


def kubectl(backend: Backend, *args: str, stdin: str | None = None, check: bool = True) -> str:
    program = kubectl_path()
    assert program is not None
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [program, "--kubeconfig", str(backend.kubeconfig), "--cache-dir", cache, *args],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    if check:
        assert done.returncode == 0, f"kubectl {' '.join(args)}: {done.stderr or done.stdout}"
        return done.stdout
    return done.stdout + done.stderr


@contextlib.contextmanager
def embedded(state_dir: Path, *args: str) -> Iterator[Backend]:
    """`python -m kappa_local serve` on a free port."""
    command = [sys.executable, "-m", "kappa_local", "serve", "--port", "0", "--state-dir", str(state_dir), *args]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONSAFEPATH": "1"}
    ) as child:
        try:
            assert child.stdout is not None
            line = child.stdout.readline()
            assert line.startswith("ready "), line
            yield Backend("local", state_dir / "kubeconfig")
        finally:
            child.terminate()
            child.wait(timeout=20)


@contextlib.asynccontextmanager
async def connect(backend: Backend, namespace: str) -> AsyncIterator[Api]:
    """A client from the backend's kubeconfig: plain HTTP, a token, or client certificates."""
    config = yaml.safe_load(backend.kubeconfig.read_text())
    context = next(c["context"] for c in config["contexts"] if c["name"] == config["current-context"])
    cluster = next(c["cluster"] for c in config["clusters"] if c["name"] == context["cluster"])
    user = next(u["user"] for u in config["users"] if u["name"] == context["user"])
    headers = {"Authorization": f"Bearer {user['token']}"} if user.get("token") else {}
    tls = _tls(cluster, user) if cluster["server"].startswith("https") else False
    async with aiohttp.ClientSession(headers=headers) as session:
        yield Api(backend, session, cluster["server"].rstrip("/"), namespace, tls)


def _tls(cluster: Obj, user: Obj) -> ssl.SSLContext:
    with tempfile.TemporaryDirectory() as folder:

        def path(values: Obj, name: str) -> str | None:
            if values.get(f"{name}-data"):
                target = Path(folder) / name
                target.write_bytes(base64.b64decode(values[f"{name}-data"]))
                return str(target)
            found: str | None = values.get(name)
            return found

        context = ssl.create_default_context(cafile=path(cluster, "certificate-authority"))
        certificate = path(user, "client-certificate")
        if certificate:
            context.load_cert_chain(certificate, path(user, "client-key"))
    return context
