"""Connections to the PostgreSQL server that a Secret names.

The Secret's author is a tenant and the connection comes from the gateway's pod. So the URL may say where the server is
and who we are there, and nothing that makes libpq read the gateway's files; the addresses that were judged are
the ones that are connected to. Errors are told without credentials.
"""

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from kappa_gateway.events.addresses import Check
from kappa_gateway.events.source import SourceError
from kappa_gateway.events.sources.secret_parts import as_files, check_pair, needed

CONNECT_SECONDS: Final = 10
#: A server that is gone without a word is noticed within half a minute, not within the kernel's two hours.
KEEPALIVE: Final = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
ALLOWED: Final = frozenset(
    {"host", "port", "user", "password", "dbname", "sslmode", "sslnegotiation", "channel_binding", "connect_timeout"}
    | {"target_session_attrs", "require_auth"}
)
SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
#: Keys of the Secret, and the parameter of libpq that takes the file.
FILES: Final = {"ca.crt": "sslrootcert", "tls.crt": "sslcert", "tls.key": "sslkey"}


@dataclass(frozen=True, slots=True)
class Server:
    """What the Secret says. `source` names server and database in CloudEvents."""

    parameters: Mapping[str, str]
    files: Mapping[str, bytes]
    source: str

    def __repr__(self) -> str:
        return f"<Server {self.source}>"


def read_secret(secret: Mapping[str, bytes] | None, name: str) -> Server:
    """Raises SourceError that names the key at fault, never its content."""
    secret = needed(secret, name)
    if not secret.get("url"):
        raise SourceError(f"the Secret {name} has no key url: postgresql://user:password@host:5432/database")
    try:
        # libpq itself refuses what it does not know; its message may hold a piece of the URL, so it is not told.
        parameters = {key: str(value) for key, value in conninfo_to_dict(secret["url"].decode().strip()).items()}
    except (psycopg.Error, UnicodeDecodeError):
        raise SourceError(f"url in the Secret {name} is not valid: postgresql://user:password@host:5432/db") from None
    if strange := sorted(set(parameters) - ALLOWED):
        raise SourceError(f"url in the Secret {name} must not set {', '.join(strange)}")
    hosts = parameters.get("host", "").split(",")
    if not all(hosts) or any(host[0] in "/@" for host in hosts):
        raise SourceError(f"url in the Secret {name} must name a host")
    files = {key: secret[key] for key in FILES if secret.get(key)}
    check_pair(files, name)
    parameters.setdefault("sslmode", "verify-full" if "ca.crt" in files else "prefer")
    parameters.setdefault("dbname", parameters.get("user", ""))
    if parameters["sslmode"] not in SSL_MODES:
        raise SourceError(f"url in the Secret {name}: sslmode must be one of {', '.join(SSL_MODES)}")
    source = f"postgresql://{hosts[0]}:{parameters.get('port', '').split(',')[0] or 5432}/{parameters['dbname']}"
    return Server(parameters, files, source)


async def connect(server: Server, check: Check, *, application: str, **more: Any) -> psycopg.AsyncConnection[Any]:
    """A connection in autocommit mode. `more`: further parameters of libpq. Raises SourceError."""
    parameters: dict[str, Any] = {**KEEPALIVE, "connect_timeout": str(CONNECT_SECONDS), **server.parameters, **more}
    parameters |= await _addresses(server, check)
    # What libpq would look up in files and the environment of the gateway is set, so that it does not.
    parameters |= {"application_name": application, "passfile": "/dev/null", "gssencmode": "disable"}
    parameters |= {"client_encoding": "UTF8", "sslcompression": "0"}
    if parameters["sslmode"].startswith("verify") and (known := _known_authorities()):
        parameters["sslrootcert"] = known
    parameters |= dict.fromkeys(("sslcert", "sslkey"), "/dev/null/none")
    with as_files(server.files) as paths:
        parameters |= {FILES[key]: path for key, path in paths.items()}
        try:
            return await psycopg.AsyncConnection.connect("", autocommit=True, **parameters)
        except psycopg.Error as error:
            raise SourceError(f"{server.source} cannot be connected to: {told(error)}") from error


def told(error: BaseException) -> str:
    """An error's text in one line. libpq's name host, user and database, never the password."""
    return " ".join(str(error).split())[:500] or type(error).__name__


async def _addresses(server: Server, check: Check) -> dict[str, str]:
    """host, hostaddr and port, one for each address."""
    hosts = server.parameters["host"].split(",")
    ports = server.parameters.get("port", "").split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    found: list[tuple[str, str, str]] = []
    for host, port in zip(hosts, ports, strict=False):
        number = int(port) if port.isdecimal() else 5432
        found += [(host, address, str(number)) for address in await check(host, number)]
    joined = [",".join(column) for column in zip(*found, strict=True)]
    return dict(zip(("host", "hostaddr", "port"), joined, strict=True))


def _known_authorities() -> str:
    """The file with those that the system trusts. psycopg's libpq was built elsewhere and looks where there is none."""
    places = (ssl.get_default_verify_paths().cafile, "/etc/ssl/certs/ca-certificates.crt")
    return next((place for place in places if place and os.path.exists(place)), "")
