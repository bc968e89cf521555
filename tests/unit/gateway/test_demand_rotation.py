"""While the platform secret changes, the operator may know one that the gateway has already replaced."""

from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from kappa_api.keyring import Keyring
from kappa_api.tokens import internal_token
from kappa_api.wire import Demand
from kappa_gateway.demand import DemandReporter

BOTH = [f"Bearer {internal_token(secret)}" for secret in (b"new", b"old")]


def keys(folder: Path) -> Keyring:
    (folder / "secret").write_text("new")
    (folder / "previous").write_text("old")
    return Keyring(b"new", str(folder / "secret"))


@pytest.mark.parametrize(
    ("known", "problem", "tried"),
    [(BOTH, "", 1), (BOTH[1:], "", 2), ([], "answered 401", 2)],
    ids=["the new one", "only the old one", "neither"],
)
async def test_the_previous_secret_is_tried(tmp_path: Path, known: list[str], problem: str, tried: int) -> None:
    seen: list[str] = []

    async def demand(request: web.Request) -> web.Response:
        seen.append(request.headers["authorization"])
        return web.Response(status=204 if seen[-1] in known else 401)

    app = web.Application()
    app.router.add_post("/v1/demand", demand)
    async with TestServer(app, host="127.0.0.1") as server, aiohttp.ClientSession() as session:

        async def find() -> str:
            return f"127.0.0.1:{server.port}"

        reporter = DemandReporter("gw", keys(tmp_path), find, lambda key: (1, 0))
        reporter._address = await find()
        found = await reporter._send(session, Demand("gw", {"ns/fn": (1, 0)}))
    assert bool(found) is bool(problem)
    assert found.endswith(problem)
    assert seen == BOTH[:tried]
