"""Results, cancelling, idempotency keys and bodies too large for a message."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from kappa_events_rig import EventsRig, MakeEvents, answers
from kappa_gateway_rig import Seen, reply

from kappa_gateway.events.submit import MismatchError, public_id, split_id


async def test_the_state_is_told_from_queued_to_the_end(make: MakeEvents) -> None:
    gateway = await make()
    gateway.rig.function("hello")
    go = asyncio.Event()

    async def slow(seen: Seen) -> bytes:
        await go.wait()
        return reply()

    accepted = await gateway.accept("hello")
    assert await _state(gateway, accepted.id) == "queued"
    await gateway.rig.instance("hello", answers(slow))
    await gateway.until(lambda: gateway.rig.queue("hello").in_service == 1)
    assert await _state(gateway, accepted.id) == "running"
    waiting = asyncio.ensure_future(gateway.events.results.wait(accepted.id, 20))
    await asyncio.sleep(0.05)
    go.set()
    record = await waiting
    assert record is not None
    assert record.state == "succeeded"


async def test_an_id_says_nothing_of_others(make: MakeEvents) -> None:
    gateway = await make()
    gateway.rig.function("hello")
    accepted = await gateway.accept("hello")
    work_id, seq = split_id(accepted.id)
    assert public_id(work_id, seq) == accepted.id
    assert await gateway.events.results.find(public_id("0" * 32, seq)) is None
    for bad in ("", "x", work_id, work_id.upper() + "-1", work_id + "-", work_id + "-$", f"{work_id}-1-1"):
        with pytest.raises(ValueError, match="id"):
            await gateway.events.results.find(bad)


@pytest.mark.parametrize("suspend", [False, True], ids=["in hand", "in the stream"])
async def test_what_has_not_begun_can_be_cancelled(make: MakeEvents, suspend: bool) -> None:
    gateway, other = await make(), await make()
    for one in (gateway, other):
        one.rig.function("hello", generation=1, **{"async": {"suspend": suspend}})
    accepted = await gateway.accept("hello")
    await gateway.until(lambda: suspend or gateway.events.in_hand + other.events.in_hand == 1)
    record = await other.events.cancel(accepted.id)
    assert record is not None
    assert record.state == "cancelled"
    await gateway.emptied()
    assert await _state(gateway, accepted.id) == "cancelled"
    await other.crash()  # it knows of no instance, and would keep what it gets
    instance = await gateway.rig.instance("hello")
    gateway.rig.function("hello", generation=2)
    await gateway.final((await gateway.accept("hello")).id)
    assert len(instance.seen) == 1
    assert (await gateway.events.cancel(accepted.id)).state == "cancelled"  # type: ignore[union-attr]


async def test_what_runs_or_has_ended_cannot_be_cancelled(make: MakeEvents) -> None:
    gateway = await make()
    gateway.rig.function("hello")
    go = asyncio.Event()

    async def slow(seen: Seen) -> bytes:
        await go.wait()
        return reply()

    await gateway.rig.instance("hello", answers(slow))
    accepted = await gateway.accept("hello")
    await gateway.until(lambda: gateway.rig.queue("hello").in_service == 1)
    assert (await gateway.events.cancel(accepted.id)).state == "running"  # type: ignore[union-attr]
    go.set()
    assert (await gateway.final(accepted.id)).state == "succeeded"
    assert (await gateway.events.cancel(accepted.id)).state == "succeeded"  # type: ignore[union-attr]
    assert await gateway.events.cancel(public_id("0" * 32, 1)) is None


async def test_what_waits_for_its_next_attempt_can_be_cancelled(make: MakeEvents) -> None:
    gateway = await make()
    gateway.rig.function("hello", **{"async": {"backoff": {"seconds": 3600}}})
    await gateway.rig.instance("hello", answers(reply(500)))
    accepted = await gateway.accept("hello")

    async def retrying() -> bool:
        return await _state(gateway, accepted.id) == "retrying"

    await gateway.until(retrying)
    await gateway.until(lambda: gateway.events.in_hand == 0)
    assert (await gateway.events.cancel(accepted.id)).state == "cancelled"  # type: ignore[union-attr]
    await gateway.emptied()


async def test_the_same_key_is_the_same_invocation(make: MakeEvents) -> None:
    gateway = await make()
    gateway.rig.function("hello")
    instance = await gateway.rig.instance("hello")
    first = await gateway.accept("hello", b"1", key="k")
    again = await gateway.accept("hello", b"1", key="k")
    assert (first.replayed, again.replayed, again.id) == (False, True, first.id)
    with pytest.raises(MismatchError):
        await gateway.accept("hello", b"2", key="k")
    other = await gateway.accept("hello", b"1", key="k", caller="somebody else")
    assert other.id != first.id
    both = await asyncio.gather(*(gateway.accept("hello", b"3", key="at once") for _ in range(5)))
    assert len({one.id for one in both}) == 1
    for one in (first, other, both[0]):
        assert (await gateway.final(one.id)).state == "succeeded"
    await gateway.emptied()
    assert len(instance.seen) == 3


async def test_a_large_body_is_stored_and_thrown_away_when_it_is_done(make: MakeEvents) -> None:
    gateway = await make()
    gateway.rig.function("hello", **{"async": {"backoff": {"seconds": 0}}})
    instance = await gateway.rig.instance("hello", answers(reply(500), reply(200)))
    body = bytes(range(256)) * 12_345  # 3 MB, and no whole number of chunks

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 65_521):
            yield body[start : start + 65_521]

    accepted = await gateway.accept("hello", b"", pieces=pieces())
    record = await gateway.final(accepted.id)
    assert (record.state, record.attempts) == ("succeeded", 2)
    assert [seen.body == body for seen in instance.seen] == [True, True]

    async def gone() -> bool:
        return await gateway.stored("OBJ_kappa-bodies") == 0

    await gateway.until(gone)


async def test_a_body_that_does_not_come_to_its_end_leaves_nothing(make: MakeEvents) -> None:
    gateway = await make()
    gateway.rig.function("hello")

    async def pieces() -> AsyncIterator[bytes]:
        yield b"x" * 500_000
        raise ConnectionError("the caller left")

    with pytest.raises(ConnectionError):
        await gateway.accept("hello", b"", pieces=pieces())
    assert await gateway.stored("OBJ_kappa-bodies") == 0
    assert await gateway.stored() == 0


async def _state(gateway: EventsRig, public: str) -> str:
    record = await gateway.events.results.find(public)
    return record.state if record is not None else ""
