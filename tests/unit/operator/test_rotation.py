"""While the platform secret changes, gateways may know another one than the leader; pods keep the token they have."""

from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from kappa_api.keyring import Keyring, key_id
from kappa_api.tokens import internal_token, pod_token
from kappa_api.wire import Stats
from kappa_operator.autoscaler.scrape import Scraper
from kappa_operator.autoscaler.signals import Signals
from kappa_operator.clock import Clock
from kappa_operator.instance import PodClient, PodError
from kappa_operator.metrics import Metrics
from kappa_operator.observed import Pod
from kappa_operator.settings import Settings


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "secret").write_text("new")
    (tmp_path / "previous").write_text("old")
    return str(tmp_path / "secret")


@pytest.mark.parametrize(
    ("made_with", "label", "tried"),
    [
        (b"new", key_id(b"new"), [b"new"]),
        (b"old", key_id(b"old"), [b"old"]),
        (b"old", "", [b"new", b"old"]),  # made by a Kappa that did not label its pods
        (b"gone", key_id(b"gone"), [b"new", b"old"]),
    ],
    ids=["new", "old", "no label", "neither"],
)
async def test_a_pod_gets_the_token_of_its_own_secret(
    file: str, made_with: bytes, label: str, tried: list[bytes]
) -> None:
    seen: list[str] = []

    async def drain(request: web.Request) -> web.Response:
        seen.append(request.headers["authorization"])
        return web.Response(status=200 if seen[-1] == f"Bearer {pod_token(made_with, 'ns', 'p')}" else 401)

    app = web.Application()
    app.router.add_post("/_kappa/drain", drain)
    async with TestServer(app, host="127.0.0.1") as server:
        client = PodClient(Keyring(b"new", file), port=server.port or 0)
        pod = Pod("ns", "p", "uid", 1, 0.0, ip="127.0.0.1", secret_id=label)
        if made_with == b"gone":
            with pytest.raises(PodError, match="drain answered 401"):
                await client.drain(pod, 5.0)
        else:
            await client.drain(pod, 5.0)
        await client.close()
    assert seen == [f"Bearer {pod_token(secret, 'ns', 'p')}" for secret in tried]


@pytest.mark.parametrize(("known", "tried"), [(b"new", 1), (b"old", 2), (b"other", 2)])
async def test_gateways_are_read_with_the_secret_that_they_know(file: str, known: bytes, tried: int) -> None:
    seen: list[str] = []

    async def stats(request: web.Request) -> web.Response:
        seen.append(request.headers["authorization"])
        if seen[-1] != f"Bearer {internal_token(known)}":
            return web.Response(status=401)
        return web.json_response(Stats("gw", "e", 1.0, {}, {}).to_json())

    app = web.Application()
    app.router.add_get("/v1/stats", stats)
    settings, signals = Settings(b"new", "me", secret_file=file), Signals()
    scraper = Scraper(signals, settings, Metrics(), Clock())
    async with TestServer(app, host="127.0.0.1") as server, aiohttp.ClientSession() as session:
        reading = scraper._stats(session, f"http://127.0.0.1:{server.port}/v1/stats")
        if known == b"other":
            with pytest.raises(aiohttp.ClientResponseError):
                await reading
        else:
            assert (await reading).gateway == "gw"
    assert seen == [f"Bearer {internal_token(secret)}" for secret in (b"new", b"old")[:tried]]
