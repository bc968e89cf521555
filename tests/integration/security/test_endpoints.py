"""Every endpoint of the internal ports needs the platform's token; the data port has none of them.

The routes are read from the applications themselves, so that one which is added without a check fails here.
"""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from kappa_gateway_rig import Rig, running

from kappa_api import names
from kappa_api.keyring import Keyring
from kappa_api.tokens import internal_token, pod_token
from kappa_gateway.admin import make_admin
from kappa_operator.admin import Admin
from kappa_operator.metrics import Metrics

SECRET = b"secret"
#: Endpoints that anybody who reaches the port may ask, each with the reason. The NetworkPolicies say who reaches it.
OPEN = {
    names.PATH_HEALTHZ: "the kubelet's probe has no token; it tells nothing",
    names.PATH_READYZ: "the kubelet's probe has no token; it tells whether this replica serves or leads",
    names.PATH_METRICS: "Prometheus has no token; it tells names of functions and their numbers",
}
WRONG = [
    None,
    "",
    "Bearer",
    "Bearer ",
    internal_token(SECRET),
    f"Basic {internal_token(SECRET)}",
    f"Bearer {SECRET.decode()}",
    f"Bearer {internal_token(b'other')}",
    f"Bearer {pod_token(SECRET, 'default', 'pod-1')}",
    f"Bearer {internal_token(SECRET)}x",
    "Bearer \xe9",
]


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with running() as found:
        yield found


def endpoints(app: web.Application) -> set[tuple[str, str]]:
    """(method, path) of every route, those of sub-applications included."""
    found = set()
    for route in app.router.routes():
        assert route.resource is not None, "a route without a path: is it guarded?"
        found.add((route.method, route.resource.canonical))
    return found


async def refuses_all_but_the_open_ones(app: web.Application) -> None:
    guarded = {(method, path) for method, path in endpoints(app) if path not in OPEN}
    assert guarded
    assert {path for _, path in endpoints(app)} >= set(OPEN)
    async with TestClient(TestServer(app)) as client:
        for method, path in guarded:
            target = path.replace("{", "").replace("}", "")
            for header in WRONG:
                headers = {} if header is None else {"Authorization": header}
                async with client.request(method, target, headers=headers, data=b"{}") as answer:
                    assert answer.status in (401, 403), (method, path, header, answer.status)
            good = {"Authorization": f"Bearer {internal_token(SECRET)}"}
            async with client.request(method, target, headers=good, data=b"{}") as answer:
                assert answer.status not in (401, 403), (method, path)
        for path in OPEN:
            async with client.get(path) as answer:
                assert answer.status in (200, 503)


async def test_the_gateways_admin_port(rig: Rig) -> None:
    app = make_admin(rig.gateway)
    await refuses_all_but_the_open_ones(app)


async def test_the_gateways_guard_stands_before_what_will_be_added(rig: Rig) -> None:
    app = make_admin(rig.gateway)

    async def careless(request: web.Request) -> web.Response:
        return web.Response(text="everything")

    app.router.add_get("/v1/new", careless)
    async with TestClient(TestServer(app)) as client:
        for path in ("/v1/new", "/no/such/path", "/healthz/", "/HEALTHZ", "/healthz;x", "/%2Fhealthz"):
            async with client.get(path) as answer:
                assert answer.status == 401, path


async def test_the_operators_admin_port() -> None:
    await refuses_all_but_the_open_ones(Admin(Keyring(SECRET), Metrics()).app())


INTERNAL_PATHS = (
    names.PATH_HEALTHZ,
    names.PATH_READYZ,
    names.PATH_METRICS,
    names.PATH_STATS,
    names.PATH_DEMAND,
    names.PATH_HEALTH,
    names.PATH_REVISION,
    names.PATH_DRAIN,
)


@pytest.mark.parametrize("path", INTERNAL_PATHS)
@pytest.mark.parametrize("prefix", ["", "/fn/default/hello", "/fn/default/no-such"])
async def test_the_data_port_has_no_internal_endpoint(rig: Rig, prefix: str, path: str) -> None:
    """Not for whoever has the token either. What a function itself has at such a path is its own."""
    rig.function("hello")
    instance = await rig.instance("hello")
    token = f"authorization: Bearer {internal_token(SECRET)}"
    for method in ("GET", "PUT", "POST"):
        reply = await rig.get(prefix + path, token, method=method)
        passes = prefix == "/fn/default/hello" and not path.startswith(names.PATH_PREFIX)
        assert reply.status == (200 if passes else 404), (method, prefix + path)
    assert [seen.target for seen in instance.seen if seen.target.startswith("/_kappa")] == []


@pytest.mark.parametrize(
    "path",
    ["/%5fkappa/drain", "/_kapp%61/drain", "//_kappa/drain", "/x/../_kappa/drain", "/.//_kappa/drain", "/%2f_kappa"],
)
async def test_no_spelling_leads_to_the_runtimes_own_paths(rig: Rig, path: str) -> None:
    rig.function("hello", http={"routes": [{"path": "/{rest+}"}]})
    rig.gateway.catalog.rebuild_routes()
    instance = await rig.instance("hello")
    for prefix in ("", "/fn/default/hello"):
        reply = await rig.get(prefix + path)
        assert reply.status in (400, 404), prefix + path
    assert instance.seen == []
