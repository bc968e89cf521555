"""Failed authentication is limited by address, and nobody is touched by it who has proved who he is. Virtual time."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kappa_auth_world import AuthWorld, bearer, hashed, request, secret
from kappa_issuer import Issuer, forged

from kappa_api.limits import Rate
from kappa_gateway import settings
from kappa_gateway.auth import jwt_rules
from kappa_gateway.auth.kube_verifier import TOKEN_REVIEWS
from kappa_gateway.auth.settings import ALL
from kappa_gateway.errors import GatewayError
from kappa_gateway.limits import CallerRoom, Limiter
from kappa_gateway.peers import Peers

Json = Any
RATE = Rate(2, 1, 4)
BURST = 4
ISSUER = "https://issuer.example"
RIGHT = {"name": "role", "values": ["admin"]}
OTHER_ADDRESS = b"192.0.2.8"


class Keys:
    """Fetches the issuer's documents."""

    def __init__(self, issuer: Issuer) -> None:
        self.issuer = issuer

    async def json(self, uri: str) -> Json:
        return self.issuer.discovery() if "well-known" in uri else self.issuer.jwks()

    async def close(self) -> None:
        pass


class Api:
    """An API server that knows the tokens that begin with `good`. It answers when `gate` is open."""

    def __init__(self) -> None:
        self.reviewed: list[str] = []
        self.revoked: set[str] = set()
        self.gate = asyncio.Event()
        self.gate.set()

    async def post(self, path: str, body: Json) -> Json:
        await self.gate.wait()
        if path != TOKEN_REVIEWS:
            return {"status": {"allowed": True}}
        token = body["spec"]["token"]
        self.reviewed.append(token)
        known = token.startswith("good") and token not in self.revoked
        return {"status": {"authenticated": known, "user": {"username": token}}}


def kubernetes(rate: Rate | None = RATE) -> tuple[AuthWorld, Api]:
    world, api = AuthWorld({"type": "kubernetes"}, failures=rate), Api()
    world.guard.use(api)
    return world, api


async def code(world: AuthWorld, token: str, address: bytes = b"192.0.2.7") -> str:
    """What becomes of a call with this bearer token: the error's code, or `ok`."""
    try:
        await world.admit(bearer(token), address)
    except GatewayError as failure:
        return failure.code
    return "ok"


async def exhaust(world: AuthWorld, address: bytes = b"192.0.2.7") -> None:
    for number in range(BURST):
        assert await code(world, f"bad-{number}", address) == "unauthorized"


async def test_garbage_is_checked_as_often_as_allowed_and_no_more() -> None:
    world, api = kubernetes()
    await exhaust(world)
    with pytest.raises(GatewayError) as caught:
        await world.admit(bearer("bad-again"))
    assert (caught.value.status, caught.value.code, caught.value.retry_after) == (429, "rate_limited", 1)
    assert len(api.reviewed) == BURST
    assert world.state.counters.rejected == {"unauthorized": BURST, "auth_failures": 1}
    assert world.call.identity is None
    world.now += 0.5
    assert await code(world, "bad-later") == "unauthorized"
    assert await code(world, "bad-later-still") == "rate_limited"
    world.now += 1000
    assert [await code(world, f"much-later-{number}") for number in range(BURST + 1)] == [
        *["unauthorized"] * BURST,
        "rate_limited",
    ]


async def test_tokens_of_issuers(monkeypatch: pytest.MonkeyPatch) -> None:
    issuer = Issuer(ISSUER)
    auth = {"type": "jwt", "jwt": {"issuer": ISSUER, "audiences": ["api"]}}
    world = AuthWorld(auth, fetcher=Keys(issuer), failures=RATE)
    mine, new = issuer.token(aud="api", exp=2000, iat=990), issuer.token(aud="api", exp=2000, iat=990, sub="bob")
    wrong = [issuer.token(aud="other", exp=2000, n=number) for number in range(BURST)]
    assert await code(world, mine) == "ok"
    assert [await code(world, token) for token in wrong] == ["unauthorized"] * BURST
    seen: list[bytes] = []
    take_apart = jwt_rules.take_apart
    monkeypatch.setattr(jwt_rules, "take_apart", lambda text, auth: seen.append(text) or take_apart(text, auth))
    assert await code(world, forged({"alg": "RS256"}, {}, b"x")) == "rate_limited"
    assert await code(world, new) == "rate_limited", "nobody can tell without a check"
    assert seen == []
    assert await code(world, mine) == "ok"
    assert await code(world, new, OTHER_ADDRESS) == "ok"
    world.now += 1
    assert await code(world, new) == "ok"


async def test_callers_who_lack_a_right_count() -> None:
    """Their tokens cost a check each time."""
    issuer = Issuer(ISSUER)
    auth = {"type": "jwt", "jwt": {"issuer": ISSUER, "audiences": ["api"], "requiredClaims": [RIGHT]}}
    world = AuthWorld(auth, fetcher=Keys(issuer), failures=RATE)
    token = issuer.token(aud="api", exp=2000, iat=990)
    assert [await code(world, token) for _ in range(BURST + 1)] == [*["forbidden"] * BURST, "rate_limited"]


async def test_api_keys_that_open_always_do() -> None:
    world = AuthWorld({"type": "apiKey", "apiKey": {"secrets": [{"name": "robots"}]}}, failures=RATE)
    world.guard.keys.heard(ALL, "")
    world.guard.keys.put(secret("robots", r2d2=hashed("beep")))
    await exhaust(world)
    assert await code(world, "bad") == "rate_limited"
    assert await code(world, "beep") == "ok"
    assert await code(world, "bad", OTHER_ADDRESS) == "unauthorized"
    assert world.state.counters.rejected == {"unauthorized": BURST + 1, "auth_failures": 1}


@pytest.mark.parametrize("kind", ["kubernetes", "apiKey"])
async def test_no_credential_is_no_failure(kind: str) -> None:
    """Many clients ask without one first, to learn what is wanted; it costs nothing to say."""
    world, _ = kubernetes()
    if kind == "apiKey":
        world = AuthWorld({"type": "apiKey", "apiKey": {"secrets": [{"name": "robots"}]}}, failures=RATE)
        world.guard.keys.put(secret("robots", r2d2=hashed("beep")))
    for _ in range(5 * BURST):
        with pytest.raises(GatewayError) as caught:
            await world.admit(request())
        assert caught.value.code == "unauthorized"


async def test_neighbours_go_on() -> None:
    """Behind one address: who is remembered, and who has to be checked again because the memory has ended."""
    world, api = kubernetes()
    assert await code(world, "good-1") == "ok"
    await exhaust(world)
    assert await code(world, "good-1") == "ok"
    world.now += 40  # the review holds for 30 s
    await exhaust(world)
    asked = len(api.reviewed)
    assert await code(world, "good-1") == "ok"
    assert len(api.reviewed) == asked + 1
    assert await code(world, "good-new") == "rate_limited"


async def test_a_withdrawn_credential_is_checked_once_more() -> None:
    world, api = kubernetes()
    assert await code(world, "good-1") == "ok"
    api.revoked.add("good-1")
    world.now += 40
    await exhaust(world)
    assert await code(world, "good-1") == "unauthorized"
    world.now += 6  # the bad answer holds for 5 s
    await exhaust(world)
    assert await code(world, "good-1") == "rate_limited"


async def test_what_cannot_be_checked_is_nobodys_failure() -> None:
    world, _ = kubernetes()
    world.guard._reviews.api = None
    for _ in range(3 * BURST):
        assert await code(world, "good-1") == "auth_unavailable"


async def test_many_newcomers_at_once() -> None:
    """After a gateway has started, say: nobody behind their address has failed."""
    world, api = kubernetes()
    api.gate.clear()
    calls = [asyncio.create_task(code(world, f"good-{number}")) for number in range(10 * BURST)]
    await asyncio.sleep(0)
    api.gate.set()
    assert await asyncio.gather(*calls) == ["ok"] * 10 * BURST


async def test_no_more_at_once_than_there_are_failures_to_spare() -> None:
    world, api = kubernetes()
    for number in range(BURST - 1):
        await code(world, f"bad-{number}")
    api.gate.clear()
    calls = [asyncio.create_task(code(world, f"worse-{number}")) for number in range(20)]
    await asyncio.sleep(0)
    api.gate.set()
    assert sorted(await asyncio.gather(*calls)) == ["rate_limited"] * 19 + ["unauthorized"]
    assert world.failures._running == {}


async def test_whoever_leaves_before_the_answer_has_failed() -> None:
    world, api = kubernetes()
    api.gate.clear()
    for number in range(BURST):
        call = asyncio.create_task(code(world, f"bad-{number}"))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
    assert world.failures._running == {}
    assert await code(world, "bad") == "rate_limited"
    await world.guard.close()


async def test_without_a_limit() -> None:
    world, api = kubernetes(None)
    assert {await code(world, f"bad-{number}") for number in range(300)} == {"unauthorized"}
    assert len(api.reviewed) == 300


async def test_addresses_and_credentials_that_are_remembered_are_bounded() -> None:
    world, _ = kubernetes()
    for number in range(3000):
        address = b"10.0.%d.%d" % divmod(number, 256)
        await code(world, f"good-{number}", address)
        await code(world, f"bad-{number}", address)
    assert len(world.failures._passed) == world.failures.room.used == 1000
    world.now += 1000
    world.failures.sweep(world.now)
    world.failures.sweep(world.now)
    assert world.failures.room.used == 0


@pytest.mark.parametrize(("text", "rate"), [("", settings.AUTH_FAILURES), ("0", None), ("7/60/9", Rate(7, 60, 9))])
def test_the_setting(text: str, rate: Rate | None) -> None:
    env = {"KAPPA_PLATFORM_SECRET": "x", "KAPPA_AUTH_FAILURES": text}
    assert settings.load(env).limits.auth_failures == rate


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.5, 3.0]), st.integers(0, 2)), max_size=60),
    st.sampled_from([0.0, 5_000_000.1]),
)
def test_charging_what_is_left_is_admitting(steps: list[tuple[float, int]], start: float) -> None:
    """`left` and `charge` of a Limiter keep the same account as `admit`."""
    asked, charged = limiter(), limiter()
    now = start
    for gap, number in steps:
        now += gap
        caller = b"caller-%d" % number
        left, after = charged.left(caller, now)
        assert left <= charged.burst + 0.01
        refused = asked.admit(caller, now)
        assert (left < 1) == (refused is not None)
        if refused is None:
            charged.charge(caller, now)
        else:
            assert after == refused.retry_after


def test_charging_beyond_takes_what_there_is() -> None:
    """A longer debt could be forgotten with the generation it stands in."""
    found = limiter()
    for _ in range(100):
        found.charge(b"a", 10.0)
    assert found.left(b"a", 10.0) == (pytest.approx(0, abs=0.01), 1)
    assert found.left(b"a", 10.0 + BURST / RATE.per_second)[0] == pytest.approx(BURST, abs=0.01)


def limiter() -> Limiter:
    return Limiter(None, RATE, Peers("kappa-system/gw-0"), CallerRoom(100, 100))
