"""MQTT on the platform's own listener: real nats-server, real mosquitto client, the source with a sink in memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kappa_mosquitto import publish
from kappa_nats import NatsCluster, NatsServer
from kappa_ports import free_port
from kappa_source_world import World, a_trigger, failure, running

from kappa_api.sources.mqtt import Mqtt
from kappa_gateway.events.bus import Bus, RefusedError
from kappa_gateway.events.settings import EventSettings
from kappa_gateway.events.source import SourceError
from kappa_gateway.events.sources import mqtt


class Rig:
    """A server with an MQTT listener, and a gateway's connection to it."""

    def __init__(self, folder: Path) -> None:
        self.mqtt_port = free_port()
        self.server = NatsServer(folder, extra=f'mqtt {{ listen: "127.0.0.1:{self.mqtt_port}" }}')
        self.bus = Bus(EventSettings(urls=(self.server.url,), token=self.server.token))

    async def publish(self, topic: str, *payloads: Any, qos: int = 1, options: tuple[str, ...] = ()) -> None:
        login = ("-u", "device", "-P", self.server.token)
        await publish(self.mqtt_port, topic, *payloads, qos=qos, options=[*login, *options])

    def source(self, world: World) -> Any:
        return mqtt.make(world.trigger, replace(world.surroundings(), bus=self.bus))

    async def waiting(self) -> int:
        found = await self.bus.api("STREAM.INFO.$MQTT_msgs")
        return int(found["state"]["messages"])


@asynccontextmanager
async def connected(bus: Bus) -> AsyncIterator[None]:
    heard = asyncio.Event()
    bus.heard.append(heard.set)
    keeping = asyncio.create_task(bus.keep())
    try:
        await asyncio.wait_for(heard.wait(), 20)
        yield
    finally:
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping
        await bus.close()


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    found = Rig(tmp_path)
    await found.server.start()
    try:
        async with connected(found.bus):
            yield found
    finally:
        await found.server.kill()


def a_world(*topics: str, qos: int = 1, name: str = "t") -> World:
    return World(a_trigger("mqtt", Mqtt(topics, qos), name), {})


async def test_what_a_device_publishes_arrives_whatever_its_qos(rig: Rig) -> None:
    world = a_world("default/+/temperature")
    async with running(rig.source(world), world.sink):
        await rig.publish("default/kitchen/temperature", '{"celsius": 21.5}', "21.50", qos=1)
        await rig.publish("default/cellar/temperature", '["x"]', qos=0)
        await rig.publish("default/cellar/temperature", "twice", qos=2)
        await rig.publish("default/cellar/humidity", "not asked for", qos=1)
        await rig.publish("default/roof/temperature", b"\xff\x00", qos=1)
        await world.sink.until_unique(5)
    found = sorted((e.subject, e.extensions["mqttqos"], str(e.data), e.datacontenttype) for e in world.sink.events)
    assert found == [
        ("default/cellar/temperature", "0", "['x']", "application/json"),
        ("default/cellar/temperature", "2", "twice", "text/plain"),
        ("default/kitchen/temperature", "1", "21.50", "text/plain"),
        ("default/kitchen/temperature", "1", "{'celsius': 21.5}", "application/json"),
        ("default/roof/temperature", "1", "b'\\xff\\x00'", "application/octet-stream"),
    ]
    assert {(e.source, e.type) for e in world.sink.events} == {("/mqtt", "dev.kappa.mqtt.message")}


async def test_qos_1_waits_while_no_gateway_runs_and_the_server_is_killed(rig: Rig) -> None:
    world = a_world("default/#")
    async with running(rig.source(world), world.sink):
        await rig.publish("default/a", "1")
        await world.sink.until_unique(1)
    await rig.publish("default/a", *map(str, range(2, 252)))
    await rig.server.restart()
    async with asyncio.timeout(20):
        while not rig.bus.up:
            await asyncio.sleep(0.02)
    async with running(rig.source(world), world.sink):
        await rig.publish("default", "252")  # a/# is a as well
        await world.sink.until_unique(252)
    assert sorted(int(str(event.data)) for event in world.sink.unique) == list(range(1, 253))
    async with asyncio.timeout(20):
        while await rig.waiting():  # acknowledged: nothing stays behind
            await asyncio.sleep(0.02)


async def test_what_was_not_taken_is_read_again_with_the_same_id(rig: Rig) -> None:
    world = a_world("default/a")
    world.sink.room = 30
    async with running(rig.source(world), world.sink):
        await rig.publish("default/a", *map(str, range(100)))
        await world.sink.until(lambda sink: sink.refusals > 2)
        assert len(world.sink.unique) == 30
        world.sink.room = None
        await world.sink.until_unique(100)
    assert [str(event.data) for event in world.sink.unique] == [str(n) for n in range(100)]


async def test_several_gateways_share_what_there_is(rig: Rig) -> None:
    world = a_world("default/#", "default/a/+", "default/+/b")
    async with running(rig.source(world), world.sink), running(rig.source(world), world.sink):
        await rig.publish("default/a/b", *map(str, range(200)), qos=0)
        await rig.publish("default/a/b", *map(str, range(200, 400)), qos=1)
        await world.sink.until_unique(400)
    assert sorted(int(str(event.data)) for event in world.sink.unique) == list(range(400))
    assert len(world.sink.events) == 400


async def test_topics_that_overlap_in_part_are_read_by_two_consumers_and_give_one_event(rig: Rig) -> None:
    world = a_world("default/a/+", "default/+/b")
    async with running(rig.source(world), world.sink):
        await rig.publish("default/a/b", "both")
        await rig.publish("default/c/b", "second")
        await world.sink.until(lambda sink: len(sink.events) == 3)
    assert sorted(str(event.data) for event in world.sink.unique) == ["both", "second"]


async def test_with_qos_0_nothing_is_kept(rig: Rig) -> None:
    world = a_world("default/a", qos=0)
    async with running(rig.source(world), world.sink):
        await rig.publish("default/a", "now", qos=1)
        await world.sink.until_unique(1)
    await rig.publish("default/a", "missed", qos=1)
    assert await rig.waiting() == 0


async def test_a_changed_trigger_gives_up_its_old_topics_and_a_deleted_one_all(rig: Rig) -> None:
    world = a_world("default/a/+", "default/+/b")
    async with running(rig.source(world), world.sink):
        pass
    world.change(topics=("default/new",))
    async with running(rig.source(world), world.sink):
        await rig.publish("default/a/x", "old")
        await rig.publish("default/new", "new")
        await world.sink.until_unique(1)
    assert [event.data for event in world.sink.events] == ["new"]
    await rig.source(world).forget()
    found = await rig.bus.api("STREAM.INFO.$MQTT_msgs")
    assert found["state"]["consumer_count"] == 0
    await rig.publish("default/new", "nobody's")
    assert await rig.waiting() == 0


async def test_a_consumer_that_was_deleted_under_it_is_noticed(rig: Rig) -> None:
    world = a_world("default/a")
    async with running(rig.source(world), world.sink) as task:
        await rig.bus.api("CONSUMER.DELETE.$MQTT_msgs.kappa-uid-of-t-0")
        await asyncio.wait({task}, timeout=20)
        assert task.done()
        assert isinstance(task.exception(), SourceError)


@pytest.mark.parametrize(
    ("topic", "told"),
    [
        ("other/a", "must begin with default/"),
        ("+/a", "must begin with default/"),
        ("#", "must begin with default/"),
        ("$SYS/#", "belongs to the platform"),
        ("kappa/work/#", "belongs to the platform"),
        ("default/a b", "no spaces"),
        ("default/a>", "no spaces"),
    ],
)
async def test_topics_of_others_and_impossible_ones_are_refused(rig: Rig, topic: str, told: str) -> None:
    found = await failure(rig.source(a_world(topic)))
    assert isinstance(found, SourceError)
    assert told in str(found)
    with pytest.raises(RefusedError):
        await rig.bus.api("STREAM.INFO.$MQTT_msgs")


async def test_a_device_with_rights_as_the_chart_gives_them(tmp_path: Path) -> None:
    port = free_port()
    rights = '{ publish: {allow: ["default.sensors", "default.sensors.>"]}, subscribe: {allow: ["$MQTT.sub.>"]} }'
    server = NatsServer(
        tmp_path,
        token="",
        extra=f"""mqtt {{ listen: "127.0.0.1:{port}" }}
            authorization {{ users: [ {{ user: kappa, password: "gateway" }},
                {{ user: sensors, password: "pw", allowed_connection_types: ["MQTT"], permissions: {rights} }} ] }}""",
    )
    await server.start(wait=False)
    bus = Bus(EventSettings(urls=(server.url,), user="kappa", token="gateway"))
    try:
        async with connected(bus):
            world = a_world("default/#")
            async with running(mqtt.make(world.trigger, replace(world.surroundings(), bus=bus)), world.sink):
                login = ["-u", "sensors", "-P", "pw"]
                await publish(port, "default/sensors/1", "right", options=login)
                with suppress(AssertionError):  # the server ends the connection
                    await publish(port, "default/doors/1", "not its topic", options=login)
                with suppress(AssertionError):
                    await publish(port, "$MQTT/msgs/default/doors/1", "around it", options=login)
                await publish(port, "default/sensors/1", "also right", options=login)
                await world.sink.until_unique(2)
            assert [event.data for event in world.sink.events] == ["right", "also right"]
    finally:
        await server.kill()


async def test_a_cluster_that_loses_a_server_loses_no_message(tmp_path: Path) -> None:
    cluster = NatsCluster(tmp_path)
    port = free_port()
    cluster.servers[0].extra = f'mqtt {{ listen: "127.0.0.1:{port}" }}'
    await cluster.start()
    bus = Bus(EventSettings(urls=tuple(cluster.url.split(",")), token=cluster.token, replicas=3))
    login = ["-u", "device", "-P", cluster.token]
    try:
        async with connected(bus):
            world = a_world("default/#")

            async def run_on() -> None:
                """As the gateway's runner does: while the cluster elects leaders, a source may fail."""
                while True:
                    with suppress(SourceError):
                        await mqtt.make(world.trigger, replace(world.surroundings(), bus=bus)).run()
                    await asyncio.sleep(0.1)

            task = asyncio.create_task(run_on())
            await world.sink.until(lambda sink: sink.connects > 0)
            await publish(port, "default/a", *map(str, range(100)), options=login)
            await cluster.servers[1].kill()
            # What nats-server could not store it does not acknowledge: the device sends it again
            await publish(port, "default/a", *map(str, range(100, 200)), options=[*login, "-i", "d", "-c"])
            await world.sink.until(lambda sink: len({event.data for event in sink.events}) == 200)
            task.cancel()
    finally:
        await cluster.kill()
