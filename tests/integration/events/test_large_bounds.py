"""How large events may be, how much of them a gateway holds, and how long the bucket keeps a body."""

import asyncio
import hashlib
import json
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import pytest
from kappa_events_rig import MakeEvents, answers
from kappa_gateway_rig import Seen, reply
from kappa_large_events import MIB, RAW, ROW, TEXT, bodies, emit, event, trigger

from kappa_gateway.events.bus import Receipt, TooLargeError, UnsureError
from kappa_gateway.events.delivery import feeder


async def test_what_is_larger_than_may_be_stored_is_dropped_and_told(
    make: MakeEvents, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await make(stored_bytes=2_000_000)
    gateway.rig.function("hello")
    instance = await gateway.rig.instance("hello")
    key = trigger(gateway)
    sink = gateway.events.host.sink(key)
    sink._strict = False  # as the sources have it
    growing = '"' * 1_200_000  # it is too large only as JSON
    await sink.emit([event(1, TEXT), event(2, RAW), event(3, {"a": growing, "b": ROW}), event(4, {"n": 4})])
    await gateway.emptied()
    assert [json.loads(seen.body)[0]["id"] for seen in instance.seen] == ["4"]
    counts = gateway.events.host.triggers.counts(key)
    assert (counts.dropped, counts.received) == (3, 1)
    assert "an event was dropped, it is too large: its data is more than 2000000 bytes" in caplog.text
    await bodies(gateway, 0)
    with pytest.raises(TooLargeError):
        await emit(gateway, key, event(1, TEXT))


async def test_a_batch_is_closed_by_its_bytes(make: MakeEvents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeder, "BATCH_BYTES", 3_000_000)
    gateway = await make()
    gateway.rig.function("hello")
    key = trigger(gateway, batch={"size": 100, "windowSeconds": 300})
    instance = await gateway.rig.instance("hello")
    events = [event(number, TEXT if number % 2 else RAW) for number in range(1, 5)]
    await emit(gateway, key, events[0])
    await gateway.until(lambda: len(instance.seen) == 1)  # it is a batch by itself
    for one in events[1:]:  # one after the other, so that the stream has them in this order
        await emit(gateway, key, one)
    await gateway.until(lambda: len(instance.seen) == 3)
    got = [json.loads(seen.body) for seen in instance.seen]
    assert sorted([found["id"] for found in batch] for batch in got) == [["1"], ["2"], ["3"]]
    assert sorted((found for batch in got for found in batch), key=lambda found: str(found["id"])) == [
        one.to_json() for one in events[:3]
    ]
    await gateway.events.drain(1.0)  # the fourth is given back: its batch is not full


async def test_messages_in_hand_are_bounded_by_their_bytes(make: MakeEvents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeder, "LANE_BYTES", 3_000_000)
    monkeypatch.setattr("kappa_gateway.events.delivery.pull.MOST_BYTES", 3_000_000)
    gateway = await make()
    gateway.rig.function("hello")
    held: list[int] = []

    async def note(seen: Seen) -> bytes:
        held.append(gateway.events._shop.held)
        return reply()

    key = trigger(gateway)
    for number in range(20):
        await emit(gateway, key, event(number, "z" * 800_000))
    instance = await gateway.rig.instance("hello", answers(note), concurrency=10)
    await gateway.emptied()
    assert len(instance.seen) == 20
    assert max(held) <= 7_000_000
    await gateway.until(lambda: gateway.events._shop.held == 0)


async def test_a_gateway_holds_a_few_chunks_of_a_very_large_event(make: MakeEvents) -> None:
    gateway = await make(stored_bytes=100 * MIB)
    gateway.rig.function("hello", timeoutSeconds=60)
    digest, total = hashlib.sha256(), 0

    async def swallow(seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal total
        left = int(seen.get("content-length"))
        if seen.get("expect"):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while left:
            piece = await reader.read(min(left, 65536))
            assert piece
            left, total = left - len(piece), total + len(piece)
            digest.update(piece)
        writer.write(reply())

    await gateway.rig.instance("hello", swallow, read_body=False)
    key, sent = trigger(gateway), event(1, bytes(range(256)) * 4096 * 64)
    wanted = hashlib.sha256(json.dumps([sent.to_json()], separators=(",", ":")).encode()).hexdigest()
    tracemalloc.start()
    try:
        await emit(gateway, key, sent)
        await gateway.emptied()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total > 85 * MIB
    assert digest.hexdigest() == wanted
    assert peak < 8 * MIB, f"{peak / MIB:.1f} MiB"
    await bodies(gateway, 0)


async def pieces() -> AsyncIterator[bytes]:
    yield b"x" * MIB
    yield b"y" * MIB


async def test_a_cancelled_call_leaves_no_body(make: MakeEvents) -> None:
    gateway = await make()
    gateway.rig.function("hello", **{"async": {"suspend": True}})
    accepted = await gateway.accept("hello", b"", pieces=pieces())
    await bodies(gateway, 1)
    await gateway.events.cancel(accepted.id)
    await bodies(gateway, 0)


async def test_a_call_whose_answer_was_lost_keeps_its_body(make: MakeEvents) -> None:
    """It was accepted, though its caller does not know it: with the same key it is the same call, and whole."""
    gateway = await make()
    gateway.rig.function("hello")
    bus = gateway.events.bus
    publish = bus.publish

    async def lost(subject: str, *rest: Any, **more: Any) -> Receipt:
        found = await publish(subject, *rest, **more)
        if subject.startswith("kappa.work."):
            bus.publish = publish  # type: ignore[method-assign]
            raise UnsureError("no answer")
        return found

    bus.publish = lost  # type: ignore[method-assign]
    with pytest.raises(UnsureError):
        await gateway.accept("hello", b"", pieces=pieces(), key="k")
    accepted = await gateway.accept("hello", b"", pieces=pieces(), key="k")
    await bodies(gateway, 1)
    instance = await gateway.rig.instance("hello")
    assert (await gateway.final(accepted.id)).state == "succeeded"
    assert [len(seen.body) for seen in instance.seen] == [2 * MIB]
    await bodies(gateway, 0)
