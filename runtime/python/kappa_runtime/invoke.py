"""One invocation: from its admission to its reply, its deadline, and the end of its code.

`Invocation` is what event and ASGI invocations share: a slot taken at admission and given back exactly once, and the
deadline. Two ends are told apart. *Replied*: the client has its answer. *Finished*: the function's code has ended.
After a timeout the reply comes first; when the code then does not end within the grace period, it is stuck and takes
the process with it (`Floor.stuck`), because nothing else can stop it.

`EventInvocation` collects the request, runs the handler on the function's side, and makes the reply there too, so that
encoding a large result does not hold up the server.
"""

import asyncio
import inspect
import json
import time
from dataclasses import dataclass
from typing import Any, Protocol

from kappa_api.cloudevents import CloudEventError
from kappa_api.names import HEADER_DURATION, HEADER_ERROR, HEADER_ERROR_SOURCE, SOURCE_FUNCTION
from kappa_runtime import emitting
from kappa_runtime.cloudevent import Delivery, Event, read_events, read_shape
from kappa_runtime.context import Context, FunctionInfo
from kappa_runtime.exchange import JSON, Consumer, Exchange, Headers
from kappa_runtime.executor import Interrupted, Job
from kappa_runtime.function import Function
from kappa_runtime.lambda_events import make_event
from kappa_runtime.logs import Scope, Sink, current
from kappa_runtime.replies import Reply, ReplyError, make_data_reply, make_reply
from kappa_runtime.settings import Settings
from kappa_runtime.tracebacks import Report

EXIT_ERROR = "Runtime.ExitError"
INVALID_REPLY = "Runtime.InvalidReply"
INVALID_EVENT = "Runtime.InvalidEvent"
TIMEOUT = "Timeout"


class Floor(Protocol):
    """What an invocation needs of the server. All on the server's loop."""

    loop: asyncio.AbstractEventLoop
    settings: Settings
    sink: Sink

    def replied(self, invocation: "Invocation") -> None:
        """The invocation gives its slot back."""

    def finished(self, invocation: "Invocation") -> None:
        """Its code has ended."""

    def stuck(self, invocation: "Invocation") -> None:
        """Its code does not end."""


@dataclass(frozen=True, slots=True)
class Call:
    """The facts of one call. `arrival` and `deadline` are epoch seconds. `function`: `namespace/name` that it is meant
    for; empty when it does not say. `shape`: of the CloudEvents in the body, empty for a plain call. `attempt`: how
    often it was attempted before and failed; -1 when it is not asynchronous. `hops`: of what it causes, see
    `names.HEADER_HOPS`."""

    request_id: str
    arrival: float
    deadline: float
    function: bytes = b""
    shape: str = ""
    attempt: int = -1
    hops: int = 1

    @property
    def origin(self) -> emitting.Origin:
        """Of the events that it emits."""
        # An asynchronous call keeps its request id; events are known by their own ids.
        return self.origin_of(self.request_id if self.attempt >= 0 else "")

    def origin_of(self, work: str) -> emitting.Origin:
        return emitting.Origin(self.request_id, self.deadline, work, self.hops)

    def context(self, info: FunctionInfo, events: tuple[Event, ...] = ()) -> Context:
        found = Context(info, self.request_id, int(self.deadline * 1000), events, max(0, self.attempt))
        found.hops = max(0, self.hops - 1)
        return found


class Invocation(Job, Consumer):
    """The part that all kinds of invocations share. `name` is for the log."""

    def __init__(self, floor: Floor, function: Function, exchange: Exchange, call: Call) -> None:
        super().__init__()
        self.floor, self.function, self.exchange, self.call = floor, function, exchange, call
        self.scope = Scope(call.request_id)
        self.submitted = self.has_finished = self.timed_out = self.has_slot = self.runs_on = False
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """The slot is taken: starts the clock."""
        self.has_slot = True
        left = self.call.deadline - time.time()
        self._timer = self.floor.loop.call_later(max(0.0, left), self._expire)
        self.exchange.consumer = self

    def submit(self) -> None:
        self.submitted = True
        self.floor.sink.begin(self.scope)
        self.function.executor.submit(self)

    def stop_clock(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def release(self) -> None:
        """Gives the slot back, before the last bytes of the reply go out: whoever reads them may come again at once."""
        if self.has_slot:
            self.has_slot = False
            self.floor.replied(self)

    def finished(self) -> None:
        """The function's code has ended (or will never begin)."""
        self.has_finished = True
        self.stop_clock()
        self.floor.sink.end(self.scope)
        self.release()
        self.conclude()
        self.floor.finished(self)

    def conclude(self) -> None:
        """Writes what is still to be written."""

    def stop(self) -> None:
        """Tells the function's code to end, and looks after it."""
        self.function.executor.interrupt(self)
        self.floor.loop.call_later(self.floor.settings.grace_seconds, self._check)

    def on_timeout(self) -> None:
        """Answers the client."""
        seconds = self.call.deadline - self.call.arrival
        message = f"{self.function.info.name} timed out after {seconds:.2f} seconds"
        status, headers, body = failure(504, TIMEOUT, message, self.call)
        headers.append(duration_header(time.time() - self.call.arrival))
        self.exchange.reply(status, headers, body)

    def _expire(self) -> None:
        self._timer = None
        self.timed_out = True
        if not self.submitted:
            self.exchange.keep_alive = False
            self.exchange.fail(408, "body_timeout", "the request's body did not arrive before the deadline")
            self.finished()
            return
        stack = self.function.executor.stack(self, self.function.loaded.code_dir)
        seconds = self.call.deadline - self.call.arrival
        self.floor.sink.record(
            "ERROR", f"timed out after {seconds:.2f} seconds", self.call.request_id, stack=stack or None
        )
        self.on_timeout()
        self.stop()

    def _check(self) -> None:
        if not self.has_finished:
            self.floor.stuck(self)


class EventInvocation(Invocation):
    """An invocation of an event handler, sync (`run`) or async (`run_async`)."""

    def __init__(self, floor: Floor, function: Function, exchange: Exchange, call: Call) -> None:
        super().__init__(floor, function, exchange, call)
        self._body: list[bytes] = []
        self._size = 0
        self._outcome: Reply | None = None
        self._duration = 0.0

    # --- on the server's loop ---------------------------------------------------------------------------------------
    def begin(self) -> None:
        super().begin()
        if self.exchange.request.length > self.floor.settings.max_event_bytes:
            self._too_large()
        else:
            self.exchange.proceed()

    def body(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self.floor.settings.max_event_bytes:
            self._too_large()
        else:
            self._body.append(data)

    def complete(self) -> None:
        if not self.has_finished and not self.submitted:
            self.submit()

    def gone(self) -> None:
        # What has begun runs to its end, as in AWS Lambda; its result has no reader.
        if not self.submitted and not self.has_finished:
            self.finished()

    def conclude(self) -> None:
        outcome, self._outcome = self._outcome, None
        if outcome is not None and not self.timed_out:
            status, headers, body = outcome
            headers.append(duration_header(self._duration))
            self.exchange.reply(status, headers, body)

    def _too_large(self) -> None:
        self._body.clear()
        limit = self.floor.settings.max_event_bytes
        self.exchange.keep_alive = False
        self.exchange.fail(413, "too_large", f"an event's body may have {limit} bytes; use signature asgi for more")
        self.finished()

    # --- on the function's side -------------------------------------------------------------------------------------
    def run(self) -> None:
        current.set(self.scope)
        emitting.current.set(self.call.origin)
        started = time.perf_counter()
        try:
            result = self.function.loaded.handler(*self._arguments())
            if inspect.iscoroutine(result):  # a decorator hid that the handler is async
                result = asyncio.get_event_loop().run_until_complete(result)
            self._outcome = self._reply(result)
        except Interrupted:
            raise
        except BaseException as error:
            self._outcome = self._failed(error)
        self._duration = time.perf_counter() - started

    async def run_async(self) -> None:
        current.set(self.scope)
        emitting.current.set(self.call.origin)
        started = time.perf_counter()
        try:
            result = await self.function.loaded.handler(*self._arguments())
            self._outcome = self._reply(result)
        except BaseException as error:
            if isinstance(error, GeneratorExit):
                raise
            if not self.interrupted:
                self._outcome = self._failed(error)
        self._duration = time.perf_counter() - started

    def _arguments(self) -> tuple[dict[str, Any], Context]:
        call, info = self.call, self.function.info
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        attempt = max(0, call.attempt)
        events: tuple[Event, ...] = ()
        if call.shape:
            from kappa_runtime.records import shaped  # it costs memory, and most instances serve calls only

            shape, batch = read_shape(call.shape)
            try:
                events = read_events(body)
                # Sorted: what failed together may return in another order.
                work = "\n".join(sorted(f"{event.source} {event.id}" for event in events))
                emitting.current.set(call.origin_of(work))
                event = shaped(Delivery(shape, events, info.namespace, batch, attempt, call.arrival))
            except CloudEventError as error:
                raise InvalidEventError(str(error)) from error
        else:
            event = make_event(self.exchange.request, body, info, call.request_id, call.arrival)
        return event, call.context(info, events)

    def _reply(self, result: Any) -> Reply:
        return (make_data_reply if self.call.shape else make_reply)(result, self.floor.settings.max_reply_bytes)

    def _failed(self, error: BaseException) -> Reply:
        return failed(error, self.function, self.call, self.floor.sink)


class InvalidEventError(Exception):
    """What came is not what the shape is made of: the source's fault, and the handler has not run."""


def duration_header(seconds: float) -> tuple[bytes, bytes]:
    return HEADER_DURATION.encode(), b"%.3f" % (seconds * 1000)


def failed(error: BaseException, function: Function, call: Call, sink: Sink) -> Reply:
    """Logs what the function's code raised, and makes the caller's 500 of it."""
    if isinstance(error, ReplyError):
        sink.record("ERROR", f"{INVALID_REPLY}: {error}", call.request_id)
        return failure(500, INVALID_REPLY, str(error), call)
    if isinstance(error, InvalidEventError):
        sink.record("ERROR", f"{INVALID_EVENT}: {error}", call.request_id)
        return failure(500, INVALID_EVENT, str(error), call)
    report = Report(error, function.loaded.code_dir)
    kind, message = report.type, report.message
    if isinstance(error, SystemExit):
        kind, message = EXIT_ERROR, f"the handler called sys.exit({error.code!r})"
    sink.record("ERROR", f"{kind}: {message}", call.request_id, exception=report.text)
    return failure(500, kind, message, call, report.frames)


def failure(status: int, kind: str, message: str, call: Call, frames: list[str] | None = None) -> Reply:
    """An error reply for which the function is to blame, in AWS Lambda's form."""
    body = {"errorType": kind, "errorMessage": message, "requestId": call.request_id, "stackTrace": frames or []}
    headers: Headers = [
        JSON,
        (HEADER_ERROR.encode(), kind.encode("ascii", "replace")),
        (HEADER_ERROR_SOURCE.encode(), SOURCE_FUNCTION.encode()),
    ]
    return status, headers, json.dumps(body).encode()
