"""The sources `subject`, `stream`, `kv` and `object` on a real NATS server."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from kappa_nats import NatsServer
from kappa_trigger_world import TriggerGateway, TriggerWorld, trigger
from nats.js.api import ObjectMeta, StreamConfig


async def started(world: TriggerWorld, source: dict[str, Any], *names: str, **spec: Any) -> list[TriggerGateway]:
    """Gateways that know the Trigger, once it reads everywhere it should."""
    found = [await world.gateway(name) for name in names or ("g1",)]
    for gateway in found:
        gateway.host.triggers.put(trigger("t", source, **spec))
    return found


async def one_connected(gateways: list[TriggerGateway]) -> TriggerGateway:
    """The gateway that got the lease."""
    while True:
        for gateway in gateways:
            if gateway.row("t")["connected"]:
                return gateway
        await asyncio.sleep(0.01)


# --- subject ----------------------------------------------------------------------------------------------------------
async def test_messages_come_to_one_gateway_each(world: TriggerWorld) -> None:
    gateways = await started(world, {"subject": {"subject": "default.orders.*"}}, "g1", "g2")
    for gateway in gateways:
        await gateway.until("t", connected=True)
    for number in range(100):
        await world.nc.publish(f"default.orders.{number}", b'{"n": %d}' % number)
    events = await world.events(100)
    assert sorted(event.data["n"] for event in events) == list(range(100))
    assert {event.type for event in events} == {"dev.kappa.subject.message"}
    assert all(gateway.row("t")["received"] > 0 for gateway in gateways)


async def test_a_request_is_answered_once_jetstream_has_it(world: TriggerWorld) -> None:
    (gateway,) = await started(world, {"subject": {"subject": "default.orders"}})
    await gateway.until("t", connected=True)
    answer = await world.nc.request("default.orders", b"hello", headers={"Nats-Msg-Id": "m1"}, timeout=5)
    assert answer.data == b'{"accepted": "m1"}'
    (event,) = await world.events(1)
    assert (event.id, event.data, event.datacontenttype) == ("m1", "hello", "text/plain")


async def test_cloud_events_stay_what_they_are(world: TriggerWorld) -> None:
    (gateway,) = await started(world, {"subject": {"subject": "default.>"}})
    await gateway.until("t", connected=True)
    headers = {"ce-specversion": "1.0", "ce-id": "7", "ce-source": "/a", "ce-type": "b", "content-type": "text/plain"}
    await world.nc.publish("default.x", b"data", headers=headers)
    (event,) = await world.events(1)
    assert (event.id, event.source, event.type, event.data) == ("7", "/a", "b", "data")


@pytest.mark.parametrize("subject", ["other.orders", "kappa.work.>", ">", "$JS.API.>", "default"])
async def test_other_namespaces_subjects_are_refused(world: TriggerWorld, subject: str) -> None:
    (gateway,) = await started(world, {"subject": {"subject": subject}})
    row = await gateway.until("t", running=True)
    while not row["message"]:
        row = gateway.row("t")
        await asyncio.sleep(0.01)
    assert repr(subject) in row["message"]
    assert not row["connected"]


async def test_external_servers(world: TriggerWorld, tmp_path: Path) -> None:
    other = NatsServer(tmp_path / "other", token="theirs")
    await other.start()
    try:
        (gateway,) = await started(world, {"subject": {"subject": "orders", "secretRef": {"name": "s"}}})
        await gateway.until("t", running=True)
        while "Secret s is not there" not in gateway.row("t")["message"]:
            await asyncio.sleep(0.01)
        gateway.host.secrets.put(secret("s", url=other.url, token="theirs"))
        await gateway.until("t", connected=True)
        client = await other.connect()
        await client.request("orders", b"1", timeout=5)
        await client.close()
        assert [event.data for event in await world.events(1)] == [1]
    finally:
        await other.stop()


def secret(name: str, **data: str) -> dict[str, Any]:
    import base64

    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return {"metadata": {"namespace": "default", "name": name}, "type": "kappa.dev/source", "data": encoded}


# --- stream -----------------------------------------------------------------------------------------------------------
async def test_a_stream_is_shared_and_nothing_is_lost_when_gateways_change(world: TriggerWorld) -> None:
    await world.js.add_stream(StreamConfig(name="default_orders", subjects=["o.>"]))
    for number in range(50):
        await world.js.publish("o.x", b"%d" % number)
    source = {"stream": {"stream": "default_orders", "start": "all"}}
    gateways = await started(world, source, "g1", "g2")
    for gateway in gateways:
        await gateway.until("t", connected=True)
    for number in range(50, 300):
        await world.js.publish("o.x", b"%d" % number)
    await gateways[0].stop()
    for number in range(300, 400):
        await world.js.publish("o.x", b"%d" % number)
    events = await world.events(400, 60)
    assert sorted(event.data for event in events) == list(range(400))
    assert [event.subject for event in events[:1]] == ["o.x"]


async def test_a_stream_that_wants_order_has_one_reader(world: TriggerWorld) -> None:
    await world.js.add_stream(StreamConfig(name="default_orders", subjects=["o.>"]))
    source = {"stream": {"stream": "default_orders", "subjects": ["o.a", "o.b"]}}
    gateways = await started(world, source, "g1", "g2", ordered={"key": "subject"})
    first = await one_connected(gateways)
    for number in range(100):
        await world.js.publish("o.a", b"%d" % number)
        await world.js.publish("o.c", b"no")
    await world.events(100)
    await first.stop()
    for number in range(100, 150):
        await world.js.publish("o.a", b"%d" % number)
    work = await world.work(150)
    assert [event.data for _, event in work] == list(range(150))
    assert len({subject for subject, _ in work}) == 1
    assert work[0][0].startswith("kappa.work.trigger.default.t.")


async def test_the_consumer_goes_with_the_trigger(world: TriggerWorld) -> None:
    await world.js.add_stream(StreamConfig(name="default_orders", subjects=["o.>"]))
    (gateway,) = await started(world, {"stream": {"stream": "default_orders"}})
    await gateway.until("t", connected=True)
    assert [c.name for c in await world.js.consumers_info("default_orders")] == ["kappa-uid-t"]
    gateway.host.triggers.remove("default/t")
    while await world.js.consumers_info("default_orders"):
        await asyncio.sleep(0.02)


# --- kv ---------------------------------------------------------------------------------------------------------------
async def test_kv_tells_old_and_new(world: TriggerWorld) -> None:
    bucket = await world.js.create_key_value(bucket="default_stock", history=10)
    (gateway,) = await started(world, {"kv": {"bucket": "default_stock"}})
    await gateway.until("t", connected=True)
    await bucket.put("apple", b'{"n": 1}')
    await bucket.put("apple", b'{"n": 2}')
    await bucket.delete("apple")
    await bucket.delete("apple")  # it is gone already: nothing changes
    await bucket.put("apple", b"text")
    await bucket.put("pear", b"\xff\xfe")
    events = await world.events(5)
    told = [(e.type, e.data["operation"], e.data["old"], e.data["new"]) for e in events]
    one, two = {"key": "apple", "value": {"n": 1}}, {"key": "apple", "value": {"n": 2}}
    assert told == [
        ("dev.kappa.kv.put", "insert", None, one),
        ("dev.kappa.kv.put", "update", one, two),
        ("dev.kappa.kv.deleted", "delete", two, None),
        ("dev.kappa.kv.put", "insert", None, {"key": "apple", "value": "text"}),
        ("dev.kappa.kv.put", "insert", None, {"key": "pear", "base64": "//4="}),
    ]


async def test_kv_goes_on_after_a_restart_with_the_old_values(world: TriggerWorld) -> None:
    bucket = await world.js.create_key_value(bucket="default_stock", history=5)
    (first,) = await started(world, {"kv": {"bucket": "default_stock", "keys": ["a.*"]}})
    await first.until("t", connected=True)
    await bucket.put("a.x", b"1")
    await first.until("t", received=1)
    await first.stop()
    await bucket.put("a.x", b"2")
    await bucket.put("b.x", b"other")
    await bucket.delete("a.x")
    second = await world.gateway("g2")
    second.host.triggers.put(trigger("t", {"kv": {"bucket": "default_stock", "keys": ["a.*"]}}))
    events = await world.events(3)
    told = [
        (e.data["operation"], (e.data["old"] or {}).get("value"), (e.data["new"] or {}).get("value")) for e in events
    ]
    assert told == [("insert", None, 1), ("update", 1, 2), ("delete", 2, None)]
    assert second.row("t")["duplicates"] == 0  # it began after what was taken, not before


async def test_kv_without_history_says_that_it_does_not_know(world: TriggerWorld) -> None:
    bucket = await world.js.create_key_value(bucket="default_stock")
    await bucket.put("a", b"0")
    (gateway,) = await started(world, {"kv": {"bucket": "default_stock", "start": "all"}})
    await gateway.until("t", received=1)
    await bucket.put("a", b"1")
    events = await world.events(2)
    assert [(e.data["operation"], e.data["old"], e.data["new"]["value"]) for e in events] == [
        ("update", None, 0),
        ("update", None, 1),
    ]


async def test_a_bucket_that_is_made_anew_is_read_from_its_beginning(world: TriggerWorld) -> None:
    bucket = await world.js.create_key_value(bucket="default_stock", history=2)
    (gateway,) = await started(world, {"kv": {"bucket": "default_stock"}})
    await gateway.until("t", connected=True)
    await bucket.put("a", b"1")
    await gateway.until("t", received=1)
    await world.js.delete_key_value("default_stock")
    bucket = await world.js.create_key_value(bucket="default_stock", history=2)
    await bucket.put("a", b"2")
    await gateway.until("t", 60, received=2)
    assert [e.data["new"]["value"] for e in await world.events(2)] == [1, 2]


async def test_a_missing_bucket_is_named_and_found_later(world: TriggerWorld) -> None:
    (gateway,) = await started(world, {"kv": {"bucket": "default_stock"}})
    await gateway.until("t", running=True)
    while "there is no bucket default_stock" not in gateway.row("t")["message"]:
        await asyncio.sleep(0.01)
    await world.js.create_key_value(bucket="default_stock")
    await gateway.until("t", connected=True, message="")


# --- object -----------------------------------------------------------------------------------------------------------
async def test_objects_are_told_as_s3_records(world: TriggerWorld) -> None:
    bucket = await world.js.create_object_store("default_files")
    (gateway,) = await started(world, {"object": {"bucket": "default_files"}})
    await gateway.until("t", connected=True)
    await bucket.put("a b/c.txt", b"hello", ObjectMeta())
    await gateway.until("t", received=1)
    await bucket.delete("a b/c.txt")
    put, deleted = await world.events(2)
    assert (put.type, deleted.type) == ("dev.kappa.object.put", "dev.kappa.object.deleted")
    record = put.data
    assert (record["eventName"], record["s3"]["bucket"]["name"]) == ("ObjectCreated:Put", "default_files")
    assert (record["s3"]["object"]["key"], record["s3"]["object"]["size"]) == ("a+b/c.txt", 5)
    assert deleted.data["eventName"] == "ObjectRemoved:Delete"
