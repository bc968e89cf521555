"""How a client proves itself to NATS servers, and they to it: from the keys of a Secret, for nats-py's `connect`."""

import base64
import re
import ssl
from collections.abc import Mapping
from typing import Any, Final

from kappa_gateway.events.sources.secret_parts import as_files

_JWT: Final = re.compile(rb"-----BEGIN NATS USER JWT-----\s+(\S+)\s+-+END NATS USER JWT-+")
_SEED: Final = re.compile(rb"-----BEGIN USER NKEY SEED-----\s+(\S+)\s+-+END USER NKEY SEED-+")
CA, CERT, KEY, CREDS = "ca.crt", "tls.crt", "tls.key", "creds"
TLS: Final = (CA, CERT, KEY)


def options(data: Mapping[str, bytes], *, tls: bool = False) -> dict[str, Any]:
    """`creds` (a credentials file as `nsc` writes it), else `token`, else `user` and `password`; `ca.crt`, if the
    authority is none that everybody knows; `tls.crt` and `tls.key`, if the servers want a certificate of their clients.
    `tls`: the servers' URL says that they have TLS. Raises ValueError, which names the key."""
    found: dict[str, Any] = {}
    if tls or any(key in data for key in TLS):
        found["tls"] = _context(data)
    if CREDS in data:
        found |= _creds(data[CREDS])
    elif "token" in data:
        found["token"] = _text(data["token"])
    elif "user" in data:
        found["user"] = _text(data["user"])
        found["password"] = _text(data.get("password", b""))
    return found


def _context(data: Mapping[str, bytes]) -> ssl.SSLContext:
    if (CERT in data) != (KEY in data):
        raise ValueError(f"{CERT} and {KEY} go together")
    try:
        context = ssl.create_default_context(cadata=data[CA].decode() if CA in data else None)
    except (ssl.SSLError, UnicodeError, ValueError) as error:
        raise ValueError(f"{CA} is no certificate in PEM form") from error
    if CERT in data:
        with as_files({key: data[key] for key in (CERT, KEY)}) as paths:
            try:
                context.load_cert_chain(paths[CERT], paths[KEY])
            except (ssl.SSLError, ValueError) as error:
                raise ValueError(f"{CERT} and {KEY} are no certificate in PEM form and its key") from error
    return context


def _creds(text: bytes) -> dict[str, Any]:
    """A user's JWT, and the server's challenge signed with his key (NATS: decentralized JWT authentication). The seed
    is base 32 of two bytes of prefix, 32 of key and two of checksum."""
    # Here, for it costs time and memory, and hardly any gateway needs it
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    jwt, seed = _JWT.search(text), _SEED.search(text)
    try:
        if jwt is None or seed is None:
            raise ValueError
        encoded = seed.group(1)
        raw = base64.b32decode(encoded + b"=" * (-len(encoded) % 8))
        key = Ed25519PrivateKey.from_private_bytes(raw[2:34])
    except ValueError as error:
        raise ValueError(f"{CREDS} is no credentials file of NATS") from error
    token = jwt.group(1)
    return {
        "user_jwt_cb": lambda: bytearray(token),
        "signature_cb": lambda nonce: base64.b64encode(key.sign(nonce.encode())),
    }


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace").strip()
