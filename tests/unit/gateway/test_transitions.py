"""What went wrong once when two things met, each in the smallest case: the whole gateway in virtual time."""

import asyncio
from collections.abc import Iterator

import pytest
from kappa_gateway_world import OK, GatewayWorld, refusal

from kappa_gateway.states import OVER


@pytest.fixture
def world() -> Iterator[GatewayWorld]:
    world = GatewayWorld()
    world.function("hello")
    yield world
    world.close()


def test_a_function_that_is_deleted_during_an_attempt_leaves_nobody_in_its_queue(world: GatewayWorld) -> None:
    """The attempt is refused, nobody is free and the function is gone: 404. The place in the queue must go, too: made
    anew before its pods were gone, the function would have given a slot to nobody, for ever."""
    host = world.pod("hello", 1)
    request = world.send("hello")
    ((_, exchange),) = world.look()
    queue = world.gateway.catalog.functions["default/hello"].queue
    world.gateway.catalog.remove_function("default/hello")
    host.reply(exchange, refusal("busy"))
    world.loop.settle()
    assert (request.status, request.code) == (404, "not_found")
    assert (queue.waiting, queue.in_service) == (0, 0)
    world.function("hello")
    world.loop.pass_(0.01)
    after = world.send("hello")
    ((_, exchange),) = world.look()
    host.reply(exchange, OK)
    world.loop.settle()
    assert after.status == 200


def test_a_function_that_is_deleted_while_a_body_comes_is_not_waited_for(world: GatewayWorld) -> None:
    request = world.send("hello", "POST", 10, first=5)
    world.gateway.catalog.remove_function("default/hello")
    world.finish(request)
    assert (request.status, request.code) == (404, "not_found")
    assert world.calls() == []


def test_one_that_is_there_again_when_the_body_has_come_serves_it(world: GatewayWorld) -> None:
    request = world.send("hello", "POST", 10, first=5)
    world.gateway.catalog.remove_function("default/hello")
    world.function("hello", uid="another")
    world.finish(request)
    world.pod("hello", 1)
    ((host, exchange),) = world.look()
    host.reply(exchange, OK)
    world.loop.settle()
    assert request.status == 200


KEYS = {"type": "apiKey", "apiKey": {"secrets": [{"name": "keys"}]}}


def test_whoever_waits_for_a_function_that_was_replaced_unseen_is_not_passed_to_the_new_one(
    world: GatewayWorld,
) -> None:
    waiting = world.send("hello")
    world.function("hello", uid="another", auth=KEYS)
    assert (waiting.status, waiting.code) == (404, "not_found")


def test_a_body_that_came_while_a_function_was_replaced_unseen_does_not_pass_the_new_ones_auth(
    world: GatewayWorld,
) -> None:
    world.pod("hello", 1)
    request = world.send("hello", "POST", 10, first=5)
    world.function("hello", uid="another", auth=KEYS)
    world.finish(request)
    assert (request.status, request.code) == (503, "not_ready")
    assert world.calls() == []


def test_whoever_waits_learns_that_the_last_instance_of_a_function_that_cannot_run_is_gone(world: GatewayWorld) -> None:
    host = world.pod("hello", 1)
    first, second = world.send("hello"), world.send("hello")
    world.look()
    world.gateway.catalog.functions["default/hello"].fault = "the function cannot run (LoadFailed)"
    world.remove(host)
    assert {first.code, second.code} == {"not_ready"}
    assert world.calls() == []


def test_a_body_that_comes_for_a_function_that_cannot_run_is_not_waited_for(world: GatewayWorld) -> None:
    request = world.send("hello", "POST", 10, first=5)
    world.gateway.catalog.functions["default/hello"].fault = "the function cannot run (LoadFailed)"
    world.finish(request)
    assert (request.status, request.code) == (503, "not_ready")


def test_a_deadline_that_passes_as_a_slot_becomes_free(world: GatewayWorld) -> None:
    """Between the deadline and the wheel's turn: the slot goes to the next one, the answer is the deadline's."""
    world.pod("hello", 1)
    first = world.send("hello")
    world.loop.pass_(0.031)
    second = world.send("hello")
    world.loop.run_until_complete(asyncio.sleep(second.arrived + 2.0 - world.loop.time()))
    third = world.send("hello")
    waiting = next(call for call in world.calls() if not call.instance and call.deadline == second.arrived + 2.0)
    world.give_up(first)
    assert waiting.place is OVER
    world.loop.pass_(0.1)
    assert (second.status, second.code) == (503, "no_capacity")
    ((host, exchange),) = world.look()
    host.reply(exchange, OK)
    world.loop.settle()
    assert third.status == 200


def test_a_caller_that_leaves_at_any_moment_frees_one_slot_once(world: GatewayWorld) -> None:
    world.pod("hello", 2)
    queue = world.gateway.catalog.functions["default/hello"].queue
    stay = world.send("hello")
    for moment in ("sent", "refused", "answered", "streaming"):
        leaver = world.send("hello")
        host, exchange = world.look()[-1]
        if moment == "refused":
            host.reply(exchange, refusal("busy"))
        elif moment == "answered":
            host.reply(exchange, OK)
        elif moment == "streaming":
            host.reply(exchange, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n", last=False)
        world.give_up(leaver)
        assert queue.in_service == 1, moment
        assert queue.waiting == 0, moment
        world.loop.pass_(0.1)
    assert not stay.done


@pytest.mark.parametrize("late", [0.0, 0.5])
def test_a_large_body_goes_elsewhere_when_an_instance_refuses_it_late(world: GatewayWorld, late: float) -> None:
    """No byte of it is sent before the instance says that it takes the invocation."""
    first = world.pod("hello", 1)
    request = world.send("hello", "POST", 300_000)
    ((host, exchange),) = world.look()
    assert host is first
    world.loop.pass_(late)
    assert b"expect: 100-continue\r\n" in exchange.wire.sent
    assert exchange.wire.sent.endswith(b"\r\n\r\n")
    second = world.pod("hello", 1)
    host.reply(exchange, refusal("busy"))
    world.loop.settle()
    ((host, exchange),) = world.look()
    assert host is second
    exchange.wire.feed(b"HTTP/1.1 100 Continue\r\n\r\n")
    world.loop.settle()
    assert bytes(exchange.wire.sent).partition(b"\r\n\r\n")[2] == b"x" * 300_000
    host.reply(exchange, OK)
    world.loop.settle()
    assert request.status == 200


def test_who_never_says_that_it_wants_a_body_gets_it_after_a_while(world: GatewayWorld) -> None:
    world.pod("hello", 1)
    world.send("hello", "POST", 300_000)
    ((_, exchange),) = world.look()
    world.loop.pass_(0.9)
    assert b"x" not in bytes(exchange.wire.sent).partition(b"\r\n\r\n")[2]
    world.loop.pass_(0.2)
    assert len(exchange.wire.sent) > 300_000


def test_a_reply_before_the_body_is_asked_for_does_not_keep_it_back(world: GatewayWorld) -> None:
    """A function may answer first and read then."""
    world.pod("hello", 1)
    request = world.send("hello", "POST", 300_000)
    ((host, exchange),) = world.look()
    host.reply(exchange, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n", last=False)
    world.loop.settle()
    assert len(exchange.wire.sent) > 300_000
    host.reply(exchange, b"0\r\n\r\n")
    world.loop.settle()
    assert request.status == 200
