"""The gateway's request chain, readable in one place (`Gateway.handle`), and what its steps share.

parse -> route -> authenticate -> limits -> dispatch -> send -> stream back -> account (design section 7).
"""

import asyncio
import itertools
import logging
import os
import time
from collections import Counter
from typing import Final

from aiohttp.http import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

from kappa_api import names
from kappa_api.wire import FunctionStats, Stats
from kappa_gateway import bodies
from kappa_gateway.call import Call
from kappa_gateway.catalog import Catalog, State
from kappa_gateway.deadlines import SLOT_SECONDS, Deadlines
from kappa_gateway.demand import DemandReporter, FindOperator
from kappa_gateway.errors import GatewayError, render
from kappa_gateway.pool import Pools
from kappa_gateway.proxy import Proxy
from kappa_gateway.request import UNREAD, read
from kappa_gateway.retry import Outcome
from kappa_gateway.routes import Entry, RouteTable, check_path, split_function_path
from kappa_gateway.server import Client, ClientGoneError, DataServer
from kappa_gateway.settings import Settings
from kappa_gateway.websocket import Relay

log = logging.getLogger(__name__)

#: Changes of routes that come within this time are gathered into one new table.
ROUTES_GATHER_SECONDS: Final = 0.02


class Gateway:
    """Everything on the request path. `main.py` feeds `catalog` from the watches and opens the ports."""

    def __init__(self, settings: Settings, find_operator: FindOperator, *, port: int = names.INSTANCE_PORT) -> None:
        self.settings = settings
        self._limits, self._trust_forwarded = settings.limits, settings.trust_forwarded
        self.clock = time.monotonic
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
        self.catalog = Catalog(self.clock, routes_stale=self._routes_changed.set, instance_gone=self.pools.drop)
        self.deadlines = Deadlines()
        self.demand = DemandReporter(settings.name, settings.secret, find_operator, self._demand_of)
        self.proxy = Proxy(self)
        self.server = DataServer(
            self.handle, settings.limits, new_request_id=self.new_request_id, count_refused=self._count_refused
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
            # authenticate: `spec.http.auth` knows only `none` so far
            self.deadlines.add(call)
            if payload is not EMPTY_PAYLOAD:
                call.body = await bodies.hold(client, request, payload, self._limits, self._body_limit(call))
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
        """Finds the function and what the instance is to see of the path. Raises GatewayError."""
        request = call.request
        target = request.target
        if target.startswith(names.FUNCTION_PATH):
            key, call.path = split_function_path(target)
            check_path(call.path)
            state, entry = self._known(key)
            call.extra = entry.prefix_line
        else:
            check_path(target)
            match = self.catalog.routes.find(request.host_name, request.method, target.partition("?")[0])
            state, entry = self._known(match.key)
            call.path, call.extra = target, match.lines()
        call.state, call.entry = state, entry
        call.deadline = call.arrived + entry.timeout

    def _known(self, key: str) -> tuple[State, Entry]:
        """The function, if there is one that may answer. Raises GatewayError."""
        state = self.catalog.functions.get(key)
        if state is not None and state.fault and not state.queue.instances:
            raise GatewayError("not_ready", state.fault)
        if state is None or state.entry is None:
            raise GatewayError("not_found", f"no function {key[:120]}")
        return state, state.entry

    def _body_limit(self, call: Call) -> int:
        assert call.entry is not None
        return min(self._limits.body_bytes, call.entry.max_body or self._limits.body_bytes)

    def _dispatch(self, call: Call) -> None:
        """Takes an instance, or a place in the queue. Raises GatewayError when the queue is full."""
        assert call.state is not None
        queue, now = call.state.queue, self.clock()
        call.instance = queue.enter(call, now)
        if call.instance is None:
            call.cold = not queue.instances
            if queue.waiting > self._limits.waiting_per_function:
                queue.leave(call, now)
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
        if call.replied:
            call.client.abort()
            return False
        keep = call.request.keep and not failure.close and not self.closing and payload.is_eof()
        try:
            call.client.send(render(failure, call.request_id, keep=keep, head_only=call.request.method == "HEAD"))
        except ClientGoneError:
            return False
        return keep

    def _account(self, call: Call) -> None:
        state = call.state
        if state is None:
            return
        now = self.clock()
        self.deadlines.discard(call)
        if call.expired and call.client.task is not None and call.client.task.cancelling():
            call.client.task.uncancel()  # it fired when the request was already done
            call.client.late_expiry = True
        if call.instance is not None:
            state.queue.release(call.instance, now)
            call.instance = None
        elif call.grant is not None:
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

    def stats(self) -> Stats:
        """Exact counters of every function that had traffic."""
        now = self.clock()
        functions = {}
        for key, state in self.catalog.functions.items():
            queue, counters = state.queue, state.counters
            if queue.arrivals:
                functions[key] = FunctionStats(
                    invocations=counters.finished,
                    errors=counters.errors,
                    arrivals=queue.arrivals,
                    cold_starts=counters.cold_starts,
                    service_seconds=queue.service_seconds(now),
                    waiting_seconds=queue.waiting_seconds(now),
                    in_service=queue.in_service,
                    waiting=queue.waiting,
                )
        draining = {key: instance.in_service for key, instance in self.catalog.draining.items()}
        return Stats(self.settings.name, self.epoch, now, functions, draining)

    def connections(self) -> int:
        return len(self.server.connections)

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
            self.catalog.routes = await self._loop.run_in_executor(None, RouteTable, entries)
            await asyncio.sleep(10 * (self.clock() - begun))
