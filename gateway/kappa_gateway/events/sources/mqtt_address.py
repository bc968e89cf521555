"""Where an external MQTT broker is and who we are there, as the Secret says.

The Secret's author is a tenant and the connection comes from the gateway's pod: the address that was judged is the one
that is connected to, so certificates are checked against the name, here, and not against what the client is given.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from kappa_gateway.events.source import SourceError
from kappa_gateway.events.sources.secret_parts import as_files, check_pair, needed

PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
_HINT: Final = "mqtt://broker.example.org:1883 or mqtts://broker.example.org:8883"


@dataclass(frozen=True, slots=True)
class Address:
    """`tls`: None for plain connections."""

    host: str
    port: int
    username: str | None
    password: str | None
    tls: ssl.SSLContext | None

    def __repr__(self) -> str:
        return f"<Address {self.origin}>"

    @property
    def origin(self) -> str:
        """The broker, without credentials: the source of its events."""
        return f"mqtt{'s' if self.tls else ''}://{self.host}:{self.port}"


class _Named(ssl.SSLContext):
    """Checks certificates against the name although it is an address that is connected to."""

    name = ""

    def wrap_socket(self, *given: Any, **options: Any) -> ssl.SSLSocket:
        return super().wrap_socket(*given, **{**options, "server_hostname": self.name})


def read_secret(secret: Mapping[str, bytes] | None, name: str) -> Address:
    """Raises SourceError that names the key at fault, never its content."""
    secret = needed(secret, name)
    try:
        parts = urlsplit(secret["url"].decode().strip())
        port = parts.port
    except KeyError:
        raise SourceError(f"the Secret {name} has no key url: {_HINT}") from None
    except ValueError:
        raise SourceError(f"url in the Secret {name} is not valid: {_HINT}") from None
    if parts.scheme not in PORTS or not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
        raise SourceError(f"url in the Secret {name} is not valid: {_HINT}")
    return Address(
        host=parts.hostname,
        port=port or PORTS[parts.scheme],
        username=_word(secret, "username", parts.username),
        password=_word(secret, "password", parts.password),
        tls=_context(secret, name, parts.hostname) if parts.scheme == "mqtts" else None,
    )


def _word(secret: Mapping[str, bytes], key: str, in_url: str | None) -> str | None:
    value = secret.get(key, b"").decode("utf-8", "replace").strip("\r\n")
    return value or (unquote(in_url) if in_url else None)


def _context(secret: Mapping[str, bytes], name: str, host: str) -> ssl.SSLContext:
    context = _Named(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.name = host
    try:
        if "ca.crt" in secret:
            context.load_verify_locations(cadata=secret["ca.crt"].decode("ascii"))
        else:
            context.load_default_certs()
        check_pair(secret, name)
        if "tls.crt" in secret:
            # OpenSSL takes a key pair from files only, and asks the terminal for a password if it is not given one
            with as_files({key: secret[key] for key in ("tls.crt", "tls.key")}) as paths:
                context.load_cert_chain(paths["tls.crt"], paths["tls.key"], password=lambda: "")
    except (ssl.SSLError, ValueError, OSError):
        raise SourceError(f"ca.crt, tls.crt or tls.key in the Secret {name} is no certificate or key in PEM") from None
    return context
