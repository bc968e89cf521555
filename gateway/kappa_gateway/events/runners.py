"""Runs the sources: one task per Trigger, which starts its source, watches over it, and starts it again when it fails.

A source is started anew when what it reads changes (its spec, its Secret), not for another filter or retry. It stops
while its Trigger is suspended or not valid, and where its lease is another gateway's. What a source makes elsewhere (a
replication slot, a consumer) is written down before it runs, and cleared when the Trigger is gone (`clearing.py`).
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

from nats.errors import Error as NatsError

from kappa_api.trigger import Trigger
from kappa_gateway.events.bus import Bus, RefusedError, UnavailableError
from kappa_gateway.events.clearing import Clearing
from kappa_gateway.events.kinds import loaded, place_of
from kappa_gateway.events.owners import Lease, Owners
from kappa_gateway.events.shares import CrowdedError
from kappa_gateway.events.source import Place, Source, SourceError, Surroundings
from kappa_gateway.events.state import Left
from kappa_gateway.events.triggers import Triggers

log = logging.getLogger(__name__)

FIRST_PAUSE: Final = 0.5
LAST_PAUSE: Final = 30.0
#: The same while JetStream has no leader: nobody tells when it has one again.
AWAY_PAUSE: Final = 2.0
#: A source that does not stop within this, though cancelled, is left to itself. Less than a lost lease has left.
STOP_SECONDS: Final = 2.0

#: What sources of the platform's own NATS raise when it is away.
AWAY: Final = (UnavailableError, NatsError)

#: Makes what a source is given: of this Trigger, told by the callback when it reads.
Surround = Callable[[Trigger, Callable[[], None]], Surroundings]


@dataclass(frozen=True, slots=True)
class Yard:
    """What every runner needs."""

    bus: Bus
    triggers: Triggers
    owners: Owners
    surround: Surround
    clearing: Clearing
    load: Callable[[str], Awaitable[ModuleType]] = loaded
    random: Callable[[], float] = random.random


class Runner:
    """One Trigger, by its uid. `changed` makes it look at the Trigger anew."""

    def __init__(self, yard: Yard, key: str, uid: str) -> None:
        self._yard, self.key, self.uid = yard, key, uid
        self._wake = asyncio.Event()
        self._restart = False
        self._failures = 0
        self._away = False  # it failed because JetStream was away
        self._spec: Mapping[str, Any] = {}  # of the Trigger whose source is to run, as it was written
        self._left: Left | None = None  # what the source that ran last leaves elsewhere

    def changed(self, *, restart: bool = False) -> None:
        """The Trigger has changed or is gone; `restart`: what it reads with has."""
        self._restart = self._restart or restart
        self._wake.set()

    def back(self) -> None:
        """NATS is there again: what failed without it need not wait any more."""
        if self._away:
            self._wake.set()

    @property
    def gone(self) -> bool:
        known = self._yard.triggers.find(self.key)
        return known is None or known.uid != self.uid

    def wanted(self) -> Trigger | None:
        """The Trigger whose source is to run now."""
        known = self._yard.triggers.find(self.key)
        return known.runs if known and known.uid == self.uid else None

    async def run(self) -> None:
        """Until the Trigger is gone and forgotten, or cancelled."""
        while not self.gone:
            self._wake.clear()
            self._restart = False
            trigger = self.wanted()
            if trigger is None:
                self._tell(running=False, message=self._why_not())
                await self._wake.wait()
                continue
            known = self._yard.triggers.find(self.key)
            self._spec = known.spec if known else {}
            try:
                await self._session(trigger)
            except SourceError as error:
                await self._failed(str(error))
            except AWAY as error:
                await self._without(error)
            except Exception as error:
                log.exception("Trigger %s: its source failed", self.key)
                await self._failed(f"internal error: {type(error).__name__}")
        await self._yard.clearing.gone(self.uid, self._left)

    # --- one run of the source ----------------------------------------------------------------------------------------
    async def _session(self, trigger: Trigger) -> None:
        """Returns when something has changed. Raises what the source raised."""
        module = await self._yard.load(trigger.kind)
        place = place_of(module, trigger)
        if place is Place.NONE:
            self._tell(running=False)
            self._yard.triggers.counts(self.key).connected = True  # whoever posts finds it: there is nothing to reach
            tidying = asyncio.ensure_future(self._yard.clearing.keep_moving(trigger, None, None))
            try:
                await self._unless_changed(trigger)
            finally:
                await _cancelled(tidying)
            return
        if place is Place.EACH:
            await self._watch(trigger, module, None)
            return
        self._tell(running=False)
        lease = await self._lease(trigger)
        if lease is None:
            return
        try:
            await self._held(trigger, module, lease)
        finally:
            # Also before a pause after a failure: if that is long, another gateway tries, and may have more luck
            await asyncio.shield(self._yard.owners.release(lease))

    async def _held(self, trigger: Trigger, module: Any, lease: Lease) -> None:
        """While the lease is ours. It is kept when JetStream is away: it could not be given back, and nobody could take
        it."""
        while True:
            try:
                await self._watch(trigger, module, lease)
                return
            except RefusedError:
                raise
            except AWAY as error:
                await self._without(error)
            self._wake.clear()
            if lease.over.is_set() or self._restart or self._differs(trigger):
                return

    async def _lease(self, trigger: Trigger) -> Lease | None:
        """None: the Trigger has changed meanwhile."""
        taking = asyncio.ensure_future(self._yard.owners.acquire(self.uid))
        try:
            await self._unless_changed(trigger, taking)
        finally:
            if not taking.done():
                await _cancelled(taking)
        return taking.result() if taking.done() and not taking.cancelled() else None

    async def _watch(self, trigger: Trigger, module: Any, lease: Lease | None) -> None:
        given = self._yard.surround(trigger, self._connected)
        self._left = await self._yard.clearing.note(trigger, self._spec, given)
        source: Source = module.make(trigger, given)
        self._tell(running=True)
        task = asyncio.ensure_future(self._read(source, trigger, lease))
        over = asyncio.ensure_future(lease.over.wait()) if lease else None
        try:
            await self._unless_changed(trigger, task, *([over] if over else []))
        finally:
            if over is not None:
                over.cancel()
            if not task.done() and not await _cancelled(task):
                log.error("Trigger %s: its source does not stop", self.key)
            self._tell(running=False, message="")
        if task.done() and not task.cancelled():
            task.result()
            raise SourceError("the source has ended, which it never should")

    async def _read(self, source: Source, trigger: Trigger, lease: Lease | None) -> None:
        """What an earlier spec left elsewhere is cleared first, if it can be: the two may be in each other's way."""
        clearing, tidying = self._yard.clearing, None
        if not await clearing.moved(trigger, self._left, lease):
            tidying = asyncio.ensure_future(clearing.keep_moving(trigger, self._left, lease))
        try:
            await source.run()
        finally:
            if tidying is not None:
                await _cancelled(tidying)

    async def _unless_changed(self, trigger: Trigger, *waited: Awaitable[Any]) -> None:
        """Until one of these is done, or the source must not go on as it is."""
        others = [asyncio.ensure_future(one) for one in waited]
        wake = asyncio.ensure_future(self._wake.wait())
        try:
            while True:
                await asyncio.wait([wake, *others], return_when=asyncio.FIRST_COMPLETED)
                if any(one.done() for one in others) or self._restart or self._differs(trigger):
                    return
                self._wake.clear()
                wake = asyncio.ensure_future(self._wake.wait())
        finally:
            wake.cancel()

    def _differs(self, trigger: Trigger) -> bool:
        """What a source is made of; a change of the rest leaves it running. `ordered` may decide where it runs."""
        now = self.wanted()
        if now is None:
            return True
        return (now.kind, now.source, bool(now.ordered)) != (trigger.kind, trigger.source, bool(trigger.ordered))

    # --- failing ------------------------------------------------------------------------------------------------------
    def _connected(self) -> None:
        self._failures = 0

    async def _without(self, error: Exception) -> None:
        """JetStream is away, or does not take it. `back` ends the pause."""
        refused = isinstance(error, RefusedError)
        last = LAST_PAUSE if refused or not self._yard.bus.up else AWAY_PAUSE
        self._away = True
        try:
            message = str(error) if isinstance(error, CrowdedError) else f"JetStream is away: {error or repr(error)}"
            await self._failed(message, logging.DEBUG, last)  # the bus has said so, once
        finally:
            self._away = False

    async def _failed(self, message: str, level: int = logging.WARNING, last: float = LAST_PAUSE) -> None:
        self._failures += 1
        if self._failures == 1:
            log.log(level, "Trigger %s: %s", self.key, message)
        pause = min(last, FIRST_PAUSE * 2.0 ** min(self._failures - 1, 10)) * (0.75 + self._yard.random() / 2)
        self._tell(running=True, message=message)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), pause)

    def _why_not(self) -> str:
        known = self._yard.triggers.find(self.key)
        return "suspended" if known and not known.fault else ""

    def _tell(self, *, running: bool, message: str = "") -> None:
        if self.gone:
            return
        counts = self._yard.triggers.counts(self.key)
        counts.running, counts.connected, counts.message = running, False, message


class Runners:
    """All runners of this gateway."""

    def __init__(self, yard: Yard) -> None:
        self._yard = yard
        self._runners: dict[str, Runner] = {}  # by uid
        self._uids: dict[str, str] = {}  # of the newest Trigger of each name
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._secrets: dict[str, set[str]] = {}  # uids that have asked for a Secret
        self._pending: asyncio.Queue[str] = asyncio.Queue()
        yard.triggers.changed.append(self._pending.put_nowait)
        yard.bus.heard.append(self._back)

    def asked(self, uid: str, secret: str) -> None:
        """The source of this Trigger uses this Secret: when it changes, the source is started anew."""
        self._secrets.setdefault(secret, set()).add(uid)

    def secret_changed(self, secret: str) -> None:
        for uid in self._secrets.pop(secret, ()):
            if runner := self._runners.get(uid):
                runner.changed(restart=True)

    def _back(self) -> None:
        for runner in self._runners.values():
            runner.back()

    async def run(self) -> None:
        """Until cancelled; then all sources are stopped and their leases given back."""
        for key in self._yard.triggers.known():
            self._look(key)
        try:
            while True:
                self._look(await self._pending.get())
        finally:
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _look(self, key: str) -> None:
        known = self._yard.triggers.find(key)
        before = self._uids.get(key)
        if runner := self._runners.get(before or ""):
            runner.changed()
        if known is None or known.uid == before:
            return
        uid = self._uids[key] = known.uid
        runner = self._runners[uid] = Runner(self._yard, key, uid)
        task = self._tasks[uid] = asyncio.get_running_loop().create_task(runner.run())
        task.add_done_callback(lambda _: self._ended(key, uid))

    def _ended(self, key: str, uid: str) -> None:
        self._runners.pop(uid, None)
        if self._uids.get(key) == uid:
            del self._uids[key]
        task = self._tasks.pop(uid)
        if not task.cancelled() and (error := task.exception()):
            log.critical("a runner died", exc_info=error)


async def _cancelled(task: "asyncio.Future[Any]") -> bool:
    """Whether it has ended, cancelled, in time."""
    task.cancel()
    await asyncio.wait([task], timeout=STOP_SECONDS)
    return task.done()
