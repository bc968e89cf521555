"""Connections to the Redis server that a Secret names.

The Secret's author is a tenant and the connection comes from the gateway's pod: the URL says where the server is and
who we are there, and nothing else (the client's own reading of URLs also takes names of local files). The address
that was judged is the one that is connected to.
"""

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import redis.asyncio
from redis.asyncio.connection import Connection, ConnectionPool, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from kappa_gateway.events.addresses import Check
from kappa_gateway.events.source import SourceError
from kappa_gateway.events.sources.secret_parts import as_files, check_pair, needed

CONNECT_SECONDS: Final = 10
#: Longer than any read of ours blocks.
SOCKET_SECONDS: Final = 30
KEEPALIVE: Final = {socket.TCP_KEEPIDLE: 10, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 3}
#: Keys of the Secret, and the parameter of redis-py that takes the file.
PAIR: Final = {"tls.crt": "ssl_certfile", "tls.key": "ssl_keyfile"}
FORM: Final = "redis://user:password@host:6379/0, or rediss:// for TLS"


@dataclass(frozen=True, slots=True)
class Server:
    """What the Secret says. `source` names server and database in CloudEvents."""

    host: str
    port: int
    database: int
    user: str | None
    password: str | None
    tls: bool
    files: Mapping[str, bytes]

    @property
    def source(self) -> str:
        return f"redis://{self.host}:{self.port}/{self.database}"

    def __repr__(self) -> str:
        return f"<Server {self.source}>"


class _Pinned:
    """Connects to the address that was judged; TLS is for the name all the same."""

    address: str
    host: str
    port: int

    def _connection_arguments(self) -> dict[str, Any]:
        found: dict[str, Any] = dict(super()._connection_arguments())  # type: ignore[misc]
        if "ssl" in found:
            found["server_hostname"] = self.host
        return found | {"host": self.address}


def read_secret(secret: Mapping[str, bytes] | None, name: str) -> Server:
    """Raises SourceError that names the key at fault, never its content."""
    secret = needed(secret, name)
    try:
        parts = urlsplit(secret.get("url", b"").decode().strip())
        port, database = parts.port or 6379, int(parts.path.strip("/") or 0)
    except ValueError:
        raise SourceError(f"url in the Secret {name} is not valid: {FORM}") from None
    if parts.scheme not in ("redis", "rediss") or not parts.hostname or parts.query or parts.fragment:
        raise SourceError(f"url in the Secret {name} must be {FORM}")
    files = {key: secret[key] for key in ("ca.crt", "tls.crt", "tls.key") if secret.get(key)}
    check_pair(files, name)
    return Server(
        host=parts.hostname,
        port=port,
        database=database,
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        tls=parts.scheme == "rediss",
        files=files,
    )


async def connect(server: Server, check: Check) -> redis.asyncio.Redis:
    """A client with one connection, which it makes at once. Raises SourceError, redis.RedisError or OSError."""
    address = (await check(server.host, server.port))[0]
    base: type[Connection] = SSLConnection if server.tls else Connection
    pinned = type("PinnedConnection", (_Pinned, base), {"address": address})
    pair = {key: server.files[key] for key in PAIR if server.tls and key in server.files}
    with as_files(pair) as paths:
        more: dict[str, Any] = {PAIR[key]: path for key, path in paths.items()}
        if "ca.crt" in server.files and server.tls:
            more["ssl_ca_data"] = server.files["ca.crt"].decode("ascii", "replace")
        pool = ConnectionPool(
            connection_class=pinned,
            host=server.host,
            port=server.port,
            db=server.database,
            username=server.user,
            password=server.password,
            protocol=2,
            socket_connect_timeout=CONNECT_SECONDS,
            socket_timeout=SOCKET_SECONDS,
            socket_keepalive=True,
            socket_keepalive_options=KEEPALIVE,
            retry=Retry(NoBackoff(), 0),  # the runner tries again
            client_name="kappa",
            **more,
        )
        client = redis.asyncio.Redis.from_pool(pool)
        try:
            await client.ping()
        except BaseException:
            await client.aclose()
            raise
    return client
