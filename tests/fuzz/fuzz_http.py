"""The gateway's and the runtime's HTTP parsers on hostile bytes, beside h11, whose strictness is our yardstick.

Both run whole, in memory and in virtual time. What must hold of any input:
* nothing fails inside: no exception, no 500 that we made;
* what reaches a function was one sound request: strict h11 reads what the gateway passes on;
* no request is read otherwise than h11 reads the same bytes: as many requests, the same methods, the same bodies. Where
  h11 refuses and we do not, `ACCEPTED_ALL_THE_SAME` says why that is safe.
"""

import asyncio
import functools
import logging
import re
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, cast

import h11
from fuzz_forms import HTTP, stream
from fuzz_http_bytes import streams
from fuzz_target import Target
from kappa_gateway_rig import controller_reference
from kappa_virtual import VirtualLoop, Wire

from kappa_gateway.app import Gateway
from kappa_gateway.settings import Limits, Settings
from kappa_runtime.exchange import Consumer, Exchange
from kappa_runtime.http1 import Connection
from kappa_runtime.settings import Settings as RuntimeSettings

Case = tuple[bytes, tuple[int, ...]]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
#: Reasons for which h11 refuses what we accept; each harmless because framing does not depend on it.
ACCEPTED_ALL_THE_SAME = (
    # The gateway writes the request line anew; llhttp knows a fixed list of methods, h11 takes any token.
    "illegal request line",
    # h11 takes no obs-text in targets; we pass the bytes on as they are, and the runtime percent-encodes them.
    "illegal character in target",
    # An empty line before the request line: RFC 9112 (2.2) wants servers to skip it.
    "no request line received",
)


@dataclass(frozen=True)
class Read:
    """One request as a parser read it."""

    method: bytes
    body: bytes


@dataclass
class Reference:
    """What h11 makes of a client's bytes: whole requests, and why it stopped, if it did."""

    requests: list[Read] = field(default_factory=list)
    refused: str = ""


def reference(data: bytes) -> Reference:
    """h11 as a server that answers each request at once."""
    found, connection = Reference(), h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data)
    method, body = b"", bytearray()
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                method, body = event.method, bytearray()
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                found.requests.append(Read(method, bytes(body)))
                # No 2xx: after CONNECT that would begin a tunnel, which nobody here makes.
                connection.send(h11.Response(status_code=404, headers=[("content-length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is h11.MUST_CLOSE:
                    return found
                connection.start_next_cycle()
            else:
                return found
    except h11.RemoteProtocolError as error:
        found.refused = str(error)
    return found


def compare(ours: list[Read], data: bytes, who: str) -> None:
    """Fails when we read anything that h11 reads otherwise, or that it refuses without a known reason."""
    theirs = reference(data)
    for number, read in enumerate(ours):
        if number < len(theirs.requests):
            assert read == theirs.requests[number], (
                f"{who} reads request {number} as {read}, h11 as {theirs.requests[number]}"
            )
        else:
            assert theirs.refused, f"{who} reads {len(ours)} requests, h11 {len(theirs.requests)}: {data!r}"
            assert theirs.refused.startswith(ACCEPTED_ALL_THE_SAME), f"{who} accepts what h11 refuses: {theirs.refused}"
            return


class Complaints(logging.Handler):
    """Collects what is logged as an error: a fault inside, even if the caller got an answer."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(self.format(record))


@functools.cache
def complaints() -> Complaints:
    handler = Complaints()
    for name in ("kappa_gateway", "kappa_runtime", "asyncio", "aiohttp"):
        logging.getLogger(name).addHandler(handler)
    return handler


class LooseWire(Wire):
    """A wire for servers that set limits to their write buffers."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        return


def accept(loop: VirtualLoop, protocol: Any) -> Wire:
    wire = LooseWire(loop)
    wire.protocol = protocol
    protocol.connection_made(wire)
    return wire


def pieces(case: Case) -> list[bytes]:
    data, cuts = case
    return [data[a:b] for a, b in pairwise([0, *cuts, len(data)]) if a < b]


# --- the gateway ------------------------------------------------------------------------------------------------------
class Instance:
    """A function's instance that reads with strict h11 and answers each whole request."""

    def __init__(self) -> None:
        self.wires: list[tuple[Wire, h11.Connection]] = []
        self.seen: list[Read] = []
        self.raw: list[bytes] = []

    def connect(self, wire: Wire) -> None:
        self.wires.append((wire, h11.Connection(h11.SERVER)))

    def work(self) -> bool:
        """Reads and answers what has come; whether there was anything."""
        busy = False
        for wire, connection in self.wires:
            if not wire.sent:
                continue
            data = bytes(wire.sent)
            wire.sent.clear()
            self.raw.append(data)
            connection.receive_data(data)  # h11 raises when it is not a sound request
            busy = self._read(wire, connection) or busy
        return busy

    def _read(self, wire: Wire, connection: h11.Connection) -> bool:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                self._check(event)
                self._method, self._body = event.method, bytearray()
            elif isinstance(event, h11.Data):
                self._body += event.data
            elif isinstance(event, h11.EndOfMessage):
                self.seen.append(Read(self._method, bytes(self._body)))
                connection.send(h11.Response(status_code=200, headers=[("content-length", "2")]))
                if self._method != b"HEAD":
                    connection.send(h11.Data(data=b"ok"))
                connection.send(h11.EndOfMessage())
                wire.feed(OK.removesuffix(b"ok") if self._method == b"HEAD" else OK)
                if connection.our_state is not h11.MUST_CLOSE:
                    connection.start_next_cycle()
                return True
            else:
                return False

    @staticmethod
    def _check(request: h11.Request) -> None:
        names = [name for name, _ in request.headers]
        framing = [name for name in names if name in (b"content-length", b"transfer-encoding")]
        assert len(framing) <= 1, f"framed twice: {framing}"
        assert names.count(b"host") == 1, names
        assert names.count(b"kappa-deadline-ms") == names.count(b"kappa-request-id") == 1, names
        assert b"kappa-identity" not in names, "a caller's header passes for the platform's"
        assert request.target.startswith(b"/"), request.target
        assert request.method != b"CONNECT"


class GatewayBench:
    """A gateway with one function and one instance."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.gateway = self.loop.run_until_complete(self._start())
        meta = {"namespace": "default", "name": "f", "uid": "u", "generation": 1, "creationTimestamp": "2024"}
        spec = {
            "runtime": "python",
            "handler": "main.h",
            "code": {"inline": ""},
            "concurrency": 100,
            "timeoutSeconds": 2,
        }
        self.gateway.catalog.put_function({"metadata": meta, "spec": spec})
        labels = {"kappa.dev/function": "f", "kappa.dev/state": "serving"}
        pod = {
            "metadata": {
                "namespace": "default",
                "name": "p",
                "labels": labels,
                "annotations": {"kappa.dev/concurrency": "100"},
                "ownerReferences": [controller_reference("f", "u")],
            },
            "status": {"podIP": "10.0.0.1", "phase": "Running"},
        }
        self.gateway.catalog.put_pod(pod)
        self.loop.settle()

    async def _start(self) -> Gateway:
        async def find_operator() -> str:
            return ""

        settings = Settings(secret=b"secret", name="gw", limits=Limits(head_seconds=1, body_idle_seconds=1))
        gateway = Gateway(settings, find_operator, clock=self.loop.time)
        self.loop.create_task(gateway.tick())
        return gateway

    def run(self, case: Case) -> tuple[Instance, bytes]:
        instance = Instance()
        self.loop.hosts["10.0.0.1"] = instance.connect
        wire = accept(self.loop, self.gateway.server())
        for piece in pieces(case):
            if not wire.closed:
                wire.feed(piece)
            self._go_on(instance)
        self.loop.pass_(3.0)  # what is not whole by now has come too slowly
        self._go_on(instance)
        wire.hang_up()
        for each, _ in instance.wires:
            each.hang_up()
        self.loop.pass_(3.0)  # cancelling may take the tick of the deadlines
        self.loop.hosts.clear()  # they know all connections, which nothing is to keep
        return instance, bytes(wire.sent)

    def _go_on(self, instance: Instance) -> None:
        self.loop.settle()
        while instance.work():
            self.loop.settle()


@functools.cache
def gateway_bench() -> GatewayBench:
    return GatewayBench()


_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


def check_gateway(case: Case) -> None:
    try:
        _check_gateway(case)
    except BaseException:
        gateway_bench.cache_clear()  # the next case is not to suffer from this one
        raise


def _check_gateway(case: Case) -> None:
    bench, heard = gateway_bench(), complaints()
    heard.found.clear()
    instance, answer = bench.run(case)
    assert heard.found == []
    assert not answer or answer.startswith(b"HTTP/1.1 "), answer[:80]
    assert b'"internal"' not in answer
    statuses = [int(status) for status in _STATUS.findall(answer)]
    assert 500 not in statuses
    assert bench.gateway.catalog.functions["default/f"].queue.in_service == 0, "a slot is lost"
    compare(instance.seen, case[0], "the gateway")


# --- the runtime ------------------------------------------------------------------------------------------------------
class Collector(Consumer):
    """Takes a request's body, then answers."""

    def __init__(self, exchange: Exchange, seen: list[Read]) -> None:
        self.exchange, self.seen, self.data = exchange, seen, bytearray()

    def body(self, data: bytes) -> None:
        self.data += data

    def complete(self) -> None:
        self.seen.append(Read(self.exchange.request.method.encode(), bytes(self.data)))
        self.exchange.reply(200, [], b"ok")


class RuntimeBench:
    """The runtime's connections without a function."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.settings = RuntimeSettings()
        self.connections: set[Connection] = set()
        self.closing = False
        self.seen: list[Read] = []

    def begin(self, exchange: Exchange) -> None:
        exchange.consumer = Collector(exchange, self.seen)
        exchange.proceed()

    def run(self, case: Case) -> bytes:
        self.seen.clear()
        wire = accept(self.loop, Connection(self, cast(asyncio.AbstractEventLoop, self.loop)))
        for piece in pieces(case):
            if not wire.closed:
                wire.feed(piece)
            self.loop.settle(3)
        wire.hang_up()
        self.loop.settle(3)
        return bytes(wire.sent)


@functools.cache
def runtime_bench() -> RuntimeBench:
    return RuntimeBench()


def check_runtime(case: Case) -> None:
    bench = runtime_bench()
    answer = bench.run(case)
    assert not answer or answer.startswith(b"HTTP/1.1 "), answer[:80]
    assert not bench.connections, "a connection is lost"
    compare(bench.seen, case[0], "the runtime")


TARGETS = (
    Target(
        "http-gateway",
        "request heads and bodies at the gateway, beside h11",
        streams(),
        check_gateway,
        stream(HTTP),
        found=((b"CONNECT /fn/default/f HTTP/1.1\r\nHost: gw\r\n\r\n", ()),),  # was passed on as any method
        slow=3,
    ),
    Target(
        "http-runtime", "request heads and bodies at the runtime, beside h11", streams(), check_runtime, stream(HTTP)
    ),
)
