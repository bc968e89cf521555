"""API keys: which opens, rotation, what is refused and what is said of it; and what the function sees of them."""

import base64
import json
import logging
from typing import Any

import pytest
from kappa_auth_world import AuthWorld, bearer, hashed, request, secret

from kappa_gateway.auth.settings import ALL
from kappa_gateway.errors import GatewayError

Json = Any
AUTH = {"type": "apiKey", "apiKey": {"secrets": [{"name": "robots"}, {"name": "people"}]}}


@pytest.fixture
def world() -> AuthWorld:
    world = AuthWorld(AUTH)
    world.guard.keys.heard(ALL, "")
    world.guard.keys.put(secret("robots", r2d2=hashed("beep"), c3po=hashed("golden")))
    return world


async def refused(world: AuthWorld, *lines: str) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await world.admit(request(*lines))
    assert world.call.identity is None
    assert world.call.extra == b""
    return caught.value


async def test_each_key_of_each_secret_opens(world: AuthWorld) -> None:
    world.guard.keys.put(secret("people", leia=hashed("alderaan")))
    for key, name in (("beep", "r2d2"), ("golden", "c3po"), ("alderaan", "leia")):
        identity = await world.admit(request(f"x-api-key: {key}"))
        assert identity is not None
        assert (identity.type, identity.principal) == ("apiKey", name)
        assert identity == await world.admit(bearer(key))


async def test_what_the_function_is_told(world: AuthWorld) -> None:
    identity = await world.admit(request("x-api-key: beep"))
    assert identity is not None
    authorizer = {"lambda": {"principalId": "r2d2", "type": "apiKey", "secret": "robots"}}
    assert identity.authorizer == authorizer
    lines = dict(line.split(": ") for line in world.call.extra.decode().split("\r\n") if line)
    assert lines["kappa-identity-type"] == "apiKey"
    assert lines["kappa-identity-principal"] == "r2d2"
    assert json.loads(base64.urlsafe_b64decode(lines["kappa-identity-data"])) == authorizer


async def test_the_key_does_not_reach_the_function(world: AuthWorld) -> None:
    await world.admit(request("X-Api-Key: beep", "Authorization: Bearer for-the-function"))
    assert (world.header("x-api-key"), world.header("authorization")) == ([], ["Bearer for-the-function"])
    await world.admit(request("authorization: bearer beep"))
    assert world.header("authorization") == []
    await world.admit(request("x-api-key: beep", "Authorization: Bearer golden"))
    assert (world.header("x-api-key"), world.header("authorization")) == ([], [])
    await world.admit(request("x-api-key: beep", "Authorization: Basic YTpi"))
    assert world.header("authorization") == ["Basic YTpi"]


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ((), "unauthorized"),
        (("x-api-key: wrong",), "unauthorized"),
        (("x-api-key: ",), "unauthorized"),
        (("x-api-key: beep, golden",), "unauthorized"),
        (("x-api-key: " + hashed("beep"),), "unauthorized"),
        (("Authorization: Bearer wrong",), "unauthorized"),
        (("Authorization: Basic beep",), "unauthorized"),
        (("Authorization: beep",), "unauthorized"),
        (("x_api_key: beep",), "unauthorized"),
        (("x-api-key: wrong", "Authorization: Bearer beep"), "unauthorized"),
        (("x-api-key: wrong", "x-api-key: beep"), "bad_request"),
        (("Authorization: Bearer wrong", "authorization: Bearer beep"), "bad_request"),
    ],
)
async def test_what_does_not_open(world: AuthWorld, lines: tuple[str, ...], code: str) -> None:
    error = await refused(world, *lines)
    assert error.code == code
    assert "beep" not in error.message + error.lines.decode()


async def test_the_challenge(world: AuthWorld) -> None:
    assert (await refused(world)).lines == b'www-authenticate: Bearer realm="default/hello"\r\n'
    wrong = await refused(world, "x-api-key: wrong")
    assert wrong.lines == (
        b'www-authenticate: Bearer realm="default/hello", error="invalid_token", '
        b'error_description="the API key is not one of the function\'s"\r\n'
    )


async def test_rotation_counts_at_once(world: AuthWorld) -> None:
    await world.admit(request("x-api-key: beep"))
    world.guard.keys.put(secret("robots", r2d2=hashed("beep"), new=hashed("boop")))
    await world.admit(request("x-api-key: beep"))
    await world.admit(request("x-api-key: boop"))
    await refused(world, "x-api-key: golden")
    world.guard.keys.put(secret("robots", new=hashed("boop")))
    await refused(world, "x-api-key: beep")


async def test_a_missing_secret_closes(world: AuthWorld) -> None:
    world.guard.keys.remove("default/robots")
    for line in ("x-api-key: beep", "x-api-key: "):
        error = await refused(world, line)
        assert (error.code, error.status) == ("auth_unavailable", 503)


@pytest.mark.parametrize(
    "there",
    [
        secret("robots", namespace="other", r2d2=hashed("beep")),
        secret("strangers", r2d2=hashed("beep")),
        secret("robots", kind="Opaque", r2d2=hashed("beep")),
        secret("robots", r2d2="beep"),
        secret("robots"),
        {"metadata": {"name": "robots", "namespace": "default"}, "type": "kappa.dev/api-keys", "data": None},
    ],
    ids=["other namespace", "other name", "other type", "plain text", "empty", "no data"],
)
async def test_secrets_that_do_not_open(there: Json) -> None:
    world = AuthWorld(AUTH)
    world.guard.keys.put(there)
    assert (await refused(world, "x-api-key: beep")).code == "auth_unavailable"


@pytest.mark.parametrize(
    "value",
    [
        "beep",
        "",
        "sha256:",
        "sha256:" + "0" * 63,
        hashed("beep").upper(),
        "md5:" + "0" * 64,
        hashed("beep") + "00",
        "é",
    ],
)
async def test_values_that_are_no_hash(world: AuthWorld, value: str, caplog: pytest.LogCaptureFixture) -> None:
    world.guard.keys.put(secret("robots", good=hashed("good"), bad=value))
    await world.admit(request("x-api-key: good"))
    if value and value.isascii():
        await refused(world, f"x-api-key: {value}")
    assert "data[bad] is not a hash" in caplog.text
    assert "sha256sum" in caplog.text
    assert not value or value in ("sha256:",) or value not in caplog.text


async def test_a_hash_with_a_line_break_at_its_end(world: AuthWorld) -> None:
    """As `sha256sum | base64` and many editors leave it."""
    world.guard.keys.put(secret("robots", r2d2=hashed("beep") + "\n"))
    await world.admit(request("x-api-key: beep"))


async def test_what_the_admin_is_told(caplog: pytest.LogCaptureFixture) -> None:
    world = AuthWorld(AUTH)
    for heard, said in (
        (None, "gateway.auth.apiKeys.namespaces"),
        ("403: forbidden", "403: forbidden"),
        ("", "default/robots, default/people"),
    ):
        if heard is not None:
            world.guard.keys.heard("default", heard)
        world.now += 60
        caplog.clear()
        for _ in range(100):
            await refused(world, "x-api-key: beep")
        told = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert len(told) == 1, "once, not for every call"
        assert said in told[0].getMessage()
        assert "default/hello" in told[0].getMessage()


async def test_nothing_secret_is_logged(world: AuthWorld, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    key = "a-very-secret-key"
    world.guard.keys.put(secret("robots", r2d2=hashed(key), plain=key))
    await world.admit(request(f"x-api-key: {key}"))
    await refused(world, f"x-api-key: {key}x")
    world.guard.keys.remove("default/robots")
    await refused(world, f"x-api-key: {key}")
    assert caplog.text
    assert key not in caplog.text
    assert hashed(key) not in caplog.text
