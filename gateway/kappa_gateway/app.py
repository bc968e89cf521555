"""The gateway's request chain, readable in one place (`Gateway.handle`), and what its steps share.

parse -> route -> authenticate -> limits -> dispatch -> send -> stream back -> account (design section 7).
"""

import asyncio
import itertools
import logging
import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from aiohttp.http import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

from kappa_api import names
from kappa_api.wire import Stats
from kappa_gateway.admission import HELD_BODIES, QUEUE_FULL, Admission
from kappa_gateway.auth.failures import Failures
from kappa_gateway.auth.guard import Guard
from kappa_gateway.bodies import Bodies
from kappa_gateway.call import Call
from kappa_gateway.catalog import Catalog, State
from kappa_gateway.deadlines import SLOT_SECONDS, Deadlines
from kappa_gateway.demand import DemandReporter, FindOperator
from kappa_gateway.doubts import Doubts
from kappa_gateway.errors import GatewayError, render
from kappa_gateway.events.front.front import PATHS, Front
from kappa_gateway.loops import Loops
from kappa_gateway.peers import Peers
from kappa_gateway.pool import Pools
from kappa_gateway.proxy import Proxy
from kappa_gateway.request import UNREAD, Request, read
from kappa_gateway.retry import Outcome
from kappa_gateway.routes import Entry, Match, RouteTable, check_path, split_function_path
from kappa_gateway.server import Client, ClientGoneError, DataServer
from kappa_gateway.settings import Settings
from kappa_gateway.states import OVER
from kappa_gateway.stats import Readings
from kappa_gateway.websocket import Relay

if TYPE_CHECKING:
    from kappa_gateway.events.engine import Events

log = logging.getLogger(__name__)

#: Changes of routes that come within this time are gathered into one new table.
ROUTES_GATHER_SECONDS: Final = 0.02


class Gateway:
    """Everything on the request path. `main.py` feeds `catalog` from the watches and opens the ports."""

    def __init__(
        self,
        settings: Settings,
        find_operator: FindOperator,
        *,
        port: int = names.INSTANCE_PORT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self._limits, self._trust_forwarded = settings.limits, settings.trust_forwarded
        self.clock = clock
        self.closing = False
        self.ready = False
        self.epoch = os.urandom(8).hex()
        self._loop = asyncio.get_running_loop()
        self._ids = itertools.count(1)
        self._id_prefix = os.urandom(8).hex().encode()
        self._routes_changed = asyncio.Event()
        self.retries: Counter[Outcome] = Counter()
        self.refused: Counter[str] = Counter()
        self.relays: set[Relay] = set()
        self.pools = Pools(self._loop, port)
        self.doubts = Doubts(self.pools, self.clock)
        self.admission = Admission(settings, Peers(f"{settings.system_namespace}/{settings.name}"))
        self.failures = Failures(
            self._limits.auth_failures,
            self.admission.peers,
            self._limits.callers_per_function,
            settings.forwarded_hops if settings.trust_forwarded else 0,
        )
        self.guard = Guard(settings.auth, self.failures, clock=self.clock)
        self.loops = Loops(settings.events.max_hops)
        self.bodies = Bodies(settings.limits)
        self.catalog = Catalog(
            self.clock,
            routes_stale=self._routes_changed.set,
            instance_gone=self.pools.drop,
            limit=self.admission.apply,
            doubt=self.doubts.ask,
        )
        self.catalog.shared_hosts = settings.shared_hosts
        self.readings = Readings(self.catalog, settings.name, self.epoch)
        self.deadlines = Deadlines()
        self.demand = DemandReporter(settings.name, settings.keys, find_operator, self._demand_of)
        self.proxy = Proxy(self)
        self.front = Front(self)
        self.events: Events | None = None  # none without NATS
        self.server = DataServer(
            self.handle,
            settings.limits,
            new_request_id=self.new_request_id,
            count_refused=self._count_refused,
            per_address=not settings.trust_forwarded,
        )

    # --- the chain ----------------------------------------------------------------------------------------------------
    async def handle(self, client: Client, message: RawRequestMessage, payload: StreamReader) -> bool:
        """Serves one request; returns whether the caller's connection can carry another."""
        call = Call(client, UNREAD, self.new_request_id(), self.clock())
        try:
            request = call.request = read(message, self._limits, trust_forwarded=self._trust_forwarded)
            if request.request_id:
                call.request_id = request.request_id
            self._route(call)
            if call.entry is None:
                return await self.front.serve(call, payload)
            if call.entry.access is not None:
                preflight = self.guard.admit(call)
                if preflight is None:
                    await self.guard.ask(call)
                elif preflight:
                    return self.answer_preflight(call, preflight, payload)
            self.admission.check(call)
            if request.later:
                return await self.front.accept(call, payload)
            if request.hops:
                self.loops.check(call)
            self.deadlines.add(call)
            if payload is not EMPTY_PAYLOAD:
                await self._read_body(call, payload)
            self._dispatch(call)
            return await self.proxy.serve(call)
        except GatewayError as failure:
            return self._refuse(call, failure, payload)
        except asyncio.CancelledError:
            if not call.expired or client.transport is None:
                raise
            if client.task is not None:
                client.task.uncancel()
            return self._refuse(call, self._deadline(call), payload)
        except ClientGoneError:
            return False
        except Exception:
            log.exception("a bug while serving a request", extra={"requestId": call.request_id.decode("latin-1")})
            return self._refuse(call, GatewayError("internal", "the gateway failed", close=True), payload)
        finally:
            self._account(call)

    def _route(self, call: Call) -> None:
        """Finds the function and what the instance is to see of the path; no entry for a path of the platform's own.
        Raises GatewayError."""
        request = call.request
        target = request.target
        if target.startswith(names.FUNCTION_PATH):
            key, call.path = split_function_path(target)
            check_path(call.path)
            state, entry = self.known(key)
            call.extra = entry.prefix_line
        else:
            check_path(target)
            path = target.partition("?")[0]
            if path.startswith(PATHS) and self.front.route(call, path):
                return
            match = self._match(request, path)
            state, entry = self.known(match.key)
            call.path, call.extra = target, match.lines()
        call.state, call.entry = state, entry
        call.deadline = call.arrived + entry.timeout

    def _match(self, request: Request, path: str) -> Match:
        """The host route. A preflight that the gateway answers finds the route of the method it asks leave for."""
        find, host = self.catalog.routes.find, request.host_name
        if request.preflight:
            with suppress(GatewayError):
                match = find(host, request.preflight, path)
                access = self.known(match.key)[1].access
                if access is not None and access.cors is not None:
                    return match
        return find(host, request.method, path)

    def answer_preflight(self, call: Call, lines: bytes, payload: StreamReader) -> bool:
        keep = call.request.keep and not self.closing and payload.is_eof()
        head = b"HTTP/1.1 204 No Content\r\n%b%b: %b\r\n%b\r\n"
        close = b"" if keep else b"connection: close\r\n"
        call.client.send(head % (lines, names.HEADER_REQUEST_ID.encode(), call.request_id, close))
        return keep

    def known(self, key: str) -> tuple[State, Entry]:
        """The function, if there is one that may answer. Raises GatewayError."""
        state = self.catalog.functions.get(key)
        if state is not None and state.fault and not state.queue.instances:
            raise GatewayError("not_ready", state.fault)
        if state is None or state.entry is None:
            raise GatewayError("not_found", f"no function {key[:120]}")
        return state, state.entry

    async def _read_body(self, call: Call, payload: StreamReader) -> None:
        """Takes of the body what is to be held. Raises GatewayError."""
        assert call.state is not None
        assert call.entry is not None
        call.body = self.bodies.make(call.request, payload, call.entry.max_body, call.state)
        try:
            await self.bodies.hold(call.body, call.client, call.request)
        except GatewayError as failure:
            if failure.code == "overloaded":
                call.state.counters.reject(HELD_BODIES)
            raise

    def _dispatch(self, call: Call) -> None:
        """Takes an instance, or a place in the queue. Raises GatewayError when the queue is full."""
        assert call.state is not None
        if call.state.entry is not call.entry:  # it changed while the body came, or another one has its name
            before = call.entry.version[0] if call.entry is not None else ""
            call.state, call.entry = self.known(call.state.queue.key)
            if call.entry.access is not None and call.entry.version[0] != before:
                # its callers were never checked by these rules
                raise GatewayError("not_ready", "the function was replaced while the body came")
        queue, now = call.state.queue, self.clock()
        if queue.enter(call, now) is None:
            call.cold = not queue.instances
            if call.cold and call.state.fault:
                raise GatewayError("not_ready", call.state.fault)
            if queue.callers_waiting > call.state.max_waiting:  # it filled up while the body came
                queue.leave(call, now)
                call.state.counters.reject(QUEUE_FULL)
                raise GatewayError("queue_full", f"{queue.waiting} invocations already wait for {queue.key}")

    def _deadline(self, call: Call) -> GatewayError:
        if call.instance is not None:
            return GatewayError(
                "deadline", "the function did not answer before the deadline", close=not call.body.whole
            )
        if call.order:
            return GatewayError("no_capacity", "no instance was free before the deadline", close=not call.body.whole)
        return GatewayError("request_timeout", "the body did not come before the deadline", close=True)

    def _refuse(self, call: Call, failure: GatewayError, payload: StreamReader) -> bool:
        call.status = failure.status
        if call.state is None:
            self.refused[failure.code] += 1
        call.failed = failure.status >= 500
        call.client.refused = failure.status == 429
        if call.replied:
            text = "a reply was broken off: %s"  # that is all the caller sees of it
            log.warning(text, failure, extra={"requestId": call.request_id.decode("latin-1")})
            call.client.abort()
            return False
        request = call.request
        # What is left of a small body is soon thrown away; a caller that waits for 100 Continue may never send it
        small = 0 <= request.length <= self._limits.held_bytes and not request.continues
        keep = request.keep and not failure.close and not self.closing and (small or payload.is_eof())
        try:
            head_only = request.method == "HEAD"
            call.client.send(render(failure, call.request_id, keep=keep, head_only=head_only, extra=call.cors))
        except ClientGoneError:
            return False
        return keep

    def _account(self, call: Call) -> None:
        state = call.state
        if state is None:
            return
        call.body.close()
        now = self.clock()
        self.deadlines.discard(call)
        if call.expired and call.client.task is not None and call.client.task.cancelling():
            call.client.task.uncancel()  # it fired when the request was already done
            call.client.late_expiry = True
        if call.place is not OVER:
            state.queue.leave(call, now)
        if call.order:
            failed = call.failed or call.status >= 500
            state.counters.finish(call.status, now - call.arrived, failed=failed)

    # --- around the chain ---------------------------------------------------------------------------------------------
    def new_request_id(self) -> bytes:
        return b"%b%08x" % (self._id_prefix, next(self._ids))

    async def tick(self) -> None:
        """Fires deadlines and closes old connections until cancelled."""
        next_sweep = 0.0
        while True:
            await asyncio.sleep(SLOT_SECONDS)
            now = self.clock()
            self.deadlines.tick(now)
            if now >= next_sweep:
                next_sweep = now + 5.0
                self.pools.sweep(now - self.settings.pool_idle_seconds)
                self.admission.sweep(now)
                self.failures.sweep(now)

    def stats(self, since: float = 0.0) -> Stats:
        """Exact counters of every function that had traffic (see `stats.py`)."""
        hung = tuple(sorted(instance for instance, _ in self.doubts.hung()))
        return replace(self.readings.take(self.clock(), since), hung=hung)

    def connections(self) -> int:
        return len(self.server.connections)

    def tasks(self) -> int:
        return len(asyncio.all_tasks(self._loop))

    def _demand_of(self, key: str) -> tuple[int, int]:
        state = self.catalog.functions.get(key)
        return (state.queue.waiting, state.queue.in_service) if state is not None else (0, 0)

    def _count_refused(self, failure: GatewayError) -> None:
        self.refused[failure.code] += 1

    async def keep_routes(self) -> None:
        """Builds the host table anew after changes, until cancelled.

        Ten thousand routes take 0.2 s: a thread does it, so that requests go on, and it rests ten times as long.
        """
        while True:
            await self._routes_changed.wait()
            await asyncio.sleep(ROUTES_GATHER_SECONDS)
            self._routes_changed.clear()
            begun = self.clock()
            entries = self.catalog.routed()
            self.catalog.routes = await self._loop.run_in_executor(
                None, RouteTable, entries, self.settings.shared_hosts
            )
            await asyncio.sleep(10 * (self.clock() - begun))
