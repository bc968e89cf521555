"""The internal API: probes, metrics, and what gateways and people ask of the leader.

A standby is ready too (it can take over), but answers 421 to everything that only the leader can do.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from kappa_api import names
from kappa_api.keyring import Keyring
from kappa_api.wire import Demand, WireError
from kappa_operator.metrics import Metrics

Json = Any
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
PATH_DECISIONS = "/v1/decisions"


class Leader(Protocol):
    """What only a leader has."""

    def demand(self, message: Demand) -> None: ...
    def decisions(self) -> Json: ...


class Admin:
    """The application of the admin port. `leader` is None on a standby."""

    def __init__(self, keys: Keyring, metrics: Metrics) -> None:
        self._keys, self._metrics = keys, metrics
        self.leader: Leader | None = None
        self.ready = False

    def app(self) -> web.Application:
        app = web.Application(client_max_size=4 << 20)
        app.router.add_get(names.PATH_HEALTHZ, self._healthz)
        app.router.add_get(names.PATH_READYZ, self._readyz)
        app.router.add_get(names.PATH_METRICS, self._metrics_page)
        app.router.add_post(names.PATH_DEMAND, self._guarded(self._demand))
        app.router.add_get(PATH_DECISIONS, self._guarded(self._decisions))
        return app

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        role = "leader" if self.leader else "standby"
        return web.Response(text=f"{role}\n") if self.ready else web.Response(text="starting\n", status=503)

    async def _metrics_page(self, _: web.Request) -> web.Response:
        self._metrics.tasks.set(len(asyncio.all_tasks()))
        return web.Response(body=generate_latest(self._metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    def _guarded(self, handler: Callable[[web.Request, Leader], Awaitable[web.Response]]) -> Handler:
        async def guard(request: web.Request) -> web.Response:
            if not self._keys.accepts_internal(request.headers.get("Authorization", "")):
                return error(401, "Unauthorized", "a bearer token of this platform is required")
            if self.leader is None:
                return error(421, "NotLeader", "not the leader")
            return await handler(request, self.leader)

        return guard

    async def _demand(self, request: web.Request, leader: Leader) -> web.Response:
        try:
            leader.demand(Demand.from_json(await request.json()))
        except (WireError, ValueError) as wrong:
            return error(400, "BadRequest", str(wrong))
        return web.Response(status=204)

    async def _decisions(self, _: web.Request, leader: Leader) -> web.Response:
        return web.json_response(leader.decisions())


def error(status: int, code: str, message: str) -> web.Response:
    """An error as every internal API of Kappa writes it."""
    return web.json_response({"error": {"code": code, "message": message}}, status=status)
