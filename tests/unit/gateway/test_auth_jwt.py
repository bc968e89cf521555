"""Rules on JSON Web Tokens: signatures, algorithms, claims, skew; and the cache of issuers' keys in virtual time."""

import asyncio
import base64
import json
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import RSAAlgorithm
from kappa_issuer import Issuer, SigningKey, ec_key, ed_key, forged, rsa_key

from kappa_api.callers import ALGORITHMS, ClaimRule, JwtAuth
from kappa_gateway.auth import jwt_rules
from kappa_gateway.auth.fetch import FetchError
from kappa_gateway.auth.jwks import DISCOVERY, MAX_STALE_SECONDS, Issuers, Keys, Step
from kappa_gateway.auth.jwt_rules import TokenError, check_claims, check_signature, read_key, take_apart

Json = Any
ISSUER = "https://issuer.example"
NOW = 1_000_000.0


def policy(**fields: Any) -> JwtAuth:
    return JwtAuth(**({"issuer": ISSUER, "audiences": ("api",)} | fields))


def claims(**fields: Any) -> Json:
    base = {"iss": ISSUER, "aud": "api", "sub": "alice", "exp": NOW + 100, "iat": NOW - 10}
    return {name: value for name, value in (base | fields).items() if value is not None}


def refused(found: Json, auth: JwtAuth | None = None, now: float = NOW) -> TokenError:
    with pytest.raises(TokenError) as caught:
        check_claims(found, auth or policy(), now)
    return caught.value


# --- signatures -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "key",
    [
        *[rsa_key(algorithm=name) for name in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")],
        *[ec_key(algorithm=name) for name in ("ES256", "ES384", "ES512")],
        ed_key(),
    ],
    ids=lambda key: key.algorithm,
)
def test_every_algorithm(key: SigningKey) -> None:
    issuer, other = Issuer(ISSUER, [key]), Issuer(ISSUER, [rsa_key(fresh=True)])
    token = take_apart(issuer.token().encode(), policy(algorithms=ALGORITHMS))
    public = read_key(key.public())
    assert public is not None
    assert key.algorithm in public.algorithms
    assert check_signature(token, public)
    changed = jwt_rules.Token(token.header, token.claims, token.signed + b"x", token.signature)
    assert not check_signature(changed, public)
    if key.algorithm.startswith("R"):
        stranger = read_key(other.keys[0].public())
        assert stranger is not None
        assert not check_signature(token, stranger)


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "nOnE", "HS256", "HS384", "HS512", "", None, 7, ["RS256"], "RS1"]
)
def test_algorithms_that_are_never_taken(algorithm: Json) -> None:
    token = forged({"alg": algorithm, "kid": "k1"}, claims(), b"x" * 40)
    with pytest.raises(TokenError, match="algorithm is not accepted"):
        take_apart(token.encode(), policy(algorithms=ALGORITHMS))


def test_an_algorithm_outside_the_policy() -> None:
    token = Issuer(ISSUER, [ec_key()]).token()
    take_apart(token.encode(), policy())
    with pytest.raises(TokenError, match="algorithm is not accepted"):
        take_apart(token.encode(), policy(algorithms=("RS256",)))


def test_the_public_key_is_no_shared_secret() -> None:
    """The confusion that broke many libraries: HS256 with the issuer's public key as the secret (RFC 8725, 2.1)."""
    form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    secret = rsa_key().private.public_key().public_bytes(*form)
    token = forged({"alg": "HS256", "kid": "k1"}, claims(), secret)
    with pytest.raises(TokenError):
        take_apart(token.encode(), policy(algorithms=ALGORITHMS))
    lying = forged({"alg": "RS256", "kid": "k1"}, claims(), secret)
    key = read_key(rsa_key().public())
    assert key is not None
    assert not check_signature(take_apart(lying.encode(), policy()), key)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "a.b",
        "a.b.c",
        "a.b.c.d.e",
        forged({"alg": "RS256"}, claims()),
        forged([1], claims(), b"k"),
        forged({"alg": "RS256"}, [1], b"k"),
        Issuer(ISSUER).token() + "=",
        Issuer(ISSUER).token() + " ",
        "[" * 5000 + ".e30.e30",
    ],
    ids=lambda text: text[:20] or "empty",
)
def test_what_is_no_token(text: str) -> None:
    with pytest.raises(TokenError, match="not a signed JSON Web Token"):
        take_apart(text.encode(), policy())


@given(st.binary(max_size=200))
def test_garbage_is_refused_not_raised(data: bytes) -> None:
    with pytest.raises(TokenError):
        take_apart(data, policy())


def test_deep_json_is_refused() -> None:
    deep = base64.urlsafe_b64encode(b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}").rstrip(b"=")
    with pytest.raises(TokenError):
        take_apart(b"eyJhbGciOiJSUzI1NiJ9." + deep + b".AAAA", policy())


def test_critical_extensions_are_not_understood() -> None:
    token = Issuer(ISSUER).token(header={"crit": ["exp"], "exp": 1})
    with pytest.raises(TokenError, match="critical"):
        take_apart(token.encode(), policy())


# --- keys -------------------------------------------------------------------------------------------------------------
def test_keys_that_cannot_check() -> None:
    good = rsa_key().public()
    weak = SigningKey("w", "RS256", rsa.generate_private_key(public_exponent=65537, key_size=1024)).public()
    bad: list[Json] = [
        None,
        "x",
        {},
        {"kty": "oct", "k": "AAAA", "alg": "HS256"},
        {**good, "use": "enc"},
        {**good, "key_ops": ["encrypt"]},
        {**RSAAlgorithm.to_jwk(rsa_key().private, as_dict=True), "key_ops": ["verify"]},
        {**good, "alg": "HS256"},
        {**good, "alg": "ES256"},
        {**good, "n": "!"},
        {**good, "kty": 3},
        {**good, "kty": ["RSA"]},
        {key: value for key, value in good.items() if key != "e"},
        weak,
        {**ec_key().public(), "crv": "P-384"},
        {**ec_key().public(), "crv": None},
        {**ec_key().public(), "crv": "secp256k1"},
    ]
    assert [read_key(jwk) for jwk in bad] == [None] * len(bad)
    fit = read_key({**good, "alg": "RS256"})
    assert fit is not None
    assert fit.algorithms == {"RS256"}


def test_a_key_is_fit_for_its_own_algorithms_only() -> None:
    key, other = read_key(rsa_key().public()), read_key(ec_key().public())
    assert key is not None
    assert other is not None
    assert key.algorithms == {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
    assert other.algorithms == {"ES256"}


# --- claims -----------------------------------------------------------------------------------------------------------
def test_good_claims() -> None:
    assert check_claims(claims(), policy(), NOW) == NOW + 130
    check_claims(claims(aud=["x", "api"]), policy(), NOW)
    check_claims(claims(nbf=NOW, iat=None), policy(), NOW)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"iss": ISSUER + "/"}, "issuer"),
        ({"iss": None}, "issuer"),
        ({"iss": [ISSUER]}, "issuer"),
        ({"aud": "other"}, "audience"),
        ({"aud": None}, "audience"),
        ({"aud": []}, "audience"),
        ({"aud": [["api"]]}, "audience"),
        ({"aud": {"api": 1}}, "audience"),
        ({"exp": None}, "exp"),
        ({"exp": "never"}, "exp"),
        ({"exp": True}, "exp"),
        ({"exp": float("inf")}, "exp"),
        ({"exp": float("nan")}, "exp"),
        ({"nbf": "x"}, "nbf"),
    ],
    ids=str,
)
def test_bad_claims(changed: Json, why: str) -> None:
    error = refused(claims(**changed))
    assert why in str(error)
    assert not error.forbidden


@pytest.mark.parametrize(
    ("changed", "good"),
    [
        ({"exp": NOW - 29}, True),
        ({"exp": NOW - 30}, False),
        ({"nbf": NOW + 30}, True),
        ({"nbf": NOW + 31}, False),
        ({"iat": NOW + 30}, True),
        ({"iat": NOW + 31}, False),
    ],
    ids=str,
)
def test_clocks_may_differ_by_the_leeway(changed: Json, good: bool) -> None:
    if good:
        check_claims(claims(**changed), policy(leeway_seconds=30), NOW)
    else:
        refused(claims(**changed), policy(leeway_seconds=30))
    if "exp" in changed:
        refused(claims(**changed), policy(leeway_seconds=0))


@pytest.mark.parametrize(
    ("rule", "value", "good"),
    [
        (ClaimRule("team"), "blue", True),
        (ClaimRule("team"), None, False),
        (ClaimRule("team", ("blue", "red")), "red", True),
        (ClaimRule("team", ("blue",)), "red", False),
        (ClaimRule("team", ("blue",)), "blue red", False),
        (ClaimRule("groups", ("admin",)), ["user", "admin"], True),
        (ClaimRule("groups", ("admin",)), ["user"], False),
        (ClaimRule("groups", ("admin",)), [["admin"]], False),
        (ClaimRule("scope", ("read",)), "write read", True),
        (ClaimRule("scope", ("read",)), "read:all", False),
        (ClaimRule("scp", ("read",)), ["read"], True),
        (ClaimRule("email_verified", ("true",)), True, True),
        (ClaimRule("email_verified", ("true",)), False, False),
        (ClaimRule("level", ("3",)), 3, True),
        (ClaimRule("level", ("3",)), {"3": 1}, False),
    ],
    ids=str,
)
def test_required_claims(rule: ClaimRule, value: Json, good: bool) -> None:
    found, auth = claims(**{rule.name: value}), policy(required_claims=(rule,))
    if good:
        check_claims(found, auth, NOW)
    else:
        error = refused(found, auth)
        assert error.forbidden
        assert rule.name in str(error)


def test_all_rules_must_hold() -> None:
    rules = (ClaimRule("a", ("1",)), ClaimRule("b", ("2",)))
    check_claims(claims(a="1", b="2"), policy(required_claims=rules), NOW)
    refused(claims(a="1"), policy(required_claims=rules))


@pytest.mark.parametrize(
    ("found", "scopes"),
    [({"scope": "a b"}, ["a", "b"]), ({"scp": ["a", 1]}, ["a"]), ({}, None), ({"scope": 3}, None)],
)
def test_scopes(found: Json, scopes: Json) -> None:
    assert jwt_rules.scopes(found) == scopes


# --- issuers' keys, in virtual time -----------------------------------------------------------------------------------
class Documents:
    """Answers from a table; `problem` instead of an answer. `gate` cleared holds answers back."""

    def __init__(self, **documents: Json) -> None:
        self.documents, self.asked, self.problem = documents, [], ""
        self.gate = asyncio.Event()
        self.gate.set()

    async def json(self, url: str) -> Json:
        self.asked.append(url.removeprefix(ISSUER))
        await self.gate.wait()
        if self.problem:
            raise FetchError(self.problem)
        return json.loads(json.dumps(self.documents[url.removeprefix(ISSUER)]))

    async def close(self) -> None:
        pass


class World:
    def __init__(self, issuer: Issuer) -> None:
        self.now = 1000.0
        self.issuer = issuer
        self.fetcher = Documents(**{"/keys": issuer.jwks(), DISCOVERY: issuer.discovery()})
        self.issuers = Issuers(self.fetcher, lambda: self.now, refresh=600.0, retry=10.0)
        self.keys = self.issuers.of(policy(jwks_uri=f"{ISSUER}/keys"))

    def publish(self) -> None:
        self.fetcher.documents["/keys"] = self.issuer.jwks()

    async def find(self, key_id: str = "k1") -> list[str]:
        return [key.key_id for key in await self.issuers.find(self.keys, key_id, "RS256")]

    async def settle(self) -> None:
        while self.keys.task is not None:
            await self.keys.task


@pytest.fixture
def world() -> World:
    return World(Issuer(ISSUER))


async def test_keys_are_fetched_once(world: World) -> None:
    assert await asyncio.gather(*(world.find() for _ in range(20))) == [["k1"]] * 20
    assert world.fetcher.asked == ["/keys"]


async def test_discovery(world: World) -> None:
    keys = world.issuers.of(policy())
    assert len(await world.issuers.find(keys, "k1", "RS256")) == 1
    assert world.fetcher.asked == [DISCOVERY, "/keys"]


@pytest.mark.parametrize("document", [{"issuer": "https://evil.example", "jwks_uri": ISSUER + "/keys"}, {}, [], None])
async def test_discovery_of_another_issuer(world: World, document: Json) -> None:
    world.fetcher.documents[DISCOVERY] = document
    with pytest.raises(FetchError):
        await world.issuers.find(world.issuers.of(policy()), "k1", "RS256")


async def test_rotation(world: World) -> None:
    await world.find()
    world.issuer.keys.append(rsa_key("k2", fresh=True))
    world.publish()
    version = world.keys.version
    assert await world.find("k2") == []  # asked a moment ago: strangers' key ids must not make us ask again
    world.now += 10
    assert await world.find("k2") == ["k2"]
    assert world.keys.version == version + 1
    assert world.fetcher.asked == ["/keys", "/keys"]


async def test_unknown_key_ids_ask_at_most_every_ten_seconds(world: World) -> None:
    await world.find()
    for second in range(60):
        world.now += 1
        assert await world.find(f"nonsense-{second}") == []
    assert len(world.fetcher.asked) == 1 + 6


async def test_old_keys_are_refreshed_meanwhile(world: World) -> None:
    await world.find()
    version = world.keys.version
    world.now += 601
    world.fetcher.gate.clear()
    assert await world.find() == ["k1"]  # nobody waits for it
    world.fetcher.gate.set()
    await world.settle()
    assert len(world.fetcher.asked) == 2
    assert world.keys.version == version  # the same keys: nothing that they proved ends


async def test_a_key_that_was_withdrawn_is_gone_after_a_refresh(world: World) -> None:
    await world.find()
    world.issuer.keys[:] = [rsa_key("k2", fresh=True)]
    world.publish()
    world.now += 601
    await world.find()
    await world.settle()
    assert await world.find() == []


@pytest.mark.parametrize("document", [{"keys": []}, {"keys": "x"}, [], None, {"keys": [{"kty": "oct", "k": "AA"}]}])
async def test_an_issuer_that_is_down_or_answers_nonsense(world: World, document: Json) -> None:
    await world.find()
    world.fetcher.documents["/keys"] = document
    for _ in range(10):
        world.now += 700
        assert await world.find() == ["k1"]
        await world.settle()
    assert len(world.fetcher.asked) == 11
    world.now += MAX_STALE_SECONDS
    with pytest.raises(FetchError):
        await world.find()


async def test_an_issuer_that_never_answered(world: World) -> None:
    world.fetcher.problem = "no connection"
    for _ in range(5):
        with pytest.raises(FetchError, match="no connection"):
            await world.find()
    assert len(world.fetcher.asked) == 1  # asked again only after a while
    world.now += 10
    world.fetcher.problem = ""
    assert await world.find() == ["k1"]


async def test_a_caller_who_leaves_does_not_cancel_the_fetch(world: World) -> None:
    world.fetcher.gate.clear()
    first, second = (asyncio.create_task(world.find()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    world.fetcher.gate.set()
    assert await second == ["k1"]


def test_the_plan() -> None:
    keys = Keys(policy(), refresh=600.0, retry=10.0)
    assert keys.plan(0.0, found=False) is Step.FETCH
    keys.tried = 0.0
    assert keys.plan(5.0, found=False) is Step.FAIL
    assert keys.plan(10.0, found=False) is Step.FETCH
    keys.arrived({"keys": [rsa_key().public()]}, 10.0)
    keys.tried = 10.0
    assert keys.plan(11.0, found=True) is Step.USE
    assert keys.plan(11.0, found=False) is Step.USE
    assert keys.plan(20.0, found=False) is Step.FETCH
    assert keys.plan(610.0, found=True) is Step.USE
    assert keys.plan(611.0, found=True) is Step.REFRESH


def test_tokens_of_the_test_issuer_are_good_now() -> None:
    token = take_apart(Issuer(ISSUER).token().encode(), policy())
    check_claims(token.claims, policy(), time.time())
