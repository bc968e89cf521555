"""Events too large for a message: the attributes stay in the message, the data goes to the bucket of bodies.

Each attempt to emit an event stores under a name of its own: two gateways may emit the same event at the same time.
Which of them the stream took says the receipt; the other's data is thrown away. Where that is not known, because the
answer was lost, the data is kept and used again when the source offers the event once more.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Final

from kappa_api.cloudevents import CloudEvent
from kappa_gateway.events.bodies import StoredBodies
from kappa_gateway.events.bus import Bus, Receipt, TooLargeError, UnavailableError, UnsureError
from kappa_gateway.events.stored_data import StoredData, names_of, pieces_of
from kappa_gateway.events.streams import WORK
from kappa_gateway.events.work import Lane, Work, new_id

#: Large events that are stored at a time: each takes a few chunks of memory.
AT_ONCE: Final = 4
#: Events whose fate is not known and whose data is remembered.
MOST_UNSURE: Final = 1000


class LargeEvents:
    """`most`: bytes of one event's data, in the bucket and in JSON."""

    def __init__(self, bus: Bus, bodies: StoredBodies, most: int) -> None:
        self._bus, self._bodies, self.most = bus, bodies, most
        self._places = asyncio.Semaphore(AT_ONCE)
        self._unsure: OrderedDict[str, tuple[str, StoredData]] = OrderedDict()  # by message id: (name, what is there)

    async def publish(self, lane: Lane, work: Work, event: CloudEvent, msg_id: str) -> Receipt:
        """Stores the data, and publishes `work`, whose body is the event without it. Raises TooLargeError and
        UnavailableError."""
        async with self._places:
            known = self._unsure.pop(msg_id, None)
            if known is None:
                name = f"{work.id}-{new_id()[:12]}"
                stored = await self._put(name, event)
            else:
                name, stored = known
            work = replace(work, stored=name, data=stored)
            try:
                receipt = await self._bus.publish(lane.subject, work.body, work.headers(), msg_id=msg_id)
            except UnsureError:
                self._remember(msg_id, name, stored)
                raise
            except BaseException as error:
                # Cancelled, it may have been taken: what is kept in vain runs out, what is missing is lost
                if isinstance(error, Exception) and known is None:
                    await self._bodies.drop(name)
                elif known is not None:
                    self._remember(msg_id, name, stored)
                raise
            if receipt.duplicate and not (known is not None and await self._may_need(receipt.seq, name)):
                await self._bodies.drop(name)
            return receipt

    async def _put(self, name: str, event: CloudEvent) -> StoredData:
        too_large = TooLargeError(f"its data is more than {self.most} bytes")
        if isinstance(event.data, str | bytes) and len(event.data) > self.most:
            raise too_large
        form, pieces = await asyncio.to_thread(pieces_of, event)  # it looks at the whole text
        told = StoredData(form, 0, 0, names_of(event.data))
        turned = told.turner()
        size = inline = 0

        async def counted() -> AsyncIterator[bytes]:
            nonlocal size, inline
            for piece in pieces:
                size += len(piece)
                inline += len(turned(piece, False))
                if size > self.most:
                    raise too_large
                yield piece
            inline += len(turned(b"", True))

        await self._bodies.put(name, counted())
        return replace(told, size=size, inline=inline)

    async def _may_need(self, seq: int, name: str) -> bool:
        """The stream has the event already, from an earlier try of ours or from somebody else: whether what was taken
        then names this data. Gone from the stream, it may be a dead letter: then it is left to run out."""
        try:
            found = await self._bus.newest(WORK, seq=seq)
        except UnavailableError:
            return True
        try:
            return found is None or Work.read(found.headers, b"").stored == name
        except ValueError:
            return False

    def _remember(self, msg_id: str, name: str, stored: StoredData) -> None:
        self._unsure[msg_id] = (name, stored)
        while len(self._unsure) > MOST_UNSURE:
            self._unsure.popitem(last=False)
