"""After NATS was away each source goes on by itself, within five seconds, however long its pauses had become."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from kappa_trigger_world import TriggerWorld, trigger
from nats.js.api import StreamConfig

from kappa_gateway.events import runners

RESUME_SECONDS = 5.0
Send = Callable[[int], Awaitable[Any]]


async def subject(world: TriggerWorld) -> tuple[dict[str, Any], Send]:
    async def send(number: int) -> None:
        # Core NATS keeps nothing: whoever wants to know says it until it is answered
        while True:
            try:
                await world.nc.request("default.x", b"1", headers={"Nats-Msg-Id": f"m{number}"}, timeout=0.5)
                return
            except Exception:
                await asyncio.sleep(0.05)

    return {"subject": {"subject": "default.x"}}, send


async def stream(world: TriggerWorld) -> tuple[dict[str, Any], Send]:
    await world.js.add_stream(StreamConfig(name="default_s", subjects=["s.>"]))
    return {"stream": {"stream": "default_s"}}, lambda number: world.js.publish("s.x", b"%d" % number)


async def kv(world: TriggerWorld) -> tuple[dict[str, Any], Send]:
    bucket = await world.js.create_key_value(bucket="default_b", history=2)
    return {"kv": {"bucket": "default_b"}}, lambda number: bucket.put(f"k{number}", b"1")


async def objects(world: TriggerWorld) -> tuple[dict[str, Any], Send]:
    store = await world.js.create_object_store("default_o")
    return {"object": {"bucket": "default_o"}}, lambda number: store.put(f"o{number}", b"1")


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("make", [subject, stream, kv, objects])
async def test_a_source_goes_on_when_nats_is_back(
    world: TriggerWorld, monkeypatch: pytest.MonkeyPatch, make: Any, ordered: bool
) -> None:
    monkeypatch.setattr(runners, "FIRST_PAUSE", 120.0)  # as after an outage of minutes
    monkeypatch.setattr(runners, "LAST_PAUSE", 120.0)
    source, send = await make(world)
    gateway = await world.gateway()
    order = {"ordered": {"key": "subject"}} if ordered else {}
    gateway.host.triggers.put(trigger("t", source, **order))
    await gateway.until("t", connected=True)
    numbers = itertools.count()
    await send(next(numbers))
    await gateway.until("t", received=1)
    await world.server.kill()
    while gateway.bus.up:
        await asyncio.sleep(0.01)
    await world.server.start()
    while not world.nc.is_connected:
        await asyncio.sleep(0.01)
    await send(next(numbers))
    await gateway.until("t", RESUME_SECONDS, received=2)
    assert len(await world.events(2)) == 2
