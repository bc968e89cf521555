"""WebSockets: the handshake goes to the instance, frames both ways, and every way they end."""

import asyncio
from contextlib import asynccontextmanager
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

from kappa_gateway.settings import Limits

HELLO = "/fn/default/hello"


@asynccontextmanager
async def instance(rig: Any, handler: Any, **options: Any) -> Any:
    upstream = await rig.instance(listen=False)
    async with serve(handler, upstream.address, upstream.port, **options) as server:
        yield server


async def echo(socket: Any) -> None:
    async for message in socket:
        await socket.send(message)


def url(rig: Any, path: str = HELLO) -> str:
    return f"ws://127.0.0.1:{rig.port}{path}"


async def test_messages_of_all_sizes_pass(rig: Any) -> None:
    rig.function()
    async with instance(rig, echo, max_size=None), connect(url(rig), max_size=None) as socket:
        for message in ("hi", b"\0\xff", "x" * 200, b"y" * 70_000, b"z" * 5_000_000):
            await socket.send(message)
            assert await socket.recv() == message
        assert rig.queue().in_service == 1
    await rig.settled()
    assert rig.gateway.relays == set()
    await rig.until(lambda: rig.gateway.pools.counts() == (0, 0))


async def test_the_handshake_carries_what_it_should(rig: Any) -> None:
    rig.function()
    seen: Any = {}

    async def handler(socket: Any) -> None:
        seen.update(path=socket.request.path, headers=dict(socket.request.headers.raw_items()))
        await socket.send("first")

    async with (
        instance(rig, handler, subprotocols=["chat"]),
        connect(url(rig, HELLO + "/room?a=1"), subprotocols=["chat"], origin="http://o") as socket,
    ):
        assert socket.subprotocol == "chat"
        assert socket.response.headers["kappa-request-id"]
        assert await socket.recv() == "first"
    assert seen["path"] == "/room?a=1"
    assert seen["headers"]["x-forwarded-prefix"] == HELLO
    assert seen["headers"]["Origin"] == "http://o"
    assert "kappa-deadline-ms" in seen["headers"]
    assert seen["headers"]["kappa-function"] == "default/hello"


async def test_the_close_code_of_either_side_arrives(rig: Any) -> None:
    rig.function()
    codes: list[Any] = []

    async def handler(socket: Any) -> None:
        if await socket.recv() == "leave":
            await socket.close(4001, "left")
        else:
            await socket.wait_closed()
            codes.append(socket.close_code)

    async with instance(rig, handler):
        async with connect(url(rig)) as socket:
            await socket.send("leave")
            with pytest.raises(websockets.ConnectionClosed):
                await socket.recv()
            assert socket.close_code == 4001
        async with connect(url(rig)) as socket:
            await socket.send("stay")
            await socket.close(4002)
        await rig.until(lambda: codes == [4002])
    await rig.settled()


async def test_a_function_that_declines_is_an_ordinary_reply(rig: Any) -> None:
    rig.function()
    await rig.instance()
    with pytest.raises(websockets.InvalidStatus) as refused:
        await connect(url(rig))
    assert refused.value.response.status_code == 200
    await rig.settled()


async def test_it_lives_beyond_the_deadline(rig: Any) -> None:
    rig.function(timeoutSeconds=1)
    async with instance(rig, echo), connect(url(rig)) as socket:
        await asyncio.sleep(1.3)
        await socket.send("still here")
        assert await socket.recv() == "still here"


async def test_silence_ends_it(make_rig: Any) -> None:
    rig = await make_rig(limits=Limits(websocket_idle_seconds=0.2))
    rig.function()
    async with instance(rig, echo), connect(url(rig), ping_interval=None) as socket:
        await socket.wait_closed()
    await rig.settled()


async def test_callers_and_instances_that_vanish(rig: Any) -> None:
    rig.function(concurrency=2)
    gone = asyncio.Event()

    async def handler(socket: Any) -> None:
        if await socket.recv() == "die":
            socket.transport.abort()
        else:
            await socket.wait_closed()
            gone.set()

    async with instance(rig, handler):
        async with connect(url(rig)) as socket:
            await socket.send("die")
            await socket.wait_closed()
            assert (socket.close_code, socket.close_reason) == (1014, "the instance ended the connection")
        await rig.settled()
        async with connect(url(rig)) as socket:
            await socket.send("live")
            socket.transport.abort()
        await gone.wait()
    await rig.settled()


async def test_an_instance_that_dies_inside_a_frame(rig: Any) -> None:
    """No close frame can follow half a frame: the caller sees a broken connection, and the log says whose it was."""
    rig.function()

    async def handler(socket: Any) -> None:
        await socket.recv()
        socket.transport.write(b"\x81\x7e\x10\x00half")
        socket.transport.abort()

    async with instance(rig, handler), connect(url(rig)) as socket:
        await socket.send("die")
        await socket.wait_closed()
        assert socket.close_code == 1006
    await rig.settled()


async def test_back_pressure_towards_a_slow_caller(rig: Any) -> None:
    rig.function()
    messages, sent = 800, 0

    async def flood(socket: Any) -> None:
        nonlocal sent
        for _ in range(messages):
            await socket.send(bytes(65536))
            sent += 1

    async with instance(rig, flood, compression=None):
        caller = await rig.caller()
        caller.send(
            f"GET {HELLO} HTTP/1.1\r\nhost: gw\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
            "sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        assert (await caller.head())[0] == 101
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(0.1)
        assert sent < messages * 3 // 4
        for _ in range(messages):
            await caller.reader.readexactly(10 + 65536)
        caller.close()
    await rig.settled()


async def test_shutdown_says_going_away(rig: Any) -> None:
    from kappa_gateway.shutdown import drain

    rig.function()
    async with instance(rig, echo), connect(url(rig)) as socket:
        await socket.send("x")
        assert await socket.recv() == "x"
        stop = asyncio.get_running_loop().create_task(drain(rig.gateway, rig.listener))
        await socket.wait_closed()
        assert socket.close_code == 1001
        await stop
