"""Outcomes and where they go: functions, subjects, and receivers outside, which may be slow, away or gone for good."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from kappa_events_rig import EventsRig, MakeEvents, answers, failure
from kappa_gateway_rig import reply
from kappa_nats import NatsServer

from kappa_api.cloudevents import CloudEvent
from kappa_api.delivery import Backoff, Delivery
from kappa_gateway.events.bus import RefusedError, UnavailableError

#: As patient as ever, but for the pauses.
QUICK = Delivery(retries=9, backoff=Backoff(0, 1, 0, 0), max_age=86_400)
#: Nothing is tried again while a test lasts.
SLOW = Delivery(retries=9, backoff=Backoff(3600, 1, 3600, 0), max_age=86_400)


class Receiver:
    """A receiver of webhooks. `answers`: statuses, the last one for ever; `seen`: ids of events by path. While `hold`
    is set it answers nothing."""

    def __init__(self) -> None:
        self.answers = [204]
        self.headers: dict[str, str] = {}
        self.seen: list[tuple[str, str]] = []
        self.events: list[Any] = []
        self.hold = False
        self.go = asyncio.Event()
        self.port = 0
        self._runner: web.AppRunner | None = None

    def url(self, path: str = "/hook") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._take)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]

    async def stop(self) -> None:
        self.go.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _take(self, request: web.Request) -> web.Response:
        event = await request.json()
        self.events.append(event)
        self.seen.append((request.path, event["id"]))
        if self.hold and request.path != "/fast":
            await self.go.wait()
        status = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return web.Response(status=status, headers=self.headers)


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    await receiver.start()
    yield receiver
    await receiver.stop()


def told(url: str, *, failure: bool = False, **more: Any) -> dict[str, Any]:
    """`async` of a Function whose outcomes go to a URL."""
    return {"async": {"onFailure" if failure else "onSuccess": {"url": url}, "retries": 0, **more}}


async def invoked(gateway: EventsRig, name: str = "hello") -> None:
    """Something was invoked, and its outcome is known."""
    await gateway.final((await gateway.accept(name)).id)


async def subjects(gateway: EventsRig) -> dict[str, int]:
    """What stands in the work stream."""
    info = await gateway.events.bus.api("STREAM.INFO.KAPPA_WORK", {"subjects_filter": ">"})
    return info["state"].get("subjects") or {}


def waits(gateway: EventsRig, name: str = "hello", count: int = 1) -> Callable[[], Any]:
    async def look() -> bool:
        return await subjects(gateway) == {f"kappa.work.outcome.default.{name}": count}

    return look


# --- functions and subjects -------------------------------------------------------------------------------------------
async def test_outcomes_go_to_a_function(make: MakeEvents) -> None:
    gateway = await make()
    chosen = {"onSuccess": {"function": "next"}, "onFailure": {"function": "next"}, "retries": 0}
    gateway.rig.function("hello", **{"async": chosen})
    gateway.rig.function("next")
    await gateway.rig.instance("hello", answers(reply(200, b'{"ok": true}'), failure("KeyError", "gone")))
    following = await gateway.rig.instance("next")
    for body in (b'{"n": 1}', b'{"n": 2}'):
        await gateway.accept("hello", body)
        await gateway.emptied()  # outcomes without a key come in any order: the second is made after the first has come
    good, bad = (json.loads(seen.body) for seen in following.seen)
    assert (good["type"], bad["type"]) == ("dev.kappa.invocation.succeeded", "dev.kappa.invocation.failed")
    assert good["data"]["requestContext"]["condition"] == "Success"
    assert (good["data"]["requestPayload"], good["data"]["responsePayload"]) == ({"n": 1}, {"ok": True})
    context = bad["data"]["requestContext"]
    assert (context["condition"], context["approximateInvokeCount"]) == ("RetriesExhausted", 1)
    assert bad["data"]["responseContext"]["functionError"] == "KeyError"
    assert bad["data"]["responsePayload"]["errorMessage"] == "gone"


async def test_outcomes_go_to_a_subject_of_the_namespace_and_to_no_other(make: MakeEvents, nats: NatsServer) -> None:
    gateway = await make()
    client = await nats.connect()
    await client.jetstream().add_stream(name="mine", subjects=["default.>", "other.>"])
    for name, subject in (("hello", "default.done"), ("rude", "other.done")):
        gateway.rig.function(name, **{"async": {"onSuccess": {"subject": subject}}})
        await gateway.rig.instance(name)
        await invoked(gateway, name)
    await gateway.emptied()
    info = await client.jetstream().stream_info("mine", subjects_filter=">")
    assert info.state.subjects == {"default.done": 1}
    assert gateway.events.destinations.failed == {"subject": 1}
    (letter,) = await gateway.events.dead.list("outcome", "default", "rude")
    assert (letter.cause, letter.attempts, letter.error["type"]) == ("destination_failed", 1, "forbidden_subject")
    await client.close()


async def test_an_outcome_waits_for_the_stream_that_is_to_take_it(make: MakeEvents, nats: NatsServer) -> None:
    """Plain subscribers do not take it: nobody would say that they have it."""
    gateway = await make(outcomes=Delivery(retries=1000, backoff=Backoff(0, 1, 0, 0)))
    client = await nats.connect()
    heard = await client.subscribe("default.done")
    gateway.rig.function("hello", **{"async": {"onSuccess": {"subject": "default.done"}}})
    await gateway.rig.instance("hello")
    await invoked(gateway)
    await gateway.until(lambda: gateway.events.ledger.at("outcome", "default/hello").failed >= 2)
    await client.jetstream().add_stream(name="late", subjects=["default.>"])
    await gateway.emptied()
    assert (await client.jetstream().stream_info("late")).state.messages == 1
    await client.flush()
    assert heard.pending_msgs == 1, "the attempts were told to subscribers"
    assert gateway.events.destinations.failed == {}
    await client.jetstream().delete_stream("late")
    await client.close()


# --- receivers --------------------------------------------------------------------------------------------------------
async def test_a_receiver_that_fails_is_asked_again_until_it_takes_the_outcome(
    make: MakeEvents, receiver: Receiver
) -> None:
    gateway = await make(outcomes=QUICK)
    receiver.answers = [503, 429, 204]
    gateway.rig.function("hello", **told(receiver.url()))
    await gateway.rig.instance("hello", answers(reply(200, b'{"ok": true}')))
    await invoked(gateway)
    await gateway.emptied()
    assert [path for path, _ in receiver.seen] == ["/hook"] * 3
    assert receiver.events[0] == receiver.events[1] == receiver.events[2]
    assert receiver.events[0]["data"]["responsePayload"] == {"ok": True}
    tally = gateway.events.ledger.at("outcome", "default/hello")
    assert (tally.succeeded, tally.failed, tally.dead) == (1, 2, 0)
    assert gateway.events.destinations.failed == {}


async def test_the_invocation_does_not_wait_for_its_receiver(make: MakeEvents, receiver: Receiver) -> None:
    gateway = await make()
    receiver.hold = True
    gateway.rig.function("hello", **told(receiver.url("/slow")))
    gateway.rig.function("other", **told(receiver.url("/fast")))
    for name in ("hello", "other"):
        await gateway.rig.instance(name)
    for _ in range(12):  # more than are under way to one owner's receivers
        await invoked(gateway)
    await gateway.until(waits(gateway, count=12))  # all of them are acknowledged
    await gateway.until(lambda: len(receiver.seen) == 8)
    await invoked(gateway, "other")  # whose receiver answers
    await gateway.until(lambda: receiver.seen[-1][0] == "/fast")
    await gateway.until(waits(gateway, count=12))
    assert len(receiver.seen) == 9
    receiver.go.set()
    await gateway.emptied()
    assert len(set(receiver.seen)) == len(receiver.seen) == 13


async def test_another_gateway_sends_what_one_had_when_it_died(make: MakeEvents, receiver: Receiver) -> None:
    first = await make(ack_seconds=2.0, outcomes=SLOW)
    receiver.hold = True
    first.rig.function("hello", **told(receiver.url()))
    await first.rig.instance("hello")
    await invoked(first)
    await first.until(waits(first))
    await first.until(lambda: len(receiver.seen) == 1)
    second = await make(ack_seconds=2.0, outcomes=SLOW)
    await first.crash()
    await first.events.destinations.close()  # as the end of a process does
    await receiver.stop()
    receiver.hold = False
    await receiver.start()
    await second.emptied()
    assert len(receiver.seen) == 2
    assert receiver.events[0] == receiver.events[1]


async def test_a_gateway_that_ends_gives_back_outcomes_that_wait_for_their_turn(
    make: MakeEvents, receiver: Receiver
) -> None:
    first = await make(ack_seconds=60.0)
    first.events.destinations.poster.gate = asyncio.Semaphore(0)  # others are being sent
    first.rig.function("hello", **told(receiver.url()))
    await first.rig.instance("hello")
    await invoked(first)
    await first.until(waits(first))
    await first.until(lambda: first.events.in_hand == 1)
    await first.events.drain(0.1)
    second = await make(ack_seconds=60.0)
    await second.emptied()
    assert len(receiver.seen) == 1


async def test_an_invocation_has_not_ended_before_its_outcome_is_kept(
    make: MakeEvents, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever gets it again sees a record of its end, and tells nobody."""
    gateway = await make()
    gateway.rig.function("hello", **told(receiver.url()))
    await gateway.rig.instance("hello")
    publish, tried, away = gateway.events.bus.publish, asyncio.Event(), True

    async def refuse(subject: str, *rest: Any, **more: Any) -> Any:
        if away and subject.startswith("kappa.work.outcome."):
            tried.set()
            raise UnavailableError("no leader")
        return await publish(subject, *rest, **more)

    monkeypatch.setattr(gateway.events.bus, "publish", refuse)
    accepted = await gateway.accept("hello")
    await tried.wait()
    found = await gateway.events.results.find(accepted.id)
    assert found is not None
    assert not found.final
    away = False
    await gateway.final(accepted.id)
    await gateway.emptied()
    assert len(receiver.seen) == 1


async def test_what_is_noted_of_a_failed_attempt_says_nothing_of_the_urls_path(
    make: MakeEvents, receiver: Receiver
) -> None:
    gateway = await make(outcomes=SLOW)
    receiver.answers = [500]
    gateway.rig.function("hello", **told(receiver.url("/secret-word"), resultSeconds=0))
    await gateway.rig.instance("hello")
    await gateway.accept("hello")
    tally = gateway.events.ledger.at("outcome", "default/hello")
    await gateway.until(lambda: tally.failed == 1 and gateway.events.in_hand == 0)
    info = await gateway.events.bus.api("STREAM.INFO.KAPPA_RESULTS", {"subjects_filter": "kappa.result.>"})
    (subject,) = info["state"]["subjects"]
    record = await gateway.events.results.read(subject.removeprefix("kappa.result."))
    assert record is not None
    assert (record.attempts, record.state) == (1, "retrying")
    assert record.due > record.changed + 3_500_000
    assert record.error == {"type": "status_500", "message": f"127.0.0.1:{receiver.port} answered 500"}
    assert await gateway.stored() == 1


async def test_what_a_receiver_refuses_is_a_dead_letter_that_can_be_sent_again(
    make: MakeEvents, receiver: Receiver
) -> None:
    gateway = await make(outcomes=SLOW)
    receiver.answers = [404, 204]
    gateway.rig.function("hello", **told(receiver.url("/secret-word"), failure=True))
    await gateway.rig.instance("hello", answers(failure()))
    await invoked(gateway)
    await gateway.emptied()
    (mine,) = await gateway.events.dead.list("async", "default", "hello")
    (letter,) = await gateway.events.dead.list("outcome", "default", "hello")
    shown = letter.to_json(body=True)
    place = f"127.0.0.1:{receiver.port}"
    assert (shown["cause"], shown["attempts"], shown["destination"]) == ("destination_failed", 1, place)
    assert shown["error"] == {"type": "status_404", "message": f"{place} answered 404"}
    assert "secret-word" not in json.dumps(shown)
    assert json.loads(shown["body"])["data"]["responseContext"]["functionError"] == "ValueError"
    assert gateway.events.destinations.failed == {"url": 1}
    assert await gateway.events.dead.replay([letter.seq]) == 1
    await gateway.emptied()
    assert receiver.events[0] == receiver.events[1]
    assert [found.seq for found in await gateway.events.dead.list()] == [mine.seq]


async def test_a_replay_goes_to_where_the_function_says_now(make: MakeEvents, receiver: Receiver) -> None:
    gateway = await make()
    receiver.answers = [404, 204]
    gateway.rig.function("hello", generation=1, **told(receiver.url("/wrong")))
    await gateway.rig.instance("hello")
    await invoked(gateway)
    await gateway.emptied()
    gateway.rig.function("hello", generation=2, **told(receiver.url("/right")))
    assert await gateway.events.dead.replay_all("outcome", "default", "hello") == 1
    await gateway.emptied()
    assert [path for path, _ in receiver.seen] == ["/wrong", "/right"]


async def test_a_dead_outcome_can_be_sent_to_a_function(make: MakeEvents, receiver: Receiver) -> None:
    gateway = await make()
    receiver.answers = [410]
    gateway.rig.function("hello", **told(receiver.url()))
    gateway.rig.function("mend")
    await gateway.rig.instance("hello")
    mending = await gateway.rig.instance("mend")
    await invoked(gateway)
    await gateway.emptied()
    assert await gateway.events.dead.replay_all("outcome", "default", function="mend") == 1
    await gateway.emptied()
    (seen,) = mending.seen
    assert json.loads(seen.body)["id"] == receiver.events[0]["id"]
    assert seen.get("kappa-event-shape") == "cloudevent"


async def test_redirects_are_not_followed(make: MakeEvents, receiver: Receiver) -> None:
    gateway = await make()
    receiver.answers = [307]
    receiver.headers = {"location": receiver.url("/elsewhere")}
    gateway.rig.function("hello", **told(receiver.url()))
    await gateway.rig.instance("hello")
    await invoked(gateway)
    await gateway.emptied()
    (letter,) = await gateway.events.dead.list("outcome")
    assert letter.error["type"] == "status_307"
    assert [path for path, _ in receiver.seen] == ["/hook"]


async def test_nothing_is_posted_to_this_machine_unless_it_may(make: MakeEvents) -> None:
    gateway = await make(allow_loopback=False)
    for name, url in (
        ("hello", "http://127.0.0.1:1/"),
        ("named", "http://localhost:1/"),
        ("meta", "http://169.254.169.254/"),
    ):
        gateway.rig.function(name, **told(url))
        await gateway.rig.instance(name)
        await invoked(gateway, name)
    await gateway.emptied()
    assert gateway.events.destinations.failed == {"url": 3}
    assert {letter.error["type"] for letter in await gateway.events.dead.list("outcome")} == {"forbidden_address"}


# --- owners -----------------------------------------------------------------------------------------------------------
async def test_outcomes_are_sent_though_their_function_is_deleted(make: MakeEvents, receiver: Receiver) -> None:
    gateway = await make(outcomes=QUICK)
    receiver.hold, receiver.answers = True, [503, 204]
    gateway.rig.function("hello", **told(receiver.url()))
    await gateway.rig.instance("hello")
    await invoked(gateway)
    await gateway.until(lambda: len(receiver.seen) == 1)
    gateway.rig.gateway.catalog.remove_function("default/hello")
    receiver.go.set()
    await gateway.emptied()
    assert len(receiver.seen) == 2
    assert await gateway.events.dead.list() == []


@pytest.mark.parametrize("after", ["suspended", "deleted"])
async def test_outcomes_of_a_trigger_are_sent_though_it_is_suspended_or_deleted(
    make: MakeEvents, receiver: Receiver, after: str
) -> None:
    gateway = await make(outcomes=QUICK)
    receiver.hold, receiver.answers = True, [503, 204]
    gateway.rig.function("hello")
    await gateway.rig.instance("hello")
    triggers = gateway.events.host.triggers
    triggers.synced = True
    spec = {"function": "hello", "source": {"event": {}}, "onSuccess": {"url": receiver.url()}}
    meta = {"namespace": "default", "name": "t", "uid": "uid-t"}
    triggers.put({"metadata": {**meta, "generation": 1}, "spec": spec})
    await gateway.events.host.sink("default/t").emit([CloudEvent(id="1", source="/test", type="a.b", data={})])
    await gateway.until(lambda: len(receiver.seen) == 1)
    if after == "suspended":
        triggers.put({"metadata": {**meta, "generation": 2}, "spec": {**spec, "suspend": True}})
    else:
        triggers.remove("default/t")
    receiver.go.set()
    await gateway.emptied()
    assert len(receiver.seen) == 2
    assert gateway.events.ledger.at("outcome", "default/t").succeeded == 1


# --- what may not happen ----------------------------------------------------------------------------------------------
async def test_what_does_not_fit_into_the_stream_is_posted_at_once(make: MakeEvents, receiver: Receiver) -> None:
    """A record has the payload in it: there is no room for it beside two calls that wait."""
    gateway = await make(work_bytes=256 * 1024)
    receiver.hold = True
    gateway.rig.function("hello", **told(receiver.url()))
    body = json.dumps("x" * 100_000).encode()
    accepted = [await gateway.accept("hello", body) for _ in range(2)]
    await gateway.rig.instance("hello")
    await gateway.until(lambda: len(receiver.seen) == 2)
    assert "kappa.work.outcome.default.hello" not in await subjects(gateway)
    receiver.go.set()
    for one in accepted:
        assert (await gateway.final(one.id)).state == "succeeded"
    await gateway.emptied()
    assert [event["data"]["requestPayload"] for event in receiver.events] == ["x" * 100_000] * 2
    assert await gateway.events.dead.list() == []


async def test_a_full_stream_does_not_hold_up_the_work_whose_end_makes_room(
    make: MakeEvents, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await make()
    receiver.answers = [204, 503]
    gateway.rig.function("hello", **told(receiver.url()))
    await gateway.rig.instance("hello")
    publish = gateway.events.bus.publish

    async def full(subject: str, *rest: Any, **more: Any) -> Any:
        if subject.startswith("kappa.work.outcome."):
            raise RefusedError(10077, "maximum bytes exceeded")
        return await publish(subject, *rest, **more)

    monkeypatch.setattr(gateway.events.bus, "publish", full)
    await invoked(gateway)
    assert len(receiver.seen) == 1
    await invoked(gateway)
    await gateway.emptied()
    (letter,) = await gateway.events.dead.list("outcome")
    assert (letter.cause, letter.error["type"]) == ("destination_failed", "no_room")
    assert gateway.events.destinations.failed == {"url": 1}


async def test_an_outcome_for_a_function_waits_for_room_among_the_dead_letters(
    make: MakeEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await make()
    gateway.rig.function("hello", **{"async": {"onSuccess": {"function": "next"}}})
    gateway.rig.function("next")
    await gateway.rig.instance("hello")
    following = await gateway.rig.instance("next")
    publish = gateway.events.bus.publish

    async def full(subject: str, *rest: Any, **more: Any) -> Any:
        if subject.startswith("kappa.work.") and subject != "kappa.work.async.default.hello":
            raise RefusedError(10077, "maximum bytes exceeded")
        return await publish(subject, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(gateway.events.bus, "publish", full)
        await invoked(gateway)
        await gateway.emptied()
    (letter,) = await gateway.events.dead.list("outcome", "default", "hello")
    assert letter.to_json()["destination"] == "next"
    assert await gateway.events.dead.replay([letter.seq]) == 1
    await gateway.emptied()
    (seen,) = following.seen
    assert json.loads(seen.body)["type"] == "dev.kappa.invocation.succeeded"


async def test_an_outcome_that_is_too_large_is_sent_without_its_payloads(
    make: MakeEvents, nats: NatsServer, receiver: Receiver
) -> None:
    gateway = await make()
    body = b"\x01" * (255 * 1024)  # six bytes each in JSON, twice: more than a message holds with its headers
    gateway.rig.function("hello", **told(receiver.url()))
    await gateway.rig.instance("hello", answers(reply(200, body)))
    await gateway.final((await gateway.accept("hello", body)).id)
    await gateway.emptied()
    (event,) = receiver.events
    payloads = [event["data"]["requestPayload"], event["data"]["responsePayload"]]
    limit = gateway.events.bus.nc.max_payload
    assert payloads == ([None, None] if limit < 2 * 6 * len(body) else [body.decode()] * 2)


async def test_metrics_tell_of_outcomes(make: MakeEvents, receiver: Receiver) -> None:
    gateway = await make(outcomes=QUICK)
    receiver.answers = [503, 204, 404]
    gateway.rig.function("hello", **told(receiver.url()))
    await gateway.rig.instance("hello")
    for _ in range(2):
        await invoked(gateway)
        await gateway.emptied()
    from kappa_gateway.events.metrics import EventsCollector

    found = {
        (sample.labels["namespace"], sample.labels["owner"], sample.labels["outcome"]): sample.value
        for metric in EventsCollector(gateway.events).collect()
        for sample in metric.samples
        if sample.name == "kappa_destination_outcomes_total"
    }
    of = ("default", "hello")
    assert found == {(*of, "succeeded"): 1, (*of, "failed"): 2, (*of, "dead"): 1}
