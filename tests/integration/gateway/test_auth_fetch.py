"""Fetching issuers' documents: where it may go, how much it takes, and what it says of what went wrong."""

import asyncio
import ssl
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import trustme
from aiohttp import web

from kappa_gateway.auth import fetch
from kappa_gateway.auth.fetch import MAX_BYTES, FetchError, HttpFetcher, address_problem


class Server:
    """Answers by path; `asked` has every path."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.url = self.other = ""

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(request.path)
        match request.path:
            case "/good":
                return web.json_response({"a": 1})
            case "/text":
                return web.Response(text="secret of an internal service")
            case "/large":
                return web.Response(body=b'"' + b"x" * MAX_BYTES + b'"')
            case "/same":
                raise web.HTTPFound("/good")
            case "/elsewhere":
                raise web.HTTPFound(f"{self.other}/good")
            case "/metadata":
                raise web.HTTPFound("http://169.254.169.254/latest/meta-data/")
            case "/round":
                raise web.HTTPTemporaryRedirect("/round")
            case "/slow":
                await asyncio.Event().wait()
            case "/nowhere":
                return web.Response(status=302)
        return web.Response(status=500, text="secret")


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    found = Server()
    runner = web.ServerRunner(web.Server(found.answer), shutdown_timeout=0.1)
    await runner.setup()
    for _ in range(2):
        await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.url, found.other = (f"http://127.0.0.1:{address[1]}" for address in runner.addresses)
    yield found
    await runner.cleanup()


@pytest_asyncio.fixture
async def fetcher() -> AsyncIterator[HttpFetcher]:
    found = HttpFetcher(allow_http=True)
    yield found
    await found.close()


@pytest.mark.parametrize("path", ["/good", "/same"])
async def test_documents(server: Server, fetcher: HttpFetcher, path: str) -> None:
    assert await fetcher.json(server.url + path) == {"a": 1}


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/text", "not JSON"),
        ("/large", "more than 262144 bytes"),
        ("/elsewhere", "redirects to another place"),
        ("/metadata", "redirects to another place"),
        ("/round", "more than 3 redirects"),
        ("/nowhere", "redirects"),
        ("/broken", "status 500"),
    ],
)
async def test_what_is_refused(server: Server, fetcher: HttpFetcher, path: str, why: str) -> None:
    with pytest.raises(FetchError, match=why) as caught:
        await fetcher.json(server.url + path)
    assert "secret" not in str(caught.value)
    assert "/good" not in server.asked


async def test_the_time_is_bounded(server: Server, fetcher: HttpFetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "SECONDS", 0.05)
    with pytest.raises(FetchError, match="no answer within"):
        await fetcher.json(server.url + "/slow")


@pytest.mark.parametrize("allow_http", [False, True])
@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "[fe80::1]",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a9fe:a9fe::]",
        "[fd00:ec2::254]",
        "100.100.100.200",
        "192.0.0.192",
        "168.63.129.16",
        "0.0.0.0",
        "[::]",
        "224.0.0.1",
        "255.255.255.255",
        "2852039166",  # 169.254.169.254 as one number: a name to us, an address to the resolver
        "0xa9fea9fe",
        "0251.0376.0251.0376",
    ],
)
async def test_places_that_are_never_asked(host: str, allow_http: bool) -> None:
    fetcher = HttpFetcher(allow_http=allow_http)
    try:
        with pytest.raises(FetchError, match=r"link-local|not an address|URL is not valid"):
            await fetcher.json(f"http{'' if allow_http else 's'}://{host}/keys")
    finally:
        await fetcher.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "2130706433", "127.1", "[::ffff:127.0.0.1]"])
async def test_loopback_is_for_development(server: Server, host: str) -> None:
    fetcher = HttpFetcher(allow_http=False)
    port = server.url.rpartition(":")[2]
    try:
        with pytest.raises(FetchError, match=r"loopback|URL is not valid"):
            await fetcher.json(f"https://{host}:{port}/good")
        with pytest.raises(FetchError, match="only https"):
            await fetcher.json(f"http://{host}:{port}/good")
    finally:
        await fetcher.close()
    assert not server.asked


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://a/b", "gopher://a/", "//a/b", "keys", ""])
async def test_other_schemes(fetcher: HttpFetcher, url: str) -> None:
    with pytest.raises(FetchError, match="only https"):
        await fetcher.json(url)


@pytest.mark.parametrize("address", ["10.0.0.1", "192.168.1.1", "172.20.0.1", "fd12::1", "8.8.8.8", "2606:4700::1111"])
def test_where_issuers_may_be(address: str) -> None:
    assert address_problem(address, loopback=False) == ""


async def test_certificates_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    runner = web.ServerRunner(web.Server(Server().answer), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    url = f"https://127.0.0.1:{runner.addresses[0][1]}/good"
    fetcher = HttpFetcher(allow_http=True)
    try:
        with pytest.raises(FetchError, match="certificate"):
            await fetcher.json(url)
    finally:
        await fetcher.close()
        await runner.cleanup()
