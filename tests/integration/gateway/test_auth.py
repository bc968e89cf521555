"""Callers' identity and CORS on the request path: what never reaches an instance, what reaches it, what comes back."""

import asyncio
import base64
import json
from typing import Any

import pytest
from kappa_auth_world import hashed, secret
from kappa_issuer import Issuer, forged, rsa_key, serving
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import InvalidStatus

from kappa_gateway.auth.settings import AuthSettings

HELLO = "/fn/default/hello"
KEYS = {"type": "apiKey", "apiKey": {"secrets": [{"name": "robots"}]}}
APP = "https://app.example.org"
IDENTITY = ("kappa-identity-type", "kappa-identity-principal", "kappa-identity-data")


def guarded(rig: Any, uid: str = "", **http: Any) -> None:
    rig.function(uid=uid, http={"auth": KEYS} | http)
    rig.gateway.guard.keys.put(secret("robots", r2d2=hashed("beep")))


def untouched(rig: Any) -> bool:
    queue = rig.queue()
    return bool(queue.arrivals == queue.waiting == queue.in_service == 0)


async def test_a_stranger_reaches_and_wakes_nobody(rig: Any) -> None:
    guarded(rig)
    upstream = await rig.instance()
    for lines in ((), ("x-api-key: wrong",), ("Authorization: Bearer wrong",)):
        for method in ("GET", "POST", "OPTIONS", "HEAD"):
            answer = await rig.get(HELLO, *lines, method=method)
            assert answer.status == 401
            assert answer.headers["kappa-error-source"] == "gateway"
            assert answer.headers["www-authenticate"].startswith('Bearer realm="default/hello"')
            if method != "HEAD":
                assert answer.error["code"] == "unauthorized"
    assert upstream.connections == 0
    assert untouched(rig)
    assert rig.gateway.catalog.functions["default/hello"].counters.rejected == {"unauthorized": 12}


async def test_a_strangers_body_is_not_read(rig: Any) -> None:
    """The refusal comes while the body is still held back; then the connection ends, since the rest would follow."""
    guarded(rig)
    caller = await rig.caller()
    caller.send(f"POST {HELLO} HTTP/1.1\r\nhost: gw\r\ncontent-length: 100000\r\nexpect: 100-continue\r\n\r\n")
    status, headers = await caller.head()  # not 100
    assert (status, headers["connection"]) == (401, "close")
    caller.send(f"GET {HELLO} HTTP/1.1\r\nhost: gw\r\n\r\n")
    assert b"HTTP/1.1" not in await caller.closed()


async def test_a_connection_goes_on_after_a_refusal(rig: Any) -> None:
    guarded(rig)
    await rig.instance()
    caller = await rig.caller()
    assert (await caller.ask(f"GET {HELLO} HTTP/1.1\r\nhost: gw\r\n\r\n")).status == 401
    assert (await caller.ask(f"GET {HELLO} HTTP/1.1\r\nhost: gw\r\nx-api-key: beep\r\n\r\n")).status == 200


async def test_the_function_learns_who_calls(rig: Any) -> None:
    guarded(rig)
    upstream = await rig.instance()
    assert (await rig.get(HELLO, "X-API-Key: beep")).status == 200
    seen = upstream.seen[0]
    assert seen.get("kappa-identity-type") == "apiKey"
    assert seen.get("kappa-identity-principal") == "r2d2"
    data = json.loads(base64.urlsafe_b64decode(seen.get("kappa-identity-data")))
    assert data == {"lambda": {"principalId": "r2d2", "type": "apiKey", "secret": "robots"}}
    assert seen.get("x-api-key") == ""
    await rig.settled()


@pytest.mark.parametrize("auth", [{"type": "none"}, KEYS], ids=["none", "apiKey"])
@pytest.mark.parametrize(
    "name",
    [*IDENTITY, "Kappa-Identity-Type", "kappa_identity_data", "KAPPA-IDENTITY_PRINCIPAL", "kappa-identity-anything"],
)
async def test_identity_cannot_be_forged(rig: Any, name: str, auth: Any) -> None:
    guarded(rig, auth=auth)
    upstream = await rig.instance()
    body = f"POST {HELLO} HTTP/1.1\r\nhost: gw\r\nx-api-key: beep\r\n{name}: evil\r\nconnection: x-a\r\n"
    chunks = f"transfer-encoding: chunked\r\ntrailer: {name}\r\n\r\n2\r\nhi\r\n0\r\n{name}: evil\r\n\r\n"
    assert (await rig.ask(body + chunks)).status == 200
    seen = upstream.seen[0]
    assert "evil" not in str(seen.headers)
    assert seen.body == b"hi"
    expected = [] if auth["type"] == "none" else sorted(IDENTITY)
    assert sorted(key.lower() for key, _ in seen.headers if "identity" in key.lower()) == expected


async def test_the_rules_of_the_newest_spec_hold_though_the_rest_is_wrong(rig: Any) -> None:
    """A Function that is closed with a spec that has another fault stays open to nobody."""
    rig.function(generation=1)
    upstream = await rig.instance()
    assert (await rig.get(HELLO)).status == 200
    rig.gateway.guard.keys.put(secret("robots", r2d2=hashed("beep")))
    rig.function(generation=2, timeoutSeconds=-1, http={"auth": KEYS})
    assert (await rig.get(HELLO)).status == 401
    assert (await rig.get(HELLO, "x-api-key: beep")).status == 200
    for bad in ({"type": "basic"}, {"type": "jwt"}, "none"):
        rig.function(generation=3, http={"auth": bad})
        answer = await rig.get(HELLO, "x-api-key: beep")
        assert (answer.status, answer.error["code"]) == (503, "auth_unavailable")
        assert answer.headers["retry-after"]
    rig.function(generation=4)
    assert (await rig.get(HELLO)).status == 200
    assert len(upstream.seen) == 3


async def test_a_function_that_is_replaced_while_the_body_comes(rig: Any) -> None:
    """The caller of an open function is not one of the closed function that took its name."""
    rig.function(uid="f1")
    caller = await rig.caller()
    caller.send(f"POST {HELLO} HTTP/1.1\r\nhost: gw\r\ncontent-length: 4\r\n\r\nab")
    await rig.until(lambda: len(rig.gateway.deadlines) == 1)
    rig.gateway.catalog.remove_function("default/hello")
    guarded(rig, "f2")
    upstream = await rig.instance()
    caller.send("cd")
    answer = await caller.answer()
    assert (answer.status, answer.error["code"]) == (503, "not_ready")
    assert not upstream.seen


async def test_websockets(rig: Any) -> None:
    guarded(rig)
    upstream = await rig.instance(listen=False)
    met: list[Any] = []

    async def greet(socket: Any) -> None:
        met.append(socket.request.headers)
        await socket.send("hi")

    async with serve(greet, upstream.address, upstream.port):
        url = f"ws://127.0.0.1:{rig.port}{HELLO}"
        for headers in ({}, {"x-api-key": "wrong"}):
            with pytest.raises(InvalidStatus) as caught:
                async with connect(url, additional_headers=headers):
                    pass
            assert caught.value.response.status_code == 401
        assert not met
        caller = await rig.caller()  # the parser takes what follows an upgrade for frames: the connection must end
        upgrade = (
            "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: " + "A" * 24
        )
        caller.send(f"GET {HELLO} HTTP/1.1\r\nhost: gw\r\n{upgrade}\r\n\r\n")
        assert (await caller.answer()).headers["connection"] == "close"
        assert await caller.closed() == b""
        async with connect(url, additional_headers={"x-api-key": "beep", "kappa-identity-principal": "evil"}) as socket:
            assert await socket.recv() == "hi"
    assert met[0].get_all("kappa-identity-principal") == ["r2d2"]
    assert "x-api-key" not in met[0]


# --- tokens -----------------------------------------------------------------------------------------------------------
async def test_tokens_of_an_issuer(make_rig: Any) -> None:
    async with serving(Issuer()) as issuer:
        rig = await make_rig(auth=AuthSettings(allow_http=True, jwks_retry=0.0))
        jwt = {"issuer": issuer.url, "audiences": ["api"], "requiredClaims": [{"name": "scope", "values": ["read"]}]}
        rig.function(http={"auth": {"type": "jwt", "jwt": jwt}})
        upstream = await rig.instance()

        async def ask(token: str) -> Any:
            return await rig.get(HELLO, f"Authorization: Bearer {token}")

        token = issuer.token(scope="read write")
        for _ in range(3):
            assert (await ask(token)).status == 200
        assert issuer.requests == ["/.well-known/openid-configuration", "/keys"]
        seen = upstream.seen[-1]
        assert seen.get("authorization") == f"Bearer {token}", "the function may go on with it"
        data = json.loads(base64.urlsafe_b64decode(seen.get("kappa-identity-data")))
        assert data["jwt"]["scopes"] == ["read", "write"]
        assert data["jwt"]["claims"]["sub"] == seen.get("kappa-identity-principal") == "alice"

        refused = {
            issuer.token(scope="read", aud="other"): 401,
            issuer.token(scope="read", exp=1): 401,
            issuer.token(scope="read", iss="https://other.example"): 401,
            issuer.token(rsa_key("k1", fresh=True), scope="read"): 401,
            forged({"alg": "none"}, {"iss": issuer.url}): 401,
            issuer.token(scope="write"): 403,
        }
        for wrong, status in refused.items():
            answer = await ask(wrong)
            assert answer.status == status
            assert "www-authenticate" in answer.headers

        issuer.keys[:] = [rsa_key("k2", fresh=True)]
        assert (await ask(issuer.token(scope="read"))).status == 200, "rotation needs no restart"
        assert (await ask(token)).status == 401, "what a withdrawn key had proved is proved no more"
        issuer.down = True
        assert (await ask(issuer.token(scope="read", sub="bob"))).status == 200, "its last keys go on serving"


async def test_an_issuer_that_is_down(make_rig: Any) -> None:
    async with serving(Issuer(down=True)) as issuer:
        rig = await make_rig(auth=AuthSettings(allow_http=True, jwks_retry=0.0, wait_seconds=0.2))
        jwt = {"issuer": issuer.url, "audiences": ["api"], "jwksUri": f"{issuer.url}/keys"}
        rig.function(http={"auth": {"type": "jwt", "jwt": jwt}})
        await rig.instance()
        line = f"Authorization: Bearer {issuer.token()}"
        answer = await rig.get(HELLO, line)
        assert (answer.status, answer.error["code"]) == (503, "auth_unavailable")
        issuer.down = False
        issuer.gate.clear()  # it does not answer at all
        answer = await rig.get(HELLO, line)
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        assert untouched(rig)
        issuer.gate.set()
        assert (await rig.get(HELLO, line)).status == 200


async def test_a_caller_who_leaves_while_asked_for(make_rig: Any) -> None:
    async with serving(Issuer()) as issuer:
        rig = await make_rig(auth=AuthSettings(allow_http=True))
        rig.function(http={"auth": {"type": "jwt", "jwt": {"issuer": issuer.url, "audiences": ["api"]}}})
        await rig.instance()
        issuer.gate.clear()
        line = f"Authorization: Bearer {issuer.token()}"
        caller = await rig.caller()
        caller.send(f"GET {HELLO} HTTP/1.1\r\nhost: gw\r\n{line}\r\n\r\n")
        await rig.until(lambda: issuer.requests)
        caller.close()
        await rig.until(lambda: not rig.gateway.server.clients)
        other = asyncio.create_task(rig.get(HELLO, line))
        issuer.gate.set()
        assert (await other).status == 200
        await rig.settled()


# --- CORS -------------------------------------------------------------------------------------------------------------
def preflight(method: str = "PUT", origin: str = APP) -> tuple[str, ...]:
    return f"Origin: {origin}", f"Access-Control-Request-Method: {method}"


async def test_preflights_wake_nobody(rig: Any) -> None:
    guarded(rig, cors={"allowOrigins": [APP], "allowMethods": ["PUT"]})
    upstream = await rig.instance()
    caller = await rig.caller()
    lines = "\r\n".join(preflight())
    for _ in range(2):  # the connection goes on
        answer = await caller.ask(f"OPTIONS {HELLO}/a HTTP/1.1\r\nhost: gw\r\n{lines}\r\n\r\n")
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (204, APP)
        assert answer.headers["kappa-request-id"]
        assert "content-length" not in answer.headers
    for wrong in (preflight("DELETE"), preflight(origin="https://evil.test")):
        answer = await rig.get(HELLO, *wrong, method="OPTIONS")
        assert (answer.status, answer.error["code"]) == (403, "cors_refused")
        assert "access-control-allow-origin" not in answer.headers
    assert upstream.connections == 0
    assert untouched(rig)


async def test_a_preflight_finds_the_route_of_its_method(rig: Any) -> None:
    rig.function(
        "put",
        http={"routes": [{"path": "/a", "methods": ["PUT"]}], "cors": {"allowOrigins": ["*"], "allowMethods": ["*"]}},
    )
    rig.function("own", http={"routes": [{"path": "/b", "methods": ["PUT", "OPTIONS"]}]})
    rig.gateway.catalog.rebuild_routes()
    upstream = await rig.instance("own")
    assert (await rig.get("/a", *preflight(), method="OPTIONS")).status == 204
    assert (await rig.get("/a", *preflight("DELETE"), method="OPTIONS")).status == 405
    assert (await rig.get("/a", method="OPTIONS")).status == 405
    assert (await rig.get("/b", *preflight(), method="OPTIONS")).status == 200, "the function answers it itself"
    assert upstream.seen[0].get("access-control-request-method") == "PUT"


async def test_the_gateway_alone_says_what_pages_may_read(rig: Any) -> None:
    guarded(rig, cors={"allowOrigins": [APP], "allowCredentials": True})

    async def generous(seen: Any, reader: Any, writer: Any) -> None:
        lines = "Access-Control-Allow-Origin: *\r\naccess-control-allow-credentials: true\r\nx-a: b\r\nvary: Accept"
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n{lines}\r\n\r\nok".encode())

    await rig.instance(behave=generous)
    good = await rig.get(HELLO, "x-api-key: beep", f"Origin: {APP}")
    assert good.headers["access-control-allow-origin"] == APP
    assert good.headers["access-control-allow-credentials"] == "true"
    assert (good.headers["vary"], good.headers["x-a"]) == ("Accept, Origin", "b")
    for lines in ((), ("Origin: https://evil.test",)):
        other = await rig.get(HELLO, "x-api-key: beep", *lines)
        assert other.status == 200, "not the gateway: the browser keeps the answer from the page"
        assert not [name for name in other.headers if name.startswith("access-control-")]
    refused = await rig.get(HELLO, f"Origin: {APP}")
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, APP)


async def test_without_cors_the_function_decides(rig: Any) -> None:
    rig.function()

    async def generous(seen: Any, reader: Any, writer: Any) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nAccess-Control-Allow-Origin: *\r\n\r\nok")

    upstream = await rig.instance(behave=generous)
    assert (await rig.get(HELLO, f"Origin: {APP}")).headers["access-control-allow-origin"] == "*"
    assert (await rig.get(HELLO, *preflight(), method="OPTIONS")).status == 200
    assert upstream.seen[1].method == "OPTIONS"
    plain = await rig.get("/fn/default/nobody", f"Origin: {APP}")
    assert "access-control-allow-origin" not in plain.headers


async def test_callers_have_a_rate_each_by_who_they_are(rig: Any) -> None:
    guarded(rig, limits={"callerRate": {"requests": 1, "perSeconds": 3600}})
    rig.gateway.guard.keys.put(secret("robots", r2d2=hashed("beep"), c3po=hashed("golden")))
    await rig.instance()
    for key, statuses in (("beep", [200, 429]), ("golden", [200, 429])):
        assert [(await rig.get(HELLO, f"x-api-key: {key}")).status for _ in range(2)] == statuses
