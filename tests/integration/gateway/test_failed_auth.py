"""Strangers who try credentials meet a limit, over a real connection; callers with a good one do not."""

from kappa_auth_world import hashed, secret
from kappa_gateway_rig import running
from kappa_issuer import Issuer, forged, serving

from kappa_api.limits import Rate
from kappa_gateway.auth.settings import AuthSettings
from kappa_gateway.settings import Limits

HELLO = "/fn/default/hello"
LIMITS = Limits(auth_failures=Rate(1, 3600, 3))


async def test_tokens_that_are_garbage() -> None:
    async with serving(Issuer()) as issuer, running(limits=LIMITS, auth=AuthSettings(allow_http=True)) as rig:
        rig.function(http={"auth": {"type": "jwt", "jwt": {"issuer": issuer.url, "audiences": ["api"]}}})
        await rig.instance()
        good = f"Authorization: Bearer {issuer.token()}"
        assert (await rig.get(HELLO, good)).status == 200
        for number in range(3):
            token = forged({"alg": "RS256", "kid": "k1"}, {"n": number}, b"x")
            assert (await rig.get(HELLO, f"Authorization: Bearer {token}")).status == 401
        answer = await rig.get(HELLO, f"Authorization: Bearer {issuer.token(sub='bob')}")
        assert (answer.status, answer.error["code"]) == (429, "rate_limited")
        assert 3590 < int(answer.headers["retry-after"]) <= 3600
        assert (await rig.get(HELLO, good)).status == 200
        assert (await rig.get(HELLO)).status == 401
        assert rig.gateway.catalog.functions["default/hello"].counters.rejected == {
            "unauthorized": 4,
            "auth_failures": 1,
        }


async def test_addresses_behind_a_proxy() -> None:
    async with running(limits=LIMITS, trust_forwarded=True) as rig:
        rig.function(http={"auth": {"type": "apiKey", "apiKey": {"secrets": [{"name": "robots"}]}}})
        rig.gateway.guard.keys.put(secret("robots", r2d2=hashed("beep")))
        statuses = [
            (await rig.get(HELLO, "x-api-key: wrong", f"X-Forwarded-For: 10.9.9.{number}, {address}")).status
            for address in ("192.0.2.1", "192.0.2.2")
            for number in range(4)
        ]
        assert statuses == [401, 401, 401, 429] * 2
