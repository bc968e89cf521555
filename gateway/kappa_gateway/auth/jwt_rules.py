"""What makes a JSON Web Token good: pure rules on one token, one key and one moment (RFC 7519, RFC 8725).

The signature is checked by PyJWT's algorithms over `cryptography`; which of them may be used is decided here, from the
policy and from the key, never from the token alone: a token that names `none`, HS* or an algorithm that does not fit
the key of the issuer is refused before anything is computed with it.

`cryptography` costs 10 MB, so this module is imported when the first function with `jwt` is called.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import InvalidKeyError
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm, get_default_algorithms

from kappa_api.callers import ALGORITHMS, ClaimRule, JwtAuth

Json = Any
_VERIFIERS: Final = {name: get_default_algorithms()[name] for name in ALGORITHMS}
_CURVES: Final = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
_READERS: Final = {"RSA": RSAAlgorithm.from_jwk, "EC": ECAlgorithm.from_jwk, "OKP": OKPAlgorithm.from_jwk}
_PART: Final = re.compile(rb"[A-Za-z0-9_-]+")
#: Claims that are one string of words (RFC 8693 section 4.2).
WORDS: Final = frozenset({"scope", "scp"})
MIN_RSA_BITS: Final = 2048


class TokenError(Exception):
    """The token does not open. `forbidden`: it is good, but its claims do not suffice."""

    def __init__(self, message: str, *, forbidden: bool = False) -> None:
        super().__init__(message)
        self.forbidden = forbidden


@dataclass(frozen=True, slots=True)
class Token:
    """A token taken apart, nothing checked yet."""

    header: Mapping[str, Json]
    claims: Mapping[str, Json]
    signed: bytes
    signature: bytes

    @property
    def algorithm(self) -> str:
        return str(self.header.get("alg"))

    @property
    def key_id(self) -> str:
        return str(self.header.get("kid", ""))


@dataclass(frozen=True, slots=True)
class Key:
    """A public key of an issuer. `algorithms`: those that it may be used with."""

    key_id: str
    algorithms: frozenset[str]
    material: Any


def take_apart(text: bytes, auth: JwtAuth) -> Token:
    """A compact JWS (RFC 7515 section 3.1) whose algorithm the policy allows. Raises TokenError."""
    parts = text.split(b".")
    if len(parts) != 3 or not all(_PART.fullmatch(part) for part in parts):
        raise TokenError("the token is not a signed JSON Web Token")
    try:
        header, claims = _object(parts[0]), _object(parts[1])
        signature = _decoded(parts[2])
    except (ValueError, binascii.Error, RecursionError) as error:
        raise TokenError("the token is not a signed JSON Web Token") from error
    token = Token(header, claims, parts[0] + b"." + parts[1], signature)
    if token.algorithm not in auth.algorithms:
        raise TokenError("the token's algorithm is not accepted")
    if "crit" in header:  # extensions that must be understood (RFC 7515 section 4.1.11): we know none
        raise TokenError("the token has critical extensions, which are not supported")
    if header.get("b64") is False:  # RFC 7797: what is signed would not be what stands there
        raise TokenError("the token's content is not encoded, which is not supported")
    if not isinstance(header.get("kid", ""), str):
        raise TokenError("the token's key id is not a text")
    return token


def check_signature(token: Token, key: Key) -> bool:
    """Whether this key made the token's signature. The key must be fit for the algorithm."""
    return bool(_VERIFIERS[token.algorithm].verify(token.signed, key.material, token.signature))


def check_claims(claims: Mapping[str, Json], auth: JwtAuth, now: float) -> float:
    """Checks a token whose signature is good; `now` in epoch seconds. Returns when it ends. Raises TokenError."""
    if claims.get("iss") != auth.issuer:
        raise TokenError("the token is not from the function's issuer")
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if not any(name in auth.audiences for name in audiences if isinstance(name, str)):
        raise TokenError("the token was made for another audience")
    ends = _time(claims, "exp")
    if ends is None:
        raise TokenError("the token does not say when it ends (exp)")
    if now >= ends + auth.leeway_seconds:
        raise TokenError("the token has expired")
    for name, what in (("nbf", "is not valid yet"), ("iat", "was issued in the future")):
        moment = _time(claims, name)
        if moment is not None and moment > now + auth.leeway_seconds:
            raise TokenError(f"the token {what} ({name})")
    for rule in auth.required_claims:
        if not _holds(rule, claims.get(rule.name)):
            raise TokenError(f"the token's claim {rule.name} does not allow this", forbidden=True)
    return ends + auth.leeway_seconds


def scopes(claims: Mapping[str, Json]) -> list[str] | None:
    """The scopes of the token, or None when it has no such claim."""
    found = claims.get("scope", claims.get("scp"))
    if isinstance(found, str):
        return found.split()
    return [item for item in found if isinstance(item, str)] if isinstance(found, list) else None


def read_key(jwk: Json) -> Key | None:
    """A public key of a JWK set (RFC 7517), or None for one that cannot check signatures here."""
    if not isinstance(jwk, dict) or "d" in jwk or jwk.get("use", "sig") != "sig":
        return None
    if isinstance(jwk.get("key_ops"), list) and "verify" not in jwk["key_ops"]:
        return None
    kind = str(jwk.get("kty"))
    curve = jwk["crv"] if isinstance(jwk.get("crv"), str) else None
    fit = frozenset(name for name in ALGORITHMS if _fits(name, kind, curve))
    if isinstance(jwk.get("alg"), str):
        fit &= {jwk["alg"]}
    if not fit:
        return None
    try:
        material = _READERS[kind](jwk)
    except (InvalidKeyError, ValueError, TypeError, KeyError):
        return None
    if isinstance(material, RSAPublicKey) and material.key_size < MIN_RSA_BITS:
        return None
    return Key(str(jwk.get("kid", "")), fit, material)


def _fits(algorithm: str, kind: str, curve: str | None) -> bool:
    if kind == "RSA":
        return algorithm[:2] in ("RS", "PS")
    if kind == "EC":
        return curve is not None and _CURVES.get(algorithm) == curve
    return bool(kind == "OKP" and algorithm == "EdDSA" and curve in ("Ed25519", "Ed448"))


def _holds(rule: ClaimRule, claim: Json) -> bool:
    if claim is None:
        return False
    if not rule.values:
        return True
    items = claim if isinstance(claim, list) else [claim]
    if isinstance(claim, str) and rule.name in WORDS:
        items = claim.split()
    return any(_text(item) in rule.values for item in items)


def _text(item: Json) -> str | None:
    """A claim's value as it is written in the spec: booleans and numbers as in JSON."""
    if isinstance(item, str):
        return item
    return json.dumps(item) if isinstance(item, bool | int | float) else None


def _time(claims: Mapping[str, Json], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
        raise TokenError(f"the token's {name} is not a time")
    return float(value)


def _object(part: bytes) -> Mapping[str, Json]:
    found = json.loads(_decoded(part))
    if not isinstance(found, dict):
        raise ValueError("not an object")
    return found


def _decoded(part: bytes) -> bytes:
    found = base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    if base64.urlsafe_b64encode(found).rstrip(b"=") != part:  # bits that say nothing: one token, many spellings
        raise ValueError("not as base64 is written")
    return found
