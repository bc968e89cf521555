"""Ending without a failed request, and the admin port."""

import asyncio
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from kappa_gateway_rig import reply

from kappa_api.tokens import internal_token
from kappa_api.wire import Stats
from kappa_gateway.admin import make_admin
from kappa_gateway.shutdown import drain

HELLO = "/fn/default/hello"
GET = f"GET {HELLO} HTTP/1.1\r\nhost: gw\r\n\r\n"


async def test_no_request_fails_during_shutdown(rig: Any) -> None:
    """Callers on kept connections, sending all the time: every request that was sent is answered."""
    rig.function()

    async def slow(seen: Any, reader: Any, writer: Any) -> None:
        await asyncio.sleep(0.005)
        writer.write(reply())

    await rig.instance(behave=slow, concurrency=100)
    answered = 0

    async def work() -> None:
        nonlocal answered
        while True:
            try:
                caller = await rig.caller()
            except ConnectionRefusedError:
                return  # the port is closed: another gateway would have it
            while True:
                answer = await caller.ask(GET)
                assert answer.status == 200
                answered += 1
                if answer.headers.get("connection") == "close":
                    break

    workers = [asyncio.create_task(work()) for _ in range(20)]
    await rig.until(lambda: answered > 100)
    await asyncio.wait_for(drain(rig.gateway, rig.listener), 5)
    await asyncio.wait_for(asyncio.gather(*workers), 5)
    assert rig.gateway.server.connections == []


async def test_what_is_in_flight_finishes(rig: Any) -> None:
    rig.function()
    go = asyncio.Event()

    async def slow(seen: Any, reader: Any, writer: Any) -> None:
        await go.wait()
        writer.write(reply(200, b"done"))

    upstream = await rig.instance(behave=slow)
    caller, idle = await rig.caller(), await rig.caller()
    caller.send(GET)
    await upstream.arrived.wait()
    stop = asyncio.create_task(drain(rig.gateway, rig.listener))
    assert await idle.closed() == b""
    assert not stop.done()
    go.set()
    answer = await caller.answer()
    assert (answer.body, answer.headers["connection"]) == (b"done", "close")
    await asyncio.wait_for(stop, 5)


async def test_a_call_that_never_ends_is_cut_after_the_grace(make_rig: Any) -> None:
    rig = await make_rig(shutdown_grace=0.8)
    rig.function()

    async def never(seen: Any, reader: Any, writer: Any) -> None:
        await reader.read()

    upstream = await rig.instance(behave=never)
    caller = await rig.caller()
    caller.send(GET)
    await upstream.arrived.wait()
    await asyncio.wait_for(drain(rig.gateway, rig.listener), 5)
    assert await caller.closed() == b""
    await rig.settled()


@pytest.fixture
async def admin(rig: Any) -> Any:
    async with TestClient(TestServer(make_admin(rig.gateway))) as client:
        yield client


async def test_health_and_readiness(rig: Any, admin: Any) -> None:
    async def status(path: str) -> int:
        async with admin.get(path) as answer:
            return int(answer.status)

    assert (await status("/healthz"), await status("/readyz")) == (200, 503)
    rig.gateway.ready = True
    assert await status("/readyz") == 200
    rig.gateway.closing = True
    assert (await status("/healthz"), await status("/readyz")) == (200, 503)


async def test_stats_need_the_token_and_are_exact(rig: Any, admin: Any) -> None:
    rig.function()
    go = asyncio.Event()

    async def slow(seen: Any, reader: Any, writer: Any) -> None:
        await go.wait()
        writer.write(reply())

    upstream = await rig.instance(behave=slow)
    callers = [await rig.caller() for _ in range(3)]
    for caller in callers:
        caller.send(GET)
    await upstream.arrived.wait()
    await rig.until(lambda: rig.queue().waiting == 2)
    async with admin.get("/v1/stats") as refused:
        assert refused.status == 401
    bearer = {"authorization": f"Bearer {internal_token(b'secret')}"}

    async def read() -> Stats:
        async with admin.get("/v1/stats", headers=bearer) as answer:
            return Stats.from_json(await answer.json())

    first, second = await read(), await read()
    one, two = first.functions["default/hello"], second.functions["default/hello"]
    assert (two.in_service, two.waiting, two.arrivals, two.invocations) == (1, 2, 3, 0)
    window = second.clock - first.clock
    assert two.service_seconds - one.service_seconds == pytest.approx(window)
    assert two.waiting_seconds - one.waiting_seconds == pytest.approx(2 * window)
    assert first.epoch == second.epoch
    go.set()
    for caller in callers:
        await caller.answer()
    await rig.settled()
    last = (await read()).functions["default/hello"]
    assert (last.in_service, last.waiting, last.invocations) == (0, 0, 3)


async def test_metrics(rig: Any, admin: Any) -> None:
    async def scrape() -> str:
        async with admin.get("/metrics") as answer:
            return str(await answer.text())

    rig.function()
    caller = await rig.caller()
    caller.send(GET)
    await rig.until(lambda: rig.queue().waiting == 1)
    assert 'kappa_gateway_waiting{function="hello",namespace="default"} 1.0' in await scrape()
    await rig.instance()
    await caller.answer()
    await rig.get("/fn/default/nobody")
    text = await scrape()
    for line in (
        'kappa_gateway_requests_total{class="2xx",function="hello",namespace="default"} 1.0',
        'kappa_gateway_request_seconds_count{function="hello",namespace="default"} 1.0',
        'kappa_gateway_cold_starts_total{function="hello",namespace="default"} 1.0',
        'kappa_gateway_cold_start_seconds_count{function="hello",namespace="default"} 1.0',
        'kappa_gateway_refused_total{code="not_found"} 1.0',
        'kappa_gateway_upstream_connections{state="idle"} 1.0',
    ):
        assert line in text
    assert "nobody" not in text
    rig.gateway.catalog.remove_pod(next(rig.gateway.catalog.pods()))
    rig.gateway.catalog.remove_function("default/hello")
    assert 'function="hello"' not in await scrape()
