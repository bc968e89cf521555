"""What keeps a delivery cheap: acknowledgements said together, a feeder that is not woken for nothing, no cycles."""

import gc
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from kappa_virtual import VirtualLoop

from kappa_gateway.events.delivery.acks import SOON_MOST, SOON_SECONDS, Acks
from kappa_gateway.events.delivery.feeder import Feeder
from kappa_gateway.events.delivery.invoke import Sink
from kappa_gateway.events.work import ASYNC, Lane


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    made = VirtualLoop()
    yield made
    made.stop_all()


class Bus:
    def __init__(self) -> None:
        self.told: list[str] = []

    async def tell(self, subject: str, body: bytes) -> None:
        assert body == b"+ACK"
        self.told.append(subject)


async def said(acks: Acks, *replies: str) -> None:
    for reply in replies:
        acks.soon(reply)


def test_acknowledgements_that_need_no_answer_are_said_together(loop: VirtualLoop) -> None:
    bus: Any = Bus()
    acks = Acks(bus)
    loop.run_until_complete(said(acks, "a", "b"))
    assert bus.told == []
    loop.pass_(SOON_SECONDS)
    assert bus.told == ["a", "b"]
    loop.run_until_complete(said(acks, "c"))
    loop.pass_(SOON_SECONDS)
    assert bus.told == ["a", "b", "c"]


def test_many_do_not_wait(loop: VirtualLoop) -> None:
    bus: Any = Bus()
    acks = Acks(bus)
    names = [str(number) for number in range(SOON_MOST)]
    loop.run_until_complete(said(acks, *names))
    loop.settle(50)
    assert bus.told == names


def test_a_gateway_that_ends_says_what_is_left(loop: VirtualLoop) -> None:
    bus: Any = Bus()
    acks = Acks(bus)
    loop.run_until_complete(said(acks, "a"))
    loop.run_until_complete(acks.flush())
    assert bus.told == ["a"]
    loop.pass_(1)
    assert bus.told == ["a"]


@pytest.mark.parametrize(
    ("most", "mine", "left", "woken"),
    [
        (0, 0, 0, True),  # nothing is known yet
        (0, 3, 5, True),  # its bytes are many: each that ends makes room
        (200, 3, 197, False),  # all that it may have, it has or has asked for
        (200, 0, 160, False),
        (200, 0, 150, True),  # a quarter is free
        (200, 200, 0, True),  # nothing more would come
        (1, 1, 1, False),
        (1, 0, 1, False),
    ],
)
def test_a_feeder_is_woken_only_when_it_would_ask(most: int, mine: int, left: int, woken: bool) -> None:
    pull = SimpleNamespace(left=left, news=None)
    pulls: Any = SimpleNamespace(make=lambda lane, took: pull)
    shop: Any = SimpleNamespace()
    feeder = Feeder(shop, pulls, Lane(ASYNC, "default", "f"), lambda feeder: None)
    feeder._most, feeder._mine = most, mine
    feeder.nudge()
    assert feeder._news.is_set() == woken


def test_an_answer_is_gone_with_its_invocation() -> None:
    gc.disable()
    try:
        sink = Sink(None, b"kappa")
        sink.send(b"HTTP/1.1 200 OK\r\nkappa-error: Boom\r\n\r\nbody")
        outcome = sink.outcome(200, 0.1)
        seen = weakref.ref(sink)
        assert sink.transport is sink
        del sink
        assert seen() is None
    finally:
        gc.enable()
    assert (outcome.error, outcome.body) == ("Boom", b"body")
