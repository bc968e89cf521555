"""Who may call, as users set it up: kubectl, a real gateway process, a real issuer, handlers that see who called."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from kappa_auth_world import hashed
from kappa_issuer import Issuer, rsa_key, serving
from kappa_platform import System, condition, function

pytestmark = pytest.mark.asyncio(loop_scope="session")

Json = Any
WHO = """
def handler(event, context):
    context_ = event["requestContext"]
    return {"authorizer": context_.get("authorizer"), "headers": event["headers"]}
"""
ASGI = """
async def handler(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    import json
    headers = {k.decode(): v.decode() for k, v in scope["headers"] if b"identity" in k}
    body = json.dumps({"authorizer": scope["kappa.authorizer"], "headers": headers})
    if scope["type"] == "websocket":
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": body})
        await send({"type": "websocket.close"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body.encode()})
"""


async def call(system: System, name: str, token: str = "", **headers: str) -> tuple[int, Json]:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if token:
        sent["Authorization"] = f"Bearer {token}"
    async with system.http.get(f"{system.url}/fn/default/{name}", headers=sent) as answer:
        return answer.status, json.loads(await answer.text())


async def until(system: System, name: str, status: int, token: str = "", **headers: str) -> Json:
    """Calls until it answers so; any other answer on the way must be a refusal, too."""
    async with asyncio.timeout(20):
        while (found := await call(system, name, token, **headers))[0] != status:
            assert found[0] in (200, 401, 403, 503), found
            await asyncio.sleep(0.02)
    return found[1]


async def applied(system: System, text: str) -> None:
    answer = await system.apply(text)
    assert answer.ok, answer.text


def keys(name: str, **keys: str) -> str:
    kind = {"apiVersion": "v1", "kind": "Secret", "type": "kappa.dev/api-keys"}
    return json.dumps(kind | {"metadata": {"name": name}, "stringData": {k: hashed(v) for k, v in keys.items()}})


async def test_api_keys_are_rotated_without_a_restart(system: System) -> None:
    auth = {"type": "apiKey", "apiKey": {"secrets": [{"name": "rotated"}]}}
    await applied(system, function("rotated", WHO, http={"auth": auth}))
    await system.ready("rotated")
    status, body = await call(system, "rotated", x_api_key="first")
    assert (status, body["error"]["code"]) == (503, "auth_unavailable"), "without its Secret it is closed"

    await applied(system, keys("rotated", old="first"))
    found = await until(system, "rotated", 200, x_api_key="first")
    assert found["authorizer"]["lambda"] == {"principalId": "old", "type": "apiKey", "secret": "rotated"}
    assert "x-api-key" not in found["headers"]
    assert (await call(system, "rotated"))[0] == 401
    assert (await call(system, "rotated", x_api_key="second"))[0] == 401

    await applied(system, keys("rotated", old="first", new="second"))
    assert (await until(system, "rotated", 200, x_api_key="second"))["authorizer"]["lambda"]["principalId"] == "new"
    assert (await call(system, "rotated", "first"))[0] == 200, "both open meanwhile"
    await system.kubectl.run(
        ["patch", "secret", "rotated", "--type=json", "-p", '[{"op":"remove","path":"/data/old"}]']
    )
    await until(system, "rotated", 401, x_api_key="first")
    assert (await call(system, "rotated", x_api_key="second"))[0] == 200
    await system.kubectl.run(["delete", "secret", "rotated"])
    await until(system, "rotated", 503, x_api_key="second")
    log = (await system.kubectl.run(["-n", "kappa-system", "logs", "gateway"])).text
    assert "default/rotated: callers cannot be checked" in log
    assert "default/rotated" in log
    for secret in ("first", "second", hashed("first"), hashed("second")):
        assert f'"{secret}"' not in log
        assert hashed("first")[7:] not in log


async def test_tokens_of_an_issuer_that_rotates(system: System) -> None:
    async with serving(Issuer()) as issuer:
        jwt = {"issuer": issuer.url, "audiences": ["api"]}
        auth = {"type": "jwt", "jwt": jwt}
        await applied(system, function("tokens", WHO, http={"auth": auth}))
        await system.ready("tokens")
        first = issuer.token(scope="read", roles=["a", "b"])
        status, body = await call(system, "tokens", first)
        assert status == 200
        claims = body["authorizer"]["jwt"]["claims"]
        assert (claims["sub"], claims["roles"]) == ("alice", ["a", "b"])
        assert body["authorizer"]["jwt"]["scopes"] == ["read"]
        assert (await call(system, "tokens"))[0] == 401
        assert (await call(system, "tokens", issuer.token(aud="other")))[0] == 401

        issuer.keys.append(rsa_key("k2", fresh=True))
        await until(system, "tokens", 200, issuer.token(sub="bob"))
        assert (await call(system, "tokens", first))[0] == 200
        issuer.keys.pop(0)
        issuer.keys.append(rsa_key("k3", fresh=True))
        await until(system, "tokens", 200, issuer.token())
        assert (await call(system, "tokens", first))[0] == 401
        stranger = rsa_key("k3", fresh=True)
        assert (await call(system, "tokens", issuer.token(stranger)))[0] == 401


async def test_rbac_says_who_may_call(system: System) -> None:
    run = system.kubectl.run
    await applied(system, function("ruled", WHO, http={"auth": {"type": "kubernetes"}}))
    await system.ready("ruled")
    await run(["create", "serviceaccount", "caller"])
    token = (await run(["create", "token", "caller"])).out.strip()
    assert token.count(".") == 2
    assert (await call(system, "ruled"))[0] == 401
    assert (await call(system, "ruled", token[:-3]))[0] == 401
    status, body = await call(system, "ruled", token)
    assert status == 403
    assert "system:serviceaccount:default:caller may not invoke functions/ruled in default" in body["error"]["message"]

    grant = ["create", "rolebinding", "callers", "--clusterrole=kappa-invoker", "--serviceaccount=default:caller"]
    assert (await run(grant)).ok
    found = await until(system, "ruled", 200, token)
    caller = found["authorizer"]["lambda"]
    assert caller["principalId"] == "system:serviceaccount:default:caller"
    assert "system:serviceaccounts:default" in caller["groups"]
    assert "authorization" not in found["headers"], "the function could act as its caller"

    made_for_others = (await run(["create", "token", "caller", "--audience=others"])).out.strip()
    assert (await call(system, "ruled", made_for_others))[0] == 401
    auth = {"type": "kubernetes", "kubernetes": {"audiences": ["others"]}}
    await applied(system, function("ruled", WHO, http={"auth": auth}))
    await until(system, "ruled", 200, made_for_others)
    await until(system, "ruled", 401, token)


async def test_identity_reaches_asgi_and_cannot_be_forged(system: System) -> None:
    forged = {"kappa_identity_principal": "evil", "kappa_identity_data": "e30="}
    await applied(system, function("open", ASGI, signature="asgi"))
    auth = {"type": "apiKey", "apiKey": {"secrets": [{"name": "asgi"}]}}
    await applied(system, function("closed", ASGI, signature="asgi", http={"auth": auth}))
    await applied(system, keys("asgi", robot="beep"))
    await system.ready("open")
    await system.ready("closed")
    assert await call(system, "open", **forged) == (200, {"authorizer": None, "headers": {}})
    found = await until(system, "closed", 200, x_api_key="beep", **forged)
    assert found["authorizer"]["lambda"]["principalId"] == "robot"
    assert found["headers"]["kappa-identity-principal"] == "robot"
    assert sorted(found["headers"]) == ["kappa-identity-data", "kappa-identity-principal", "kappa-identity-type"]

    url = f"{system.url}/fn/default/closed"
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await system.http.ws_connect(url)
    assert caught.value.status == 401
    async with system.http.ws_connect(url, headers={"x-api-key": "beep", "kappa-identity-principal": "evil"}) as socket:
        assert json.loads(await socket.receive_str()) == found


async def test_bad_rules_are_refused_when_applied(system: System) -> None:
    for auth, field in (
        ({"type": "basic"}, "spec.http.auth.type"),
        ({"type": "apiKey"}, "spec.http.auth"),
        ({"type": "jwt", "jwt": {"issuer": "https://i", "audiences": ["a"], "algorithms": ["HS256"]}}, "algorithms"),
        ({"type": "jwt", "jwt": {"issuer": "https://i"}}, "audiences"),
        ({"type": "none", "apiKey": {"secrets": [{"name": "s"}]}}, "spec.http.auth"),
    ):
        answer = await system.apply(function("bad", WHO, http={"auth": auth}))
        assert not answer.ok
        assert field in answer.text
    cors = {"allowOrigins": ["*"], "allowCredentials": True}
    answer = await system.apply(function("bad", WHO, http={"cors": cors}))
    assert not answer.ok
    assert "spec.http.cors" in answer.text


async def test_a_refused_caller_starts_no_instance(system: System) -> None:
    auth = {"type": "apiKey", "apiKey": {"secrets": [{"name": "idle"}]}}
    await applied(system, keys("idle", robot="beep"))
    await applied(system, function("idle", WHO, http={"auth": auth}, scaling={"idleSeconds": 1}))
    await system.ready("idle")
    await system.until("idle", lambda status: status["replicas"] == 0)
    pods = ["get", "pods", "-l", "kappa.dev/function=idle", "-o", "name"]
    for _ in range(20):
        assert (await call(system, "idle", x_api_key="wrong"))[0] == 401
    assert not (await system.kubectl.run(pods)).out.strip()
    status = (await system.function("idle"))["status"]
    assert condition(status, "Ready")["reason"] == "ScaledToZero"
    assert (await call(system, "idle", x_api_key="beep"))[0] == 200
