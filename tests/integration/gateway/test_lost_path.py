"""An instance whose connections are not taken: a lost node, or a process that hangs and whose queue of them is full."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from kappa_gateway_rig import Rig, running

from kappa_gateway.retry import Outcome
from kappa_gateway.states import DOUBTED, HUNG, SERVING

CONNECT_SECONDS = 0.2


class Full:
    """A listening socket whose queue of connections is full: the kernel drops what else comes, and says nothing."""

    def __init__(self, address: str, port: int, stack: ExitStack) -> None:
        self.listener = stack.enter_context(socket.create_server((address, port), backlog=0))
        self.waiting: list[socket.socket] = []
        for _ in range(20):
            client = stack.enter_context(socket.socket())
            client.settimeout(CONNECT_SECONDS)
            try:
                client.connect((address, port))
            except TimeoutError:
                client.close()  # it would take the place that is free later
                return
            self.waiting.append(client)
        pytest.fail("the queue of connections does not become full")

    def empty(self) -> None:
        """The process goes on, and takes them."""
        for _ in self.waiting:
            self.listener.accept()[0].close()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


async def test_what_it_does_not_take_goes_elsewhere_and_nothing_more_is_tried(stack: ExitStack) -> None:
    async with running(connect_seconds=CONNECT_SECONDS) as rig:
        rig.function()
        lost = await rig.instance(listen=False)
        full = Full(lost.address, lost.port, stack)
        instance = next(iter(rig.queue().instances.values()))
        caller = await rig.caller()
        caller.send("POST /fn/default/hello HTTP/1.1\r\nhost: gw\r\ncontent-length: 2\r\n\r\nhi")
        await rig.until(lambda: instance.state is DOUBTED)
        other = await rig.instance()
        assert (await caller.answer()).status == 200
        assert [seen.body for seen in other.seen] == [b"hi"]
        assert rig.gateway.retries[Outcome.UNTAKEN] == 1
        await rig.until(lambda: instance.state is HUNG)
        await several(rig)
        assert rig.gateway.retries[Outcome.UNTAKEN] == 1
        full.empty()
        await rig.until(lambda: instance.state is SERVING)
        await rig.settled()


async def several(rig: Rig) -> None:
    for _ in range(5):
        assert (await rig.get("/fn/default/hello", method="POST", body=b"hi")).status == 200
