"""Functions that trigger each other in a circle: through events, through outcomes, through asynchronous calls."""

import itertools
import json
import logging
from typing import Any

import pytest
from kappa_auth_world import secret
from kappa_events_rig import EventsRig, MakeEvents, answers, failure
from kappa_gateway_rig import Seen, Upstream, reply

from kappa_api.cloudevents import CloudEvent
from kappa_api.tokens import pod_token

POD = (f"Authorization: Bearer {pod_token(b'secret', 'default', 'pod-1')}", "kappa-pod: default/pod-1")
_ids = itertools.count(1)


def trigger(gateway: EventsRig, name: str, function: str, **spec: Any) -> str:
    """A Trigger for events of the type `name`."""
    gateway.events.host.triggers.synced = True
    source = {"event": {"types": [name]}}
    gateway.events.host.triggers.put(
        {
            "metadata": {"namespace": "default", "name": name, "uid": f"uid-{name}", "generation": 1},
            "spec": {"function": function, "source": source, "backoff": {"seconds": 0}, **spec},
        }
    )
    return f"default/{name}"


async def emit(gateway: EventsRig, kind: str, source: str = "/test", *lines: str) -> None:
    """As the runtime does."""
    event = CloudEvent(id=str(next(_ids)), source=source, type=kind).to_json()
    head = ("content-type: application/cloudevents+json", *POD, *lines)
    answer = await gateway.rig.get("/events/default", *head, method="POST", body=json.dumps(event).encode())
    assert answer.status == 202, answer.body


async def emitter(gateway: EventsRig, function: str, kind: str) -> Upstream:
    """An instance that emits an event of `kind` for each that it gets, and sends on what it is to send on."""

    async def behave(seen: Seen) -> bytes:
        await emit(gateway, kind, f"/fn/default/{function}", f"kappa-hops: {seen.get('kappa-hops')}")
        return reply(200, b"null")

    gateway.rig.function(function)
    return await gateway.rig.instance(function, answers(behave))


def hops(instance: Upstream) -> list[int]:
    """What the instance was told that it causes."""
    return [int(seen.get("kappa-hops")) for seen in instance.seen]


async def test_two_functions_that_trigger_each_other(make: MakeEvents, caplog: pytest.LogCaptureFixture) -> None:
    gateway = await make()
    ping, pong = await emitter(gateway, "ping", "to-pong"), await emitter(gateway, "pong", "to-ping")
    trigger(gateway, "to-ping", "ping")
    trigger(gateway, "to-pong", "pong")
    with caplog.at_level(logging.WARNING):
        await emit(gateway, "to-ping")
        await gateway.emptied()
    assert (hops(ping), hops(pong)) == ([1, 3, 5, 7, 9, 11, 13, 15, 17], [2, 4, 6, 8, 10, 12, 14, 16])
    (letter,) = await gateway.events.dead.list()
    shown = letter.to_json()
    assert (shown["name"], shown["function"], shown["cause"]) == ("to-pong", "default/pong", "loop")
    assert (shown["attempts"], shown["hops"]) == (0, 17)
    assert "default/pong was not called" in shown["error"]["message"]
    assert "caused by /fn/default/ping" in shown["error"]["message"]
    assert "caused by /fn/default/ping" in caplog.text
    tally = gateway.events.ledger.at("trigger", "default/to-pong")
    assert (tally.dead, tally.looped, tally.failed) == (1, 1, 0)

    # Sent again, it begins anew
    assert await gateway.events.dead.replay([letter.seq]) == 1
    await gateway.emptied()
    assert hops(pong)[8:] == [1, 3, 5, 7, 9, 11, 13, 15, 17]
    (letter,) = await gateway.events.dead.list()
    assert (letter.cause, letter.name) == ("loop", "to-ping")


async def test_no_bound(make: MakeEvents) -> None:
    gateway = await make(max_hops=0)
    gateway.rig.function("hello")
    instance = await gateway.rig.instance("hello")
    trigger(gateway, "a", "hello")
    await emit(gateway, "a", "/test", "kappa-hops: 5000")
    await gateway.emptied()
    assert hops(instance) == [5001]


async def test_of_a_batch_only_what_is_too_far_is_stopped(make: MakeEvents) -> None:
    gateway = await make(max_hops=3)
    gateway.rig.function("hello")
    instance = await gateway.rig.instance("hello")
    sink = gateway.events.host.sink(trigger(gateway, "a", "hello", batch={"size": 3, "windowSeconds": 5}))
    away = [CloudEvent(id=str(n), source="/s", type="a", extensions={"kappahops": str(n)}) for n in (1, 4, 3)]
    await sink.emit(away)
    await gateway.emptied()
    (seen,) = instance.seen
    assert sorted(event["id"] for event in json.loads(seen.body)) == ["1", "3"]
    assert hops(instance) == [4]
    assert [letter.work.hops for letter in await gateway.events.dead.list() if letter.work] == [4]


# --- outcomes ---------------------------------------------------------------------------------------------------------
async def test_a_function_that_is_told_of_its_own_success(make: MakeEvents) -> None:
    gateway = await make()
    gateway.rig.function("hello", **{"async": {"onSuccess": {"function": "hello"}}})
    instance = await gateway.rig.instance("hello")
    await gateway.accept("hello")
    await gateway.emptied()
    assert hops(instance) == list(range(1, 18))
    (letter,) = await gateway.events.dead.list()
    assert (letter.cause, letter.kind) == ("loop", "async")


async def test_a_function_that_is_told_of_its_own_failure(make: MakeEvents) -> None:
    gateway = await make(max_hops=3)
    chosen = {"onFailure": {"function": "hello"}, "retries": 0}
    gateway.rig.function("hello", **{"async": chosen})
    instance = await gateway.rig.instance("hello", answers(failure()))
    await gateway.accept("hello")
    await gateway.emptied()
    # The fourth is stopped and told of, what tells of it runs and fails, and that is told to nobody
    assert hops(instance) == [1, 2, 3, 4, 6]
    letters = await gateway.events.dead.list()
    assert [(letter.cause, letter.work.hops) for letter in letters if letter.work] == [
        *(("retries_exhausted", n) for n in range(4)),
        ("loop", 4),
        ("retries_exhausted", 5),
        ("loop", 6),
    ]


async def test_somebody_is_told_of_a_loop(make: MakeEvents) -> None:
    gateway = await make(max_hops=3)
    again = await emitter(gateway, "again", "again")
    alert = await emitter(gateway, "alert", "again")  # what tells of the loop feeds it
    trigger(gateway, "again", "again", onFailure={"function": "alert"})
    await emit(gateway, "again")
    await gateway.emptied()
    assert (hops(again), hops(alert)) == ([1, 2, 3, 4], [6])
    record = json.loads(alert.seen[0].body)
    assert record["type"] == "dev.kappa.invocation.failed"
    assert record["data"]["requestContext"]["condition"] == "LoopDetected"
    assert record["data"]["responseContext"]["functionError"] == "loop"
    assert "default/again was not called" in record["data"]["responsePayload"]["message"]
    letters = await gateway.events.dead.list()
    assert [(letter.cause, letter.work.hops) for letter in letters if letter.work] == [("loop", 4), ("loop", 6)]


# --- asynchronous calls -----------------------------------------------------------------------------------------------
async def test_asynchronous_calls(make: MakeEvents) -> None:
    gateway = await make(max_hops=3)
    gateway.rig.function("hello")
    instance = await gateway.rig.instance("hello")

    async def call(*lines: str) -> Any:
        answer = await gateway.rig.get("/async/default/hello", *lines, method="POST")
        assert answer.status == 202
        return await gateway.final(json.loads(answer.body)["id"])

    for lines in ((), ("kappa-hops: 3",), ("kappa-hops: no",)):
        assert (await call(*lines)).state == "succeeded"
    assert hops(instance) == [1, 4, 1]
    assert sum(name.lower() == "kappa-hops" for name, _ in instance.seen[1].headers) == 1
    record = await call("kappa-hops: 4")
    assert (record.state, record.cause, record.attempts) == ("failed", "loop", 0)
    (letter,) = await gateway.events.dead.list()
    assert await gateway.events.dead.replay([letter.seq]) == 1
    await gateway.emptied()
    assert hops(instance)[3:] == [1]


async def test_webhooks(make: MakeEvents) -> None:
    gateway = await make(max_hops=3)
    gateway.rig.function("hello")
    instance = await gateway.rig.instance("hello")
    source = {"webhook": {"preset": "token", "header": "x-token", "secretRef": {"name": "hub"}}}
    trigger(gateway, "hook", "hello", source=source)
    gateway.events.host.secrets.put(secret("hub", kind="kappa.dev/source", secret="s3cret"))
    for number in (3, 4):
        body, lines = f'{{"n": {number}}}'.encode(), ("x-token: s3cret", f"kappa-hops: {number}")
        answer = await gateway.rig.get("/hooks/default/hook", *lines, method="POST", body=body)
        assert answer.status < 300, answer.body
        await gateway.emptied()
    assert hops(instance) == [4]
