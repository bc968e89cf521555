"""Decentralized JWT authentication of NATS, as `nsc` sets it up: an operator, his accounts, a user's credentials file.

Keys are "nkeys": base 32 of a prefix, the Ed25519 key and a checksum (CRC-16/XMODEM, little-endian).
"""

import base64
import binascii
import json
import struct
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_PREFIX = {"operator": 14 << 3, "account": 0, "user": 20 << 3}
_UNLIMITED = ("subs", "data", "payload", "imports", "exports", "conn", "leaf", "mem_storage", "disk_storage")


@dataclass(frozen=True)
class Nkey:
    """A key of this kind: operator, account or user."""

    kind: str
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    @property
    def public(self) -> str:
        return _text(bytes([_PREFIX[self.kind]]) + self.key.public_key().public_bytes_raw())

    @property
    def seed(self) -> str:
        prefix = _PREFIX[self.kind]
        return _text(bytes([18 << 3 | prefix >> 5, (prefix & 31) << 3]) + self.key.private_bytes_raw())

    def sign(self, of: "Nkey", **claims: Any) -> str:
        """A JWT about `of`."""
        told: dict[str, Any] = {"jti": of.public, "iat": 1, "iss": self.public, "name": of.kind, "sub": of.public}
        told["nats"] = {"type": of.kind, "version": 2, **claims}
        body = f"{_part({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{_part(told)}"
        return f"{body}.{_unpadded(self.key.sign(body.encode()))}"


def installation() -> tuple[str, str]:
    """(lines of the servers' configuration, a user's credentials file)."""
    operator, account, system, user = Nkey("operator"), Nkey("account"), Nkey("account"), Nkey("user")
    limits = dict.fromkeys(_UNLIMITED, -1) | {"wildcards": True}
    accounts = {
        account.public: operator.sign(account, limits=limits),
        system.public: operator.sign(system, limits=limits | {"mem_storage": 0, "disk_storage": 0}),
    }
    preload = "\n".join(f"{public}: {jwt}" for public, jwt in accounts.items())
    config = (
        f"operator: {operator.sign(operator, system_account=system.public)}\nsystem_account: {system.public}\n"
        f"resolver: MEMORY\nresolver_preload: {{\n{preload}\n}}\n"
    )
    jwt = account.sign(user, subs=-1, data=-1, payload=-1, pub={}, sub={})
    credentials = (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
    )
    return config, credentials


def _text(raw: bytes) -> str:
    checked = raw + struct.pack("<H", binascii.crc_hqx(raw, 0))
    return base64.b32encode(checked).decode().rstrip("=")


def _part(value: Any) -> str:
    return _unpadded(json.dumps(value).encode())


def _unpadded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
