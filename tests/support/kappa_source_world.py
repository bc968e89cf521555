"""What a source is given, in memory: a sink that remembers, and that can be away or die half-way; a state; a runner."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from kappa_api.cloudevents import CloudEvent
from kappa_api.trigger import Trigger
from kappa_gateway.events.addresses import checker
from kappa_gateway.events.bus import UnavailableError
from kappa_gateway.events.source import Source, Surroundings

SECONDS = 20.0


class MemorySink:
    """`events`: all that were taken, repeated ones too. While `away` is set nothing is taken; `room`: how many more
    are taken before it is away by itself, so that a piece is taken in part."""

    def __init__(self) -> None:
        self.events: list[CloudEvent] = []
        self.away = False
        self.room: int | None = None
        self.refusals = 0
        self.connects = 0
        self._changed = asyncio.Condition()

    async def emit(self, events: Sequence[CloudEvent]) -> None:
        taken = events if self.room is None else events[: self.room]
        if self.away:
            taken = ()
        self.events.extend(taken)
        if self.room is not None:
            self.room -= len(taken)
        refused = len(taken) < len(events)
        self.refusals += refused
        async with self._changed:
            self._changed.notify_all()
        if refused:
            raise UnavailableError("NATS is away")

    def connected(self) -> None:
        self.connects += 1

        async def tell() -> None:
            async with self._changed:
                self._changed.notify_all()

        self._telling = asyncio.ensure_future(tell())

    @property
    def ids(self) -> list[str]:
        return [event.id for event in self.events]

    @property
    def unique(self) -> list[CloudEvent]:
        """As JetStream keeps them: the first of each id."""
        return list({event.id: event for event in reversed(self.events)}.values())[::-1]

    async def until(self, holds: Callable[["MemorySink"], bool]) -> None:
        async with asyncio.timeout(SECONDS), self._changed:
            await self._changed.wait_for(lambda: holds(self))

    async def until_unique(self, count: int) -> None:
        await self.until(lambda sink: len({event.id for event in sink.events}) >= count)


class MemoryState:
    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    async def load(self, key: str) -> bytes | None:
        return self.kept.get(key)

    async def save(self, key: str, value: bytes) -> None:
        self.kept[key] = value


@dataclass
class World:
    """One Trigger's surroundings. Its Secret is called `credentials`. `checked`: the hosts that were to be judged."""

    trigger: Trigger
    secret: Mapping[str, bytes]
    sink: MemorySink = field(default_factory=MemorySink)
    state: MemoryState = field(default_factory=MemoryState)
    checked: list[tuple[str, int]] = field(default_factory=list)

    def surroundings(self, gateway: str = "g1") -> Surroundings:
        check_address = checker(loopback=True)

        async def check(host: str, port: int) -> tuple[str, ...]:
            self.checked.append((host, port))
            return await check_address(host, port)

        def secret(name: str) -> Mapping[str, bytes] | None:
            return self.secret if name == "credentials" else None

        given: dict[str, Any] = {"bus": None, "kube": None, "check_address": check, "wall": time.time}
        given["gateway"] = gateway
        return Surroundings(sink=self.sink, state=self.state, secret=secret, **given)

    def change(self, **fields: Any) -> None:
        """The Trigger's source gets other fields."""
        self.trigger = replace(self.trigger, source=replace(self.trigger.source, **fields))


def a_trigger(kind: str, source: Any, name: str) -> Trigger:
    return Trigger("default", name, f"uid-of-{name}", 1, "f", kind, source)


@asynccontextmanager
async def running(source: Source, sink: MemorySink) -> AsyncIterator["asyncio.Task[None]"]:
    """The source, once it is connected, until the end of the block: then it is cancelled, as a gateway that stops
    does. What it raises comes out."""
    before = sink.connects
    task = asyncio.create_task(source.run())
    waiting = asyncio.create_task(sink.until(lambda sink: sink.connects > before))
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        await waiting
        yield task
    finally:
        waiting.cancel()
        task.cancel()
        await asyncio.gather(task, waiting, return_exceptions=True)


async def failure(source: Source) -> BaseException:
    """What `run` raises, soon."""
    try:
        async with asyncio.timeout(SECONDS):
            await source.run()
    except Exception as error:
        return error
    raise AssertionError("the source ended by itself")
