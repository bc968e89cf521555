"""The NATS servers that a source reads from: the platform's own, or those that a Secret names.

The Secret holds `url` (nats:// or tls://, several with commas) and, as far as the servers want them, `token`, or `user`
and `password`, or `creds` (a credentials file as `nsc` writes it), `ca.crt`, `tls.crt` and `tls.key`.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError

from kappa_gateway.events.bus import NO_LEADER, NOT_FOUND, UnavailableError
from kappa_gateway.events.nats_login import options
from kappa_gateway.events.source import SourceError, Surroundings

Json = Any
CONNECT_SECONDS: Final = 5
ASK_SECONDS: Final = 5.0
#: The platform's own servers: a question that came while there was no leader is never answered, and asked again.
OWN_ASK_SECONDS: Final = 2.0


class ApiError(SourceError):
    """JetStream's API answered with an error. `code`: its `err_code`."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"NATS: {message}")
        self.code = code

    @property
    def missing(self) -> bool:
        """There is no such stream, consumer or message."""
        return self.code in NOT_FOUND


@dataclass(frozen=True, slots=True)
class Link:
    """A connection. `closed` is set when it is of no use any more. `own`: the platform's. `lost`: called when requests
    that stand at the servers may be forgotten there: the connection has ended, or is there again."""

    nc: Client
    closed: asyncio.Event
    own: bool
    lost: list[Callable[[], None]] = field(default_factory=list)

    async def ask(self, subject: str, request: Json = None) -> Json:
        """JetStream's API, `$JS.API.<subject>`. Raises ApiError, SourceError, UnavailableError."""
        try:
            body = json.dumps(request).encode() if request is not None else b""
            seconds = OWN_ASK_SECONDS if self.own else ASK_SECONDS
            answer = await self.nc.request(f"$JS.API.{subject}", body, timeout=seconds)
        except NoRespondersError as error:
            if self.own:
                raise UnavailableError("JetStream does not answer: it has no leader") from error
            raise SourceError("JetStream does not answer: it is not switched on, or has no leader") from error
        except (NatsError, TimeoutError, ConnectionError) as error:
            if self.own:
                raise UnavailableError(f"JetStream does not answer: {error!r}") from error
            raise SourceError(f"JetStream does not answer: {error!r}") from error
        found = json.loads(answer.data)
        if problem := found.get("error"):
            if self.own and problem.get("err_code") in NO_LEADER:
                raise UnavailableError(f"JetStream has no leader now: {problem.get('description')}")
            raise ApiError(int(problem.get("err_code", 0)), str(problem.get("description", "")))
        return found


@asynccontextmanager
async def link(given: Surroundings, secret: str) -> AsyncIterator[Link]:
    """`secret`: name of the Secret; empty: the platform's servers. Raises SourceError, UnavailableError."""
    closed = asyncio.Event()
    if not secret:
        if not given.bus.up:
            raise UnavailableError("NATS is away")
        lost: list[Callable[[], None]] = []

        def back() -> None:
            _call(lost)

        given.bus.heard.append(back)
        try:
            yield Link(given.bus.nc, closed, own=True, lost=lost)
        finally:
            given.bus.heard.remove(back)
        return
    data = given.secret(secret)
    if data is None:
        raise SourceError(f"the Secret {secret} is not there, not of type kappa.dev/source, or may not be read")
    client = Client()
    lost = []

    async def ended() -> None:
        closed.set()
        _call(lost)

    async def silent(error: Exception) -> None:
        return  # what matters ends the connection

    urls = await _urls(given, data)
    try:
        await client.connect(
            urls,
            name="kappa-source",
            allow_reconnect=False,
            connect_timeout=CONNECT_SECONDS,
            closed_cb=ended,
            disconnected_cb=ended,
            error_cb=silent,
            **_credentials(secret, data),
        )
    except (NatsError, OSError, TimeoutError) as error:
        raise SourceError(f"no connection to the servers of the Secret {secret}: {error!r}") from error
    try:
        yield Link(client, closed, own=False, lost=lost)
    finally:
        await asyncio.shield(client.close())


def _call(lost: list[Callable[[], None]]) -> None:
    for listener in list(lost):
        listener()


async def _urls(given: Surroundings, data: Mapping[str, bytes]) -> list[str]:
    urls = [url.strip() for url in data.get("url", b"").decode("utf-8", "replace").split(",") if url.strip()]
    if not urls:
        raise SourceError("the Secret has no url, such as nats://nats.example.org:4222")
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme not in ("nats", "tls") or not parts.hostname:
            raise SourceError("the Secret's url must begin with nats:// or tls:// and name a host")
        if parts.username or parts.password:
            raise SourceError("the Secret's url must not hold credentials: use token, or user and password")
        await given.check_address(parts.hostname, parts.port or 4222)
    return urls


def _credentials(secret: str, data: Mapping[str, bytes]) -> dict[str, Any]:
    """For nats-py's `connect`."""
    try:
        return options(data, tls=data.get("url", b"").startswith(b"tls:"))
    except ValueError as error:
        raise SourceError(f"the Secret {secret}: {error}") from error
