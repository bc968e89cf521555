"""MQTT on an external broker: real mosquitto, broker and clients, the source with a sink in memory."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import trustme
from kappa_mosquitto import PASSWORD, USER, Mosquitto, mosquitto, publish
from kappa_nats import NatsServer
from kappa_ports import free_port
from kappa_source_world import World, a_trigger, failure, running

from kappa_api.sources.mqtt import Mqtt
from kappa_gateway.events.addresses import checker
from kappa_gateway.events.bus import RefusedError
from kappa_gateway.events.source import SourceError
from kappa_gateway.events.sources import mqtt


class NoStreams:
    """The platform's NATS, which has nothing of this Trigger."""

    async def api(self, subject: str, request: Any = None) -> Any:
        raise RefusedError(10059, "stream not found")


def a_world(port: int, *topics: str, qos: int = 1, name: str = "t", **secret: bytes) -> World:
    data = {"url": f"mqtt://localhost:{port}".encode(), "username": USER.encode(), "password": PASSWORD.encode()}
    found = {key.replace("_", "."): value for key, value in {**data, **secret}.items()}
    return World(a_trigger("mqtt", Mqtt(topics, qos, "credentials"), name), found)


def source(world: World, *, loopback: bool = True) -> Any:
    around = replace(world.surroundings(), bus=NoStreams(), check_address=checker(loopback=loopback))
    return mqtt.make(world.trigger, around)


async def put(broker: Mosquitto, topic: str, *payloads: Any, qos: int = 1) -> None:
    await publish(broker.port, topic, *payloads, qos=qos, options=broker.login)


async def test_messages_arrive_with_topic_qos_and_content(tmp_path: Path) -> None:
    async with mosquitto() as broker:
        world = a_world(broker.port, "plant/+/state", "lamp/#")
        async with running(source(world), world.sink):
            await put(broker, "plant/7/state", '{"wet": true}')
            await put(broker, "lamp/x/y", "on", qos=0)
            await put(broker, "lamp", "off", qos=2)
            await put(broker, "other", "x")
            await put(broker, "lamp/raw", b"\xff")
            await world.sink.until_unique(4)
        found = sorted((e.subject, e.extensions["mqttqos"], str(e.data)) for e in world.sink.events)
        assert found == [
            ("lamp", "1", "off"),
            ("lamp/raw", "1", "b'\\xff'"),
            ("lamp/x/y", "0", "on"),
            ("plant/7/state", "1", "{'wet': True}"),
        ]
        assert {e.source for e in world.sink.events} == {f"mqtt://localhost:{broker.port}"}


async def test_what_comes_while_no_gateway_runs_and_while_the_broker_restarts_is_not_lost() -> None:
    async with mosquitto() as broker:
        world = a_world(broker.port, "a/#")
        async with running(source(world), world.sink):
            await put(broker, "a/1", "0")
            await world.sink.until_unique(1)
        await put(broker, "a/1", *map(str, range(1, 51)))
        await broker.stop()
        assert isinstance(await failure(source(world)), SourceError)
        await broker.start()
        await put(broker, "a/1", *map(str, range(51, 100)))
        async with running(source(world), world.sink):
            await world.sink.until_unique(100)
        assert [int(str(event.data)) for event in world.sink.unique] == list(range(100))


async def test_a_broker_that_ends_ends_the_source(tmp_path: Path) -> None:
    async with mosquitto() as broker:
        world = a_world(broker.port, "a")
        async with running(source(world), world.sink) as task:
            await broker.stop()
            await asyncio.wait({task}, timeout=30)
            assert task.done()
            error = task.exception()
            assert isinstance(error, SourceError)
            assert PASSWORD not in str(error)


async def test_messages_are_acknowledged_only_when_they_are_kept() -> None:
    async with mosquitto() as broker:
        world = a_world(broker.port, "a")
        world.sink.away = True
        async with running(source(world), world.sink):
            await put(broker, "a", *map(str, range(60)))
            await world.sink.until(lambda sink: sink.refusals > 1)
        assert not world.sink.events  # the gateway died with them in hand
        world.sink.away = False
        async with running(source(world), world.sink):
            await world.sink.until_unique(60)
        assert sorted(int(str(event.data)) for event in world.sink.unique) == list(range(60))


async def test_the_same_content_again_is_another_event() -> None:
    async with mosquitto() as broker:
        world = a_world(broker.port, "a")
        async with running(source(world), world.sink):
            await put(broker, "a", *["on"] * 200)
            await world.sink.until_unique(200)
        assert len(world.sink.events) == 200


async def test_topics_that_are_no_more_are_given_up() -> None:
    async with mosquitto() as broker:
        world = a_world(broker.port, "old", "both")
        async with running(source(world), world.sink):
            pass
        world.change(topics=("both", "new"))
        async with running(source(world), world.sink):
            for topic in ("old", "both", "new"):
                await put(broker, topic, topic)
            await world.sink.until(lambda sink: any(event.subject == "new" for event in sink.events))
        assert [event.subject for event in world.sink.events] == ["both", "new"]


async def test_the_session_of_a_trigger_that_is_gone_is_ended() -> None:
    async with mosquitto() as broker:
        world = a_world(broker.port, "a")
        async with running(source(world), world.sink):
            pass
        await source(world).forget()
        await put(broker, "a", "nobody's")
        async with running(source(world), world.sink):
            await put(broker, "a", "fresh")
            await world.sink.until_unique(1)
        assert [event.data for event in world.sink.events] == ["fresh"]


async def test_a_message_that_no_gateway_should_hold_ends_the_source_and_says_so() -> None:
    async with mosquitto() as broker:
        world = a_world(broker.port, "a")
        async with running(source(world), world.sink) as task:
            await put(broker, "a", b"x" * 2_000_000)
            await world.sink.until_unique(1)
            await put(broker, "a", b"x" * 34_000_000)
            await asyncio.wait({task}, timeout=30)
            assert task.done()
            assert "more than Kappa takes" in str(task.exception())


async def test_tls_with_the_brokers_authority_and_the_right_name(tmp_path: Path) -> None:
    authority = trustme.CA()
    paths = [tmp_path / name for name in ("ca", "cert", "key")]
    pair = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(paths[0])
    pair.cert_chain_pems[0].write_to_path(paths[1])
    pair.private_key_pem.write_to_path(paths[2])
    options = [f"cafile {paths[0]}", f"certfile {paths[1]}", f"keyfile {paths[2]}"]
    async with mosquitto(options=options) as broker:
        url = f"mqtts://localhost:{broker.port}".encode()
        ca = authority.cert_pem.bytes()
        world = a_world(broker.port, "a", url=url, ca_crt=ca)
        async with running(source(world), world.sink):
            pass
        other = a_world(broker.port, "a", url=url, ca_crt=trustme.CA().cert_pem.bytes())
        assert "certificate verify failed" in str(await failure(source(other)))
        wrong = a_world(broker.port, "a", url=url.replace(b"localhost", b"127.0.0.1"), ca_crt=ca)
        assert "certificate verify failed" in str(await failure(source(wrong)))


async def test_what_is_wrong_is_told_without_credentials() -> None:
    async with mosquitto() as broker:
        failures = {
            "does not exist": World(a_trigger("mqtt", Mqtt(("a",), 1, "missing"), "t"), {}),
            "has no key url": World(a_trigger("mqtt", Mqtt(("a",), 1, "credentials"), "t"), {}),
            "not valid": a_world(broker.port, "a", url=b"http://device:pw-for-tests@localhost"),
            "rized": a_world(broker.port, "a", password=b"pw-for-tests-no-more"),
            "no certificate": a_world(broker.port, "a", url=b"mqtts://localhost", ca_crt=b"pw-for-tests"),
        }
        for told, world in failures.items():
            found = await failure(source(world))
            assert isinstance(found, SourceError), found
            assert told in str(found)
            assert "pw-for-tests" not in str(found)
        closed = await failure(source(a_world(broker.port, "a"), loopback=False))
        assert "loopback address" in str(closed)


async def test_a_topic_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    # mosquitto grants every subscription and then stays silent; a nats-server as the broker says what it denies.
    port = free_port()
    permissions = 'permissions: { subscribe: { deny: ["secret.>"] } }'
    server = NatsServer(
        tmp_path,
        token="",
        extra=f'''mqtt {{ listen: "127.0.0.1:{port}" }}
            authorization {{ users: [ {{ user: admin, password: admin }},
                {{ user: {USER}, password: "{PASSWORD}", {permissions} }} ] }}
            no_auth_user: admin''',
    )
    await server.start()
    try:
        world = a_world(port, "open/#")
        async with running(source(world), world.sink):
            await publish(port, "open/a", "seen", options=["-u", USER, "-P", PASSWORD])
            await world.sink.until_unique(1)
        found = await failure(source(a_world(port, "open/#", "secret/#")))
        assert "does not let 'secret/#' be read" in str(found)
    finally:
        await server.kill()
