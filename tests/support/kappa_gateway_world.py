"""The whole gateway in memory and in virtual time: callers and instances are objects that do what the test says."""

import re
from dataclasses import dataclass, field
from typing import Any

from kappa_gateway_rig import controller_reference
from kappa_virtual import VirtualLoop, Wire

from kappa_gateway.app import Gateway
from kappa_gateway.call import Call
from kappa_gateway.dispatch import Instance
from kappa_gateway.settings import Settings

Json = Any
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"transfer-encoding: chunked", re.IGNORECASE)
_FUNCTION = re.compile(rb"\r\nkappa-function: ([^\r]*)\r\n")


def message_end(data: bytes) -> int:
    """Where the first HTTP message in `data` ends; 0 when it is not whole, or ends with its connection."""
    head = data.find(b"\r\n\r\n") + 4
    if head < 4:
        return 0
    if _CHUNKED.search(data, 0, head):
        end = data.find(b"\r\n0\r\n\r\n", head - 4)
        return end + 7 if end >= 0 else 0
    length = _LENGTH.search(data, 0, head)
    end = head + (int(length[1]) if length else 0)
    return end if end <= len(data) else 0


@dataclass(eq=False)
class Sent:
    """A request of a caller, and what became of it. Seconds of virtual time; `arrived`: when its head was whole."""

    wire: Wire
    function: str
    method: str
    arrived: float
    rest: bytes = b""  # of its body, not sent yet
    given_up: bool = False
    excuses: set[str] = field(default_factory=set)  # what happened that may make it fail before its deadline
    losses: int = 0  # how often an instance died that may have had it

    @property
    def answer(self) -> bytes:
        return bytes(self.wire.sent)

    @property
    def status(self) -> int:
        """Of the answer that has begun; 0 while there is none."""
        answer = self.answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
        return int(answer[9:12]) if answer else 0

    @property
    def code(self) -> str:
        """The gateway's error code; empty when the function has answered."""
        found = re.search(rb'"code": ?"(\w+)"', self.answer)
        return found[1].decode() if found and b"kappa-error-source: gateway" in self.answer else ""

    @property
    def done(self) -> bool:
        return self.given_up or self.wire.closed or self.wire.ended or bool(self.status and message_end(self.answer))


@dataclass(eq=False)
class Exchange:
    """A request at an instance that has not been answered. `began`: the head of a streamed reply is out."""

    wire: Wire
    data: bytes
    began: bool = False


class Host:
    """An instance's side of all its connections. `holds`: the function whose code it has, `function`: the one that the
    gateway takes it for. When they differ it refuses what comes, as runtimes do, and nothing is ever `pending`.

    It says that it lives when it is asked, unless it is `hung`: then it says nothing at all."""

    def __init__(self, name: str, address: str, function: str, concurrency: int) -> None:
        self.name, self.address, self.function, self.concurrency = name, address, function, concurrency
        self.holds = function
        self.runtime = "python"  # empty: a server that is not ours
        self.lowered = self.hung = False
        self.wires: list[Wire] = []
        self.pending: dict[Wire, Exchange] = {}
        self.served = self.asked = 0

    def connect(self, wire: Wire) -> None:
        self.wires.append(wire)

    def look(self) -> None:
        """Takes in what the gateway has sent meanwhile."""
        self.wires = [wire for wire in self.wires if not wire.closed]
        self.pending = {wire: found for wire, found in self.pending.items() if not wire.closed}
        for wire in self.wires if not self.hung else ():
            if wire.sent.startswith(b"GET /_kappa/health "):
                self.asked += 1
                wire.sent.clear()
                wire.feed(OK)
            elif wire not in self.pending and b"\r\n\r\n" in wire.sent:
                found = Exchange(wire, bytes(wire.sent))
                self.pending[wire] = found
                named = _FUNCTION.findall(found.data)
                assert named == [f"default/{self.function}".encode()], "a request that does not say whose it is"
                if self.holds != self.function:
                    self.reply(found, refusal("misdirected"))
                else:
                    self.served += 1

    def reply(self, exchange: Exchange, data: bytes, *, last: bool = True) -> None:
        if last:
            del self.pending[exchange.wire]
            exchange.wire.sent.clear()
        else:
            exchange.began = True
        exchange.wire.feed(data)

    def die(self) -> None:
        for wire in self.wires:
            wire.hang_up()
        self.pending.clear()


class GatewayWorld:
    """A gateway, its clock, callers and instances."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.hosts: dict[str, Host] = {}
        self.requests: list[Sent] = []
        self.instances: set[Instance] = set()
        self.uids: dict[str, str] = {}
        self._number = 0
        self.gateway = self.loop.run_until_complete(self._start())

    async def _start(self) -> Gateway:
        async def find_operator() -> str:
            return ""

        gateway = Gateway(Settings(secret=b"secret", name="gw-1"), find_operator, clock=self.loop.time)
        self.loop.create_task(gateway.tick())
        return gateway

    # --- the cluster --------------------------------------------------------------------------------------------------
    def function(self, name: str, *, uid: str = "u1", generation: int = 1, timeout: int = 2, **http: Json) -> None:
        self.uids[name] = uid
        self.gateway.catalog.put_function(
            {
                "metadata": {
                    "namespace": "default",
                    "name": name,
                    "uid": uid,
                    "generation": generation,
                    "creationTimestamp": "2024-01-01T00:00:00Z",
                },
                "spec": {
                    "runtime": "python",
                    "handler": "main.handler",
                    "code": {"inline": "x"},
                    "timeoutSeconds": timeout,
                    "http": http,
                },
            }
        )
        self.loop.settle()

    def pod(self, function: str, concurrency: int, *, listens: bool = True, runtime: str = "python") -> Host:
        self._number += 1
        host = Host(f"p{self._number}", f"10.0.{self._number // 250}.{self._number % 250 + 1}", function, concurrency)
        host.runtime = runtime
        self.hosts[host.name] = host
        if listens:
            self.loop.hosts[host.address] = host.connect
        self.show(host)
        return host

    def show(self, host: Host, state: str = "serving") -> None:
        """The watch shows the pod."""
        self.gateway.catalog.put_pod(
            {
                "metadata": {
                    "namespace": "default",
                    "name": host.name,
                    "uid": host.name,
                    "labels": {
                        "kappa.dev/function": host.function,
                        "kappa.dev/state": state,
                        "kappa.dev/runtime": host.runtime,
                    },
                    "annotations": {"kappa.dev/concurrency": str(host.concurrency)},
                    "ownerReferences": [controller_reference(host.function, self.uids.get(host.function, "u0"))],
                },
                "status": {"podIP": host.address, "phase": "Running"},
            }
        )
        self.loop.settle()

    def remove(self, host: Host, *, dies: bool = True) -> None:
        del self.hosts[host.name]
        self.loop.hosts.pop(host.address, None)
        if dies:
            host.die()
        self.gateway.catalog.remove_pod(f"default/{host.name}")
        self.loop.settle()

    # --- callers ------------------------------------------------------------------------------------------------------
    def send(self, function: str, method: str = "GET", size: int = 0, first: int | None = None) -> Sent:
        """One request on a connection of its own. `first`: so much of its body now, the rest when told."""
        wire = self.loop.accept(self.gateway.server())
        body = b"x" * size
        now, later = (body, b"") if first is None else (body[:first], body[first:])
        length = f"content-length: {size}\r\n" if size or method == "POST" else ""
        head = f"{method} /fn/default/{function}/ HTTP/1.1\r\nhost: gw\r\n{length}\r\n".encode()
        request = Sent(wire, function, method, self.loop.time(), later)
        self.requests.append(request)
        self.loop.settle(2)
        wire.feed(head + now)
        self.loop.settle()
        return request

    def finish(self, request: Sent) -> None:
        """The rest of the body."""
        data, request.rest = request.rest, b""
        request.wire.feed(data)
        self.loop.settle()

    def give_up(self, request: Sent) -> None:
        request.given_up = True
        request.wire.hang_up()
        self.loop.settle()

    # --- what there is ------------------------------------------------------------------------------------------------
    def calls(self) -> list[Call]:
        """Everything that the gateway is busy with."""
        return [call for slot in self.gateway.deadlines._slots.values() for call in slot]  # type: ignore[misc]

    def known(self) -> set[Instance]:
        """Every instance that there ever was, and that has not ended."""
        for state in self.gateway.catalog.functions.values():
            self.instances |= set(state.queue.instances.values())
        self.instances = {i for i in self.instances if not i.gone or i.in_service}
        return self.instances

    def look(self) -> list[tuple[Host, Exchange]]:
        """Requests that instances have to answer."""
        for host in self.hosts.values():
            host.look()
        able = (host for host in self.hosts.values() if not host.hung)
        return [(host, exchange) for host in able for exchange in host.pending.values()]

    def close(self) -> None:
        for request in self.requests:
            request.wire.abort()
        self.gateway.pools.close()
        self.loop.settle()
        self.loop.stop_all()


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
FAILED = b"HTTP/1.1 500 X\r\nkappa-error: E\r\ncontent-length: 2\r\n\r\nno"


def refusal(reason: str) -> bytes:
    return f"HTTP/1.1 503 X\r\nkappa-refused: {reason}\r\ncontent-length: 0\r\n\r\n".encode()
