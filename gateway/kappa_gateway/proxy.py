"""One invocation at the instances: send, send again where the table allows it, and bring the reply to the caller.

Whoever holds `call.instance` holds a slot of that instance; this module gives it back as soon as the instance is done,
which for short replies is before the caller has read anything.
"""

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from kappa_api import names
from kappa_gateway import cors, retry
from kappa_gateway.call import Call
from kappa_gateway.dispatch import Instance
from kappa_gateway.errors import GatewayError
from kappa_gateway.retry import Outcome
from kappa_gateway.states import IN_SERVICE
from kappa_gateway.upstream import Connection, TruncatedError, UpstreamError, status_line
from kappa_gateway.websocket import relay

if TYPE_CHECKING:
    from kappa_gateway.app import Gateway

log = logging.getLogger(__name__)

_REFUSALS: Final = {
    names.REFUSED_BUSY.encode(): Outcome.BUSY,
    names.REFUSED_DRAINING.encode(): Outcome.DRAINING,
    names.REFUSED_EMPTY.encode(): Outcome.EMPTY,
    names.REFUSED_MISDIRECTED.encode(): Outcome.MISDIRECTED,
}
_REQUEST_ID: Final = names.HEADER_REQUEST_ID.encode()
_DEADLINE: Final = names.HEADER_DEADLINE.encode()
_FUNCTION_ERROR: Final = f"{names.HEADER_ERROR_SOURCE}: {names.SOURCE_FUNCTION}\r\n".encode()
_FORWARDED: Final = b"x-forwarded-for: %b\r\nx-forwarded-proto: http\r\nx-forwarded-host: %b\r\n"
_EXPECT: Final = b"expect: 100-continue\r\n\r\n"
_BODY_METHODS: Final = frozenset({"POST", "PUT", "PATCH"})


class Proxy:
    """Carries calls. Reads and changes only what belongs to the call, its queue and the pools."""

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway
        self._trust_forwarded = gateway.settings.trust_forwarded

    async def serve(self, call: Call) -> bool:
        """The whole exchange; `Gateway.handle` catches what it raises. Returns whether the connection may be kept."""
        lost = 0
        while True:
            instance = call.instance or await self._wait(call)
            head = self._head(call)
            pool = self._gateway.pools.of(instance.key, instance.address)
            connection: Connection | None = None
            pump: asyncio.Task[None] | None = None
            outcome: Outcome | None = None
            try:
                connection = pool.get() or await pool.connect(self._connect_time(call))
                pump = self._send(call, connection, head, admits=instance.admits)
                await connection.head()
                if not connection.refused or connection.status != 503:
                    return await self._reply(call, connection, pump)
                outcome = _REFUSALS.get(connection.refused, Outcome.BUSY)
            except UpstreamError as error:
                if pump is not None and pump.done() and not pump.cancelled() and (own := pump.exception()):
                    raise own from error
                outcome = error.outcome
            finally:
                if pump is not None and not pump.done():
                    pump.cancel()
                if connection is not None and not connection.upgraded:
                    if pump is not None and not call.body.sent:
                        connection.abort()
                    else:
                        pool.put_back(connection, self._gateway.clock())
                if instance.gone:
                    self._gateway.pools.drop(instance.key)
            lost += outcome is Outcome.LOST
            self._again(call, instance, outcome, lost)

    # --- towards the instance -----------------------------------------------------------------------------------------
    def _head(self, call: Call) -> bytes:
        request, body, entry = call.request, call.body, call.entry
        assert entry is not None
        left = call.deadline - self._gateway.clock()
        framing = b""
        if body.whole:
            if body.held or request.length == 0 or request.method in _BODY_METHODS:
                framing = b"content-length: %d\r\n" % len(body.held)
        elif request.length >= 0:
            framing = b"content-length: %d\r\n" % request.length
        else:
            framing = b"transfer-encoding: chunked\r\n"
        if request.websocket:
            framing = b"connection: Upgrade\r\nupgrade: websocket\r\n"
        return b"%b %b HTTP/1.1\r\n%b%b%b%b%b%b: %b\r\n%b: %d\r\n\r\n" % (
            request.method.encode(),
            call.path.encode("utf-8", "surrogateescape"),
            b"".join(request.lines),
            framing,
            call.extra,
            entry.function_line,
            self.forwarded(call),
            _REQUEST_ID,
            call.request_id,
            _DEADLINE,
            int((time.time() + left) * 1000),
        )

    def forwarded(self, call: Call) -> bytes:
        """Header lines that tell the instance of the caller."""
        request, client = call.request, call.client
        if not self._trust_forwarded or client.forwarded_host is not None:
            if client.forwarded_host != request.host:
                client.forwarded_host = request.host
                client.forwarded = _FORWARDED % (client.address, request.host)
            return client.forwarded
        lines = b"x-forwarded-for: %b\r\n" % b", ".join((*request.forwarded_for, client.address))
        if not request.forwarded_host:
            lines += b"x-forwarded-host: %b\r\n" % request.host
        return lines

    def _send(self, call: Call, connection: Connection, head: bytes, *, admits: bool) -> asyncio.Task[None] | None:
        """Writes head and held body; a body that is not whole is pumped by the task that this returns.

        `admits`: the instance may refuse, and is asked to say that it does not before it gets any of the body: until
        then all of it can be sent to another one.
        """
        request, body = call.request, call.body
        if body.whole:
            data = head + body.held if body.held else head
            connection.send(data, head_only=request.method == "HEAD", wants_upgrade=request.websocket)
            return None
        chunked = request.length < 0
        held = b"%x\r\n%b\r\n" % (len(body.held), body.held) if chunked else body.held
        first = held if admits else b""
        head = head[:-2] + _EXPECT if first else head + held
        connection.send(head, head_only=request.method == "HEAD")
        pump = asyncio.get_running_loop().create_task(body.pump(connection, chunked=chunked, first=first))
        pump.add_done_callback(lambda task: _stop(task, connection))
        return pump

    def _connect_time(self, call: Call) -> float:
        return min(self._gateway.settings.connect_seconds, max(0.001, call.deadline - self._gateway.clock()))

    async def _wait(self, call: Call) -> Instance:
        """Until the queue grants an instance. Asks the operator for one."""
        state = call.state
        assert state is not None
        call.grant = asyncio.get_running_loop().create_future()
        self._gateway.demand.want(state.queue.key)
        await call.grant
        call.grant = None
        assert call.instance is not None
        if call.cold:
            call.cold = False
            state.counters.cold(self._gateway.clock() - call.arrived)
        return call.instance

    def _again(self, call: Call, instance: Instance, outcome: Outcome, lost: int) -> None:
        """After a failed attempt: back to the queue, or GatewayError. `lost`: how often this call has been lost."""
        gateway, state, entry = self._gateway, call.state, call.entry
        assert state is not None
        assert entry is not None
        now, rests = gateway.clock(), instance.rests
        idempotent = entry.idempotent or call.request.method in retry.IDEMPOTENT
        resendable = call.body.resendable and lost <= retry.MOST_LOST
        repeat = retry.may_repeat(outcome, idempotent=idempotent, resendable=resendable, replied=call.replied)
        if repeat:
            gateway.retries[outcome] += 1
            call.again()
            state.queue.again(call, now, retry.TELLS[outcome])
        else:
            state.queue.release(call, now, retry.TELLS[outcome])
        if instance.rests != rests:
            rest = instance.rests
            asyncio.get_running_loop().call_later(
                retry.backoff(instance.failures), lambda: state.queue.rested(instance, rest, gateway.clock())
            )
            if outcome is Outcome.MISDIRECTED and instance.failures == 1:  # once in a row: it may come a while
                text = "%s is not an instance of %s: it holds the code of another function"
                extra = {"requestId": call.request_id.decode("latin-1")}
                log.warning(text, instance.key, state.queue.key, extra=extra)
        if not repeat:
            code, message = retry.VERDICT[outcome]
            raise GatewayError(code, message)
        if state.entry is None:
            raise GatewayError("not_found", f"function {state.queue.key} was deleted")
        if state.fault and not state.queue.instances:
            raise GatewayError("not_ready", state.fault)

    # --- towards the caller -------------------------------------------------------------------------------------------
    async def _reply(self, call: Call, connection: Connection, pump: asyncio.Task[None] | None) -> bool:
        if connection.upgraded:
            return await relay(self._gateway, call, connection)
        request, client, status = call.request, call.client, connection.status
        call.status = status
        keep = request.keep and not self._gateway.closing and call.body.source.is_eof()
        bodiless = request.method == "HEAD" or status in (204, 304)
        if connection.complete:
            body = connection.take()
            length = connection.length if bodiless else len(body)
            if pump is None:
                self._release(call)
            client.send(_reply_head(call, connection, length, keep, chunked=False) + body)
            call.replied = True
            if client.full:
                await client.drain()
            self._release(call)
            return keep
        chunked = connection.length < 0 and not request.v10
        try:
            piece = connection.take()
            client.send(_reply_head(call, connection, connection.length, keep, chunked) + _framed(piece, chunked))
            call.replied = True
            while True:
                if client.full:
                    await client.drain()
                piece = await connection.read()
                if not piece:
                    break
                client.send(_framed(piece, chunked))
            if chunked:
                client.send(b"0\r\n\r\n")
        except TruncatedError:
            # The caller sees only that the reply broke off: the log must say whose it was.
            text = "%s ended the connection in the middle of its reply"
            log.warning(text, connection.pool.address, extra={"requestId": call.request_id.decode("latin-1")})
            call.failed = True
            client.abort()
            return False
        self._release(call)
        return keep

    def _release(self, call: Call) -> None:
        """The instance has answered."""
        if call.place is IN_SERVICE and call.state is not None:
            call.state.queue.release(call, self._gateway.clock())


def _stop(pump: asyncio.Task[None], connection: Connection) -> None:
    """A body that cannot be sent to its end leaves the instance with a request that never ends."""
    if pump.cancelled() or pump.exception() is not None:
        connection.abort()


def _framed(piece: bytes, chunked: bool) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece) if chunked and piece else piece


def _reply_head(call: Call, connection: Connection, length: int, keep: bool, chunked: bool) -> bytes:
    status = connection.status
    lines = connection.lines
    if call.cors:
        lines = [line for line in lines if line[: len(cors.PREFIX)].lower() != cors.PREFIX]
        lines.append(call.cors)
    lines.append(b"%b: %b\r\n" % (_REQUEST_ID, call.request_id))
    if status >= 400:
        lines.append(_FUNCTION_ERROR)
    if chunked:
        lines.append(b"transfer-encoding: chunked\r\n")
    elif length >= 0 and status != 204:
        lines.append(b"content-length: %d\r\n" % length)
    if not keep:
        lines.append(b"connection: close\r\n")
    return b"%b%b\r\n" % (status_line(status), b"".join(lines))
