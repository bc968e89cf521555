"""Fetching an issuer's public documents: small JSON from a place that the author of a Function named.

The author chooses the URL and the gateway's pod makes the connection, so it must not become a way into what only the
pod reaches (server-side request forgery): https only, unless the admin allows more; never a link-local address, where
clouds keep their credentials; loopback only with plain http allowed; no redirect to another place; bounded in size and
time. The addresses judged are those connected to, so that a name cannot change in between. Private addresses are
allowed: issuers often run in the cluster, and https with a certificate for the name is not what else answers there.
"""

import ipaddress
import json
import socket
from typing import Any, Final, Protocol
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from kappa_api.addresses import unwrapped

Json = Any
MAX_BYTES: Final = 256 * 1024
SECONDS: Final = 5.0
MAX_REDIRECTS: Final = 3

#: Metadata services outside 169.254.0.0/16 and fe80::/10: of AWS over IPv6, Alibaba, Oracle and Azure.
_METADATA: Final = tuple(
    map(ipaddress.ip_network, ("fd00:ec2::/32", "100.100.100.200/32", "192.0.0.0/24", "168.63.129.16/32"))
)


class FetchError(Exception):
    """The document cannot be had; the message holds nothing of what was answered."""


class Fetcher(Protocol):
    """`HttpFetcher`, or answers from a table in tests."""

    async def json(self, url: str) -> Json: ...

    async def close(self) -> None: ...


def address_problem(text: str, *, loopback: bool) -> str:
    """What is wrong with connecting to this address, or an empty string."""
    address = unwrapped(ipaddress.ip_address(text.partition("%")[0]))
    if address.is_loopback:
        return "" if loopback else "a loopback address"
    if address.is_link_local or any(address in network for network in _METADATA if network.version == address.version):
        return "a link-local or metadata address"
    if address.is_unspecified or address.is_multicast or (address.version == 4 and address.is_reserved):
        return "not an address of a host"
    return ""


def host_problem(url: str, *, loopback: bool) -> str:
    """What is wrong with a URL whose host is an address; names are judged by the resolver."""
    try:
        return address_problem(urlsplit(url).hostname or "", loopback=loopback)
    except ValueError:
        return ""


class GuardedResolver(AbstractResolver):
    """Names to the addresses that may be connected to."""

    def __init__(self, *, loopback: bool) -> None:
        self._loopback, self._resolver = loopback, ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        for result in found:  # one bad address among good ones is not a mistake
            if problem := address_problem(result["host"], loopback=self._loopback):
                raise FetchError(f"{host[:200]} is {problem}")
        return found

    async def close(self) -> None:
        await self._resolver.close()


class HttpFetcher:
    """`allow_http`: plain http and loopback addresses too, for development and tests."""

    def __init__(self, *, allow_http: bool) -> None:
        self._allow_http = allow_http
        self._session: aiohttp.ClientSession | None = None

    async def json(self, url: str) -> Json:
        """The document at `url`. Raises FetchError."""
        try:
            return json.loads(await self._fetch(url))
        except TimeoutError as error:
            raise FetchError(f"no answer within {SECONDS:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise FetchError(plain(error)) from error
        except (ValueError, RecursionError) as error:
            raise FetchError("the answer is not JSON") from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _fetch(self, url: str) -> bytes:
        timeout = aiohttp.ClientTimeout(total=SECONDS)
        if self._session is None:
            resolver = GuardedResolver(loopback=self._allow_http)
            connector = aiohttp.TCPConnector(resolver=resolver, limit=16, force_close=True)
            self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        headers = {"accept": "application/json", "accept-encoding": "identity"}
        for _ in range(MAX_REDIRECTS + 1):
            self._check(url)
            async with self._session.get(url, timeout=timeout, allow_redirects=False, headers=headers) as answer:
                if answer.status in (301, 302, 303, 307, 308):
                    target = urljoin(url, answer.headers.get("location", ""))
                    if urlsplit(target)[:2] != urlsplit(url)[:2]:
                        raise FetchError("it redirects to another place")
                    url = target
                    continue
                if answer.status != 200:
                    raise FetchError(f"status {answer.status}")
                body = bytearray()
                async for piece in answer.content.iter_any():
                    body += piece
                    if len(body) > MAX_BYTES:
                        raise FetchError(f"more than {MAX_BYTES} bytes")
                return bytes(body)
        raise FetchError(f"more than {MAX_REDIRECTS} redirects")

    def _check(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" and not (parts.scheme == "http" and self._allow_http):
            raise FetchError("only https is allowed (KAPPA_JWKS_ALLOW_HTTP allows http, for development)")
        host = parts.hostname or ""
        try:
            problem = address_problem(host, loopback=self._allow_http)
        except ValueError:
            return  # a name: the resolver judges its addresses
        if problem:
            raise FetchError(f"{host} is {problem}")


def plain(error: Exception) -> str:
    """What failed, without what a server sent."""
    if isinstance(error, aiohttp.InvalidURL):
        return "its URL is not valid"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "its certificate is not valid for the name, or not from a known authority"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection: {error.os_error.strerror or type(error.os_error).__name__}"
    return type(error).__name__
