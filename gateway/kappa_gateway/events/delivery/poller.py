"""Sees which lanes have work in the stream: so that every gateway takes part, and takes over from one that died.

It looks about once a second. Where a look is dear (thousands of lanes), it looks more rarely: a twentieth of its time.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final

from kappa_gateway.events.bus import Bus, UnavailableError
from kappa_gateway.events.ledger import Ledger
from kappa_gateway.events.listing import listing
from kappa_gateway.events.shares import Shares
from kappa_gateway.events.streams import WORK
from kappa_gateway.events.work import PREFIX, Lane, accepted_ms

log = logging.getLogger(__name__)

POLL_SECONDS: Final = 1.0
REST: Final = 20
#: The age of the oldest is looked up so often, for so many lanes; one read each.
OLDEST_SECONDS: Final = 5.0
OLDEST_LANES: Final = 500


class Poller:
    """`found`: told each lane with work and how much; `shares`: told what stands in the stream."""

    def __init__(
        self, bus: Bus, ledger: Ledger, found: Callable[[Lane, int], None], shares: Shares | None = None
    ) -> None:
        self._bus, self._ledger, self._found = bus, ledger, found
        self._shares = shares or Shares(100)
        self._next_oldest = 0.0
        self.lanes: dict[Lane, int] = {}

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            begun = loop.time()
            try:
                await self.look()
            except UnavailableError:
                log.debug("the work stream cannot be looked at")
            spent = loop.time() - begun
            await asyncio.sleep(max(POLL_SECONDS * random.uniform(0.7, 1.3), spent * REST if self._bus.up else 0))

    async def look(self) -> None:
        """Once. Raises UnavailableError."""
        lanes = await self._counts()
        self.lanes = lanes
        backlog: dict[tuple[str, str], int] = {}
        for lane, count in lanes.items():
            at = (lane.kind, lane.key)
            backlog[at] = backlog.get(at, 0) + count
            self._found(lane, count)
        for at, tally in self._ledger.tallies.items():
            tally.backlog = backlog.get(at, 0)
            if not tally.backlog:
                tally.oldest_ms = 0
        for at, count in backlog.items():
            self._ledger.at(*at).backlog = count
        now = asyncio.get_running_loop().time()
        if lanes and now >= self._next_oldest:
            self._next_oldest = now + OLDEST_SECONDS
            await self._ages(list(lanes)[:OLDEST_LANES])

    async def _counts(self) -> dict[Lane, int]:
        listed = await listing(self._bus, WORK, PREFIX + ">")
        found: dict[Lane, int] = {}
        for subject, count in listed.counts.items():
            try:
                found[Lane.of(subject)] = count
            except ValueError:
                log.debug("a message under %s is nobody's", subject)
        self._shares.looked(found, listed.held, listed.most)
        return found

    async def _ages(self, lanes: list[Lane]) -> None:
        oldest: dict[tuple[str, str], int] = {}
        for lane in lanes:
            message = await self._bus.get(WORK, seq=1, next_of=lane.subject)
            if message is not None:
                self._shares.sampled(lane, len(message.data))
                at, accepted = (lane.kind, lane.key), accepted_ms(message.headers)
                oldest[at] = min(accepted, oldest.get(at, accepted))
        for at, accepted in oldest.items():
            self._ledger.at(*at).oldest_ms = accepted
