"""The server inside the pod: which request goes where, and when the process ends.

Everything here runs on the main thread's loop and never blocks. The function's code runs elsewhere (executor.py) and
comes back through `post`. The process ends (a) on SIGTERM, once nothing is in flight, with 0; (b) when an invocation
is stuck, once all others are done, with 1, so that the operator replaces the pod.
"""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable
from uuid import uuid4

from kappa_api.names import (
    FUNCTION_PATH,
    HEADER_ATTEMPT,
    HEADER_DEADLINE,
    HEADER_EVENT_SHAPE,
    HEADER_FUNCTION,
    HEADER_HOPS,
    HEADER_REQUEST_ID,
    PATH_PREFIX,
    REFUSED_EMPTY,
    REFUSED_MISDIRECTED,
)
from kappa_api.wire import ByteCode, LoadError, Specialize
from kappa_runtime import emitting, platform
from kappa_runtime.asgi import AsgiInvocation
from kappa_runtime.asgi_websocket import WebSocketInvocation, wants_websocket
from kappa_runtime.context import FunctionInfo
from kappa_runtime.exchange import Consumer, Exchange
from kappa_runtime.function import Function, FunctionThread, LoadResult
from kappa_runtime.http1 import Connection
from kappa_runtime.instance import WAIT, Instance
from kappa_runtime.invoke import Call, EventInvocation, Invocation
from kappa_runtime.loader import make_code_dir
from kappa_runtime.logs import Sink
from kappa_runtime.posting import poster
from kappa_runtime.preload import Preload
from kappa_runtime.settings import Settings

BACKLOG = 1024
_PLATFORM_PREFIX = PATH_PREFIX.encode()
_REQUEST_ID = HEADER_REQUEST_ID.encode()
_DEADLINE = HEADER_DEADLINE.encode()
_FUNCTION = HEADER_FUNCTION.encode()
_SHAPE = HEADER_EVENT_SHAPE.encode()
_ATTEMPT = HEADER_ATTEMPT.encode()
_HOPS = HEADER_HOPS.encode()


class Server:
    """One runtime process. `run` serves until the process shall end and returns its exit code."""

    def __init__(self, settings: Settings, sink: Sink, loop: asyncio.AbstractEventLoop) -> None:
        self.settings, self.sink, self.loop = settings, sink, loop
        self.instance = Instance()
        self.connections: set[Connection] = set()
        self.closing = False
        self.exit_code = 0
        self._function: Function | None = None
        self._invocations: set[Invocation] = set()
        self._stuck: set[Invocation] = set()
        self._broken = self._forced = False
        self._parked: list[Parked] = []
        self._drained: list[Callable[[], None]] = []
        self._stopped = asyncio.Event()

    async def run(self, ready: Callable[[], None] = lambda: None) -> int:
        """Listens, calls `ready` once it does, and serves until told to end."""
        server = await self.loop.create_server(
            lambda: Connection(self, self.loop), self.settings.host, self.settings.port, backlog=BACKLOG
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, self.terminate)
        sweeper = self.loop.create_task(self._sweep())
        ready()
        if self.settings.preload:
            may = self.instance.may_specialize
            self.loop.call_soon(Preload(self.loop, may, lambda: not self.connections, self._preloaded).step)
        await self._stopped.wait()
        listener = socket.socket(fileno=os.dup(server.sockets[0].fileno()))  # it outlives the server that is closed
        server.close()
        with listener:
            await self._shut_down(listener)
        sweeper.cancel()
        return self.exit_code

    def post(self, callback: Callable[..., object], *args: object) -> None:
        """Calls `callback` on this loop; from any thread."""
        self.loop.call_soon_threadsafe(callback, *args)

    # --- requests ---------------------------------------------------------------------------------------------------
    def begin(self, exchange: Exchange) -> None:
        if exchange.request.target.startswith(_PLATFORM_PREFIX):
            platform.begin(self, exchange)
            return
        call = self._call(exchange)
        if not self.instance.is_for(call.function):  # first: nothing else that this function says is for this caller
            exchange.refuse(REFUSED_MISDIRECTED)
            return
        if self.instance.info and call.deadline <= call.arrival:
            exchange.fail(504, "deadline", "the deadline had passed before the invocation arrived")
            return
        decision = self.instance.admit()
        if decision == "":
            self._invoke(exchange, call)
        elif decision == WAIT:
            self._parked.append(Parked(self, exchange, call))
        else:
            exchange.refuse(decision)

    def _call(self, exchange: Exchange) -> Call:
        now = time.time()
        request_id, deadline, function, shape, attempt, hops = "", 0.0, b"", "", -1, 1
        for name, value in exchange.request.headers:
            if name == _REQUEST_ID:
                request_id = value.decode("ascii", "replace")
            elif name == _DEADLINE and value.isdigit() and len(value) < 16:
                deadline = int(value) / 1000
            elif name == _FUNCTION:
                function = value
            elif name == _SHAPE:
                shape = value.decode("latin-1")
            elif name == _ATTEMPT and value.isdigit() and len(value) < 10:
                attempt = int(value)
            elif name == _HOPS and value.isdigit() and len(value) < 10:
                hops = int(value)
        info = self.instance.info
        limit = now + (info.timeout_seconds if info else 0)
        deadline = min(deadline, limit) if deadline else limit
        return Call(request_id or str(uuid4()), now, deadline, function, shape, attempt, hops)

    def _invoke(self, exchange: Exchange, call: Call) -> None:
        function = self._function
        assert function is not None
        if function.loaded.kind != "asgi":
            invocation: Invocation = EventInvocation(self, function, exchange, call)
        elif wants_websocket(exchange.request):
            invocation = WebSocketInvocation(self, function, exchange, call)
        else:
            invocation = AsgiInvocation(self, function, exchange, call)
        self._invocations.add(invocation)
        invocation.begin()

    # --- for invocations --------------------------------------------------------------------------------------------
    def replied(self, invocation: Invocation) -> None:
        self.instance.slots -= 1
        if not invocation.has_finished:
            invocation.runs_on = True
            self.instance.after += 1

    def finished(self, invocation: Invocation) -> None:
        self._invocations.discard(invocation)
        self._stuck.discard(invocation)
        if invocation.runs_on:
            self.instance.after -= 1
        self._settle()

    def stuck(self, invocation: Invocation) -> None:
        self._stuck.add(invocation)
        self._broken, self.exit_code = True, 1
        self.instance.drain()
        message = "the handler does not stop after its timeout; the instance ends once its other invocations have"
        self.sink.record("ERROR", message, invocation.call.request_id)
        self._settle()

    # --- for the platform -------------------------------------------------------------------------------------------
    def specialize(self, spec: Specialize, done: platform.Done) -> None:
        """Loads the function; `done` gets why it does not load, or what was compiled."""
        started = time.perf_counter()
        info = FunctionInfo(
            spec.namespace, spec.name, spec.revision, self.settings.pod_name, spec.memory_mb, spec.timeout_seconds
        )
        self.instance.loading(info, spec.concurrency)
        self.sink.function = info.key
        if self.settings.gateway_url:
            post = poster(self.settings.gateway_url, self.settings.token, info.namespace, info.pod_name)
            emitting.install(emitting.Emitter(FUNCTION_PATH + info.key, post))

        def ready(function: Function, byte_code: ByteCode | None) -> None:
            if self.instance.spent:
                return
            timer.cancel()
            self._function = function
            self.instance.loaded()
            for warning in function.loaded.warnings:
                self.sink.record("WARNING", warning, "")
            seconds = time.perf_counter() - started
            self.sink.record("INFO", f"loaded revision {info.revision}", "", milliseconds=round(seconds * 1000, 1))
            self._unpark()  # first: the answer may be large, and invocations wait
            done(None, byte_code)

        def failed(error: LoadError) -> None:
            if self.instance.spent:
                return
            timer.cancel()
            self.instance.failed()
            self.sink.flush()
            self.sink.record("ERROR", f"does not load: {error.type}: {error.message}", "", exception=error.traceback)
            done(error, None)
            self._unpark()

        limit = max(float(spec.timeout_seconds), self.settings.min_load_seconds)
        code_dir = make_code_dir(self.settings.temp_dir, spec.revision)
        thread = FunctionThread(spec, info, code_dir, self.post, LoadResult(ready, failed))
        timer = self.loop.call_later(limit, lambda: failed(thread.too_late(limit)))
        thread.start()

    def drain(self, done: Callable[[], None]) -> None:
        """Takes nothing new; `done` is called when nothing is in flight."""
        self.instance.drain()
        self._drained.append(done)
        self._unpark()
        self._settle()

    def tasks(self) -> int:
        """Tasks of this loop and of the function's: one that leaks shows here."""
        function = self._function
        own = len(asyncio.all_tasks(self.loop))
        return own + (len(asyncio.all_tasks(function.loop.loop)) if function is not None and function.loop else 0)

    def terminate(self) -> None:
        """SIGTERM: drains, tells WebSocket clients to go elsewhere, and ends. A second one ends at once."""
        if self.closing:
            self._forced = True
            self._stopped.set()
            return
        self.closing = True
        self.instance.drain()
        self._unpark()
        for invocation in list(self._invocations):
            if isinstance(invocation, WebSocketInvocation):
                invocation.go_away()
        self._settle()

    def _settle(self) -> None:
        """Does what waits for the end of the invocations."""
        if self.instance.in_flight == 0:
            drained, self._drained = self._drained, []
            for done in drained:
                done()
        waiting = any(not i.exchange.finished for i in self._invocations) or self.instance.in_flight > len(self._stuck)
        if (self.closing or self._broken) and not waiting:
            self._stopped.set()

    def _unpark(self) -> None:
        parked, self._parked = self._parked, []
        for one in parked:
            one.go()

    # --- time and end -----------------------------------------------------------------------------------------------
    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self.settings.sweep_seconds)
            now = self.loop.time()
            for connection in list(self.connections):
                connection.sweep(now)

    def _preloaded(self, count: int, seconds: float) -> None:
        milliseconds = round(seconds * 1000, 1)
        self.sink.record("INFO", f"{count} common modules are imported", "", milliseconds=milliseconds)

    async def _shut_down(self, listener: socket.socket) -> None:
        """Tells everybody who is connected, or is about to be, that the end has come; and waits until they are gone."""
        self.closing = True
        for done in self._drained:  # they wait for an invocation that never ends: the process ends instead
            done()
        while (await self._accept(listener) or self.connections) and not self._forced:
            for connection in list(self.connections):  # the sweep cuts those whose client takes nothing
                if not connection.busy:
                    connection.leave()
            await asyncio.sleep(0.002)
        listener.close()  # at once: whom the kernel takes in now would be lost
        function = self._function
        if function is not None and function.loop is not None and function.lifespan is not None and not self._broken:
            over = asyncio.Event()
            function.loop.call(function.lifespan.shutdown(), over.set)
            try:
                await asyncio.wait_for(over.wait(), self.settings.shutdown_seconds)
            except TimeoutError:
                self.sink.record("ERROR", "the app's shutdown takes too long; ending without it", "")
        if function is not None:
            remove_tree(function.loaded.code_dir)

    async def _accept(self, listener: socket.socket) -> bool:
        """Takes in whom the kernel has connected and nobody has answered; closing the listener would reset them."""
        found = False
        while True:
            try:
                client, _ = listener.accept()
            except OSError:  # nobody; or who was there has left
                return found
            found = True
            client.setblocking(False)
            await self.loop.connect_accepted_socket(lambda: Connection(self, self.loop), client)


class Parked(Consumer):
    """An invocation that came while the code was being loaded. Holds what arrives until it can go on.

    Nothing has run for it yet: whoever ends the connection is taken at his word, and the code runs for nobody.
    """

    needs_client = True

    def __init__(self, server: Server, exchange: Exchange, call: Call) -> None:
        self._server, self._exchange, self._call = server, exchange, call
        self._body: list[bytes] = []
        self._complete = False
        exchange.consumer = self
        left = max(0.0, call.deadline - call.arrival)
        self._timer = server.loop.call_later(left, lambda: self._refuse(REFUSED_EMPTY))

    def body(self, data: bytes) -> None:
        self._body.append(data)
        self._exchange.connection.hold_reading(True)

    def complete(self) -> None:
        self._complete = True
        self._exchange.connection.hold_reading(False)  # only who reads learns that the client has left

    def gone(self) -> None:
        self._timer.cancel()
        self._body.clear()

    def go(self) -> None:
        """Loading has ended, one way or the other."""
        exchange = self._exchange
        if exchange.finished:
            return
        self._timer.cancel()
        decision = self._server.instance.admit()
        if decision:
            self._refuse(decision)
            return
        exchange.connection.hold_reading(False)
        self._server._invoke(exchange, self._call)
        for data in self._body:
            exchange.consumer.body(data)
        if self._complete:
            exchange.consumer.complete()
        exchange.consumer.flush()

    def _refuse(self, reason: str) -> None:
        if not self._exchange.finished:
            self._exchange.consumer = Consumer()
            self._exchange.refuse(reason)


def remove_tree(path: str) -> None:
    """Removes a folder as far as it can be removed."""
    for folder, _, files in os.walk(path, topdown=False):
        for name in files:
            try:
                os.unlink(os.path.join(folder, name))
            except OSError:
                pass
        try:
            os.rmdir(folder)
        except OSError:
            pass
