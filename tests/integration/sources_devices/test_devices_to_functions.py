"""From the real server to the function: mosquitto's client and the S3 server on one end, an instance on the other, and
a whole gateway with its streams between them."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest_asyncio
import uvloop
from kappa_auth_world import secret
from kappa_events_rig import EventsRig, events_running
from kappa_gateway_rig import Upstream
from kappa_juicefs import s3_server
from kappa_mosquitto import PASSWORD, USER, mosquitto, publish
from kappa_nats import NatsServer
from kappa_ports import free_port


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that the program runs on."""
    return {"uvloop": uvloop.new_event_loop}


@dataclass(frozen=True)
class World:
    nats: NatsServer
    mqtt_port: int


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    port = free_port()
    server = NatsServer(tmp_path, extra=f'mqtt {{ listen: "127.0.0.1:{port}" }}')
    await server.start()
    try:
        yield World(server, port)
    finally:
        await server.stop()


def put(gateway: EventsRig, name: str, source: Any, **spec: Any) -> None:
    """Function and Trigger of this name."""
    gateway.rig.function(name)
    meta = {"namespace": "default", "name": name, "uid": f"uid-{name}", "generation": 1}
    resource = {"metadata": meta, "spec": {"function": name, "source": source, **spec}}
    gateway.events.host.triggers.put(resource)


def reads(gateway: EventsRig, name: str) -> Callable[[], bool]:
    return lambda: gateway.events.host.triggers.counts(f"default/{name}").connected


async def arrived(instance: Upstream, count: int) -> list[Any]:
    """The first events that an instance got, in order of their data."""
    async with asyncio.timeout(60):
        while len(instance.seen) < count:
            instance.arrived.clear()
            await instance.arrived.wait()
    found = [event for seen in instance.seen for event in json.loads(seen.body)]
    return sorted(found, key=lambda event: json.dumps(event["data"]))


async def test_what_a_device_publishes_invokes_the_function_though_no_gateway_ran(world: World) -> None:
    login = ["-u", "device", "-P", world.nats.token]
    async with events_running(world.nats) as gateway:
        put(gateway, "lamp", {"mqtt": {"topics": ["default/lamp/+"]}})
        await gateway.until(reads(gateway, "lamp"))
    await publish(world.mqtt_port, "default/lamp/1", '{"n": 1}', '{"n": 2}', options=login)
    async with events_running(world.nats) as gateway:
        put(gateway, "lamp", {"mqtt": {"topics": ["default/lamp/+"]}}, filter={"data": {"n": [{"numeric": [">", 1]}]}})
        instance = await gateway.rig.instance("lamp", concurrency=10)
        await publish(world.mqtt_port, "default/lamp/2", '{"n": 3}', options=login)
        found = await arrived(instance, 2)
        await gateway.emptied()
    assert [(event["data"]["n"], event["subject"]) for event in found] == [(2, "default/lamp/1"), (3, "default/lamp/2")]
    assert instance.seen[0].get("kappa-event-shape") == "sqs"


async def test_two_gateways_and_a_crash_lose_nothing_of_a_device(world: World) -> None:
    login = ["-u", "device", "-P", world.nats.token]
    async with events_running(world.nats) as first, events_running(world.nats) as second:
        instances = []
        for gateway in (first, second):
            put(gateway, "lamp", {"mqtt": {"topics": ["default/#"]}}, retries=100, backoff={"seconds": 0})
            instances.append(await gateway.rig.instance("lamp", concurrency=5))
            await gateway.until(reads(gateway, "lamp"))
        publishing = asyncio.create_task(publish(world.mqtt_port, "default/a", *map(str, range(300)), options=login))
        await first.until(lambda: len(instances[0].seen) > 20)
        await first.crash()
        await publishing
        seen: set[str] = set()

        def complete() -> bool:
            seen.update(event["data"] for one in instances for s in one.seen for event in json.loads(s.body))
            return len(seen) == 300

        await second.until(complete, 90)
        await second.emptied()


async def test_a_broker_of_somebody_elses(world: World) -> None:
    async with mosquitto() as broker, events_running(world.nats) as gateway:
        url = f"mqtt://127.0.0.1:{broker.port}"
        gateway.events.host.secrets.put(
            secret("broker", kind="kappa.dev/source", url=url, username=USER, password=PASSWORD)
        )
        put(gateway, "lamp", {"mqtt": {"topics": ["any/topic"], "secretRef": {"name": "broker"}}})
        instance = await gateway.rig.instance("lamp")
        await gateway.until(reads(gateway, "lamp"))
        await publish(broker.port, "any/topic", "on", options=broker.login)
        (event,) = await arrived(instance, 1)
    assert (event["data"], event["source"]) == ("on", f"mqtt://127.0.0.1:{broker.port}")


async def test_an_object_that_is_put_invokes_the_function(world: World) -> None:
    async with events_running(world.nats) as gateway:
        put(gateway, "thumbs", {"s3": {"secretRef": {"name": "store"}, "events": ["s3:ObjectCreated:*"]}})
        gateway.events.host.secrets.put(secret("store", kind="kappa.dev/source", token="t-1", next="t-2"))
        instance = await gateway.rig.instance("thumbs", concurrency=5)
        endpoint = f"http://127.0.0.1:{gateway.rig.port}/hooks/default/thumbs"
        async with s3_server(endpoint, "t-2") as store:
            await store.notify("photos", "s3:ObjectCreated:*", "s3:ObjectRemoved:*")
            for name in ("a.jpg", "b.jpg"):
                await store.client.request("PUT", f"/photos/{name}", body=b"x")
            await store.client.request("DELETE", "/photos/a.jpg")
            found = await arrived(instance, 2)
            await gateway.emptied()
    assert sorted(event["subject"] for event in found) == ["a.jpg", "b.jpg"]
    assert {event["data"]["s3"]["bucket"]["name"] for event in found} == {"photos"}
    assert instance.seen[0].get("kappa-event-shape") == "s3"
    assert len(instance.seen) == 2


async def test_a_webhook_that_is_posted_twice_is_one_event(world: World) -> None:
    async with events_running(world.nats) as gateway:
        put(gateway, "push", {"webhook": {"preset": "github", "secretRef": {"name": "hub"}}})
        gateway.events.host.secrets.put(secret("hub", kind="kappa.dev/source", key="k"))
        instance = await gateway.rig.instance("push")

        async def post(body: bytes, delivery: str) -> int:
            digest = hmac.new(b"k", body, hashlib.sha256).hexdigest()
            lines = (f"X-Hub-Signature-256: sha256={digest}", f"X-GitHub-Delivery: {delivery}", "X-GitHub-Event: push")
            answer = await gateway.rig.get("/hooks/default/push", *lines, method="POST", body=body)
            return int(answer.status)

        for delivery in ("d-1", "d-1", "d-2"):
            assert await post(b'{"ref": "main"}', delivery) == 200
        found = await arrived(instance, 2)
        await gateway.emptied()
        large = json.dumps({"ref": "x" * 5 * 1024 * 1024}).encode()
        assert await post(large, "d-3") == 200  # more than NATS takes in a message
        await gateway.emptied()
    assert sorted(event["id"] for event in found) == ["d-1", "d-2"]
    assert len(instance.seen) == 3
    assert json.loads(instance.seen[2].body)[0]["data"] == json.loads(large)
    assert instance.seen[0].get("kappa-event-shape") == "http"
