"""Emitting: what an event is made of, its id, and how sync and async code wait for it."""

import asyncio
import json
import threading

import pytest

from kappa_runtime import emitting
from kappa_runtime.context import Context, FunctionInfo
from kappa_runtime.emitting import EmitError, Emitter, Origin, emit


class Gateway:
    """Takes what is posted, or refuses it."""

    def __init__(self):
        self.events, self.calls, self.error = [], [], None

    def __call__(self, body, headers, seconds):
        self.calls.append((headers, seconds))
        if self.error is not None:
            raise self.error
        self.events.append(json.loads(body))


@pytest.fixture
def gateway(monkeypatch):
    gateway = Gateway()
    monkeypatch.setattr(emitting, "_emitters", [Emitter("/fn/default/orders", gateway)])
    token = emitting.current.set(None)
    yield gateway
    emitting.current.reset(token)


def test_the_event(gateway):
    assert emit("com.example.paid", {"order": 7}, subject="orders/7", source="/shop", id="p-7") == "p-7"
    (event,) = gateway.events
    assert len(event.pop("time")) == len("2026-03-01T12:00:00.000Z")
    assert event == {
        "specversion": "1.0",
        "type": "com.example.paid",
        "source": "/shop",
        "subject": "orders/7",
        "id": "p-7",
        "datacontenttype": "application/json",
        "data": {"order": 7},
    }


def test_what_is_not_said_is_filled_in_or_left_out(gateway):
    found = [emit("a"), emit("a")]
    assert [event["id"] for event in gateway.events] == found
    assert found[0] != found[1]
    assert gateway.events[0].keys() == {"specversion", "type", "source", "id", "time"}
    assert gateway.events[0]["source"] == "/fn/default/orders"


def test_bytes_are_sent_as_bytes(gateway):
    emit("a", b"\xff")
    assert (gateway.events[0]["data_base64"], gateway.events[0]["datacontenttype"]) == (
        "/w==",
        "application/octet-stream",
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("",), "type must not be empty"),
        ((None,), "type must be a string"),
        (("a", {1, 2}), "cannot be written as JSON"),
        (("a", float("nan")), "cannot be written as JSON"),
        (("a", "\ud800"), "cannot be written as JSON"),
    ],
)
def test_what_is_no_event(gateway, arguments, words):
    with pytest.raises(ValueError, match=words):
        emit(*arguments)
    assert gateway.events == []


def test_outside_of_an_instance(monkeypatch):
    monkeypatch.setattr(emitting, "_emitters", [])
    with pytest.raises(EmitError, match="only inside an instance"):
        emit("a")


# --- ids --------------------------------------------------------------------------------------------------------------
def ids(gateway, work, *contents):
    """The ids of these events, emitted by one attempt of this work."""
    emitting.current.set(Origin("r-1", 0.0, work))
    return [emit("a", content) for content in contents]


def test_work_that_is_repeated_emits_the_same_events_again(gateway):
    first = ids(gateway, "w-1", 1, 2)
    assert ids(gateway, "w-1", 1, 2) == first
    assert ids(gateway, "w-1", 2, 1) == first[::-1], "an id must not depend on what else is emitted"
    assert not set(ids(gateway, "w-2", 1, 2)) & set(first)
    twice = ids(gateway, "w-1", 1, 1)
    assert (twice[0], twice[0] != twice[1]) == (first[0], True)


def test_calls_that_are_not_repeated_emit_new_events(gateway):
    emitting.current.set(Origin("r-1", 0.0))
    assert emit("a", 1) != emit("a", 1)


# --- waiting ----------------------------------------------------------------------------------------------------------
def test_the_deadline_bounds_the_wait(gateway, monkeypatch):
    monkeypatch.setattr(emitting.time, "time", lambda: 1000.0)
    for deadline, expected in ((1003.0, 3.0), (1060.0, 10.0), (0.0, 10.0)):
        emitting.current.set(Origin("r-1", deadline))
        emit("a")
        assert gateway.calls[-1] == ({"X-Request-Id": "r-1", "kappa-hops": "1"}, expected)


def test_a_refusal_is_raised(gateway):
    gateway.error = EmitError("no", 503, "unavailable")
    with pytest.raises(EmitError) as caught:
        Context(FunctionInfo("default", "orders", "r"), "r-1", 0).emit("a")
    assert (caught.value.status, caught.value.code) == (503, "unavailable")


async def test_async_code_awaits_it(gateway):
    context = Context(FunctionInfo("default", "orders", "r"), "r-1", 0)
    found = await asyncio.gather(*(context.emit("a", number) for number in range(5)))
    assert sorted(event["id"] for event in gateway.events) == sorted(found)
    gateway.error = EmitError("no")
    with pytest.raises(EmitError):
        await emit("a")
    with pytest.raises(ValueError, match="cannot be written"):  # at the call: it is the caller's mistake
        emit("a", {1})


async def test_sending_begins_with_the_call(gateway):
    task = emit("a")
    await asyncio.wait([task])
    assert len(gateway.events) == 1


# --- hops -------------------------------------------------------------------------------------------------------------
def test_what_is_emitted_is_one_hop_farther(gateway):
    emitting.current.set(Origin("r-1", 0.0, hops=5))
    emit("a")
    emitting.current.set(None)
    emit("a")
    assert [headers.get("kappa-hops") for headers, _ in gateway.calls] == ["5", "1"]


def test_a_thread_of_the_handler_knows_it_by_the_context(gateway):
    context = Context(FunctionInfo("default", "orders", "r"), "r-1", 0)
    context.hops = 4
    thread = threading.Thread(target=context.emit, args=("a",))  # with an empty context of its own
    thread.start()
    thread.join()
    assert gateway.calls[0][0] == {"X-Request-Id": "r-1", "kappa-hops": "5"} == context.onward_headers
    assert emitting.current.get() is None
