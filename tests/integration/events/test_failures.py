"""Gateways and NATS servers that die with work in hand: nothing is lost, and it goes on by itself."""

import asyncio

import pytest
from kappa_events_rig import EventsRig, MakeEvents, answers, events_running
from kappa_gateway_rig import Seen, reply
from kappa_nats import NatsCluster, NatsServer
from kappa_processes import freeze, thaw

from kappa_gateway.events.bus import UnavailableError


async def test_work_of_a_gateway_that_died_is_taken_over(make: MakeEvents) -> None:
    first, second = await make(ack_seconds=2.0), await make(ack_seconds=2.0)
    for gateway in (first, second):
        gateway.rig.function("hello")
    accepted = [await first.accept("hello") for _ in range(10)]
    await first.until(lambda: first.events.in_hand + second.events.in_hand == 10)
    assert first.events.in_hand
    await first.crash()
    await second.rig.instance("hello")
    records = [await second.final(one.id, 30) for one in accepted]
    assert {(record.state, record.attempts) for record in records} == {("succeeded", 1)}
    await second.emptied()


async def test_a_gateway_that_ends_in_order_gives_back_what_waits_and_finishes_what_runs(make: MakeEvents) -> None:
    first = await make(ack_seconds=60.0)
    first.rig.function("hello")
    go = asyncio.Event()

    async def slow(seen: Seen) -> bytes:
        await go.wait()
        return reply(200, b"first")

    running = await first.rig.instance("hello", answers(slow))
    accepted = [await first.accept("hello") for _ in range(5)]
    await first.until(lambda: len(running.seen) == 1 and first.rig.queue("hello").waiting == 4)
    second = await make(ack_seconds=60.0)  # not sooner: it would have taken some
    draining = asyncio.ensure_future(first.events.drain(60.0))
    await first.until(lambda: first.events.in_hand == 1)
    second.rig.function("hello")
    await second.rig.instance("hello", answers(reply(200, b"second")))
    tally = second.events.ledger.at("async", "default/hello")
    await second.until(lambda: tally.succeeded == 4)
    go.set()
    await draining
    records = [await second.final(one.id) for one in accepted]
    assert {(record.state, record.attempts) for record in records} == {("succeeded", 1)}
    assert sorted(record.result["body"] for record in records if record.result) == ["first", *["second"] * 4]
    await second.emptied()


async def test_while_nats_is_away_nothing_is_accepted_and_after_it_all_goes_on(
    make: MakeEvents, nats: NatsServer
) -> None:
    gateway = await make()
    gateway.rig.function("hello")
    accepted = [await gateway.accept("hello") for _ in range(20)]
    await gateway.until(lambda: gateway.rig.queue("hello").waiting == 20)
    await nats.kill()
    await gateway.until(lambda: not gateway.events.bus.up)
    with pytest.raises(UnavailableError):
        await asyncio.wait_for(gateway.accept("hello"), 0.5)
    instance = await gateway.rig.instance("hello")
    await gateway.until(lambda: len(instance.seen) == 20)  # what is in hand runs meanwhile
    assert (await gateway.rig.get("/fn/default/hello")).status == 200
    await nats.start()
    await asyncio.wait_for(_again(gateway), 5)
    records = [await gateway.final(one.id) for one in accepted]
    assert {(record.state, record.attempts) for record in records} == {("succeeded", 1)}
    await gateway.emptied()
    assert len(instance.seen) == 20 + 1 + 1, "something ran twice"


async def test_work_that_waits_in_the_stream_outlives_the_server(make: MakeEvents, nats: NatsServer) -> None:
    gateway = await make()
    gateway.rig.function("hello", generation=1, **{"async": {"suspend": True}})
    accepted = [await gateway.accept("hello") for _ in range(20)]
    await nats.restart()
    gateway.rig.function("hello", generation=2)
    await gateway.rig.instance("hello")
    for one in accepted:
        assert (await gateway.final(one.id)).state == "succeeded"


async def test_a_silent_server_is_an_outage_as_well(make: MakeEvents, nats: NatsServer) -> None:
    gateway = await make()
    gateway.rig.function("hello")
    freeze(nats.pid)
    try:
        with pytest.raises(UnavailableError, match="3 s"):
            await gateway.accept("hello")
        probe = asyncio.ensure_future(gateway.accept("hello"))
        await asyncio.sleep(0)
        with pytest.raises(UnavailableError):  # at once: one asks, the others need not wait
            await asyncio.wait_for(gateway.accept("hello"), 0.2)
    finally:
        thaw(nats.pid)
    await asyncio.gather(probe, return_exceptions=True)
    await gateway.rig.instance("hello")
    await asyncio.wait_for(_again(gateway), 10)


async def test_a_cluster_loses_a_server_and_nothing_else(tmp_path_factory: pytest.TempPathFactory) -> None:
    cluster = NatsCluster(tmp_path_factory.mktemp("cluster"))
    await cluster.start()
    try:
        async with events_running(cluster, replicas=3) as gateway:  # type: ignore[arg-type]
            gateway.rig.function("hello")
            instance = await gateway.rig.instance("hello")
            accepted = [await gateway.accept("hello") for _ in range(20)]
            await cluster.servers[0].kill()
            while len(accepted) < 60:
                try:
                    accepted.append(await gateway.accept("hello"))
                except UnavailableError:
                    await asyncio.sleep(0.05)
            await cluster.servers[0].start()
            for one in accepted:
                assert (await gateway.final(one.id, 40)).state == "succeeded"
            await gateway.emptied()
            assert len(instance.seen) >= 60
    finally:
        await cluster.stop()


async def _again(gateway: EventsRig) -> None:
    """Until something is accepted and done."""
    while True:
        try:
            accepted = await gateway.accept("hello")
            await gateway.final(accepted.id)
            return
        except UnavailableError:
            await asyncio.sleep(0.02)
