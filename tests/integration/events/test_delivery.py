"""Asynchronous invocations from acceptance to their end, on a real NATS server."""

import asyncio
import json
import time

import pytest
from kappa_events_rig import EventsRig, MakeEvents, answers, failure
from kappa_gateway_rig import Seen, reply

from kappa_gateway.events.delivery import attempts
from kappa_gateway.events.records import Record

NOW = {"seconds": 0}  # a back-off that is none


async def dead(gateway: EventsRig, count: int = 1) -> list[dict[str, object]]:
    letters = [letter.to_json(body=True) for letter in await gateway.events.dead.list()]
    assert len(letters) == count, letters
    return letters


async def test_what_is_accepted_runs_and_its_result_is_kept(make: MakeEvents) -> None:
    gateway = await make()
    gateway.rig.function("hello")
    instance = await gateway.rig.instance("hello", answers(reply(200, b'{"sum": 3}')))
    accepted = await gateway.accept("hello", b'{"a": 1}')
    record = await gateway.final(accepted.id)
    assert (record.state, record.attempts, record.function) == ("succeeded", 1, "default/hello")
    assert record.result is not None
    assert (record.result["status"], json.loads(record.result["body"])) == (200, {"sum": 3})
    (seen,) = instance.seen
    assert (seen.method, seen.target, seen.body) == ("POST", "/", b'{"a": 1}')
    assert (seen.get("content-type"), seen.get("kappa-attempt")) == ("application/json", "0")
    await gateway.emptied()
    await gateway.rig.settled("hello")


async def test_a_failed_attempt_is_made_again(make: MakeEvents) -> None:
    gateway = await make()
    gateway.rig.function("hello", **{"async": {"backoff": NOW}})
    instance = await gateway.rig.instance("hello", answers(failure(), reply(503, b"later"), reply(200, b"ok")))
    record = await gateway.final((await gateway.accept("hello")).id)
    assert (record.state, record.attempts) == ("succeeded", 3)
    assert [seen.get("kappa-attempt") for seen in instance.seen] == ["0", "1", "2"]
    await gateway.emptied()
    await dead(gateway, 0)


async def test_the_next_attempt_waits_for_its_time(make: MakeEvents) -> None:
    gateway = await make()
    gateway.rig.function("hello", **{"async": {"backoff": {"seconds": 1, "jitterPercent": 0}}})
    times: list[float] = []

    async def note(seen: Seen) -> bytes:
        times.append(time.time())
        return failure() if len(times) == 1 else reply()

    await gateway.rig.instance("hello", answers(note))
    accepted = await gateway.accept("hello")
    found: list[Record | None] = []

    async def retrying() -> bool:
        found.append(await gateway.events.results.find(accepted.id))
        return found[-1] is not None and found[-1].state == "retrying"

    await gateway.until(retrying)
    record = found[-1]
    assert record is not None
    assert (record.attempts, record.error) == (1, {"type": "ValueError", "message": "no"})
    assert record.due - record.changed >= 990
    assert (await gateway.final(accepted.id)).attempts == 2
    assert times[1] * 1000 >= record.due


async def test_after_the_last_attempt_it_is_a_dead_letter_and_can_be_sent_again(make: MakeEvents) -> None:
    gateway = await make()
    gateway.rig.function("hello", **{"async": {"retries": 1, "backoff": NOW}})
    instance = await gateway.rig.instance("hello", answers(failure(), failure(), reply(200, b"ok")))
    accepted = await gateway.accept("hello", b'{"x": 1}')
    record = await gateway.final(accepted.id)
    assert (record.state, record.attempts, record.cause) == ("failed", 2, "retries_exhausted")
    (letter,) = await dead(gateway)
    assert (letter["cause"], letter["attempts"], letter["body"], letter["function"]) == (
        "retries_exhausted",
        2,
        '{"x": 1}',
        "default/hello",
    )
    assert (letter["error"], letter["revision"]) == ({"type": "ValueError", "message": "no"}, "r1")
    await gateway.emptied()
    assert await gateway.events.dead.replay([int(str(letter["seq"]))]) == 1
    await gateway.until(lambda: len(instance.seen) == 3)
    assert instance.seen[2].body == b'{"x": 1}'
    await gateway.emptied()
    await dead(gateway, 0)


@pytest.mark.parametrize(
    ("answer", "state", "tries"),
    [(reply(404), "succeeded", 1), (reply(429), "failed", 2), (reply(500), "failed", 2), (None, "failed", 2)],
)
async def test_which_answers_are_failures(make: MakeEvents, answer: bytes | None, state: str, tries: int) -> None:
    gateway = await make()
    gateway.rig.function("hello", **{"async": {"retries": 1, "backoff": NOW}})
    await gateway.rig.instance("hello", answers(answer))
    record = await gateway.final((await gateway.accept("hello")).id)
    assert (record.state, record.attempts) == (state, tries)


async def test_the_deadline_begins_with_the_slot_and_ends_the_attempt(make: MakeEvents) -> None:
    gateway = await make()
    gateway.rig.function("hello", timeoutSeconds=1, **{"async": {"retries": 0}})
    forever = asyncio.Event()

    async def never(seen: Seen) -> bytes:
        await forever.wait()
        return reply()

    await gateway.rig.instance("hello", answers(never))
    record = await gateway.final((await gateway.accept("hello")).id)
    assert (record.state, record.error) == (
        "failed",
        {"type": "deadline", "message": "the function did not answer before the deadline"},
    )
    await gateway.rig.settled("hello")


async def test_work_waits_for_an_instance_as_demand_and_spends_no_attempt(make: MakeEvents) -> None:
    gateway = await make()
    gateway.rig.function("hello", timeoutSeconds=1, scaling={"maxReplicas": 3})
    accepted = [await gateway.accept("hello") for _ in range(5)]
    queue = gateway.rig.queue
    await gateway.until(lambda: queue("hello").waiting == 3)  # as many as could run, no more
    assert queue("hello").callers_waiting == 0
    assert gateway.rig.gateway.stats().functions["default/hello"].waiting == 3
    assert (await gateway.events.results.find(accepted[0].id)).state == "queued"  # type: ignore[union-attr]
    await asyncio.sleep(1.3)  # longer than the function's timeout: it has not begun
    await gateway.rig.instance("hello")
    records = [await gateway.final(one.id) for one in accepted]
    assert {(record.state, record.attempts) for record in records} == {("succeeded", 1)}
    assert gateway.events.ledger.at("async", "default/hello").failed == 0


async def test_callers_pass_asynchronous_work(make: MakeEvents) -> None:
    gateway = await make()
    gateway.rig.function("hello")
    go, order = asyncio.Event(), []

    async def behave(seen: Seen) -> bytes:
        order.append(seen.target)
        if len(order) == 1:
            await go.wait()
        return reply()

    await gateway.rig.instance("hello", answers(behave))
    accepted = [await gateway.accept("hello") for _ in range(4)]
    await gateway.until(lambda: len(order) == 1 and gateway.rig.queue("hello").waiting == 3)
    caller = asyncio.ensure_future(gateway.rig.get("/fn/default/hello/caller"))
    await gateway.until(lambda: gateway.rig.queue("hello").callers_waiting == 1)
    go.set()
    assert (await caller).status == 200
    for one in accepted:
        await gateway.final(one.id)
    assert order == ["/", "/caller", "/", "/", "/"]


async def test_work_of_a_deleted_function_becomes_dead_letters_after_a_while(
    make: MakeEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "GRACE_SECONDS", 0.5)
    gateway = await make()
    gateway.rig.function("hello")
    accepted = await gateway.accept("hello")
    await gateway.until(lambda: gateway.rig.queue("hello").waiting == 1)
    gateway.rig.gateway.catalog.remove_function("default/hello")
    record = await gateway.final(accepted.id)
    assert (record.state, record.attempts, record.cause) == ("failed", 0, "function_deleted")
    (letter,) = await dead(gateway)
    gateway.rig.function("renamed")
    instance = await gateway.rig.instance("renamed")
    assert await gateway.events.dead.replay_all("async", "default", "hello", function="renamed") == 1
    await gateway.until(lambda: len(instance.seen) == 1)
    await dead(gateway, 0)
    assert letter["name"] == "hello"


async def test_a_function_that_is_there_again_in_time_gets_its_work(make: MakeEvents) -> None:
    gateway = await make()
    gateway.rig.function("hello")
    accepted = await gateway.accept("hello")
    await gateway.until(lambda: gateway.rig.queue("hello").waiting == 1)
    gateway.rig.gateway.catalog.remove_function("default/hello")
    await gateway.until(lambda: gateway.rig.gateway.catalog.functions.get("default/hello") is None)
    gateway.rig.function("hello")
    await gateway.rig.instance("hello")
    record = await gateway.final(accepted.id)
    assert (record.state, record.attempts) == ("succeeded", 1)


async def test_a_suspended_function_gets_its_work_later(make: MakeEvents) -> None:
    gateway = await make()
    gateway.rig.function("hello", generation=1, **{"async": {"suspend": True}})
    instance = await gateway.rig.instance("hello")
    accepted = await gateway.accept("hello")
    found = await gateway.events.results.find(accepted.id)
    assert found is not None
    assert found.state == "queued"
    await gateway.until(lambda: gateway.events.ledger.at("async", "default/hello").backlog == 1)
    assert not instance.seen
    gateway.rig.function("hello", generation=2, **{"async": {"suspend": False}})
    assert (await gateway.final(accepted.id)).state == "succeeded"


async def test_suspending_gives_back_what_waits(make: MakeEvents) -> None:
    gateway = await make()
    gateway.rig.function("hello", generation=1)
    accepted = await gateway.accept("hello")
    await gateway.until(lambda: gateway.rig.queue("hello").waiting == 1)
    gateway.rig.function("hello", generation=2, **{"async": {"suspend": True}})
    await gateway.until(lambda: gateway.rig.queue("hello").waiting == 0 and gateway.events.in_hand == 0)
    await gateway.rig.instance("hello")
    gateway.rig.function("hello", generation=3)
    record = await gateway.final(accepted.id)
    assert (record.state, record.attempts) == ("succeeded", 1)


@pytest.mark.parametrize("suspend", [False, True])
async def test_work_that_is_too_old_never_runs(make: MakeEvents, suspend: bool) -> None:
    gateway = await make()
    gateway.rig.function("hello", **{"async": {"maxAgeSeconds": 1, "suspend": suspend}})
    record = await gateway.final((await gateway.accept("hello")).id, 30)
    assert (record.state, record.attempts, record.cause) == ("expired", 0, "max_age")
    await dead(gateway)
    await gateway.emptied()
    await gateway.rig.settled("hello")


async def test_a_retry_that_would_come_too_late_is_not_waited_for(make: MakeEvents) -> None:
    gateway = await make()
    gateway.rig.function("hello", **{"async": {"maxAgeSeconds": 30, "backoff": {"seconds": 60}}})
    await gateway.rig.instance("hello", answers(failure()))
    record = await gateway.final((await gateway.accept("hello")).id)
    assert (record.state, record.attempts, record.cause) == ("expired", 1, "max_age")


async def test_without_results_nothing_is_kept(make: MakeEvents) -> None:
    gateway = await make()
    gateway.rig.function("hello", **{"async": {"resultSeconds": 0, "backoff": NOW}})
    await gateway.rig.instance("hello", answers(failure(), reply()))
    accepted = await gateway.accept("hello")
    await gateway.emptied()
    assert await gateway.events.results.find(accepted.id) is None
    assert await gateway.stored("KAPPA_RESULTS") == 0


async def test_what_others_write_into_the_stream_is_put_aside(make: MakeEvents) -> None:
    gateway = await make()
    gateway.rig.function("hello")
    await gateway.events.bus.publish("kappa.work.async.default.hello", b"?")
    await gateway.emptied()
    (letter,) = await dead(gateway)
    assert (letter["cause"], letter["body"]) == ("malformed", "?")
