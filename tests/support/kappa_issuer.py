"""A token issuer for tests: keys, tokens, and a real HTTP server for its public documents."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

Json = Any
RSA_2048 = rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass
class SigningKey:
    """A private key and the algorithm that the issuer uses it with."""

    key_id: str
    algorithm: str
    private: Any

    def public(self, **more: Json) -> Json:
        """The key's public half as a JWK."""
        make: Any = {"R": RSAAlgorithm, "P": RSAAlgorithm, "E": ECAlgorithm}[self.algorithm[0]]
        if self.algorithm == "EdDSA":
            make = OKPAlgorithm
        return {**make.to_jwk(self.private.public_key(), as_dict=True), "kid": self.key_id, "use": "sig", **more}


def rsa_key(key_id: str = "k1", algorithm: str = "RS256", *, fresh: bool = False) -> SigningKey:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048) if fresh else RSA_2048
    return SigningKey(key_id, algorithm, private)


def ec_key(key_id: str = "e1", algorithm: str = "ES256") -> SigningKey:
    curve: Any = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}[algorithm]
    return SigningKey(key_id, algorithm, ec.generate_private_key(curve()))


def ed_key(key_id: str = "d1") -> SigningKey:
    return SigningKey(key_id, "EdDSA", ed25519.Ed25519PrivateKey.generate())


@dataclass
class Issuer:
    """`requests`: paths that were asked for. `down`: answers 503. `gate`: while it is cleared, it does not answer."""

    url: str = "https://issuer.example"
    keys: list[SigningKey] = field(default_factory=lambda: [rsa_key()])
    requests: list[str] = field(default_factory=list)
    down: bool = False
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    def token(self, key: SigningKey | None = None, *, header: Json = None, **claims: Json) -> str:
        """A token of the newest key, good for an hour and the audience `api`, unless `claims` say otherwise; a claim of
        None is left out."""
        key = key or self.keys[-1]
        now = int(time.time())
        base = {"iss": self.url, "aud": "api", "sub": "alice", "iat": now, "exp": now + 3600}
        content = {name: value for name, value in (base | claims).items() if value is not None}
        return jwt.encode(content, key.private, key.algorithm, {"kid": key.key_id, **(header or {})})

    def jwks(self) -> Json:
        return {"keys": [key.public() for key in self.keys]}

    def discovery(self) -> Json:
        return {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(request.path)
        await self.gate.wait()
        if self.down:
            return web.Response(status=503)
        documents = {"/keys": self.jwks, "/.well-known/openid-configuration": self.discovery}
        make = documents.get(request.path)
        return web.json_response(make()) if make else web.Response(status=404)


@asynccontextmanager
async def serving(issuer: Issuer) -> AsyncIterator[Issuer]:
    """The issuer on a loopback port; sets its `url`."""
    runner = web.ServerRunner(web.Server(issuer.answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    issuer.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield issuer
    finally:
        await runner.cleanup()


def forged(header: Json, claims: Json, secret: bytes = b"") -> str:
    """A token with any header: unsigned, or with an HMAC over `secret`."""
    text = f"{_part(header)}.{_part(claims)}"
    signature = hmac.digest(secret, text.encode(), hashlib.sha256) if secret else b""
    return f"{text}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def _part(value: Json) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()
