"""Fetching archives, from an https server on the loopback address."""

import hashlib
import ssl
from collections.abc import AsyncIterator

import pytest
import trustme
from aiohttp import web

from kappa_api.function import Archive
from kappa_operator.archive import ArchiveError, Limits, fetch

DATA = b"not really an archive" * 1000
GOOD = hashlib.sha256(DATA).hexdigest()
Server = tuple[str, ssl.SSLContext]


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async def data(_: web.Request) -> web.Response:
        return web.Response(body=DATA)

    async def redirect(request: web.Request) -> web.Response:
        raise web.HTTPFound(request.query["to"])

    async def loop(_: web.Request) -> web.Response:
        raise web.HTTPFound("/loop")

    async def missing(request: web.Request) -> web.Response:
        return web.Response(status=int(request.query["status"]))

    app = web.Application()
    app.router.add_get("/data", data)
    app.router.add_get("/redirect", redirect)
    app.router.add_get("/loop", loop)
    app.router.add_get("/missing", missing)
    authority = trustme.CA()
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(serving)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=serving).start()
    yield f"https://127.0.0.1:{runner.addresses[0][1]}", trusting
    await runner.cleanup()


async def test_the_right_bytes(server: Server) -> None:
    url, context = server
    assert await fetch(Archive(f"{url}/data", GOOD), Limits(), context) == DATA
    assert await fetch(Archive(f"{url}/redirect?to=/data", GOOD), Limits(), context) == DATA


@pytest.mark.parametrize(
    ("path", "sha256", "limits", "words", "permanent"),
    [
        ("/data", "0" * 64, Limits(), f"has sha256 {GOOD}, not 000", True),
        ("/data", GOOD, Limits(packed=1000), "is larger than", True),
        ("/redirect?to=http://127.0.0.1:9/data", GOOD, Limits(), "redirects away from https", True),
        ("/loop", GOOD, Limits(), "redirects more than 5 times", True),
        ("/missing?status=404", GOOD, Limits(), "answered 404", True),
        ("/missing?status=503", GOOD, Limits(), "answered 503", False),
        ("/missing?status=429", GOOD, Limits(), "answered 429", False),
    ],
)
async def test_refused(server: Server, path: str, sha256: str, limits: Limits, words: str, permanent: bool) -> None:
    url, context = server
    with pytest.raises(ArchiveError, match=words) as caught:
        await fetch(Archive(url + path, sha256), limits, context)
    assert caught.value.permanent is permanent


async def test_a_server_that_is_not_trusted_or_not_there(server: Server) -> None:
    url, context = server
    for target, trust in ((url, ssl.create_default_context()), ("https://127.0.0.1:9", context)):
        with pytest.raises(ArchiveError, match="cannot fetch") as caught:
            await fetch(Archive(f"{target}/data", GOOD), Limits(), trust)
        assert not caught.value.permanent
