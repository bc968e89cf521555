"""Tokens and keys from strangers: JSON Web Tokens of callers, key sets of issuers, URLs in tenants' Secrets.

What is taken for a token must be one to PyJWT as well, with the same content.
"""

import base64
import json
from typing import Any

import jwt
from fuzz_forms import JSON, document, plain, texts
from fuzz_target import Target
from hypothesis import strategies as st

from kappa_api.callers import ALGORITHMS, ClaimRule, JwtAuth
from kappa_gateway.auth import jwt_rules
from kappa_gateway.auth.fetch import FetchError
from kappa_gateway.auth.jwks import Keys
from kappa_gateway.events.source import SourceError
from kappa_gateway.events.sources import mqtt_address, postgres_connect, redis_connect

Json = Any
NOW = 1_000_000.0
AUTH = JwtAuth(
    issuer="https://i.example",
    audiences=("api", "b"),
    algorithms=ALGORITHMS,
    required_claims=(ClaimRule("scope", ("read",)),),
)


# --- tokens -----------------------------------------------------------------------------------------------------------
def check_token(text: bytes) -> None:
    try:
        token = jwt_rules.take_apart(text, AUTH)
    except jwt_rules.TokenError as error:
        assert 0 < len(str(error)) < 200  # noqa: PT017
        return
    theirs = jwt.api_jws.PyJWS().decode_complete(text, options={"verify_signature": False})
    assert theirs["header"] == token.header
    assert theirs["signature"] == token.signature
    assert json.loads(theirs["payload"]) == token.claims or "NaN" in theirs["payload"].decode("utf-8", "replace")
    assert token.algorithm in AUTH.algorithms
    assert isinstance(token.key_id, str)
    _check_claims(token.claims)


def check_parts(case: tuple[str, str, bytes]) -> None:
    """(header, claims, signature): base64 hides from mutation what it is changing."""
    parts = (case[0].encode("utf-8", "surrogateescape"), case[1].encode("utf-8", "surrogateescape"), case[2])
    check_token(b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts))


def _check_claims(claims: Json) -> None:
    scopes = jwt_rules.scopes(claims)
    assert scopes is None or all(isinstance(scope, str) for scope in scopes)
    try:
        until = jwt_rules.check_claims(claims, AUTH, NOW)
    except jwt_rules.TokenError as error:
        assert 0 < len(str(error)) < 200  # noqa: PT017
        return
    assert until > NOW
    assert claims["iss"] == AUTH.issuer
    assert "read" in json.dumps(claims["scope"])
    assert any(name in json.dumps(claims["aud"]) for name in AUTH.audiences)


_CLAIM = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 1 << 70),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.just("api"), max_size=2),
)
_GOOD: Json = {"iss": AUTH.issuer, "aud": "api", "exp": NOW + 9, "iat": NOW, "nbf": NOW, "scope": "read write"}
_CLAIMS = st.fixed_dictionaries({}, optional=dict.fromkeys((*_GOOD, "scp", "sub"), _CLAIM)).map(lambda c: _GOOD | c)
_HEADER = st.fixed_dictionaries(
    {"alg": st.sampled_from([*ALGORITHMS, "none", "HS256", None, 1, ["RS256"]])},
    optional={"kid": _CLAIM, "crit": _CLAIM, "b64": st.booleans(), "typ": _CLAIM},
)
_PARTS = st.tuples(_HEADER.map(json.dumps), _CLAIMS.map(json.dumps), st.binary(min_size=1, max_size=4))


def _joined(case: tuple[str, str, bytes]) -> bytes:
    parts = (case[0].encode(), case[1].encode(), case[2])
    return b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)


# --- key sets ---------------------------------------------------------------------------------------------------------
def check_keys(value: Json) -> None:
    """A document of an issuer."""
    keys = Keys(AUTH, 1.0, 1.0)
    try:
        keys.arrived(value, NOW)
    except FetchError as error:
        assert 0 < len(str(error)) < 200  # noqa: PT017
        assert keys.keys == ()
        return
    assert keys.keys
    for key in keys.keys:
        assert key.algorithms <= set(ALGORITHMS), key
        assert "public" in type(key.material).__name__.lower(), key


_B64 = st.sampled_from(["AQAB", "", "?", "é", "AA" * 200, "x" * 342, 1, None, ["a"]])
_JWK = st.fixed_dictionaries(
    {"kty": st.sampled_from(["RSA", "EC", "OKP", "oct", None, ["RSA"]])},
    optional={
        **dict.fromkeys(("n", "e", "x", "y", "d", "k"), _B64),
        "crv": st.sampled_from(["P-256", "P-521", "Ed25519", "Ed448", "X", 1, None]),
        "alg": st.sampled_from([*ALGORITHMS, "none", 1, None]),
        "use": st.sampled_from(["sig", "enc", 1, None]),
        "key_ops": st.sampled_from([["verify"], [], "verify", [[]]]),
        "kid": _CLAIM,
    },
)


# --- Secrets ----------------------------------------------------------------------------------------------------------
def check_secret(url: bytes) -> None:
    """The same bytes as the URL of each kind of server."""
    for module in (mqtt_address, redis_connect, postgres_connect):
        try:
            found: Any = module.read_secret({"url": url}, "s")
        except SourceError as error:
            if not 0 < len(str(error)) < 400:
                raise AssertionError("no reason, or the input at length") from error
            continue
        repr(found).encode("utf-8", "backslashreplace")
        if module is not postgres_connect:
            assert found.host
            assert 0 < found.port < 1 << 16
            assert found.password is None or "@" not in repr(found)


_URLS = st.builds(
    lambda *parts: "".join(parts).encode("utf-8", "replace"),
    st.sampled_from(["mqtt://", "mqtts://", "redis://", "rediss://", "postgresql://", "postgres:", "", "host="]),
    st.sampled_from(["", "u:p@", "u:p%ff@", "@", "u@v@", ":@"]),
    st.sampled_from(["h", "", "[::1]", "[", "[v1.x]", "h,i", "/tmp", "é", "%2ftmp", "h\u2100"]),
    st.sampled_from(["", ":1883", ":0", ":99999", ":x", ":", ":１"]),
    st.sampled_from(["", "/", "/0", "/x", "/1_0", "/-1", "?a=b", "#x", "?passfile=/etc/passwd", " host=/tmp", "\n"]),
)
TARGETS = (
    Target(
        "jwt",
        "JSON Web Tokens as they come, beside PyJWT",
        _PARTS.map(_joined) | st.binary(max_size=20),
        check_token,
        plain((b"eyJhbGciOiJSUzI1NiJ9.", b"eyJhbGciOiJub25lIn0.", b"e30.", b"..", b"bnVsbA.")),
    ),
    Target(
        "jwt-parts",
        "JSON Web Tokens by header and claims, beside PyJWT",
        _PARTS,
        check_parts,
        texts(
            2,
            (
                *JSON,
                b'{"alg":"RS256"}',
                b'"crit":',
                b'"b64":false',
                b'"kid":',
                b'"iss":',
                b'"aud":',
                b'"exp":',
                b'"scope":',
            ),
        ),
    ),
    Target(
        "jwks",
        "key sets of issuers",
        st.one_of(_JWK, st.lists(_JWK, max_size=3).map(lambda keys: {"keys": keys})),
        check_keys,
        document(
            "keys",
            "kty",
            "RSA",
            "EC",
            "OKP",
            "crv",
            "P-256",
            "Ed25519",
            "n",
            "e",
            "x",
            "y",
            "AQAB",
            "key_ops",
            "verify",
        ),
    ),
    Target(
        "secret-urls",
        "URLs of servers in tenants' Secrets",
        _URLS,
        check_secret,
        plain(
            (
                b"mqtt://",
                b"mqtts://",
                b"redis://",
                b"rediss://",
                b"postgresql://",
                b"host=",
                b"u:p@",
                b"[::1]",
                b":5432",
            )
        ),
    ),
)
