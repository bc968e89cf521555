"""Leases of sources that may have one reader only: keys in the bucket `kappa-owners`, which JetStream forgets after ten
seconds. Who could not renew a lease for seven and a half gives it up before it is anybody's.

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
from kappa_gateway.events.members import Members, preferred
from kappa_gateway.events.streams import OWNERS

log = logging.getLogger(__name__)

RENEW_SECONDS: Final = 3.0
#: After the last renewal was sent. Less than the bucket's ten seconds, so that a source has time to stop.
HOLD_SECONDS: Final = 7.5
TICK_SECONDS: Final = 1.0
EXPIRE_SECONDS: Final = 0.25
#: How long a lease is nobody's before a gateway takes it that is not the preferred one.
PATIENCE_SECONDS: Final = 5.0
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
    """Somebody waits for this lease. `absent_since`: since when nobody has it, as far as is known."""

    future: asyncio.Future[Lease]
    absent_since: float | None = None


class Owners:
    """`run` is the task that renews and takes leases; `acquire` waits for one. `clock`: the loop's."""

    def __init__(self, bus: Bus, members: Members, clock: Callable[[], float] = time.monotonic) -> None:
        self._bus, self._members, self._clock = bus, members, clock
        self._wishes: dict[str, _Wish] = {}
        self.held: dict[str, Lease] = {}
        self._wake = asyncio.Event()

    async def acquire(self, uid: str) -> Lease:
        """Waits until the lease is ours, for as long as that takes."""
        assert uid not in self.held, uid
        assert uid not in self._wishes, uid
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

    async def release(self, lease: Lease) -> None:
        """The source has stopped. Never raises: what cannot be said now, JetStream forgets by itself."""
        if self.held.get(lease.uid) is lease:
            del self.held[lease.uid]
        if lease.lost or self._clock() > lease.until:
            return
        try:
            await self._bus.api(f"STREAM.PURGE.{_STREAM}", {"filter": _PREFIX + lease.uid})
        except UnavailableError as error:
            log.debug("the lease of %s runs out by itself: %s", lease.uid, error)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._expire())
            group.create_task(self._keep())

    async def _expire(self) -> None:
        """Beside the renewals, which may hang for as long as a server that does not answer lets them."""
        while True:
            for lease in list(self.held.values()):
                if not lease.lost and self._clock() > lease.until:
                    self._lose(lease, "it could not be renewed")
            await asyncio.sleep(EXPIRE_SECONDS)

    async def _keep(self) -> None:
        while True:
            self._wake.clear()
            await self._renew_all()
            if self._wishes and self._bus.up:
                try:
                    await self._take()
                except UnavailableError as error:
                    log.debug("leases cannot be taken now: %s", error)
            try:
                await asyncio.wait_for(self._wake.wait(), TICK_SECONDS)
            except TimeoutError:
                continue

    # --- what is held -------------------------------------------------------------------------------------------------
    async def _renew_all(self) -> None:
        now = self._clock()
        due = [lease for lease in self.held.values() if not lease.lost and now - lease.renewed >= RENEW_SECONDS]
        if due and self._bus.up:
            await asyncio.gather(*(self._renew(lease) for lease in due))
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
                continue
            wish.absent_since = now if wish.absent_since is None else wish.absent_since
            if preferred(uid, present) == self._members.name or now - wish.absent_since >= PATIENCE_SECONDS:
                chosen.append((uid, wish))
        await asyncio.gather(*(self._try(uid, wish) for uid, wish in chosen))

    async def _taken(self) -> set[str]:
        """Whose leases somebody has."""
        taken: set[str] = set()
        while True:
            asked = {"subjects_filter": _PREFIX + ">", "offset": len(taken)}
            info = await self._bus.api(f"STREAM.INFO.{_STREAM}", asked)
            found = info["state"].get("subjects") or {}
            taken |= {subject.removeprefix(_PREFIX) for subject in found}
            if not found or len(taken) >= info.get("total", 0):
                return taken

    async def _try(self, uid: str, wish: _Wish) -> None:
        sent = self._clock()
        try:
            revision = await self._write(uid, 0)
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
