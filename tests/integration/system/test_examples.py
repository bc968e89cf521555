"""Every example does what examples/README.md says, through kubectl and the gateway."""

import asyncio

import aiohttp
import pytest
from kappa_platform import EXAMPLES, System, condition

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def applied(system: System, folder: str) -> None:
    answer = await system.apply((EXAMPLES / folder / "function.yaml").read_text())
    assert answer.ok, answer.text


async def test_hello(system: System) -> None:
    await applied(system, "hello")
    await system.ready("hello")
    for path, name in (("/fn/default/hello", "world"), ("/fn/default/hello?name=Bo", "Bo"), ("/hello/Ada", "Ada")):
        async with system.http.get(system.url + path) as reply:
            assert reply.status == 200
            assert (await reply.json())["message"] == f"Hello, {name}!"
    async with system.http.post(system.url + "/hello/Ada") as reply:
        assert reply.status in (404, 405)


async def test_asgi_streams_events_as_they_come(system: System) -> None:
    await applied(system, "asgi")
    await system.ready("asgi")
    loop = asyncio.get_running_loop()
    async with system.http.get(system.url + "/fn/default/asgi/events") as reply:
        assert reply.headers["content-type"] == "text/event-stream"
        events = [(loop.time(), line) async for line in reply.content if line.strip()]
    assert [line.strip() for _, line in events] == [f"data: {n}".encode() for n in range(5)]
    assert events[-1][0] - events[0][0] > 0.4, "the events came together: something buffers the stream"


async def test_asgi_websocket_echoes(system: System) -> None:
    await applied(system, "asgi")
    await system.ready("asgi")
    async with system.http.ws_connect(system.url + "/fn/default/asgi/echo") as socket:
        for text in ("one", "two", "x" * 100_000):
            await socket.send_str(text)
            assert await socket.receive_str(timeout=10) == f"echo: {text}"
        await socket.close()
        assert socket.close_code == aiohttp.WSCloseCode.OK


async def test_asgi_root_and_unknown_path(system: System) -> None:
    await applied(system, "asgi")
    await system.ready("asgi")
    for path, status in (("", 200), ("/", 200), ("/nothing", 404)):
        async with system.http.get(f"{system.url}/fn/default/asgi{path}") as reply:
            assert (reply.status, await reply.json()) == (status, {"path": path or "/"})


async def test_files(system: System) -> None:
    await applied(system, "files")
    await system.ready("files")
    async with system.http.get(system.url + "/fn/default/files", params={"text": "a b a"}) as reply:
        assert await reply.json() == {"words": {"a": 2, "b": 1}}


async def test_configmap_changes_roll_out(system: System) -> None:
    await applied(system, "configmap")
    old = (await system.ready("configmap"))["activeRevision"]
    async with system.http.get(system.url + "/fn/default/configmap") as reply:
        assert await reply.json() == {"colour": "blue"}
    patch = '{"data": {"settings.py": "COLOUR = \\"red\\"\\n"}}'
    answer = await system.kubectl.run(["patch", "configmap", "configmap-code", "--type=merge", "-p", patch])
    assert answer.ok, answer.text
    await system.until("configmap", lambda status: status.get("activeRevision") != old)
    await system.until("configmap", lambda status: condition(status, "Ready").get("status") == "True")
    async with system.http.get(system.url + "/fn/default/configmap") as reply:
        assert await reply.json() == {"colour": "red"}


async def test_slow_scales_up_and_back_to_zero(system: System) -> None:
    await applied(system, "slow")
    await system.ready("slow")

    async def call() -> tuple[int, str]:
        async with system.http.get(system.url + "/fn/default/slow") as reply:
            return reply.status, (await reply.json()).get("instance", "")

    answers = await asyncio.gather(*(call() for _ in range(30)))
    assert {status for status, _ in answers} == {200}
    assert len({instance for _, instance in answers}) > 1
    await system.until("slow", lambda status: status.get("replicas") == 0, seconds=40)
    assert (await call())[0] == 200


async def test_failing_tells_the_caller_whose_fault_it_is(system: System) -> None:
    await applied(system, "failing")
    await system.ready("failing")
    async with system.http.get(system.url + "/fn/default/failing") as reply:
        assert reply.status == 500
        assert reply.headers["kappa-error"] == "ValueError"
        assert reply.headers["kappa-error-source"] == "function"
        assert (await reply.json())["errorMessage"] == "this function always fails"


async def test_broken_says_why_it_does_not_load(system: System) -> None:
    await applied(system, "failing")
    status = await system.until("broken", lambda s: condition(s, "Ready").get("reason") == "LoadFailed")
    message = condition(status, "Ready")["message"]
    assert "ModuleNotFoundError" in message
    assert "a_module_that_is_not_there" in message
    assert "main.py" in message
    assert "line 1" in message
