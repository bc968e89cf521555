"""The admin port: health for the kubelet, metrics for Prometheus, exact counters for the operator."""

import json

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from kappa_api import names, tokens
from kappa_gateway.app import Gateway
from kappa_gateway.metrics import GatewayCollector


def make_admin(gateway: Gateway) -> web.Application:
    """The application of the admin port."""
    registry = CollectorRegistry()
    registry.register(GatewayCollector(gateway))
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    token = tokens.internal_token(gateway.settings.secret)

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
        if not tokens.accepts(token, request.headers.get("authorization", "")):
            return web.json_response({"error": {"code": "unauthorized", "message": "bearer token needed"}}, status=401)
        return web.Response(body=json.dumps(gateway.stats().to_json()).encode(), content_type="application/json")

    app = web.Application()
    app.router.add_get(names.PATH_HEALTHZ, healthz)
    app.router.add_get(names.PATH_READYZ, readyz)
    app.router.add_get(names.PATH_METRICS, metrics)
    app.router.add_get(names.PATH_STATS, stats)
    return app
