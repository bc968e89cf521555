"""Clears up what sources left in other systems: of Triggers that are gone, also if they went while no gateway ran, and
of live ones that read elsewhere now. What there is stands in the `Book` (`state.py`), written before it was made.

Nothing of a Trigger that exists is ever dropped. A uid never comes back, so one that the book knows and that a fresh
list of the API server does not have is gone for good; a watch alone could be behind. Names of what sources make come
from the uid, so a Trigger that was made anew has others. Of a live Trigger, what an old spec left is dropped only when
the other system itself says that it is another place than the present one.

What cannot be cleared is tried again, at longer and longer intervals, for a day; then the log says what to do by hand.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Set
from dataclasses import dataclass, replace
from functools import partial
from types import ModuleType
from typing import Any, Final

from kappa_api.errors import SpecError
from kappa_api.trigger import Trigger
from kappa_gateway.events.bus import Bus, RefusedError, UnavailableError
from kappa_gateway.events.kinds import loaded
from kappa_gateway.events.members import Members, preferred
from kappa_gateway.events.owners import Lease, Owners
from kappa_gateway.events.source import SourceError, Surroundings, Trace
from kappa_gateway.events.state import Book, Left, token_of
from kappa_gateway.events.triggers import Triggers

log = logging.getLogger(__name__)

#: After the start: by then other gateways have been heard of.
FIRST_SECONDS: Final = 5.0
LOOK_SECONDS: Final = 60.0
FORGET_SECONDS: Final = 30.0
#: Between two attempts at the same thing; doubled each time.
FIRST_PAUSE: Final = 60.0
LAST_PAUSE: Final = 3600.0
GIVE_UP_SECONDS: Final = 86_400.0
AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class Tools:
    """What clearing up needs. `surround`: what a source is given that only clears up. `live`: uid and generation of
    every Trigger that the API server has now; None: it does not say. `wall`: epoch seconds; `clock`: the loop's."""

    bus: Bus
    triggers: Triggers
    owners: Owners
    members: Members
    surround: Callable[[Trigger], Surroundings]
    live: Callable[[], Awaitable[Mapping[str, int] | None]]
    load: Callable[[str], Awaitable[ModuleType]] = loaded
    wall: Callable[[], float] = time.time
    clock: Callable[[], float] = time.monotonic


@dataclass(slots=True)
class _Tries:
    """Attempts in vain at one entry. `due`: when it is tried again, by the clock."""

    left: Left
    count: int = 0
    due: float = 0.0


class Clearing:
    """`run` looks for Triggers that are gone. Runners call `note` and `moved` before a source runs, and
    `gone` when they see their Trigger go."""

    def __init__(self, tools: Tools) -> None:
        self._tools, self._book = tools, Book(tools.bus)
        self._gone: set[str] = set()  # tokens of uids that are not there any more, for certain
        self._tries: dict[tuple[str, str], _Tries] = {}  # by token and mark
        self._wake = asyncio.Event()
        self.given_up = 0

    @property
    def waiting(self) -> list[str]:
        """Keys of the Triggers of which something stays that this gateway could not clear yet; one for each thing."""
        return [tries.left.key for tries in self._tries.values()]

    def secret_changed(self, key: str) -> None:
        """A Secret came or changed: with it, what could not be cleared perhaps can."""
        namespace = key.partition("/")[0]
        for tries in self._tries.values():
            if tries.left.namespace == namespace:
                tries.due = 0.0
                self._wake.set()

    # --- for runners --------------------------------------------------------------------------------------------------
    async def note(self, trigger: Trigger, spec: Mapping[str, Any], given: Surroundings) -> Left | None:
        """Writes down what the source of this Trigger is going to leave; returns when that is stored. None: nothing.
        Raises UnavailableError."""
        trace = _trace(await self._tools.load(trigger.kind), trigger, given)
        if trace is None:
            return None
        left = Left.of(trigger, spec, trace)
        before = await self._book.read(left.uid, left.mark)
        if before is not None and before.server and not left.server:
            left = replace(left, text=before.text, server=before.server)  # without its Secret, it says less than before
        elif before is not None and before.server not in ("", left.server):
            say = "Trigger %s: its Secret names another server now. If it is another one, this stays: %s"
            log.warning(say, left.key, before.text)
        if before is None or replace(before, generation=left.generation) != left:
            await self._book.write(left)
        return left

    async def gone(self, uid: str, last: Left | None) -> None:
        """The Trigger was seen to go; `last`: what its source left according to this gateway. One gateway does it; a
        second one finds nothing left to do."""
        token = token_of(uid)
        try:
            marks = (await self._book.marks(uid)).get(token, set())
            lefts = [last] if last is not None else []
            lefts += await self._read(uid, marks - {left.mark for left in lefts})
            if all([await self._attempt(left, partial(self._drop, left)) for left in lefts]):
                await self._book.close(uid)
        except UnavailableError as error:
            log.debug("JetStream is away, what Trigger uid %s left is cleared later: %s", uid, error)
        except Exception:
            log.exception("clearing what Trigger uid %s left failed, and is tried again", uid)

    async def moved(self, trigger: Trigger, now: Left | None, lease: Lease | None) -> bool:
        """Clears what earlier specs of the Trigger left elsewhere. Whether nothing is left. To be called before its
        source runs, for the two may be in each other's way, and cancelled when that must not run any more: what is in
        use is decided by the lease, if its kind has one. `now`: what the source is going to leave."""
        try:
            return await self._move(trigger, now, lease)
        except UnavailableError as error:
            log.debug("Trigger %s: what it left elsewhere is cleared later: %s", trigger.key, error)
        except Exception:
            log.exception("Trigger %s: clearing what it left elsewhere failed", trigger.key)
        return False

    async def keep_moving(self, trigger: Trigger, now: Left | None, lease: Lease | None) -> None:
        """As `moved`, again and again until nothing is left. To be cancelled with the source."""
        while not await self.moved(trigger, now, lease):
            await asyncio.sleep(LOOK_SECONDS)

    async def _move(self, trigger: Trigger, now: Left | None, lease: Lease | None) -> bool:
        """Whether nothing is left."""
        token = token_of(trigger.uid)
        marks = (await self._book.marks(trigger.uid)).get(token, set()) - ({now.mark} if now else set())
        if not marks:
            return True
        due = {mark for mark in marks if self._due(token, mark)}
        if not due or (lease is None and not self._mine(token)):
            return False
        live = await self._tools.live()
        if live is None or live.get(trigger.uid) != trigger.generation:
            return False  # this gateway is behind, and what it takes for old may be the newest
        lefts = await self._read(trigger.uid, due)
        done = [await self._attempt(left, partial(self._leave, left, trigger, now, lease)) for left in lefts]
        return all(done) and due == marks

    # --- looking ------------------------------------------------------------------------------------------------------
    async def run(self) -> None:
        """Until cancelled."""
        pause = FIRST_SECONDS
        while True:
            try:
                await asyncio.wait_for(self._wake.wait(), pause)
            except TimeoutError:
                pass
            self._wake.clear()
            try:
                pause = LOOK_SECONDS if await self.look() else FIRST_SECONDS
            except UnavailableError as error:
                log.debug("what is left of Triggers cannot be looked at now: %s", error)
            except Exception:
                log.exception("looking for what is left of Triggers failed")

    async def look(self) -> bool:
        """One look. Whether it was possible: before the watch has said what there is, everything could be gone. Raises
        UnavailableError."""
        triggers = self._tools.triggers
        if not triggers.synced or triggers.refused:
            return False
        book = await self._book.marks()
        known = {token_of(found.uid) for key in triggers.known() if (found := triggers.find(key))}
        strange = book.keys() - known
        self._gone &= strange
        if strange - self._gone:
            # Asked after the book was read: who stands there was there before, and who is not there now has gone
            live = await self._tools.live()
            if live is not None:
                self._gone |= strange - {token_of(uid) for uid in live}
        mine = [token for token in sorted(self._gone) if self._mine(token)]
        self._prune(book, set(mine))
        room = asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(*(self._clear(token, book[token], room) for token in mine))
        return True

    async def _clear(self, token: str, marks: Set[str], room: asyncio.Semaphore) -> None:
        async with room:
            due = {mark for mark in marks if self._due(token, mark)}
            lefts = await self._read(token, due)
            done = [await self._attempt(left, partial(self._drop, left, again=True)) for left in lefts]
            if all(done) and due == marks:
                await self._book.close(token)

    async def _read(self, uid: str, marks: Iterable[str]) -> list[Left]:
        return [left for mark in sorted(marks) if (left := await self._book.read(uid, mark))]

    def _mine(self, token: str) -> bool:
        """One gateway does it; a lease sees to the rest."""
        return preferred(token, self._tools.members.present()) == self._tools.members.name

    def _prune(self, book: Mapping[str, set[str]], mine: set[str]) -> None:
        """What others have cleared, or see to now, is not waited for here."""
        self._tries = {
            (token, mark): tries
            for (token, mark), tries in self._tries.items()
            if mark in book.get(token, ()) and (token in mine or token not in self._gone)
        }

    # --- one entry ----------------------------------------------------------------------------------------------------
    def _due(self, token: str, mark: str) -> bool:
        tries = self._tries.get((token, mark))
        return tries is None or tries.due <= self._tools.clock()

    async def _attempt(self, left: Left, work: Callable[[], Awaitable[str]]) -> bool:
        """Whether it is dealt with. `work` says what came of it. Raises UnavailableError."""
        at = (token_of(left.uid), left.mark)
        try:
            async with asyncio.timeout(FORGET_SECONDS):
                said = await work()
        except TimeoutError:
            problem = f"it took longer than {FORGET_SECONDS:g} s"
        except (SourceError, RefusedError, SpecError, KeyError) as error:
            problem = str(error)
        except UnavailableError:
            raise
        except Exception as error:
            log.exception("Trigger %s: clearing what its source left failed", left.key)
            problem = f"internal error: {type(error).__name__}"
        else:
            await self._book.strike(left)
            self._tries.pop(at, None)
            log.info("Trigger %s: %s", left.key, said)
            return True
        return await self._in_vain(at, left, problem)

    async def _in_vain(self, at: tuple[str, str], left: Left, problem: str) -> bool:
        """Whether that was the last time."""
        now = self._tools.wall()
        if not left.since:
            left = replace(left, since=now)
            await self._book.write(left)
        if now - left.since >= GIVE_UP_SECONDS:
            log.error("Trigger %s: given up after a day (%s). Remove by hand: %s", left.key, problem, left.text)
            await self._book.strike(left)
            self._tries.pop(at, None)
            self.given_up += 1
            return True
        tries = self._tries.setdefault(at, _Tries(left))
        tries.count += 1
        tries.due = self._tools.clock() + min(LAST_PAUSE, FIRST_PAUSE * 2.0 ** min(tries.count - 1, 10))
        if tries.count == 1:
            log.warning(
                "Trigger %s: something stays that cannot be cleared now, and is tried again for a day: %s. It is: %s",
                left.key,
                problem,
                left.text,
            )
        return False

    async def _drop(self, left: Left, *, again: bool = False) -> str:
        """Of a Trigger that is gone. `again`: unless somebody has done it meanwhile."""
        source: Any = await self._make(left.trigger)
        lease = await self._tools.owners.acquire(left.uid)
        try:
            if not again or await self._book.read(left.uid, left.mark):
                await source.forget()
        finally:
            await asyncio.shield(self._tools.owners.release(lease))
        return f"it is gone, and so is what it left: {left.text}"

    async def _leave(self, left: Left, trigger: Trigger, now: Left | None, lease: Lease | None) -> str:
        """Of a Trigger that reads elsewhere, or in another way."""
        before, present = await self._make(left.trigger), None
        if now is not None and left.trigger.kind == trigger.kind:
            present = await self._make(trigger)
        if present is not None and type(before) is type(present):
            if not hasattr(before, "where"):
                log.warning("Trigger %s reads elsewhere now. Remove by hand if it is so: %s", left.key, left.text)
                return "what it left where it read before stays"
            if await before.where() == await present.where():
                return "what it left is where it reads now, and in use"
        if lease is not None:
            await before.forget()
        else:
            held = await self._tools.owners.acquire(left.uid)
            try:
                await before.forget()
            finally:
                await asyncio.shield(self._tools.owners.release(held))
        return f"it reads elsewhere now; cleared is: {left.text}"

    async def _make(self, trigger: Trigger) -> Any:
        module: Any = await self._tools.load(trigger.kind)
        return module.make(trigger, self._tools.surround(trigger))


def _trace(module: Any, trigger: Trigger, given: Surroundings) -> Trace | None:
    found: Trace | None = module.trace(trigger, given) if hasattr(module, "trace") else None
    return found
