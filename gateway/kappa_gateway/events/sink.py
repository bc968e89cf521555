"""Where a source puts its events: filter -> lane -> JetStream, each event once however often it is emitted.

JetStream drops what has the id of an event of the last ten minutes (`Nats-Msg-Id`: the Trigger's uid and a digest of
the event's source and id), so gateways may emit the same event at the same time, and a source may emit it again.
"""

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from kappa_api.cloudevents import CloudEvent
from kappa_api.trigger import Trigger
from kappa_gateway.events.bus import Bus, TooLargeError
from kappa_gateway.events.filters import partition
from kappa_gateway.events.large import LargeEvents
from kappa_gateway.events.stored_data import heavy
from kappa_gateway.events.triggers import Counts, Known, Triggers
from kappa_gateway.events.work import TRIGGER, Lane, Work
from kappa_gateway.hops import of_event

log = logging.getLogger(__name__)

Json = Any
#: Events that are on their way to JetStream at a time.
MOST: Final = 256


@dataclass(frozen=True, slots=True)
class Outlet:
    """What every sink needs. `poke` is told each lane that got something; `wall`: epoch seconds. `large`: for events of
    more than `EventSettings.message_bytes`."""

    bus: Bus
    triggers: Triggers
    poke: Callable[[Lane], None]
    wall: Callable[[], float]
    large: LargeEvents


class TriggerSink:
    """The Sink of one Trigger. `on_connected`: the runner wants to know, too. `strict`: somebody waits for the answer
    and is told (TooLargeError) of an event that is too large; else it is dropped, or it would be offered again.
    `hops`: of whoever posts; an event may say more.
    """

    def __init__(
        self,
        outlet: Outlet,
        key: str,
        on_connected: Callable[[], None] = lambda: None,
        *,
        strict: bool = False,
        hops: int = 0,
    ) -> None:
        self._outlet, self._key, self._on_connected = outlet, key, on_connected
        self._strict, self._hops = strict, hops

    def connected(self) -> None:
        counts = self._outlet.triggers.counts(self._key)
        counts.connected, counts.message = True, ""
        self._on_connected()

    async def emit(self, events: Sequence[CloudEvent]) -> None:
        """See `source.Sink`. Events of one partition go one after the other: the stream is to have their order."""
        known = self._outlet.triggers.find(self._key)
        if known is None or known.trigger is None:
            return  # it was deleted meanwhile: nobody wants them
        counts = self._outlet.triggers.counts(self._key)
        for start in range(0, len(events), MOST):
            await self._emit(known, known.trigger, counts, events[start : start + MOST])

    async def _emit(self, known: Known, trigger: Trigger, counts: Counts, events: Sequence[CloudEvent]) -> None:
        passed = [event for event in events if known.filter.passes(event)]
        if trigger.ordered:
            rows: dict[str, list[CloudEvent]] = {}
            for event in passed:
                rows.setdefault(partition(trigger, event), []).append(event)
            jobs = [self._row(trigger, counts, place, row) for place, row in rows.items()]
        else:
            jobs = [self._row(trigger, counts, "", [event]) for event in passed]
        if len(jobs) == 1:
            await jobs[0]
        elif jobs:
            # All of them are waited for: who emits again must not do so beside a straggler
            for outcome in await asyncio.gather(*jobs, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    raise outcome
        counts.filtered += len(events) - len(passed)

    async def _row(self, trigger: Trigger, counts: Counts, place: str, row: Sequence[CloudEvent]) -> None:
        lane = Lane(TRIGGER, trigger.namespace, trigger.name, place)
        for event in row:
            await self._put(trigger, counts, lane, event)

    async def _put(self, trigger: Trigger, counts: Counts, lane: Lane, event: CloudEvent) -> None:
        wall = self._outlet.wall()
        digest = work_id(trigger.uid, event)
        most = self._outlet.bus.settings.message_bytes
        large = heavy(event.data, most)
        body = b"" if large else encoded(event)
        large = large or (len(body) > most and event.data is not None)
        if large:
            body = encoded(replace(event, data=None))
        work = Work(digest, int(wall * 1000), body, hops=max(self._hops, of_event(event)))
        msg_id = f"{trigger.uid}/{digest}"
        try:
            if large:
                receipt = await self._outlet.large.publish(lane, work, event, msg_id)
            else:
                receipt = await self._outlet.bus.publish(lane.subject, body, work.headers(), msg_id=msg_id)
        except TooLargeError as error:
            if self._strict:
                raise
            counts.dropped += 1
            counts.message = f"an event was dropped, it is too large: {error}"
            log.warning("Trigger %s: %s (id %s)", trigger.key, counts.message, event.id[:200])
            return
        if receipt.duplicate:
            counts.duplicates += 1
        else:
            counts.received += 1
            counts.last_event = max(counts.last_event, wall)
        self._outlet.poke(lane)


def work_id(uid: str, event: CloudEvent) -> str:
    """32 hex digits: of two events of one Trigger they are equal only if source and id are (CloudEvents 1.0)."""
    return hashlib.sha256(json.dumps([uid, event.source, event.id]).encode()).hexdigest()[:32]


def encoded(event: CloudEvent) -> bytes:
    """The JSON event format, in UTF-8; half characters, which JSON may hold and UTF-8 may not, as escapes."""
    value = event.to_json()
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()
