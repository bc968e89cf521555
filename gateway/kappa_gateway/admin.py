"""The admin port: health for the kubelet, metrics for Prometheus, exact counters for the operator.

Whatever is added here needs the platform's token: the guard stands before all routes.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from kappa_api import names
from kappa_gateway.app import Gateway
from kappa_gateway.events.front.admin import add_routes
from kappa_gateway.events.metrics import EventsCollector
from kappa_gateway.metrics import GatewayCollector

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: All else needs the platform's token, also what does not exist. Kubelets and Prometheus have none; what these tell is
#: kept inside by the NetworkPolicy.
OPEN_PATHS: Final = frozenset({names.PATH_HEALTHZ, names.PATH_READYZ, names.PATH_METRICS})


def make_admin(gateway: Gateway) -> web.Application:
    """The application of the admin port."""
    registry = CollectorRegistry()
    registry.register(GatewayCollector(gateway))
    if gateway.events is not None:
        registry.register(EventsCollector(gateway.events))
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    keys = gateway.settings.keys

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in OPEN_PATHS and not keys.accepts_internal(request.headers.get("authorization", "")):
            return web.json_response({"error": {"code": "unauthorized", "message": "bearer token needed"}}, status=401)
        return await handler(request)

    async def healthz(request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(request: web.Request) -> web.Response:
        if gateway.closing:
            return web.Response(status=503, text="shutting down\n")
        if not gateway.ready:
            return web.Response(status=503, text="the functions are not known yet\n")
        return web.Response(text="ok\n")

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"content-type": CONTENT_TYPE_LATEST})

    async def stats(request: web.Request) -> web.Response:
        # Only a reader that has read this very process may ask for what is newer than its last reading.
        same = request.query.get("epoch") == gateway.epoch
        try:
            since = float(request.query.get("since", "0")) if same else 0.0
        except ValueError:
            since = 0.0
        return web.Response(body=json.dumps(gateway.stats(since).to_json()).encode(), content_type="application/json")

    app = web.Application(middlewares=[guard])
    app.router.add_get(names.PATH_HEALTHZ, healthz)
    app.router.add_get(names.PATH_READYZ, readyz)
    app.router.add_get(names.PATH_METRICS, metrics)
    app.router.add_get(names.PATH_STATS, stats)
    add_routes(app, gateway)
    return app
