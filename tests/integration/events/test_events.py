"""Events of Triggers: batches, partial failure, order, shapes; and destinations of outcomes."""

import asyncio
import json
from typing import Any

import pytest
from kappa_events_rig import EventsRig, MakeEvents, answers, failure
from kappa_gateway_rig import Seen, reply

from kappa_api.cloudevents import CloudEvent


def trigger(gateway: EventsRig, name: str = "t", function: str = "hello", **spec: Any) -> str:
    """A Trigger of the kind `event`, as the watch brings it."""
    gateway.events.host.triggers.synced = True
    gateway.events.host.triggers.put(
        {
            "metadata": {"namespace": "default", "name": name, "uid": f"uid-{name}", "generation": spec.pop("at", 1)},
            "spec": {"function": function, "source": {"event": {}}, "backoff": {"seconds": 0}, **spec},
        }
    )
    return f"default/{name}"


def event(number: int, **more: Any) -> CloudEvent:
    return CloudEvent(id=str(number), source="/test", type="a.b", data={"n": number}, **more)


async def emit(gateway: EventsRig, key: str, *events: CloudEvent) -> None:
    await gateway.events.host.sink(key).emit(events)


async def test_an_event_reaches_a_handler_in_its_shape(make: MakeEvents) -> None:
    gateway = await make()
    gateway.rig.function("hello")
    instance = await gateway.rig.instance("hello")
    await emit(gateway, trigger(gateway), event(1))
    await gateway.emptied()
    (seen,) = instance.seen
    assert (seen.method, seen.target) == ("POST", "/")
    assert seen.get("content-type") == "application/cloudevents-batch+json"
    assert seen.get("kappa-event-shape") == "cloudevent"
    (found,) = json.loads(seen.body)
    assert (found["id"], found["data"]) == ("1", {"n": 1})
    assert gateway.events.ledger.at("trigger", "default/t").succeeded == 1


async def test_an_application_gets_the_event_over_http(make: MakeEvents) -> None:
    gateway = await make()
    gateway.rig.function("hello", signature="asgi")
    instance = await gateway.rig.instance("hello")
    await emit(gateway, trigger(gateway), event(1, subject="größe 100%"))
    await gateway.emptied()
    (seen,) = instance.seen
    assert (seen.get("ce-id"), seen.get("ce-type"), seen.get("content-type")) == ("1", "a.b", "application/json")
    assert seen.get("ce-subject") == "gr%C3%B6%C3%9Fe%20100%25"
    assert (seen.get("kappa-event-shape"), json.loads(seen.body)) == ("", {"n": 1})


async def test_events_come_in_batches_and_only_those_that_failed_come_again(make: MakeEvents) -> None:
    gateway = await make()
    gateway.rig.function("hello")
    told = reply(200, json.dumps({"batchItemFailures": [{"itemIdentifier": "3"}]}).encode())
    instance = await gateway.rig.instance("hello", answers(told, reply(200, b"null")))
    key = trigger(gateway, batch={"size": 5, "windowSeconds": 5})
    await emit(gateway, key, *(event(n) for n in range(5)))
    await gateway.until(lambda: len(instance.seen) == 2)
    await gateway.emptied()
    ids = [[found["id"] for found in json.loads(seen.body)] for seen in instance.seen]
    assert sorted(ids[0]) == ["0", "1", "2", "3", "4"]
    assert ids[1] == ["3"]
    assert [seen.get("kappa-event-shape") for seen in instance.seen] == ["cloudevent; batch"] * 2
    assert [seen.get("kappa-attempt") for seen in instance.seen] == ["0", "1"]


async def test_a_failed_batch_is_a_failed_attempt_of_each_and_ends_in_dead_letters(make: MakeEvents) -> None:
    gateway = await make()
    gateway.rig.function("hello")
    await gateway.rig.instance("hello", answers(failure()))
    await emit(gateway, trigger(gateway, batch={"size": 3}, retries=1), *(event(n) for n in range(3)))
    await gateway.emptied()
    letters = await gateway.events.dead.list("trigger", "default", "t")
    assert sorted((json.loads(x.data)["id"], x.attempts, x.cause) for x in letters) == [
        (str(n), 2, "retries_exhausted") for n in range(3)
    ]
    assert await gateway.events.dead.purge("trigger", "default", "t") == 3


async def test_events_of_one_key_are_delivered_one_after_the_other(make: MakeEvents) -> None:
    gateway, other = await make(), await make()
    order: list[int] = []
    busy = 0

    async def behave(seen: Seen) -> bytes:
        nonlocal busy
        busy += 1
        assert busy == 1, "two of one key at the same time"
        await asyncio.sleep(0)
        (found,) = json.loads(seen.body)
        number = found["data"]["n"]
        busy -= 1
        if number == 3 and order.count(3) == 0:
            order.append(3)
            return failure()
        order.append(number)
        return reply()

    for one in (gateway, other):
        one.rig.function("hello", concurrency=10)
        await one.rig.instance("hello", answers(behave), concurrency=10)
        trigger(one, ordered={"key": "subject"})
    await emit(gateway, "default/t", *(event(n, subject="one") for n in range(20)))
    await gateway.emptied()
    assert order == [0, 1, 2, 3, *range(3, 20)]


async def test_events_of_a_trigger_that_is_gone_become_dead_letters(
    make: MakeEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kappa_gateway.events.delivery import attempts

    monkeypatch.setattr(attempts, "GRACE_SECONDS", 0.3)
    gateway = await make()
    gateway.rig.function("hello")
    key = trigger(gateway, suspend=True)
    await emit(gateway, key, event(1))
    gateway.events.host.triggers.remove(key)
    await gateway.emptied()
    (letter,) = await gateway.events.dead.list()
    assert letter.cause == "trigger_deleted"


async def test_an_event_that_is_emitted_twice_is_delivered_once(make: MakeEvents) -> None:
    gateway = await make()
    gateway.rig.function("hello")
    instance = await gateway.rig.instance("hello")
    key = trigger(gateway)
    await emit(gateway, key, event(1), event(1))
    await emit(gateway, key, event(1))
    await gateway.emptied()
    assert len(instance.seen) == 1
