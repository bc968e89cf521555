"""An instance holds another function's code: its label or its address is wrong for a moment. Real runtimes refuse."""

import asyncio
import base64
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect

from kappa_api import names
from kappa_gateway.retry import Outcome

TOKEN = "a-pod-token"
HELLO = "/fn/default/hello"
#: Tells its name, how much it got, and what it has seen before.
CODE = """
import json, os
seen = []
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    answer = {"name": os.environ["NAME"], "size": 0, "seen": list(seen)}
    seen.append(scope["path"])
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": json.dumps(answer)})
        return
    more = True
    while more:
        message = await receive()
        answer["size"] += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})
"""

#: Starts a runtime that holds the function of this name, at this address.
Start = Callable[[str, str], Awaitable[str]]


@pytest_asyncio.fixture
async def start(rig: Any, tmp_path: Path) -> AsyncIterator[Start]:
    children: list[asyncio.subprocess.Process] = []

    async def run(function: str, address: str) -> str:
        env = {key: value for key, value in os.environ.items() if not key.startswith("KAPPA_")}
        env |= {
            names.ENV_POD_IP: address,
            names.ENV_PORT: str(rig.instance_port),
            names.ENV_POD_TOKEN: TOKEN,
            "TMPDIR": str(tmp_path),
        }
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "kappa_runtime", env=env, stdout=asyncio.subprocess.PIPE
        )
        children.append(child)
        assert child.stdout is not None
        async with asyncio.timeout(20):
            while b"listening on" not in await child.stdout.readline():
                pass
        message = {
            "function": {"namespace": "default", "name": function},
            "revision": f"r-{function}",
            "handler": "main.app",
            "signature": "asgi",
            "files": {"main.py": base64.b64encode(CODE.encode()).decode()},
            "env": {"NAME": function},
        }
        url = f"http://{address}:{rig.instance_port}"
        async with aiohttp.ClientSession() as http:
            bearer = {"authorization": f"Bearer {TOKEN}"}
            async with http.put(url + names.PATH_REVISION, json=message, headers=bearer) as reply:
                assert reply.status == 200, await reply.text()
        return url

    yield run
    for child in children:
        child.terminate()
        await child.communicate()


def show(rig: Any, pod: str, address: str) -> None:
    """The watch says that this is an instance of hello."""
    found = rig.pod("hello", address, pod=pod)
    found["metadata"]["labels"][names.LABEL_RUNTIME] = "python"
    rig.gateway.catalog.put_pod(found)


async def seen_by(url: str) -> Any:
    """What a runtime has run so far; who asks is no gateway and names no function."""
    async with aiohttp.ClientSession() as http, http.get(url + "/asked") as reply:
        return (await reply.json(content_type=None))["seen"]


async def plain(rig: Any) -> Any:
    return json.loads((await rig.get(HELLO, method="POST", body=b"abc")).body)


async def large(rig: Any) -> Any:
    return json.loads((await rig.get(HELLO, method="POST", body=b"x" * 200_000)).body)


async def chunked(rig: Any) -> Any:
    head = f"POST {HELLO} HTTP/1.1\r\nhost: gw\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    return json.loads((await rig.ask(head + b"c350\r\n%b\r\n" % (b"x" * 50_000) * 4 + b"0\r\n\r\n")).body)


async def websocket(rig: Any) -> Any:
    async with connect(f"ws://127.0.0.1:{rig.port}{HELLO}") as socket:
        return json.loads(await socket.recv())


@pytest.mark.parametrize(("call", "size"), [(plain, 3), (large, 200_000), (chunked, 200_000), (websocket, 0)])
async def test_an_instance_of_another_function_runs_nothing(
    rig: Any, start: Start, caplog: Any, call: Callable[[Any], Awaitable[Any]], size: int
) -> None:
    """Labelled for hello by one leader, given other's code by the next."""
    rig.function()
    other = await start("other", "127.8.9.1")
    show(rig, "hello-1", "127.8.9.1")
    answer = asyncio.create_task(call(rig))
    await rig.until(lambda: rig.gateway.retries[Outcome.MISDIRECTED] >= 3)
    assert not answer.done()
    await start("hello", "127.8.9.2")
    show(rig, "hello-2", "127.8.9.2")
    assert await answer == {"name": "hello", "size": size, "seen": []}
    assert await seen_by(other) == []
    said = [record.getMessage() for record in caplog.records if record.name == "kappa_gateway.proxy"]
    assert said == ["default/hello-1 is not an instance of default/hello: it holds the code of another function"]
    await rig.settled()


async def test_an_address_that_is_reused(rig: Any, start: Start) -> None:
    """The gateway has not heard that hello's pod is gone, nor whose the new one at its address is."""
    rig.function()
    rig.function("other")
    show(rig, "hello-1", "127.8.9.3")
    other = await start("other", "127.8.9.3")
    answer = asyncio.create_task(plain(rig))
    await rig.until(lambda: rig.gateway.retries[Outcome.MISDIRECTED] >= 1)
    rig.gateway.catalog.remove_pod("default/hello-1")
    rig.gateway.catalog.put_pod(rig.pod("other", "127.8.9.3", pod="other-1"))
    assert json.loads((await rig.get("/fn/default/other")).body) == {"name": "other", "size": 0, "seen": []}
    await start("hello", "127.8.9.4")
    show(rig, "hello-2", "127.8.9.4")
    assert (await answer)["name"] == "hello"
    assert await seen_by(other) == ["/fn/default/other/"]
