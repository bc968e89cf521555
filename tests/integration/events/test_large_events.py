"""Events that are larger than a message: their data goes through the bucket of bodies, and nothing stays there."""

import asyncio
import json
from typing import Any

import pytest
from kappa_events_rig import MakeEvents, answers, failure
from kappa_gateway_rig import reply
from kappa_large_events import RAW, ROW, TEXT, bodies, emit, event, trigger

from kappa_api.cloudevents import CloudEvent
from kappa_gateway.events.bus import Receipt, UnsureError


@pytest.mark.parametrize(
    "sent",
    [
        event(1, TEXT, datacontenttype="text/plain", subject="größe"),
        event(1, TEXT),
        event(1, ROW, datacontenttype="application/json"),
        event(1, RAW, datacontenttype="image/png"),
        event(1, RAW),
        event(1, "\ud800" + TEXT, datacontenttype="text/plain"),
    ],
    ids=["text", "a JSON string", "JSON", "bytes", "bytes of no kind", "half a character"],
)
async def test_a_large_event_reaches_a_handler_as_any_other(make: MakeEvents, sent: CloudEvent) -> None:
    gateway = await make()
    gateway.rig.function("hello")
    instance = await gateway.rig.instance("hello")
    await emit(gateway, trigger(gateway), sent)
    await gateway.emptied()
    (seen,) = instance.seen
    assert seen.get("kappa-event-shape") == "cloudevent"
    assert json.loads(seen.body) == [json.loads(json.dumps(sent.to_json()))]
    await bodies(gateway, 0)


@pytest.mark.parametrize(
    ("sent", "kind", "body"),
    [
        (event(1, TEXT, datacontenttype="text/plain"), "text/plain", TEXT.encode()),
        (event(1, ROW), "application/json", ROW),
        (event(1, RAW, datacontenttype="image/png"), "image/png", RAW),
        (event(1, RAW), "", RAW),
    ],
    ids=["text", "JSON", "bytes", "bytes of no kind"],
)
async def test_an_application_gets_it_over_http(make: MakeEvents, sent: CloudEvent, kind: str, body: Any) -> None:
    gateway = await make()
    gateway.rig.function("hello", signature="asgi")
    instance = await gateway.rig.instance("hello")
    await emit(gateway, trigger(gateway), sent)
    await gateway.emptied()
    (seen,) = instance.seen
    assert (seen.get("ce-id"), seen.get("ce-type"), seen.get("content-type")) == ("1", "a.b", kind)
    assert (seen.body if isinstance(body, bytes) else json.loads(seen.body)) == body
    await bodies(gateway, 0)


async def test_it_is_tried_again_and_its_body_is_there_until_it_is_done(make: MakeEvents) -> None:
    gateway = await make()
    gateway.rig.function("hello")
    instance = await gateway.rig.instance("hello", answers(failure(), None, reply(200, b"ok")))
    await emit(gateway, trigger(gateway, retries=5), event(1, ROW))
    await gateway.emptied()
    assert [json.loads(seen.body)[0]["data"] == ROW for seen in instance.seen] == [True] * 3
    await bodies(gateway, 0)


async def test_events_of_one_partition_keep_their_order(make: MakeEvents) -> None:
    gateway = await make()
    gateway.rig.function("hello")
    instance = await gateway.rig.instance("hello", answers(failure(), reply()), concurrency=4)
    key = trigger(gateway, ordered={"key": "subject"})
    await emit(gateway, key, event(1, TEXT, subject="a"), event(2, {"n": 2}, subject="a"), event(3, RAW, subject="a"))
    await gateway.emptied()
    assert [json.loads(seen.body)[0]["id"] for seen in instance.seen] == ["1", "1", "2", "3"]
    await bodies(gateway, 0)


async def test_a_dead_letter_keeps_its_body_until_it_is_sent_again(make: MakeEvents) -> None:
    gateway = await make()
    gateway.rig.function("hello")
    instance = await gateway.rig.instance("hello", answers(failure(), reply()))
    await emit(gateway, trigger(gateway, retries=0), event(1, ROW))
    await gateway.emptied()
    (letter,) = await gateway.events.dead.list()
    shown = letter.to_json(body=True)
    assert (shown["cause"], shown["bytes"] > 2_000_000, bool(shown["stored"])) == ("retries_exhausted", True, True)
    assert json.loads(shown["body"]) == {"id": "1", "source": "/test", "type": "a.b", "specversion": "1.0"}
    await bodies(gateway, 1)
    assert await gateway.events.dead.replay([letter.seq]) == 1
    await gateway.emptied()
    assert [json.loads(seen.body)[0]["data"] == ROW for seen in instance.seen] == [True, True]
    assert await gateway.events.dead.list() == []
    await bodies(gateway, 0)


async def test_a_dead_letter_is_sent_to_another_function_whole(make: MakeEvents) -> None:
    gateway = await make()
    gateway.rig.function("hello")
    gateway.rig.function("other")
    await gateway.rig.instance("hello", answers(failure()))
    other = await gateway.rig.instance("other")
    sent = event(1, TEXT, datacontenttype="text/plain")
    await emit(gateway, trigger(gateway, retries=0), sent)
    await gateway.emptied()
    (letter,) = await gateway.events.dead.list()
    await gateway.events.dead.replay([letter.seq], function="other")
    await gateway.emptied()
    (seen,) = other.seen
    assert seen.get("content-type") == "application/cloudevents+json"
    assert json.loads(seen.body) == sent.to_json()
    await bodies(gateway, 0)


@pytest.mark.parametrize("chosen", [True, False], ids=["one", "all"])
async def test_a_dead_letter_is_purged_with_its_body(make: MakeEvents, chosen: bool) -> None:
    gateway = await make()
    gateway.rig.function("hello")
    await gateway.rig.instance("hello", answers(failure()))
    await emit(gateway, trigger(gateway, retries=0), event(1, TEXT))
    await emit(gateway, trigger(gateway, "u", retries=0), event(1, TEXT), event(2, {}))
    await gateway.emptied()
    await bodies(gateway, 2)
    letters = await gateway.events.dead.list(name="t")
    if chosen:
        assert await gateway.events.dead.purge(seqs=[letters[0].seq]) == 1
    else:
        assert await gateway.events.dead.purge(name="t") == 1
    await bodies(gateway, 1)
    assert await gateway.events.dead.purge() == 2
    await bodies(gateway, 0)


async def test_an_event_that_is_emitted_twice_is_stored_once(make: MakeEvents) -> None:
    gateway = await make()
    gateway.rig.function("hello")
    key = trigger(gateway, suspend=True)
    sent = event(1, ROW)
    await asyncio.gather(emit(gateway, key, sent), emit(gateway, key, sent))
    await emit(gateway, key, sent)
    assert await gateway.stored() == 1
    await bodies(gateway, 1)
    counts = gateway.events.host.triggers.counts(key)
    assert (counts.received, counts.duplicates) == (1, 2)
    trigger(gateway, at=2)
    instance = await gateway.rig.instance("hello")
    await gateway.emptied()
    assert [json.loads(seen.body)[0]["data"] == ROW for seen in instance.seen] == [True]
    await bodies(gateway, 0)


@pytest.mark.parametrize("taken", [True, False], ids=["the stream has it", "the stream has it not"])
async def test_an_answer_that_is_lost_costs_neither_the_event_nor_a_body(make: MakeEvents, taken: bool) -> None:
    gateway = await make()
    gateway.rig.function("hello")
    key, bus = trigger(gateway), gateway.events.bus
    publish = bus.publish

    async def lost(subject: str, *rest: Any, **more: Any) -> Receipt:
        if subject.startswith("kappa.work."):
            bus.publish = publish  # type: ignore[method-assign]
            if taken:
                await publish(subject, *rest, **more)
            raise UnsureError("no answer")
        return await publish(subject, *rest, **more)

    bus.publish = lost  # type: ignore[method-assign]
    with pytest.raises(UnsureError):
        await emit(gateway, key, event(1, ROW))
    await bodies(gateway, 1)
    await emit(gateway, key, event(1, ROW))
    await bodies(gateway, 1)
    instance = await gateway.rig.instance("hello")
    await gateway.emptied()
    assert [json.loads(seen.body)[0]["data"] == ROW for seen in instance.seen] == [True]
    await bodies(gateway, 0)


async def test_one_of_a_batch_fails_alone_by_its_sequence_and_so_does_one_whose_body_is_lost(make: MakeEvents) -> None:
    gateway = await make()
    gateway.rig.function("hello")
    told = reply(200, json.dumps({"batchItemFailures": [{"itemIdentifier": "7"}]}).encode())
    spec: dict[str, Any] = {"batch": {"size": 3, "windowSeconds": 1}, "retries": 1}
    key = trigger(gateway, suspend=True, **spec)
    for one in (event(1, ROW), event(2, RAW), event(3, {"n": 3})):
        await emit(gateway, key, one)

    async def names() -> list[str]:
        found = [await gateway.events.bus.newest("KAPPA_WORK", seq=seq) for seq in (1, 2)]
        return [one.headers["Kappa-Object"] for one in found if one is not None]

    await gateway.events.bodies.drop((await names())[1])
    instance = await gateway.rig.instance("hello", answers(told, reply()))
    trigger(gateway, at=2, **spec)
    await gateway.emptied()
    got = [json.loads(seen.body) for seen in instance.seen]
    assert [[found["id"] for found in batch] for batch in got] == [["1", "3"], ["1"]]
    (letter,) = await gateway.events.dead.list()
    assert (letter.cause, letter.error["type"]) == ("body_lost", "body_lost")
    await bodies(gateway, 0)


async def test_the_body_is_there_until_jetstream_has_heard_that_it_is_done(make: MakeEvents) -> None:
    """A gateway that dies after the function has answered: who gets the event next must find its data."""
    first = await make()
    second = await make()
    for gateway in (first, second):
        gateway.rig.function("hello")
        trigger(gateway)
    said = asyncio.Event()

    async def silent(*_: Any, **__: Any) -> None:
        said.set()

    first.events._acks._send = silent  # type: ignore[method-assign]
    await first.rig.instance("hello")
    await emit(first, "default/t", event(1, ROW))
    await said.wait()
    await first.until(lambda: first.events._shop.held == 0)
    await bodies(first, 1)
    await first.crash()
    instance = await second.rig.instance("hello")
    await second.until(lambda: len(instance.seen) == 1, 40.0)
    assert json.loads(instance.seen[0].body)[0]["data"] == ROW
    await second.emptied()
    await bodies(second, 0)
