"""Leases of sources that may have one reader only: keys in the bucket `kappa-owners`, which JetStream forgets after ten
seconds. Who could not renew a lease for seven and a half gives it up before it is anybody's.

The leases of a gateway that was found dead (`members.py`) are written over at once. Should it live all the same, cut
off from NATS for some seconds, it learns of that with its next renewal, sent as soon as it is connected. Until
then both may read, which is harmless: a reader hands an event to the stream only after the stream has said that it has
all before it, and says of what it has already that it does. So events neither get lost nor change their order.

A lease is taken by writing where nothing is, and renewed by writing over the very revision that was written last;
JetStream decides both. Which gateway tries first is advice (`members.py`): the preferred one at once, the others when
nobody has taken it for some seconds. An owner that is not the preferred one any more hands over in order.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from kappa_gateway.events.bus import EXPECT_LAST, Bus, RefusedError, UnavailableError
from kappa_gateway.events.listing import listing
from kappa_gateway.events.members import Members, preferred
from kappa_gateway.events.streams import OWNER_SECONDS, OWNERS

log = logging.getLogger(__name__)

RENEW_SECONDS: Final = 3.0
#: After the last renewal was sent. Less than the bucket's ten seconds, so that a source has time to stop.
HOLD_SECONDS: Final = 7.5
TICK_SECONDS: Final = 1.0
#: A question that came while there was no leader is never answered: it is soon asked again.
ASK_SECONDS: Final = 1.5
AGAIN_SECONDS: Final = 0.3
EXPIRE_SECONDS: Final = 0.25
#: How long a lease is nobody's before a gateway takes it that is not the preferred one.
PATIENCE_SECONDS: Final = 5.0
#: The same for what a dead gateway has left, which is read in portions.
ORPHAN_SECONDS: Final = 1.0
PORTION: Final = 64
#: An owner that is not the preferred one keeps a source for so long at least: starting one anew has its price.
KEEP_SECONDS: Final = 30.0
_STREAM: Final = f"KV_{OWNERS}"
_PREFIX: Final = f"$KV.{OWNERS}."


@dataclass(slots=True)
class Lease:
    """One held lease. `over`: it was lost, or should be given to another gateway: stop the source, then release."""

    uid: str
    revision: int
    since: float  # by the loop's clock, as are these
    until: float
    renewed: float
    over: asyncio.Event = field(default_factory=asyncio.Event)
    lost: bool = False


@dataclass(slots=True)
class _Wish:
    """Somebody waits for this lease. `absent_since`: since when nobody has it, as far as is known; `orphan_since`: or
    only a dead gateway. `looked`: whether it was read whose it is."""

    future: asyncio.Future[Lease]
    absent_since: float | None = None
    orphan_since: float | None = None
    looked: bool = False


class Owners:
    """`run` is the task that renews and takes leases; `acquire` waits for one. `clock`: the loop's."""

    def __init__(self, bus: Bus, members: Members, clock: Callable[[], float] = time.monotonic) -> None:
        self._bus, self._members, self._clock = bus, members, clock
        self._wishes: dict[str, _Wish] = {}
        self._turns: dict[str, set[asyncio.Event]] = {}  # tasks that wait for another task of this gateway
        self.held: dict[str, Lease] = {}
        self._wake, self._connected = asyncio.Event(), asyncio.Event()
        self._left: dict[str, tuple[int, float]] = {}  # revision and time of leases that could not be given back
        self._begun = clock()
        members.died = self._wake.set
        bus.heard += [self._connected.set, self._wake.set]

    async def acquire(self, uid: str) -> Lease:
        """Waits until the lease is ours, however long; a second task of this gateway waits for the first one."""
        while uid in self.held or uid in self._wishes:
            await self._turn(uid)
        wish = self._wishes[uid] = _Wish(asyncio.get_running_loop().create_future())
        self._wake.set()
        try:
            return await wish.future
        except asyncio.CancelledError:
            if wish.future.done() and not wish.future.cancelled() and wish.future.exception() is None:
                await self.release(wish.future.result())  # it came in the same moment
            raise
        finally:
            self._wishes.pop(uid, None)
            self._next(uid)

    async def release(self, lease: Lease) -> None:
        """The source has stopped. Never raises: what cannot be said now, JetStream forgets by itself."""
        if self.held.get(lease.uid) is lease:
            del self.held[lease.uid]
            self._next(lease.uid)
        now = self._clock()
        self._left = {uid: left for uid, left in self._left.items() if now - left[1] < OWNER_SECONDS}
        if not lease.lost and now <= lease.until:
            try:
                # Nothing but what was written by this gateway
                asked = {"filter": _PREFIX + lease.uid, "seq": lease.revision + 1}
                await self._bus.api(f"STREAM.PURGE.{_STREAM}", asked, ASK_SECONDS)
                return
            except UnavailableError as error:
                log.debug("the lease of %s runs out by itself: %s", lease.uid, error)
        self._left[lease.uid] = (lease.revision, now)

    async def _turn(self, uid: str) -> None:
        """Until it may be this task's turn."""
        waiting = self._turns.setdefault(uid, set())
        woken = asyncio.Event()
        waiting.add(woken)
        try:
            await woken.wait()
        finally:
            waiting.discard(woken)
            if not waiting:
                self._turns.pop(uid, None)

    def _next(self, uid: str) -> None:
        for woken in self._turns.get(uid, ()):
            woken.set()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._expire())
            group.create_task(self._keep())
            group.create_task(self._wait())

    async def _expire(self) -> None:
        """Beside the renewals, which may hang for as long as a server that does not answer lets them."""
        while True:
            for lease in list(self.held.values()):
                if not lease.lost and self._clock() > lease.until:
                    self._lose(lease, "it could not be renewed")
            await asyncio.sleep(EXPIRE_SECONDS)

    async def _keep(self) -> None:
        while True:
            back = self._connected.is_set()
            self._connected.clear()
            await self._renew_all(back=back)
            self._hand_over()
            await _sleep(TICK_SECONDS, self._connected)

    async def _wait(self) -> None:
        """Beside the renewals, which are the more urgent."""
        while True:
            self._wake.clear()
            pause = TICK_SECONDS
            if self._wishes and self._bus.up:
                try:
                    await self._take()
                except UnavailableError as error:
                    log.debug("leases cannot be taken now: %s", error)
                    pause = AGAIN_SECONDS
            await _sleep(pause, self._wake)

    # --- what is held -------------------------------------------------------------------------------------------------
    async def _renew_all(self, *, back: bool = False) -> None:
        """`back`: the connection was lost, and with it perhaps a lease."""
        now = self._clock()
        due = [x for x in self.held.values() if not x.lost and (back or now - x.renewed >= RENEW_SECONDS)]
        if due and self._bus.up:
            await asyncio.gather(*(self._renew(lease) for lease in due))

    def _hand_over(self) -> None:
        """Leases that another gateway should have."""
        now = self._clock()
        settled = self._members.settled()
        for lease in list(self.held.values()):
            if (
                not lease.lost
                and now - lease.since > KEEP_SECONDS
                and preferred(lease.uid, settled) != self._members.name
            ):
                lease.over.set()

    async def _renew(self, lease: Lease) -> None:
        sent = self._clock()
        try:
            lease.revision = await self._write(lease.uid, lease.revision)
        except RefusedError as error:
            if not error.conflict:
                return
            # Either somebody else has it, or an earlier renewal was written and its answer lost
            if not await self._reclaim(lease):
                self._lose(lease, "another gateway has it")
                return
        except UnavailableError:
            return
        lease.until, lease.renewed = sent + HOLD_SECONDS, sent

    async def _reclaim(self, lease: Lease) -> bool:
        try:
            found = await self._bus.newest(_STREAM, last_of=_PREFIX + lease.uid)
            if found is None or found.data != self._members.name.encode():
                return False
            lease.revision = await self._write(lease.uid, found.seq)
            return True
        except UnavailableError:
            return False

    def _lose(self, lease: Lease, why: str) -> None:
        log.info("the lease of %s is lost: %s", lease.uid, why)
        lease.lost = True
        lease.over.set()

    # --- what is wanted -----------------------------------------------------------------------------------------------
    async def _take(self) -> None:
        taken = await self._taken()
        now = self._clock()
        present = self._members.present()
        chosen = []
        for uid, wish in self._wishes.items():
            if wish.future.done():
                continue
            if uid in taken:
                wish.absent_since = None
                if (left := self._left.pop(uid, None)) is not None:
                    chosen.append((uid, wish, left[0]))
                continue
            wish.absent_since = now if wish.absent_since is None else wish.absent_since
            if preferred(uid, present) == self._members.name or now - wish.absent_since >= PATIENCE_SECONDS:
                chosen.append((uid, wish, 0))
        chosen += await self._orphans(taken - {uid for uid, _, _ in chosen})
        await asyncio.gather(*(self._try(uid, wish, last) for uid, wish, last in chosen))

    async def _orphans(self, taken: set[str]) -> list[tuple[str, _Wish, int]]:
        """Leases of dead gateways that are to be had now, with their revisions; and those that the process before this
        one had, whose name is ours: a container that was killed is started again in its pod."""
        wished = [(uid, wish) for uid, wish in self._wishes.items() if uid in taken and not wish.future.done()]
        now, present, dead = self._clock(), self._members.present(), self._members.dead()
        if not dead:
            wished = [(uid, wish) for uid, wish in wished if not wish.looked and now - self._begun < OWNER_SECONDS]
        found = []
        for start in range(0, len(wished), PORTION):
            some = wished[start : start + PORTION]
            keys = await asyncio.gather(*(self._bus.newest(_STREAM, last_of=_PREFIX + uid) for uid, _ in some))
            for (uid, wish), key in zip(some, keys, strict=True):
                wish.looked = True
                owner = key.data.decode("utf-8", "replace") if key is not None else ""
                if key is not None and owner == self._members.name:
                    found.append((uid, wish, key.seq))
                    continue
                if key is None or owner not in dead:
                    wish.orphan_since = None
                    continue
                wish.orphan_since = now if wish.orphan_since is None else wish.orphan_since
                if preferred(uid, present) == self._members.name or now - wish.orphan_since >= ORPHAN_SECONDS:
                    found.append((uid, wish, key.seq))
        return found

    async def _taken(self) -> set[str]:
        """Whose leases somebody has."""
        found = await listing(self._bus, _STREAM, _PREFIX + ">", ASK_SECONDS)
        return {subject.removeprefix(_PREFIX) for subject in found.counts}

    async def _try(self, uid: str, wish: _Wish, last: int) -> None:
        """`last`: the revision to write over; 0: there is none."""
        sent = self._clock()
        try:
            revision = await self._write(uid, last)
        except UnavailableError as error:
            if isinstance(error, RefusedError) and error.conflict:
                wish.absent_since = None
            return
        lease = Lease(uid, revision, sent, sent + HOLD_SECONDS, sent)
        if wish.future.done():
            await self.release(lease)
            return
        self.held[uid] = lease
        wish.future.set_result(lease)

    async def _write(self, uid: str, last: int) -> int:
        receipt = await self._bus.publish(_PREFIX + uid, self._members.name.encode(), {EXPECT_LAST: str(last)})
        return receipt.seq


async def _sleep(seconds: float, unless: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(unless.wait(), seconds)
    except TimeoutError:
        return
