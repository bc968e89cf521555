"""Fetching archives, from an https server on the loopback address."""

import hashlib
import socket
import ssl
from collections.abc import AsyncIterator

import pytest
import trustme
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from kappa_api.function import Archive
from kappa_operator.archive import ArchiveError, Limits, fetch
from kappa_operator.destinations import Destinations

DATA = b"not really an archive" * 1000
GOOD = hashlib.sha256(DATA).hexdigest()
LOOPBACK = Destinations.parse("127.0.0.0/8", "", http=False)
Server = tuple[str, ssl.SSLContext]


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async def data(_: web.Request) -> web.Response:
        return web.Response(body=DATA)

    async def redirect(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": request.query["to"]})

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
    assert await fetch(Archive(f"{url}/data", GOOD), Limits(), context, LOOPBACK) == DATA
    assert await fetch(Archive(f"{url}/redirect?to=/data", GOOD), Limits(), context, LOOPBACK) == DATA


@pytest.mark.parametrize(
    ("path", "sha256", "limits", "words", "permanent"),
    [
        ("/data", "0" * 64, Limits(), f"has sha256 {GOOD}, not 000", True),
        ("/data", GOOD, Limits(packed=1000), "is larger than", True),
        ("/redirect?to=http://127.0.0.1:9/data", GOOD, Limits(), "redirects to plain http is not allowed", True),
        ("/loop", GOOD, Limits(), "redirects more than 5 times", True),
        (
            "/redirect?to=https://169.254.169.254/latest",
            GOOD,
            Limits(),
            "redirects to 169.254.169.254 has a loop",
            True,
        ),
        ("/redirect?to=https://[::ffff:10.0.0.1]/", GOOD, Limits(), "has a private address", True),
        ("/redirect?to=file:///etc/passwd", GOOD, Limits(), "'file' is not allowed", True),
        ("/redirect?to=https://[bad/", GOOD, Limits(), "is not a URL", True),
        ("/missing?status=404", GOOD, Limits(), "answered 404", True),
        ("/missing?status=503", GOOD, Limits(), "answered 503", False),
        ("/missing?status=429", GOOD, Limits(), "answered 429", False),
    ],
)
async def test_refused(server: Server, path: str, sha256: str, limits: Limits, words: str, permanent: bool) -> None:
    url, context = server
    with pytest.raises(ArchiveError, match=words) as caught:
        await fetch(Archive(url + path, sha256), limits, context, LOOPBACK)
    assert caught.value.permanent is permanent


async def test_a_server_that_is_not_trusted_or_not_there(server: Server) -> None:
    url, context = server
    for target, trust in ((url, ssl.create_default_context()), ("https://127.0.0.1:9", context)):
        with pytest.raises(ArchiveError, match="cannot fetch") as caught:
            await fetch(Archive(f"{target}/data", GOOD), Limits(), trust, LOOPBACK)
        assert not caught.value.permanent


class Answers(AbstractResolver):
    """A name server that gives another answer each time it is asked."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers, self.asked = list(answers), 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        return [
            ResolveResult(
                hostname=host,
                host=ip,
                port=port,
                family=socket.AF_INET6 if ":" in ip else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for ip in found
        ]

    async def close(self) -> None:
        return


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "10.0.0.1", "169.254.169.254", "0.0.0.0", "[64:ff9b::7f00:1]"],
)
async def test_addresses_in_the_url(host: str) -> None:
    with pytest.raises(ArchiveError, match="archives come from public addresses") as caught:
        await fetch(Archive(f"https://{host}/a", GOOD), Limits(), ssl.create_default_context())
    assert caught.value.permanent


@pytest.mark.parametrize("host", ["2130706433", "127.1", "0x7f000001", "0177.0.0.1", "①②⑦.0.0.1", "0"])
async def test_other_spellings_of_loopback(host: str, server: Server) -> None:
    """Whether the client library, the resolver or our own rule refuses them: nothing is connected to."""
    url, context = server
    with pytest.raises(ArchiveError):
        await fetch(Archive(f"https://{host}:{url.rpartition(':')[2]}/data", GOOD), Limits(seconds=5), context)


@pytest.mark.parametrize("answer", [["127.0.0.1"], ["93.184.216.34", "10.0.0.1"], ["fe80::1%1"]])
async def test_names_that_lead_inside(answer: list[str]) -> None:
    context = ssl.create_default_context()
    with pytest.raises(ArchiveError, match=r"evil\.example\.org has a") as caught:
        await fetch(Archive("https://evil.example.org/a", GOOD), Limits(), context, Destinations(), Answers(answer))
    assert not caught.value.permanent  # a name can be mended


async def test_a_name_is_asked_for_once_and_its_answer_is_connected_to(server: Server) -> None:
    """DNS rebinding: the second answer would be another address; there is no second question."""
    url, context = server
    names = Answers(["127.0.0.1"], ["169.254.169.254"])
    context.check_hostname = False
    target = Archive(url.replace("127.0.0.1", "code.example.org") + "/data", GOOD)
    assert await fetch(target, Limits(), context, LOOPBACK, names) == DATA
    assert names.asked == 1


async def test_a_redirect_asks_again_and_is_checked_again(server: Server) -> None:
    url, context = server
    context.check_hostname = False
    names = Answers(["127.0.0.1"], ["169.254.169.254"])
    base = url.replace("127.0.0.1", "code.example.org")
    with pytest.raises(ArchiveError, match=r"code\.example\.org has a loopback, link-local"):
        await fetch(Archive(f"{base}/redirect?to=/data", GOOD), Limits(), context, LOOPBACK, names)


async def test_plain_http_only_where_the_admin_allows_it() -> None:
    app = web.Application()

    async def data(_: web.Request) -> web.Response:
        return web.Response(body=DATA)

    app.router.add_get("/data", data)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    archive = Archive(f"http://127.0.0.1:{runner.addresses[0][1]}/data", GOOD)
    context = ssl.create_default_context()
    try:
        with pytest.raises(ArchiveError, match="plain http is not allowed here") as caught:
            await fetch(archive, Limits(), context, LOOPBACK)
        assert caught.value.permanent
        assert await fetch(archive, Limits(), context, Destinations.parse("127.0.0.0/8", "", http=True)) == DATA
    finally:
        await runner.cleanup()


async def test_the_time_limit_is_one_for_all_redirects(server: Server) -> None:
    """A server that trickles or redirects slowly cannot hold one of the few places for long."""
    url, context = server
    with pytest.raises(ArchiveError, match=r"not fetched within 0 s") as caught:
        await fetch(Archive(f"{url}/redirect?to=/data", GOOD), Limits(seconds=0), context, LOOPBACK)
    assert not caught.value.permanent
