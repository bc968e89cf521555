"""Results of asynchronous invocations: written by the delivery, asked for by id.

A record wins. Without one, work that still stands in the stream is queued, and who has it in hand says whether it runs.
"""

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from kappa_gateway.events.bus import Bus, UnavailableError
from kappa_gateway.events.records import QUEUED, RUNNING, Record
from kappa_gateway.events.streams import RESULT_PREFIX, RESULTS, WORK
from kappa_gateway.events.submit import split_id
from kappa_gateway.events.work import Lane, Work

Json = Any
#: Asks the gateways who has a sequence in hand; True: it runs, False: it waits, None: nobody has it.
Where = Callable[[int], Awaitable[bool | None]]


class Results:
    """Reads and writes records. Raises UnavailableError."""

    def __init__(self, bus: Bus, where: Where, wall: Callable[[], float] = time.time) -> None:
        self._bus, self._where, self._wall = bus, where, wall

    async def write(self, key: str, record: Record) -> None:
        await self._bus.publish(RESULT_PREFIX + key, record.to_bytes())

    async def read(self, key: str) -> Record | None:
        """What was last written under the key, however old."""
        found = await self._bus.newest(RESULTS, last_of=RESULT_PREFIX + key)
        return Record.read(found.data) if found is not None else None

    async def forget(self, key: str) -> None:
        await self._bus.api(f"STREAM.PURGE.{RESULTS}", {"filter": RESULT_PREFIX + key})

    async def find(self, text: str) -> Record | None:
        """What is known of an id that a caller names; None: nothing, or nothing any more. Raises ValueError for what
        never was an id."""
        work_id, seq = split_id(text)
        record = await self._record(work_id)
        if record is not None and record.final:
            return record
        waiting = await self._waiting(work_id, seq)
        if waiting is None:  # it may have ended between the two looks
            found = await self._record(work_id)
            return found if found is not None and found.final else None
        running = await self._where(seq)
        if running:
            return replace(record or waiting, state=RUNNING)
        return record or waiting

    async def wait(self, text: str, seconds: float) -> Record | None:
        """As `find`, but gives a final state up to so many seconds to come."""
        work_id, _ = split_id(text)
        changed = asyncio.Event()

        async def heard(message: Msg) -> None:
            if Record.read(message.data).final:
                changed.set()

        try:
            subscription = await self._bus.nc.subscribe(RESULT_PREFIX + work_id, cb=heard)
        except NatsError as error:
            raise UnavailableError(str(error)) from error
        try:
            found = await self.find(text)
            if found is None or found.final:
                return found
            try:
                async with asyncio.timeout(seconds):
                    await changed.wait()
            except TimeoutError:
                pass
            return await self.find(text)
        finally:
            try:
                await subscription.unsubscribe()
            except NatsError:
                pass

    async def _record(self, work_id: str) -> Record | None:
        record = await self.read(work_id)
        return record if record is not None and (not record.until or record.until > self._wall() * 1000) else None

    async def _waiting(self, work_id: str, seq: int) -> Record | None:
        found = await self._bus.newest(WORK, seq=seq)
        try:
            work = Work.read(found.headers, b"") if found is not None else None
        except ValueError:
            return None
        if found is None or work is None or not hmac.compare_digest(work.id.encode(), work_id.encode()):
            return None
        at = work.accepted_ms
        return Record(work_id, Lane.of(found.subject).key, QUEUED, accepted=at, changed=at)
