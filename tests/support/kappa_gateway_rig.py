"""A rig for the gateway's data path: the gateway in this process, functions put straight into its catalog.

Instances are small scripted servers on loopback addresses of their own, all on one free port.
"""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from kappa_ports import free_port

from kappa_gateway.app import Gateway
from kappa_gateway.settings import Limits, Settings

_addresses = itertools.count(2)


@dataclass
class Seen:
    """A request as an instance got it."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    connection: int = 0

    def get(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")


def controller_reference(function: str, uid: str = "") -> dict[str, Any]:
    """What makes a pod an instance of a Function; without `uid`, of any of this name."""
    return {"apiVersion": "kappa.dev/v1", "kind": "Function", "name": function, "uid": uid, "controller": True}


def reply(status: int = 200, body: bytes = b"ok", *lines: str) -> bytes:
    head = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}", *lines]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


Behave = Callable[[Seen, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def answer_ok(seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(reply())


@dataclass
class Upstream:
    """An instance. `behave` answers each request; with `read_body` it gets the body first."""

    address: str
    port: int
    behave: Behave = answer_ok
    read_body: bool = True
    seen: list[Seen] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    connections: int = 0
    open: int = 0
    pod: dict[str, Any] = field(default_factory=dict)
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, self.address, self.port, limit=1 << 20)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        number = self.connections
        self._writers.add(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                first, *rest = head.decode("latin-1").split("\r\n")[:-2]
                method, target, _ = first.split(" ", 2)
                seen = Seen(method, target, [tuple(line.split(": ", 1)) for line in rest], connection=number)  # type: ignore[misc]
                if self.read_body:
                    seen.body = await read_body(seen, reader)
                self.seen.append(seen)
                self.arrived.set()
                await self.behave(seen, reader, writer)
                await writer.drain()
                if writer.is_closing():
                    break
        self.open -= 1
        self._writers.discard(writer)
        self.left.set()
        writer.close()


async def read_body(seen: Seen, reader: asyncio.StreamReader) -> bytes:
    if length := seen.get("content-length"):
        return await reader.readexactly(int(length))
    body = b""
    if seen.get("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readline()
    return body


@dataclass
class Answer:
    """A reply as the caller got it."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        found = json.loads(self.body)["error"]
        assert found["requestId"] == self.headers["kappa-request-id"]
        return found  # type: ignore[no-any-return]


class Caller:
    """A raw client connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes | str) -> None:
        self.writer.write(data.encode("latin-1") if isinstance(data, str) else data)

    async def head(self) -> tuple[int, dict[str, str]]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *rest = head.split("\r\n")[:-2]
        headers: dict[str, str] = {}
        for line in rest:
            name, _, value = line.partition(": ")
            headers[name.lower()] = f"{headers[name.lower()]}, {value}" if name.lower() in headers else value
        return int(first.split(" ")[1]), headers

    async def answer(self, *, head_only: bool = False) -> Answer:
        status, headers = await self.head()
        while status in (100, 103):
            status, headers = await self.head()
        body = b""
        if not head_only and status not in (204, 304):
            if "content-length" in headers:
                body = await self.reader.readexactly(int(headers["content-length"]))
            elif headers.get("transfer-encoding") == "chunked":
                while size := int(await self.reader.readline(), 16):
                    body += await self.reader.readexactly(size)
                    await self.reader.readexactly(2)
                await self.reader.readline()
            else:
                body = await self.reader.read()
        return Answer(status, headers, body)

    async def ask(self, data: bytes | str) -> Answer:
        self.send(data)
        return await self.answer()

    async def closed(self) -> bytes:
        """What still comes until the gateway closes."""
        with suppress(ConnectionError):
            return await self.reader.read()
        return b""

    def close(self) -> None:
        self.writer.transport.abort()


class Rig:
    """The gateway with helpers. `url(name)` begins a request line."""

    def __init__(self, gateway: Gateway, listener: asyncio.Server, instance_port: int) -> None:
        self.gateway, self.listener, self.instance_port = gateway, listener, instance_port
        self.port: int = listener.sockets[0].getsockname()[1]
        self._callers: list[Caller] = []
        self._upstreams: list[Upstream] = []
        self._pods = itertools.count(1)

    def function(
        self,
        name: str = "hello",
        *,
        created: str = "2024-01-01T00:00:00Z",
        generation: int = 0,
        uid: str = "",
        status: Any = None,
        **spec: Any,
    ) -> str:
        meta = {
            "namespace": "default",
            "name": name,
            "uid": uid,
            "creationTimestamp": created,
            "generation": generation,
        }
        self.gateway.catalog.put_function(
            {
                "metadata": meta,
                "status": status,
                "spec": {"runtime": "python", "handler": "main.handler", "code": {"inline": "x = 1"}, **spec},
            }
        )
        return f"default/{name}"

    def pod(
        self, name: str, address: str, *, concurrency: int = 1, state: str = "serving", pod: str = ""
    ) -> dict[str, Any]:
        return {
            "metadata": {
                "namespace": "default",
                "name": pod or f"{name}-{next(self._pods)}",
                "labels": {"kappa.dev/function": name, "kappa.dev/state": state, "kappa.dev/revision": "r1"},
                "annotations": {"kappa.dev/concurrency": str(concurrency)},
                "ownerReferences": [controller_reference(name)],
            },
            "status": {"podIP": address, "phase": "Running"},
        }

    async def instance(
        self,
        name: str = "hello",
        behave: Behave = answer_ok,
        *,
        concurrency: int = 1,
        read_body: bool = True,
        listen: bool = True,
    ) -> Upstream:
        """An instance of the function, known to the gateway."""
        number = next(_addresses)
        upstream = Upstream(f"127.8.{number // 250}.{number % 250 + 1}", self.instance_port, behave, read_body)
        self._upstreams.append(upstream)
        if listen:
            await upstream.start()
        upstream.pod = self.pod(name, upstream.address, concurrency=concurrency)
        self.gateway.catalog.put_pod(upstream.pod)
        return upstream

    async def caller(self) -> Caller:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
        caller = Caller(reader, writer)
        self._callers.append(caller)
        return caller

    async def ask(self, data: bytes | str) -> Answer:
        """One request on a connection of its own."""
        caller = await self.caller()
        return await caller.ask(data)

    async def get(self, path: str, *lines: str, method: str = "GET", body: bytes = b"") -> Answer:
        length = [f"content-length: {len(body)}"] if body or method in ("POST", "PUT", "PATCH") else []
        head = "\r\n".join([f"{method} {path} HTTP/1.1", "host: gw", *length, *lines])
        caller = await self.caller()
        caller.send(head.encode("latin-1") + b"\r\n\r\n" + body)
        return await caller.answer(head_only=method == "HEAD")

    def queue(self, name: str = "hello") -> Any:
        return self.gateway.catalog.functions[f"default/{name}"].queue

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits for something that happens in this process; each turn lets every ready task run."""
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.001)

    async def settled(self, name: str = "hello") -> None:
        """Nothing in service, nothing waiting: what every test should end with."""
        queue = self.queue(name)
        await self.until(lambda: queue.in_service == 0 and queue.waiting == 0)
        await self.until(lambda: len(self.gateway.deadlines) == 0)

    async def close(self) -> None:
        for caller in self._callers:
            caller.close()
        for upstream in self._upstreams:
            await upstream.stop()


@asynccontextmanager
async def running(*, limits: Limits | None = None, operator: str = "", **settings: Any) -> AsyncIterator[Rig]:
    """A gateway in this process that listens on a free port; `settings` are fields of `Settings`."""

    async def find_operator() -> str:
        return operator

    chosen = Settings(secret=b"secret", name="gw-1", limits=limits or Limits(), shutdown_delay=0.0)
    instance_port = free_port()
    gateway = Gateway(replace(chosen, **settings), find_operator, port=instance_port)
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(gateway.server, "127.0.0.1", 0)
    tasks = [loop.create_task(work) for work in (gateway.tick(), gateway.keep_routes(), gateway.demand.run())]
    rig = Rig(gateway, listener, instance_port)
    try:
        yield rig
    finally:
        await rig.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        listener.close()
        await gateway.server.shutdown(0.1)
        gateway.pools.close()
        await gateway.guard.close()
