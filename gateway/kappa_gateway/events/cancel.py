"""Who has a piece of work in hand, and taking work back that has not run yet.

Gateways ask each other over plain NATS; only the one that has the work in hand answers. When nobody does, it stands in
the stream.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from kappa_gateway.events.bodies import StoredBodies
from kappa_gateway.events.bus import Bus, RefusedError
from kappa_gateway.events.delivery.item import Item
from kappa_gateway.events.delivery.job import CANCEL
from kappa_gateway.events.records import CANCELLED, QUEUED, RETRYING, RUNNING, Record
from kappa_gateway.events.results import Results
from kappa_gateway.events.streams import WORK
from kappa_gateway.events.submit import split_id
from kappa_gateway.events.work import Work

log = logging.getLogger(__name__)

Json = Any
SUBJECT: Final = "kappa.ctl.work"
ASK_SECONDS: Final = 0.25
#: A cancelled invocation is told of for so long.
KEPT_MS: Final = 86_400_000


class Control:
    """`items`: what this gateway has in hand, by sequence. `listen` after each connect."""

    def __init__(self, bus: Bus, items: Mapping[int, Item], wall: Callable[[], float] = time.time) -> None:
        self._bus, self._items, self._wall = bus, items, wall
        self._client: object = None
        self.results: Results | None = None

    async def listen(self) -> None:
        if self._client is not self._bus.nc:
            client = self._bus.nc
            await client.subscribe(SUBJECT, cb=self._asked)
            self._client = client

    async def where(self, seq: int) -> bool | None:
        """True: it runs; False: it waits in some gateway's hand; None: nobody answers to it."""
        answer = await self._ask({"op": "where", "seq": seq})
        return bool(answer["running"]) if answer is not None else None

    async def cancel(self, text: str) -> Record | None:
        """Takes back the work with this public id. Returns what is known of it afterwards: its state is `cancelled`, or
        it could not be cancelled and this is its state; None: there is no such work. Raises ValueError,
        UnavailableError."""
        assert self.results is not None
        work_id, seq = split_id(text)
        found = await self.results.find(text)
        if found is None or found.state not in (QUEUED, RETRYING):
            return found
        answer = await self._ask({"op": "drop", "seq": seq})
        if answer is not None and answer["running"]:
            return replace(found, state=RUNNING)
        if answer is not None:
            return await self._dropped(text, found)
        now = int(self._wall() * 1000)
        done = replace(found, state=CANCELLED, changed=now, until=now + KEPT_MS, due=0, error=None)
        await self.results.write(work_id, done)
        message = await self._bus.newest(WORK, seq=seq)
        try:
            await self._bus.api(f"STREAM.MSG.DELETE.{WORK}", {"seq": seq, "no_erase": True})
        except RefusedError as error:
            log.debug("%s is gone from the stream: %s", seq, error)
            return done
        if message is not None and (stored := Work.read(message.headers, b"").stored):
            await StoredBodies(self._bus).drop(stored)
        return done

    async def _dropped(self, text: str, found: Record) -> Record:
        """The gateway that has it writes the record in a moment."""
        assert self.results is not None
        for _ in range(20):
            record = await self.results.find(text)
            if record is not None and record.final:
                return record
            await asyncio.sleep(0.05)
        return replace(found, state=CANCELLED)

    async def _ask(self, question: Json) -> Json | None:
        mine = self._answer(question)
        if mine is not None:
            return mine
        try:
            reply = await self._bus.nc.request(SUBJECT, json.dumps(question).encode(), timeout=ASK_SECONDS)
            return json.loads(reply.data)
        except (NatsError, TimeoutError, ValueError):
            return None

    async def _asked(self, message: Msg) -> None:
        answer = self._answer(json.loads(message.data))
        if answer is not None and message.reply:
            await self._bus.tell(message.reply, json.dumps(answer).encode())

    def _answer(self, question: Json) -> Json | None:
        item = self._items.get(question["seq"])
        if item is None or item.job is None:
            return None
        if question["op"] == "drop":
            return {"running": not item.job.withdraw(CANCEL, item)}
        return {"running": item.job.running}
