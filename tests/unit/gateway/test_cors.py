"""CORS: preflights, reply headers, origins; deny by default."""

from typing import Any

import pytest
from kappa_auth_world import AuthWorld, http, request

from kappa_gateway import cors
from kappa_gateway.errors import GatewayError

Json = Any
APP = "https://app.example.org"


def rules(*origins: str, **fields: Json) -> Any:
    return http(cors={"allowOrigins": list(origins) or [APP], **fields}).cors


def lines(text: bytes) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in text.decode().split("\r\n") if line)


@pytest.mark.parametrize(
    ("pattern", "origin", "good"),
    [
        (APP, APP, True),
        (APP, APP + ":443", False),
        (APP, APP + "/", False),
        (APP, "http://app.example.org", False),
        (APP, "https://APP.example.org", False),
        (APP, "https://app.example.org.evil.test", False),
        (APP, "https://evilapp.example.org", False),
        (APP, "null", False),
        (APP, "", False),
        ("*", APP, True),
        ("*", "null", True),
        ("https://*.example.org", APP, True),
        ("https://*.example.org", "https://a.b.example.org", True),
        ("https://*.example.org", "https://example.org", False),
        ("https://*.example.org", "https://.example.org", False),
        ("https://*.example.org", "https://evilexample.org", False),
        ("https://*.example.org", "https://evil.test/.example.org", False),
        ("https://*.example.org", "http://app.example.org", False),
        ("https://*.example.org", "https://app.example.org:8443", False),
        ("https://*.example.org:8443", "https://app.example.org:8443", True),
        ("http://localhost:3000", "http://localhost:3000", True),
    ],
)
def test_origins(pattern: str, origin: str, good: bool) -> None:
    found = lines(cors.reply_lines(rules(pattern), origin.encode()))
    assert cors.allows(rules(pattern), origin) is good
    if pattern == "*":
        assert found == {"access-control-allow-origin": "*"}
    elif good:
        assert found == {"access-control-allow-origin": origin, "vary": "Origin"}
    else:
        assert found == {"vary": "Origin"}


def test_credentials_and_exposed_headers() -> None:
    found = lines(cors.reply_lines(rules(allowCredentials=True, exposeHeaders=["x-a", "x-b"]), APP.encode()))
    assert found == {
        "access-control-allow-origin": APP,
        "access-control-allow-credentials": "true",
        "access-control-expose-headers": "x-a, x-b",
        "vary": "Origin",
    }
    assert lines(cors.reply_lines(rules(allowCredentials=True), b"https://evil.test")) == {"vary": "Origin"}


def ask(method: str = "PUT", headers: str = "", origin: str = APP) -> Any:
    wanted = [f"Access-Control-Request-Headers: {headers}"] if headers else []
    return request(f"Origin: {origin}", f"Access-Control-Request-Method: {method}", *wanted, method="OPTIONS")


def test_a_preflight() -> None:
    found = cors.preflight_lines(rules(allowMethods=["PUT", "GET"], allowHeaders=["X-Token"]), ask(headers="x-token"))
    assert lines(found) == {
        "access-control-allow-origin": APP,
        "access-control-allow-methods": "PUT, GET",
        "access-control-allow-headers": "x-token",
        "access-control-max-age": "600",
        "vary": "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
    }


@pytest.mark.parametrize(
    ("fields", "asked", "why"),
    [
        ({}, ask(origin="https://evil.test"), "origin"),
        ({}, ask(), "PUT"),
        ({"allowMethods": ["GET"]}, ask(), "PUT"),
        ({"allowMethods": ["PUT"]}, ask("put"), "put"),
        ({"allowMethods": ["PUT"]}, ask(headers="x-token"), "x-token"),
        ({"allowMethods": ["PUT"], "allowHeaders": ["x-a"]}, ask(headers="x-a, x-token"), "x-token"),
        ({"allowMethods": ["PUT"], "allowHeaders": ["*"]}, ask(headers="authorization"), "authorization"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_preflights_that_are_refused(fields: Json, asked: Any, why: str) -> None:
    with pytest.raises(GatewayError, match=why) as caught:
        cors.preflight_lines(rules(**fields), asked)
    assert caught.value.status == 403


def test_any_method_and_header() -> None:
    chosen = rules("*", allowMethods=["*"], allowHeaders=["*", "Authorization"])
    found = lines(cors.preflight_lines(chosen, ask("DELETE", "x-a,Authorization", "null")))
    assert found["access-control-allow-methods"] == "DELETE"
    assert found["access-control-allow-headers"] == "x-a, authorization"


def test_header_names_cannot_bring_lines() -> None:
    """What a preflight asks for comes back in the answer: the parser has refused line breaks, commas only split."""
    chosen = rules(allowMethods=["PUT"], allowHeaders=["*"])
    found = cors.preflight_lines(chosen, ask(headers="x-a,, ,x-b"))
    assert lines(found)["access-control-allow-headers"] == "x-a, x-b"


async def test_preflights_come_before_authentication() -> None:
    world = AuthWorld({"type": "kubernetes"}, cors={"allowOrigins": [APP], "allowMethods": ["PUT"]})
    await world.admit(ask())
    assert b"access-control-allow-methods: PUT" in world.lines
    with pytest.raises(GatewayError, match="bearer token") as caught:
        await world.admit(request(f"Origin: {APP}", method="OPTIONS"))  # no preflight: it asks leave for nothing
    assert caught.value.status == 401
    assert world.call.cors, "the page may read the refusal"


async def test_without_cors_nothing_is_added() -> None:
    world = AuthWorld({"type": "none"}, cors={"allowOrigins": [APP]})
    assert await world.admit(request(f"Origin: {APP}")) is None
    assert (world.lines, world.call.extra) == (b"", b"")
    assert world.call.cors
    silent = AuthWorld({"type": "none"})
    assert silent.entry.access is None
