"""Functions that go round in a circle on a whole platform: by events that they emit, by calls that they wait for."""

import asyncio
import json
import time
from typing import Any

import pytest
from kappa_platform import POLL_SECONDS, System, function

pytestmark = pytest.mark.asyncio(loop_scope="session")

Json = Any

#: Emits what the other one waits for; one from a thread of its own, which inherits nothing.
PING = """
def handler(event, context):
    context.emit("round.pong", {"hops": context.hops})
"""
PONG = """
import threading

def handler(event, context):
    thread = threading.Thread(target=context.emit, args=("round.ping", {"hops": context.hops}))
    thread.start()
    thread.join()
"""
#: Calls itself, and answers what it was answered.
RING = """
import json, os, urllib.error, urllib.request

def handler(event, context):
    url = os.environ["KAPPA_GATEWAY_URL"] + "/fn/default/ring"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=context.onward_headers)) as reply:
            return json.load(reply)
    except urllib.error.HTTPError as error:
        return {"hops": context.hops, "status": error.code, "error": json.load(error)["error"]["code"]}
"""


def trigger(name: str, target: str) -> str:
    source = {"event": {"types": [f"round.{name}"], "auth": {"type": "none"}}}
    spec = {"function": target, "source": source}
    return json.dumps({"apiVersion": "kappa.dev/v1", "kind": "Trigger", "metadata": {"name": name}, "spec": spec})


async def status_of(system: System, name: str) -> Json:
    answer = await system.kubectl.run(["get", "trigger", name, "-o", "json"])
    assert answer.ok, answer.text
    return json.loads(answer.out).get("status", {})


async def test_functions_that_emit_to_each_other(system: System) -> None:
    for name, code in (("ping", PING), ("pong", PONG)):
        assert (await system.apply(function(name, code))).ok
        assert (await system.apply(trigger(name, name))).ok
    for name in ("ping", "pong"):
        await system.ready(name)
    deadline = time.monotonic() + 30
    headers = {"ce-specversion": "1.0", "ce-id": "first", "ce-source": "/test", "ce-type": "round.ping"}
    while True:  # a gateway learns of a Trigger a moment after kubectl
        async with system.http.post(f"{system.url}/events/default", headers=headers) as reply:
            if reply.status == 202 and (await reply.json())["matched"]:
                break
        assert time.monotonic() < deadline
        await asyncio.sleep(POLL_SECONDS)
    while True:
        ping, pong = [await status_of(system, name) for name in ("ping", "pong")]
        if (ping.get("delivered", 0), pong.get("delivered", 0), pong.get("deadLetters")) == (9, 8, 1):
            break
        assert time.monotonic() < deadline, (ping, pong)
        await asyncio.sleep(POLL_SECONDS)
    assert (ping["delivered"], ping.get("deadLetters", 0)) == (9, 0)
    assert (pong["delivered"], pong["deadLetters"]) == (8, 1)
    for name in ("ping", "pong"):
        assert (await system.kubectl.run(["delete", "trigger", name])).ok
        assert (await system.kubectl.run(["delete", "fn", name])).ok


async def test_a_function_that_calls_itself(system: System) -> None:
    assert (await system.apply(function("ring", RING, concurrency=20))).ok
    await system.ready("ring")
    async with system.http.get(f"{system.url}/fn/default/ring") as reply:
        assert reply.status == 200
        assert await reply.json() == {"hops": 16, "status": 508, "error": "loop_detected"}
    assert (await system.kubectl.run(["delete", "fn", "ring"])).ok
