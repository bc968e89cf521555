"""How soon sources and lanes go on after an outage: who is silent is given up, what was asked for is asked for anew
when NATS is there, and a gateway that died is told from one that is busy. On virtual time, without a server."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from kappa_virtual import VirtualLoop
from nats.aio.msg import Msg
from nats.errors import NoRespondersError

from kappa_gateway.events.bus import UnavailableError
from kappa_gateway.events.delivery.pull import HEARTBEAT_SECONDS, SILENT_SECONDS, Pulls
from kappa_gateway.events.members import ASK_SECONDS, DEAD_ANSWERS, DEAD_SECONDS, SUSPECT_SECONDS, Members
from kappa_gateway.events.source import SourceError
from kappa_gateway.events.sources import nats_pull
from kappa_gateway.events.sources.nats_link import Link
from kappa_gateway.events.sources.nats_pull import Puller
from kappa_gateway.events.work import ASYNC, Lane


class Nats:
    """A connection that takes everything. `listening`: subjects at which somebody answers; `busy`: at which somebody is
    and does not."""

    is_closed = False

    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []
        self.callbacks: dict[str, Callable[[Msg], Awaitable[None]]] = {}
        self.listening: set[str] = set()
        self.busy: set[str] = set()

    def new_inbox(self) -> str:
        return f"_INBOX.{len(self.callbacks)}"

    async def subscribe(self, subject: str, cb: Any, **_: Any) -> Any:
        async def unsubscribe() -> None:
            self.callbacks.pop(subject, None)

        self.callbacks[subject] = cb
        return SimpleNamespace(unsubscribe=unsubscribe)

    async def publish(self, subject: str, body: bytes = b"", reply: str = "", **_: Any) -> None:
        self.sent.append((subject, reply))

    async def request(self, subject: str, body: bytes, timeout: float) -> Msg:
        if subject in self.listening:
            return Msg(self, subject)  # type: ignore[arg-type]
        if subject in self.busy:
            await asyncio.sleep(timeout)
            raise TimeoutError
        raise NoRespondersError


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    made = VirtualLoop()
    yield made
    made.stop_all()


def status(code: str, words: str = "") -> Msg:
    headers = {"Status": code, "Description": words}
    return Msg(None, "", headers=headers)  # type: ignore[arg-type]


# --- reading from a consumer ------------------------------------------------------------------------------------------
class Reading:
    """A puller that waits for messages of the platform's own servers, or of others."""

    def __init__(self, loop: VirtualLoop, *, own: bool = True) -> None:
        self.loop, self.nats = loop, Nats()
        self.link = Link(self.nats, asyncio.Event(), own)  # type: ignore[arg-type]
        self.puller = Puller(self.link, "S", "c")
        self.task = loop.create_task(self._read())
        loop.settle(50)

    async def _read(self) -> list[Msg]:
        await self.puller.open()
        return await self.puller.next()

    def comes(self, message: Msg) -> None:
        (callback,) = self.nats.callbacks.values()
        self.loop.create_task(callback(message))  # type: ignore[arg-type]
        self.loop.settle(50)


@pytest.mark.parametrize(("own", "error"), [(True, UnavailableError), (False, SourceError)])
def test_a_consumer_that_is_silent_is_given_up(loop: VirtualLoop, own: bool, error: type[Exception]) -> None:
    reading = Reading(loop, own=own)
    for _ in range(5):
        loop.pass_(nats_pull.HEARTBEAT_SECONDS)
        reading.comes(status("100", "Idle Heartbeat"))
    assert not reading.task.done()
    loop.pass_(nats_pull.SILENT_SECONDS + 0.1)
    assert isinstance(reading.task.exception(), error)


def test_a_connection_that_is_there_again_is_asked_anew_at_once(loop: VirtualLoop) -> None:
    reading = Reading(loop)
    for listener in reading.link.lost:
        listener()
    loop.settle(50)
    assert isinstance(reading.task.exception(), UnavailableError)
    loop.run_until_complete(reading.puller.close())
    assert reading.link.lost == []


def test_what_came_before_the_connection_was_lost_is_handed_out_first(loop: VirtualLoop) -> None:
    reading = Reading(loop)
    message = Msg(None, "s", data=b"x")  # type: ignore[arg-type]
    (callback,) = reading.nats.callbacks.values()
    loop.create_task(callback(message))  # type: ignore[arg-type]
    reading.link.lost[0]()
    loop.settle(50)
    assert reading.task.result() == [message]
    with pytest.raises(UnavailableError):
        loop.run_until_complete(reading.puller.next())


# --- fetching work ----------------------------------------------------------------------------------------------------
LANE = Lane(ASYNC, "default", "f", "")


def test_requests_for_work_that_jetstream_does_not_speak_of_are_made_again(loop: VirtualLoop) -> None:
    nats, created = Nats(), []

    async def api(subject: str, request: Any) -> Any:
        created.append(subject)
        return {"created": "2026-01-01T00:00:00+00:00"}

    pulls = Pulls(SimpleNamespace(nc=nats, api=api, settings=SimpleNamespace(ack_seconds=15)), lambda lane: None)  # type: ignore[arg-type]
    pull = pulls.make(LANE, lambda delivery: None)

    async def ask() -> int:
        await pull.ensure()
        await pull.ask(10)
        return pull.asked

    async def asked(*, beat: bool = False) -> int:
        if beat:
            pull.told("1", {"Status": "100"})
        return pull.asked

    assert loop.run_until_complete(ask()) == 10
    for _ in range(4):
        loop.pass_(HEARTBEAT_SECONDS)
        assert loop.run_until_complete(asked(beat=True)) == 10
    loop.pass_(SILENT_SECONDS + 0.1)
    assert loop.run_until_complete(asked()) == 0
    assert loop.run_until_complete(ask()) == 10
    assert len(created) == 2  # its leader died: the consumer may have gone with it


# --- who is there -----------------------------------------------------------------------------------------------------
class Others:
    """The members as `g1` sees them; `g2` has just spoken."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop, self.nats = loop, Nats()
        self.bus = SimpleNamespace(up=True, nc=self.nats, heard=[])
        self.members = Members(self.bus, "g1", loop.time)  # type: ignore[arg-type]
        self.found: list[set[str]] = []
        self.members.died = lambda: self.found.append(self.members.dead())
        self.task = loop.create_task(self.members.run())
        loop.pass_(10)
        self.members.heard("g2")


def test_who_leaves_nobody_listening_is_dead(loop: VirtualLoop) -> None:
    others = Others(loop)
    loop.pass_(SUSPECT_SECONDS)
    assert (others.members.present(), others.found) == (["g1", "g2"], [])
    loop.pass_((DEAD_ANSWERS + 1) * ASK_SECONDS)
    assert (others.members.present(), others.found) == (["g1"], [{"g2"}])
    others.members.heard("g2")
    assert (others.members.present(), others.members.dead()) == (["g1", "g2"], set())


def test_the_dead_are_forgotten_when_their_leases_have_run_out(loop: VirtualLoop) -> None:
    others = Others(loop)
    loop.pass_(DEAD_SECONDS)
    assert others.members.dead() == {"g2"}
    loop.pass_(DEAD_SECONDS)
    assert (others.members.dead(), others.members.suspects()) == (set(), [])


@pytest.mark.parametrize("kind", ["listening", "busy"])
def test_who_is_silent_and_still_connected_is_not_dead(loop: VirtualLoop, kind: str) -> None:
    others = Others(loop)
    getattr(others.nats, kind).update(_here("g2"))
    loop.pass_(DEAD_SECONDS - 1)
    assert (others.found, others.members.dead()) == ([], set())


def test_after_an_outage_of_its_own_the_others_get_a_moment(loop: VirtualLoop) -> None:
    others = Others(loop)
    others.bus.up = False
    loop.pass_(8)
    others.bus.up = True
    for listener in others.bus.heard:
        listener()
    loop.pass_(SUSPECT_SECONDS)
    assert others.found == []


def _here(name: str) -> set[str]:
    nats = Nats()
    members = Members(SimpleNamespace(up=True, nc=nats, heard=[]), name, lambda: 0.0)  # type: ignore[arg-type]
    asyncio.run(members._say("+"))
    return {subject for subject in nats.callbacks if subject.startswith("kappa.ctl.here.")}
