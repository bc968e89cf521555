"""Kubernetes tokens: what is asked of the API server, how long its answers hold, what happens while it is away."""

import asyncio
import base64
import json
import logging
from typing import Any

import aiohttp
import pytest
from kappa_auth_world import AuthWorld, bearer, request

from kappa_gateway.auth import kube_verifier
from kappa_gateway.auth.kube_verifier import ACCESS_REVIEWS, TOKEN_REVIEWS
from kappa_gateway.errors import GatewayError
from kappa_gateway.kube import ApiError

Json = Any
USER = {"username": "system:serviceaccount:shop:cart", "uid": "u-1", "groups": ["system:serviceaccounts"]}


class Api:
    """An API server: `users` by token, `allowed` user names. `problem`: raised instead of an answer."""

    def __init__(self) -> None:
        self.users: dict[str, Json] = {"good": USER}
        self.allowed = {USER["username"]}
        self.asked: list[tuple[str, Json]] = []
        self.problem: Exception | None = None
        self.audiences: list[str] | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def post(self, path: str, body: Json) -> Json:
        self.asked.append((path, body["spec"]))
        await self.gate.wait()
        if self.problem is not None:
            raise self.problem
        if path == TOKEN_REVIEWS:
            user = self.users.get(body["spec"]["token"])
            if user is None:
                return {"status": {"user": {}, "error": "[invalid bearer token]"}}
            return {"status": {"authenticated": True, "user": user, "audiences": self.audiences or ["the-server"]}}
        assert path == ACCESS_REVIEWS
        return {"status": {"allowed": body["spec"]["user"] in self.allowed}}


def make(**fields: Json) -> tuple[AuthWorld, Api]:
    world, api = AuthWorld({"type": "kubernetes", **fields}), Api()
    world.guard.use(api)
    return world, api


async def refused(world: AuthWorld, token: str = "good") -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await world.admit(bearer(token))
    return caught.value


async def test_what_is_asked_and_told() -> None:
    world, api = make()
    identity = await world.admit(bearer("good"))
    assert api.asked == [
        (TOKEN_REVIEWS, {"token": "good"}),
        (
            ACCESS_REVIEWS,
            {
                "user": USER["username"],
                "uid": "u-1",
                "groups": USER["groups"],
                "extra": {},
                "resourceAttributes": {
                    "namespace": "default",
                    "verb": "invoke",
                    "group": "kappa.dev",
                    "version": "v1",
                    "resource": "functions",
                    "name": "hello",
                },
            },
        ),
    ]
    assert identity is not None
    facts = {"principalId": USER["username"], "type": "kubernetes", "uid": "u-1", "groups": USER["groups"]}
    assert identity.authorizer == {"lambda": facts}


async def test_the_token_does_not_reach_the_function() -> None:
    world, _ = make()
    for _ in range(2):  # asked, then remembered
        await world.admit(request("Authorization: Bearer good", "x-api-key: mine"))
        assert (world.header("authorization"), world.header("x-api-key")) == ([], ["mine"])


@pytest.mark.parametrize(
    "lines", [(), ("Authorization: Basic Zm9v",), ("Authorization: Bearer ",), ("x-api-key: good",)]
)
async def test_no_token(lines: tuple[str, ...]) -> None:
    world, api = make()
    with pytest.raises(GatewayError) as caught:
        await world.admit(request(*lines))
    assert (caught.value.code, api.asked) == ("unauthorized", [])


async def test_who_is_not_known_and_who_may_not() -> None:
    world, api = make()
    stranger = await refused(world, "bad")
    assert (stranger.status, stranger.code) == (401, "unauthorized")
    api.allowed.clear()
    known = await refused(world)
    assert (known.status, known.code) == (403, "forbidden")
    assert known.message == f"{USER['username']} may not invoke functions/hello in default"
    assert b'error="insufficient_scope"' in known.lines


@pytest.mark.parametrize(
    "status",
    [{}, {"authenticated": "true", "user": USER}, {"authenticated": True}, {"authenticated": False, "user": USER}],
)
async def test_answers_that_are_no_yes(status: Json) -> None:
    world, api = make()

    async def post(path: str, body: Json) -> Json:
        return {"status": status if path == TOKEN_REVIEWS else {"allowed": True}}

    api.post = post  # type: ignore[method-assign]
    assert (await refused(world)).status == 401


@pytest.mark.parametrize(
    "status", [{}, {"allowed": "yes"}, {"allowed": True, "denied": True}, {"allowed": False}, None]
)
async def test_access_answers_that_are_no_yes(status: Json) -> None:
    world, api = make()
    known = api.post

    async def post(path: str, body: Json) -> Json:
        return {"status": status} if path == ACCESS_REVIEWS else await known(path, body)

    api.post = post  # type: ignore[method-assign]
    assert (await refused(world)).status == 403


@pytest.mark.parametrize(
    ("answered", "good"), [(["kappa"], True), (["x", "kappa"], True), (["the-server"], False), (None, False)]
)
async def test_audiences(answered: list[str] | None, good: bool) -> None:
    """An authenticator that knows nothing of audiences answers without them: that is no yes to ours."""
    world, api = make(kubernetes={"audiences": ["kappa", "other"]})
    api.audiences = answered
    if good:
        await world.admit(bearer("good"))
    else:
        assert (await refused(world)).status == 401
    assert api.asked[0] == (TOKEN_REVIEWS, {"token": "good", "audiences": ["kappa", "other"]})


async def test_a_good_answer_holds_for_30_seconds() -> None:
    world, api = make()
    await world.admit(bearer("good"))
    api.allowed.clear()
    world.now += 29.9
    await world.admit(bearer("good"))
    assert len(api.asked) == 2
    world.now += 0.2
    assert (await refused(world)).status == 403


async def test_a_bad_answer_holds_for_5_seconds() -> None:
    world, api = make()
    api.allowed.clear()
    await refused(world)
    api.allowed.add(USER["username"])
    world.now += 4.9
    assert (await refused(world)).status == 403
    assert len(api.asked) == 2
    world.now += 0.2
    await world.admit(bearer("good"))


async def test_an_answer_does_not_outlive_its_token() -> None:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": 1010}).encode()).decode().rstrip("=")
    token = f"e30.{claims}.sig"
    world, api = make()
    api.users = {token: USER}
    await world.admit(bearer(token))
    api.users.clear()
    world.now += 11
    assert (await refused(world, token)).status == 401


async def test_callers_with_one_token_share_a_question() -> None:
    world, api = make()
    api.gate.clear()
    calls = [asyncio.create_task(world.admit(bearer("good"))) for _ in range(20)]
    await asyncio.sleep(0)
    calls[0].cancel()  # whoever asked first leaves
    await asyncio.sleep(0)
    api.gate.set()
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert len(set(map(id, found[1:]))) == 1
    assert len(api.asked) == 2


@pytest.mark.parametrize(
    "problem",
    [ApiError(500, "x"), ApiError(403, "x"), ApiError(429, "x"), aiohttp.ClientError(), TimeoutError(), OSError()],
    ids=repr,
)
async def test_the_api_server_is_away(problem: Exception, caplog: pytest.LogCaptureFixture) -> None:
    world, api = make()
    api.users["other"] = USER
    await world.admit(bearer("good"))
    api.problem = problem
    world.now += 20
    await world.admit(bearer("good"))  # remembered
    away = await refused(world, "other")
    assert (away.status, away.code) == (503, "auth_unavailable")
    assert "default/hello: callers cannot be checked" in caplog.text
    world.now += 11
    assert (await refused(world)).status == 503
    api.problem = None
    await world.admit(bearer("good"))
    await world.admit(bearer("other"))


async def test_without_an_api() -> None:
    world, _ = make()
    world.guard.use(None)  # type: ignore[arg-type]
    assert (await refused(world)).status == 503


async def test_strangers_do_not_push_callers_out(monkeypatch: pytest.MonkeyPatch) -> None:
    world, api = make()
    await world.admit(bearer("good"))
    for number in range(20_100):
        await refused(world, f"bad-{number}")
    api.problem = OSError()
    await world.admit(bearer("good"))
    assert len(world.guard._reviews.denied) == 20_000


async def test_strangers_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kube_verifier, "MAX_RUNNING", 50)
    world, api = make()
    api.gate.clear()
    calls = [asyncio.create_task(world.admit(bearer(f"bad-{number}"))) for number in range(60)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(api.asked) == 16, "at most so many questions at one time"
    assert sum(call.done() for call in calls) == 10
    assert {call.exception().status for call in calls if call.done()} == {503}  # type: ignore[union-attr]
    api.gate.set()
    await asyncio.gather(*calls, return_exceptions=True)
    assert not world.guard._reviews.running


async def test_nothing_secret_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    world, api = make()
    token = "a-very-secret-token"
    await refused(world, token)
    world.now += 10
    api.problem = OSError()
    await refused(world, token)
    assert caplog.text
    assert token not in caplog.text
