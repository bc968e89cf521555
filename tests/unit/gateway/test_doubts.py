"""What becomes of an instance that was late, in virtual time: the whole gateway, callers and instances in memory."""

from collections.abc import Iterator

import pytest
from kappa_gateway_world import OK, GatewayWorld, Host, Sent
from prometheus_client.core import CollectorRegistry

from kappa_gateway.deadlines import SLOT_SECONDS
from kappa_gateway.dispatch import Instance
from kappa_gateway.doubts import AGAIN_SECONDS, ASK_SECONDS
from kappa_gateway.metrics import GatewayCollector
from kappa_gateway.states import DOUBTED, DRAINING, HUNG, SERVING

TIMEOUT = 5
#: How much later than its deadline a call is ended at most.
LATEST = 3 * SLOT_SECONDS
KEY = "default/one"


@pytest.fixture
def world() -> Iterator[GatewayWorld]:
    world = GatewayWorld()
    world.function("one", timeout=TIMEOUT)
    yield world
    world.close()


def instance_of(world: GatewayWorld, host: Host) -> Instance:
    return world.gateway.catalog.functions[KEY].queue.instances[f"default/{host.name}"]


def outcome(request: Sent) -> tuple[int, str]:
    return request.status, request.code


def until_late(world: GatewayWorld, method: str = "GET", concurrency: int = 1) -> tuple[Host, Sent]:
    """An instance, and a call there that has just passed its deadline."""
    host = world.pod("one", concurrency)
    host.hung = True
    call = world.send("one", method)
    world.loop.pass_(TIMEOUT + LATEST)
    assert outcome(call) == (504, "deadline")
    return host, call


def answering(world: GatewayWorld, seconds: float) -> None:
    """Time passes, and instances answer the questions whether they live."""
    for _ in range(round(seconds / 0.1)):
        world.look()
        world.loop.pass_(0.1)


def serve(world: GatewayWorld) -> None:
    """The instances answer what they have."""
    for host, exchange in world.look():
        host.reply(exchange, OK)
    world.loop.settle()


@pytest.mark.parametrize("concurrency", [1, 10])
def test_the_free_slots_of_a_hung_instance_are_nobodys(world: GatewayWorld, concurrency: int) -> None:
    host, _ = until_late(world, concurrency=concurrency)
    assert instance_of(world, host).state is DOUBTED
    waiting = world.send("one")
    assert instance_of(world, host).in_service == 0
    world.loop.pass_(ASK_SECONDS)
    assert instance_of(world, host).state is HUNG
    assert world.gateway.stats().hung == (f"default/{host.name}",)
    other = world.pod("one", 1)
    world.look()
    assert len(other.pending) == 1
    serve(world)
    assert outcome(waiting) == (200, "")


def test_a_slow_one_is_asked_once_and_goes_on(world: GatewayWorld) -> None:
    host = world.pod("one", 1)
    call = world.send("one")
    world.loop.pass_(TIMEOUT + LATEST)
    assert outcome(call) == (504, "deadline")
    waiting = world.send("one")
    serve(world)  # the question: the slow call has lost its connection
    assert host.asked == 1
    assert instance_of(world, host).state is SERVING
    world.look()
    serve(world)
    assert outcome(waiting) == (200, "")
    assert world.gateway.stats().hung == ()


def test_whoever_goes_on_after_all_serves_again(world: GatewayWorld) -> None:
    host, _ = until_late(world)
    world.loop.pass_(ASK_SECONDS)
    host.hung = False
    answering(world, AGAIN_SECONDS + 0.2)
    assert instance_of(world, host).state is SERVING
    assert world.gateway.stats().hung == ()
    assert repr(world.gateway.doubts) == "<Doubts 0 asked, 0 hung>"


def test_an_answer_to_a_call_shows_as_well_that_it_lives(world: GatewayWorld) -> None:
    host = world.pod("one", 2)
    host.hung = True
    world.send("one")
    world.loop.pass_(3)
    second = world.send("one")
    world.loop.pass_(TIMEOUT - 3 + LATEST + ASK_SECONDS)
    assert instance_of(world, host).state is HUNG
    host.hung = False
    host.look()
    (exchange,) = (one for one in host.pending.values() if not one.wire.closed)
    host.reply(exchange, OK)
    world.loop.settle()
    assert outcome(second) == (200, "")
    assert instance_of(world, host).state is SERVING


def test_what_is_in_it_is_ended_with_it(world: GatewayWorld) -> None:
    """Also when its node is lost, and no process is left that would end the connections."""
    host = world.pod("one", 3)
    host.hung = True
    world.send("one")
    world.loop.pass_(TIMEOUT - 1)
    again, lost = world.send("one"), world.send("one", "POST")
    world.loop.pass_(1 + LATEST + ASK_SECONDS)
    assert instance_of(world, host).state is HUNG
    other = world.pod("one", 2)
    world.show(host, "draining")
    assert instance_of(world, host).state is DRAINING
    world.loop.pass_(AGAIN_SECONDS)
    world.look()
    assert len(other.pending) == 1
    serve(world)
    assert outcome(again) == (200, "")
    assert outcome(lost) == (502, "instance_died")


def test_a_connection_that_is_not_taken_costs_one_call_a_second(world: GatewayWorld) -> None:
    lost = world.pod("one", 1)
    world.loop.silent.add(lost.address)
    first = world.send("one", "POST")
    other = world.pod("one", 1)
    world.loop.pass_(world.gateway.settings.connect_seconds + 0.01)
    world.look()
    assert len(other.pending) == 1
    serve(world)
    assert outcome(first) == (200, "")
    world.loop.pass_(ASK_SECONDS)
    assert instance_of(world, lost).state is HUNG
    for _ in range(5):
        call = world.send("one", "POST")
        world.look()
        serve(world)
        assert outcome(call) == (200, "")
    world.loop.silent.clear()
    answering(world, AGAIN_SECONDS + ASK_SECONDS)
    assert instance_of(world, lost).state is SERVING


def test_a_server_that_is_not_ours_is_only_connected_to(world: GatewayWorld) -> None:
    host = world.pod("one", 1, runtime="")
    call = world.send("one")
    world.loop.pass_(TIMEOUT + LATEST)
    assert outcome(call) == (504, "deadline")
    assert instance_of(world, host).state is SERVING
    assert host.asked == 0


def test_the_metrics_name_the_function(world: GatewayWorld) -> None:
    until_late(world)
    world.loop.pass_(ASK_SECONDS)
    registry = CollectorRegistry()
    registry.register(GatewayCollector(world.gateway))
    labels = {"namespace": "default", "function": "one"}
    assert registry.get_sample_value("kappa_gateway_hung_instances", labels) == 1
    assert registry.get_sample_value("kappa_gateway_questions_total", {"answer": "silent"}) == 1
