"""The delivery in virtual time: what real servers and clocks make slow or rare."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
from kappa_delivery_world import LANE, OK, DeliveryWorld
from kappa_gateway_world import FAILED, refusal

from kappa_gateway.events.delivery.pull import EXPIRES_SECONDS


@pytest.fixture
def world() -> Iterator[DeliveryWorld]:
    world = DeliveryWorld()
    yield world
    world.close()


def test_a_retry_waits_a_minute_then_two(world: DeliveryWorld) -> None:
    work = world.accept()
    world.pod("hello", 1)
    times = []
    for answer in (FAILED, FAILED, FAILED):
        for _ in range(400):
            if world.look():
                break
            world.pass_(0.5)
        ((found, host, exchange),) = world.runs()
        assert found == work
        times.append(world.loop.time())
        host.reply(exchange, answer)
        world.loop.settle()
    assert [round(after - before) for before, after in pairwise(times)] == [60, 120]
    record = world.record(work)
    assert record is not None
    assert (record.state, record.attempts, record.cause) == ("failed", 3, "retries_exhausted")
    assert len(world.nats.dead) == 1
    assert not world.nats.work


def test_work_in_hand_is_spoken_for_however_long_it_runs(world: DeliveryWorld) -> None:
    world.function("hello", generation=2, timeout=600)
    world.accept()
    world.pod("hello", 1)
    ((_, host, exchange),) = world.runs()
    world.pass_(500.0)
    assert world.nats.consumers["async_default_hello"].given == {1: 1}
    host.reply(exchange, OK)
    world.loop.settle()
    assert not world.nats.work


def test_what_a_crashed_gateway_had_is_handed_out_again_after_ack_wait(world: DeliveryWorld) -> None:
    work = world.accept()
    world.pod("hello", 1)
    assert len(world.runs()) == 1
    world.crash()
    world.begin()
    world.pass_(14.0)
    assert world.runs() == []
    world.pass_(2.0)
    ((found, host, exchange),) = world.runs()
    host.reply(exchange, OK)
    world.loop.settle()
    assert found == work
    record = world.record(work)
    assert record is not None
    assert (record.state, record.attempts) == ("succeeded", 1)


def test_an_outcome_that_cannot_be_written_is_kept_until_it_can(world: DeliveryWorld) -> None:
    """JetStream hands the work out again when it is back: it is known here, and runs no second time."""
    work = world.accept()
    world.pod("hello", 1)
    ((_, host, exchange),) = world.runs()
    world.leave()
    host.reply(exchange, OK)
    world.pass_(60.0)
    assert world.record(work) is None
    world.come_back()
    world.pass_(2.0)
    record = world.record(work)
    assert record is not None
    assert record.state == "succeeded"
    assert not world.nats.work
    assert world.runs() == []


def test_refusals_are_no_attempts_and_each_slot_brings_the_whole_deadline(world: DeliveryWorld) -> None:
    """Other gateways use the same instances: they refuse what is beyond their concurrency."""
    world.function("hello", generation=2, timeout=2)
    work = world.accept()
    world.pod("hello", 1)
    for _ in range(10):
        ((_, host, exchange),) = world.runs()
        world.pass_(1.5)
        host.reply(exchange, refusal("busy"))
        world.pass_(0.5)
    ((_, host, exchange),) = world.runs()
    host.reply(exchange, OK)
    world.loop.settle()
    record = world.record(work)
    assert record is not None
    assert (record.state, record.attempts) == ("succeeded", 1)


def test_a_request_for_work_is_renewed_for_ever(world: DeliveryWorld) -> None:
    world.pod("hello", 1)
    world.pass_(3 * EXPIRES_SECONDS)
    world.accept()
    ((_, host, exchange),) = world.runs()
    host.reply(exchange, OK)
    world.loop.settle()
    assert not world.nats.work


def test_a_consumer_that_was_made_anew_does_not_forget_attempts(world: DeliveryWorld) -> None:
    """Nobody asked for ten minutes: JetStream has dropped the consumer, and hands out what waits for its next attempt
    as if it were new."""
    work = world.accept()
    world.pod("hello", 1)
    ((_, host, exchange),) = world.runs()
    host.reply(exchange, FAILED)
    world.loop.settle()
    world.crash()
    world.nats.consumers.clear()
    world.pass_(5.0)
    world.begin()
    world.pass_(54.0)
    assert world.runs() == [], "before its time"
    world.pass_(1.5)
    ((_, host, exchange),) = world.runs()
    assert b"kappa-attempt: 1\r\n" in exchange.data
    host.reply(exchange, OK)
    world.loop.settle()
    record = world.record(work)
    assert record is not None
    assert (record.state, record.attempts) == ("succeeded", 2)


def test_no_more_is_fetched_than_could_run(world: DeliveryWorld) -> None:
    for _ in range(100):
        world.accept()
    assert world.engine is not None
    assert len(world.engine.shop.items) == 20  # maxReplicas, of concurrency 1
    queue = world.gateway.catalog.functions[LANE.key].queue
    assert (queue.waiting, queue.callers_waiting) == (20, 0)


def test_what_is_handed_out_again_while_it_runs_here_runs_once(world: DeliveryWorld) -> None:
    """Nobody could speak for it while NATS was away; the acknowledgement goes with the newest delivery."""
    world.function("hello", generation=2, timeout=600)
    world.accept()
    world.pod("hello", 2)
    ((_, host, exchange),) = world.runs()
    world.leave()
    world.pass_(60.0)
    world.come_back()
    assert world.nats.consumers["async_default_hello"].given == {1: 2}
    assert len(world.runs()) == 1
    host.reply(exchange, OK)
    world.loop.settle()
    assert not world.nats.work
