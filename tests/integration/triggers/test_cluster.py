"""Three NATS servers, one of which dies while sources read: nothing is lost, and nothing is told twice."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from kappa_nats import NatsCluster
from kappa_trigger_world import TriggerGateway, TriggerWorld, trigger
from nats.errors import Error as NatsError
from nats.js.api import StreamConfig


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[NatsCluster]:
    made = NatsCluster(tmp_path / "nats", 3)
    await made.start()
    yield made
    await made.stop()


async def firmly(publish: object, number: int) -> None:
    """Until it is taken; a message id keeps it single."""
    while True:
        try:
            await publish(number)  # type: ignore[operator]
            return
        except (NatsError, TimeoutError, ConnectionError):
            await asyncio.sleep(0.1)


async def test_a_server_dies_while_sources_read(cluster: NatsCluster) -> None:
    world = TriggerWorld(cluster.servers[0])
    client = await cluster.servers[0].connect(allow_reconnect=True, max_reconnect_attempts=-1, reconnect_time_wait=0.2)
    world.nc, world.js = client, client.jetstream(timeout=2)
    gateways = [
        TriggerGateway(server.url, cluster.token, f"g{n}", replicas=3) for n, server in enumerate(cluster.servers)
    ]
    world.gateways = gateways
    try:
        bucket = await world.js.create_key_value(bucket="default_b", history=64, replicas=3)
        await world.js.add_stream(StreamConfig(name="default_s", subjects=["s.>"], num_replicas=3))
        for gateway in gateways:
            await gateway.start()
            gateway.host.triggers.put(trigger("kv", {"kv": {"bucket": "default_b"}}))
            gateway.host.triggers.put(trigger("stream", {"stream": {"stream": "default_s"}}))
        while not any(gateway.row("kv")["connected"] for gateway in gateways):
            await asyncio.sleep(0.05)
        for gateway in gateways:
            await gateway.until("stream", connected=True)

        async def put(number: int) -> None:
            await bucket.put(f"k{number}", b"%d" % number)

        async def publish(number: int) -> None:
            await world.js.publish("s.x", b"%d" % number, headers={"Nats-Msg-Id": f"m{number}"})

        for number in range(200):
            if number == 100:
                await cluster.servers[2].kill()
            await firmly(put, number)
            await firmly(publish, number)
        while True:
            try:
                found = await world.work(400, 90)
            except (NatsError, TimeoutError):  # a new leader is being elected
                continue
            told = {
                kind: [e.data["new"]["value"] if kind == "kv" else e.data for s, e in found if s.endswith("." + kind)]
                for kind in ("kv", "stream")
            }
            if len(set(told["kv"])) == 200 and len(set(told["stream"])) == 200:
                break
            await asyncio.sleep(0.2)
        # A put that was repeated because its answer got lost is another revision, and rightly another event
        assert list(dict.fromkeys(told["kv"])) == list(range(200))
        assert sorted(told["stream"]) == list(range(200))
    finally:
        await asyncio.gather(*(gateway.stop() for gateway in gateways))
        await client.close()
