"""The client for runtimes, against a server on the loopback address."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from kappa_api.keyring import Keyring
from kappa_api.tokens import pod_token
from kappa_api.wire import ByteCode, Health, LoadError, Specialize
from kappa_operator import instance
from kappa_operator.instance import LoadFailedError, PodClient, PodError, PodTimeoutError, WrongRevisionError
from kappa_operator.observed import Pod

MESSAGE = Specialize("ns", "fn", "r1", "main.handler", "event", {"main.py": b"x"})


@asynccontextmanager
async def runtime(handler: Callable[[web.Request], Awaitable[web.Response]]) -> Any:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    async with TestServer(app, host="127.0.0.1") as server:
        client = PodClient(Keyring(b"secret"), port=server.port or 0)
        yield client, Pod("ns", "p", "uid", 1, 0.0, ip="127.0.0.1")
        await client.close()


def answers(status: int, body: Any) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handler(request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == f"Bearer {pod_token(b'secret', 'ns', 'p')}"
        return web.json_response(body, status=status)

    return handler


async def test_loaded() -> None:
    async with runtime(answers(200, Health("serving", "ns/fn", "r1").to_json())) as (client, pod):
        await client.specialize(pod, MESSAGE, 5)
        assert await client.health(pod) == Health("serving", "ns/fn", "r1")


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ({}, ByteCode("", {})),
        ({"byteCode": {"tag": "t", "files": {"main.py": "AAE="}}}, ByteCode("t", {"main.py": b"\0\1"})),
        ({"byteCode": {"tag": "t", "files": {"main.py": "*"}}}, ByteCode("", {})),
        ({"byteCode": 3}, ByteCode("", {})),
    ],
)
async def test_byte_code_comes_when_it_is_asked_for(answer: Any, found: ByteCode) -> None:
    body = Health("serving", "ns/fn", "r1").to_json() | answer
    async with runtime(answers(200, body)) as (client, pod):
        assert await client.specialize(pod, dataclasses.replace(MESSAGE, want_byte_code=True), 5) == found
        assert await client.specialize(pod, MESSAGE, 5) is None


async def test_an_answer_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instance, "MOST_ANSWER_BYTES", 1000)
    async with runtime(answers(200, {"state": "serving" * 200})) as (client, pod):
        with pytest.raises(PodError, match="more than 1000 bytes"):
            await client.specialize(pod, MESSAGE, 5)


async def test_code_that_does_not_load() -> None:
    error = LoadError("SyntaxError", "bad", "trace", "main.py", 3)
    async with runtime(answers(422, error.to_json())) as (client, pod):
        with pytest.raises(LoadFailedError) as caught:
            await client.specialize(pod, MESSAGE, 5)
    assert caught.value.error == error


@pytest.mark.parametrize(
    ("health", "fine"),
    [
        (Health("serving", "ns/fn", "r1"), True),
        (Health("loading", "ns/fn", "r1"), False),
        (Health("serving", "ns/fn", "r0"), False),
        (Health("serving", "ns/other", "r1"), False),
    ],
)
async def test_a_pod_that_holds_something(health: Health, fine: bool) -> None:
    async with runtime(answers(409, health.to_json())) as (client, pod):
        if fine:
            asking = dataclasses.replace(MESSAGE, want_byte_code=True)
            assert await client.specialize(pod, asking, 5) is None
        else:
            with pytest.raises(WrongRevisionError):
                await client.specialize(pod, MESSAGE, 5)


async def test_answers_that_make_no_sense() -> None:
    for status, body in ((422, {}), (409, []), (500, {}), (401, {})):
        async with runtime(answers(status, body)) as (client, pod):
            with pytest.raises(PodError):
                await client.specialize(pod, MESSAGE, 5)


async def test_no_answer_in_time() -> None:
    async def slow(request: web.Request) -> web.Response:
        await asyncio.sleep(5)
        return web.Response()

    async with runtime(slow) as (client, pod):
        with pytest.raises(PodTimeoutError):
            await client.specialize(pod, MESSAGE, 0.05)


async def test_a_specialize_is_sent_once_even_when_the_connection_breaks() -> None:
    """aiohttp sends a PUT again when a kept connection breaks: every call has its own here."""
    seen: list[str] = []

    async def breaks(request: web.Request) -> web.Response:
        seen.append(request.method)
        if len(seen) > 1:
            assert request.transport is not None
            request.transport.close()
        return web.json_response(Health("empty").to_json())

    async with runtime(breaks) as (client, pod):
        await client.health(pod)
        with pytest.raises(PodError):
            await client.specialize(pod, MESSAGE, 5)
    assert seen == ["GET", "PUT"]


async def test_nobody_listens() -> None:
    client = PodClient(Keyring(b"secret"), port=1)
    with pytest.raises(PodError):
        await client.health(Pod("ns", "p", "uid", 1, 0.0, ip="127.0.0.1"))
    with pytest.raises(PodError, match="no address"):
        await client.health(Pod("ns", "p", "uid", 1, 0.0))
    await client.close()
