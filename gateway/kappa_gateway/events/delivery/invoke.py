"""One attempt at the function's instances: through the queue and the proxy that callers go through, without a caller.

The invocation is patient: callers pass it. Its deadline begins with its slot, not before, so waiting costs it nothing.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from kappa_api import names
from kappa_gateway.bodies import NO_BODY, Body
from kappa_gateway.call import Call
from kappa_gateway.errors import GatewayError
from kappa_gateway.events.delivery.verdict import Outcome
from kappa_gateway.request import Request
from kappa_gateway.server import Client
from kappa_gateway.states import IN_SERVICE, OVER, WAITING

if TYPE_CHECKING:
    from kappa_gateway.app import Gateway

log = logging.getLogger(__name__)

#: Of an answer; what is longer is cut off. A record must fit into one message.
MOST_ANSWER: Final = 512 * 1024
_ERROR: Final = names.HEADER_ERROR
_ERROR_LINE: Final = f"\r\n{_ERROR}:".encode()


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What the instance is to get. `lines`: header lines in wire form, each with its CRLF. `stored`: in place of
    `body`, with its `size`."""

    method: str
    path: str
    lines: bytes
    body: bytes = b""
    stored: Body | None = None
    size: int = 0
    request_id: str = ""


class Sink:
    """Stands where the proxy expects a caller's connection: keeps what it is sent."""

    address = b"127.0.0.1"
    full = False
    forwarded = b""
    late_expiry = refused = False

    def __init__(self, task: "asyncio.Task[None] | None", host: bytes) -> None:
        self.task = task
        self.forwarded_host = host  # as if the lines for it were known: the work's own lines have them
        self.broken = False
        self._pieces: list[bytes] = []
        self._kept = 0
        self.truncated = False

    @property
    def transport(self) -> "Sink":
        """No attribute: a cycle would keep each invocation, with its task, until the garbage collector stops the
        gateway for some milliseconds to find thousands of them."""
        return self

    def send(self, data: bytes) -> None:
        room = MOST_ANSWER - self._kept
        if len(data) > room:
            self.truncated = True
            data = data[:room]
        if data:
            self._pieces.append(data)
            self._kept += len(data)

    async def drain(self) -> None:
        return

    def abort(self) -> None:
        self.broken = True

    def outcome(self, status: int, seconds: float) -> Outcome:
        """Reads the answer. The request was one of HTTP/1.0, so its body is not chunked."""
        if self.broken:
            message = "the instance broke off its answer"
            return Outcome(code="instance_died", message=message, seconds=seconds)
        head, _, body = b"".join(self._pieces).partition(b"\r\n\r\n")
        lines = tuple(line for line in head.decode("latin-1").split("\r\n")[1:] if line)
        error = header(lines, _ERROR) if _ERROR_LINE in head.lower() else ""
        return Outcome(status, lines, body, error=error, truncated=self.truncated, seconds=seconds)


class PatientCall(Call):
    """A call without a caller: it has a deadline only while a slot is its own, the whole of it each time."""

    __slots__ = ("deadlines", "revision", "timeout")

    def __init__(self, sink: Sink, request: Request, request_id: bytes, gateway: "Gateway") -> None:
        super().__init__(cast(Client, sink), request, request_id, gateway.clock())
        self.deadlines, self.timeout = gateway.deadlines, 0.0
        self.deadline = float("inf")
        self.revision = ""  # that had it last

    def begin(self, now: float) -> None:
        """A slot is its own."""
        assert self.instance is not None
        self.revision = self.instance.revision
        self.deadline = now + self.timeout
        self.deadlines.add(self)

    def granted(self, now: float) -> None:
        self.begin(now)
        super().granted(now)

    def again(self) -> None:
        self.deadlines.discard(self)
        self.deadline = float("inf")


class Invocation:
    """One attempt. `extra`: more header lines. `withdraw` ends it while it waits; `running`: an instance has it, or may
    have it."""

    def __init__(self, gateway: "Gateway", function: str, outgoing: Outgoing, extra: bytes = b"") -> None:
        self._gateway, self._function, self._outgoing, self._extra = gateway, function, outgoing, extra
        self._call: PatientCall | None = None
        self._started = False

    @property
    def running(self) -> bool:
        return self._call is not None and self._call.place is IN_SERVICE

    @property
    def revision(self) -> str:
        """That had it last, or empty."""
        return self._call.revision if self._call is not None else ""

    def withdraw(self, failure: Exception) -> bool:
        """Whether it still waited, and will now raise `failure`."""
        call = self._call
        if call is None or call.place is not WAITING or call.state is None:
            return False
        call.state.queue.leave(call, self._gateway.clock())
        call.rejected(failure)
        return True

    async def run(self) -> Outcome:
        """Returns how it ended. Raises what it was withdrawn with."""
        call = self._make()
        try:
            await self._wait(call)
            await self._gateway.proxy.serve(call)
            seconds = self._gateway.clock() - call.arrived
            return cast(Sink, call.client).outcome(call.status, seconds)
        except GatewayError as failure:
            call.status = failure.status
            call.failed = failure.status >= 500
            return Outcome(code=failure.code, message=failure.message)
        except asyncio.CancelledError:
            if not call.expired:
                raise
            if call.client.task is not None:
                call.client.task.uncancel()
            call.failed, call.status = True, 504
            return Outcome(code="deadline", message="the function did not answer before the deadline")
        finally:
            self._account(call)

    def _make(self) -> PatientCall:
        outgoing = self._outgoing
        request = Request()
        request.method, request.target, request.v10, request.keep = outgoing.method, outgoing.path, True, False
        request.host = b"kappa"
        request.lines = [outgoing.lines] if _names_host(outgoing.lines) else [b"host: kappa\r\n", outgoing.lines]
        request.length = outgoing.size if outgoing.stored is not None else len(outgoing.body)
        sink = Sink(asyncio.current_task(), request.host)
        request_id = (outgoing.request_id or "").encode() or self._gateway.new_request_id()
        call = PatientCall(sink, request, request_id, self._gateway)
        call.path, call.extra = outgoing.path, self._extra
        call.body = outgoing.stored if outgoing.stored is not None else _held(outgoing.body)
        self._call = call
        return call

    async def _wait(self, call: PatientCall) -> None:
        """Until a slot is the invocation's own. Raises GatewayError."""
        gateway = self._gateway
        state = gateway.catalog.functions.get(self._function)
        if state is None or state.entry is None:
            raise GatewayError("not_found", f"no function {self._function}")
        if state.fault and not state.queue.instances:
            raise GatewayError("not_ready", state.fault)
        call.state, call.timeout = state, state.entry.timeout
        entered = gateway.clock()
        if state.queue.enter(call, entered, patient=True) is not None:
            call.begin(entered)
        else:
            cold = not state.queue.instances
            call.grant = asyncio.get_running_loop().create_future()
            gateway.demand.want(state.queue.key)
            await call.grant
            call.grant = None
            if cold:
                state.counters.cold(gateway.clock() - entered)
        self._started = True
        if state.entry is None:
            raise GatewayError("not_found", f"function {self._function} was deleted")
        call.entry = state.entry
        call.arrived = gateway.clock()

    def _account(self, call: PatientCall) -> None:
        state, now = call.state, self._gateway.clock()
        call.body.close()
        if call.deadline < float("inf"):
            self._gateway.deadlines.discard(call)
        task = call.client.task
        if call.expired and task is not None and task.cancelling():
            task.uncancel()
        if state is None:
            return
        if call.place is not OVER:
            state.queue.leave(call, now)
        if self._started:
            state.counters.finish(call.status, now - call.arrived, failed=call.failed or call.status >= 500)


def _held(data: bytes) -> Body:
    if not data:
        return NO_BODY
    body = Body(NO_BODY.source, 0, 0)
    body.held, body.size, body.whole = data, len(data), True
    return body


def header(lines: Sequence[str], name: str) -> str:
    """The value of a field, or an empty string."""
    wanted = name.lower() + ":"
    return next((line[len(wanted) :].strip() for line in lines if line.lower().startswith(wanted)), "")


def _names_host(lines: bytes) -> bool:
    """Events, replays and what other functions send have no Host: line, and HTTP/1.1 wants one (RFC 9112, 3.2)."""
    lowered = lines.lower()
    return lowered.startswith(b"host:") or b"\r\nhost:" in lowered
