"""The source `schedule`: fires by the clock, on every gateway; JetStream keeps one of the equal firings.

A firing's id is its time, so however many gateways fire it, and however often, it happens once within JetStream's ten
minutes. The time of the last firing is kept (`kappa-state`): what is older than a minute was missed, and the Trigger
says what becomes of it. Nothing fires before its time, and nothing twice because a clock was set back.

Daylight saving (as Debian's cron does it, by cronsim): a job at a fixed time that the clocks skip fires right after;
one whose time comes twice fires once; jobs with `*` in minutes or hours go by real time.
"""

import asyncio
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from kappa_api.cloudevents import CloudEvent
from kappa_api.sources.schedule import Schedule
from kappa_api.trigger import Trigger
from kappa_gateway.events.bus import UnavailableError
from kappa_gateway.events.source import Place, Source, SourceError, Surroundings

log = logging.getLogger(__name__)

PLACE: Final = Place.EACH
SHAPE: Final = "schedule"
TYPE: Final = "dev.kappa.schedule.fired"
#: A firing that is late by no more than this is not missed: a gateway restarts, a leader is elected.
GRACE_SECONDS: Final = 60.0
#: The clock may be set: nobody sleeps longer without looking at it.
STRIDE_SECONDS: Final = 10.0
MOST_MISSED: Final = 1000
#: A last firing that lies further ahead than clocks may differ was written by a clock that was wrong.
AHEAD_SECONDS: Final = 3600.0
RETRY_SECONDS: Final = 0.2
_KEY: Final = "last"


def make(trigger: Trigger, surroundings: Surroundings) -> Source:
    return ScheduleSource(trigger, surroundings)


class ScheduleSource:
    """See the module."""

    def __init__(self, trigger: Trigger, given: Surroundings) -> None:
        self._trigger, self._given = trigger, given
        self._spec: Schedule = trigger.source

    async def run(self) -> None:
        """See `source.Source`."""
        while True:
            upcoming = await self._begin()
            self._given.sink.connected()
            for due in upcoming:
                await self._until(due)
                if not await self._fire(due):
                    break  # too late: others may have done it, so look again at what was missed
            else:
                await asyncio.Event().wait()  # nothing is left to fire

    async def _begin(self) -> Iterator[float]:
        """What was missed has been fired as the Trigger says; the times that are still to come."""
        now = self._given.wall()
        saved = await self._given.state.load(_KEY)
        last = float(saved) if saved is not None else now
        if last > now + AHEAD_SECONDS:
            log.warning("Trigger %s: its last firing was in the future; beginning anew", self._trigger.key)
            last = now
        if saved is None:
            await self._save(now)
        late = now - GRACE_SECONDS
        newest = [due for due in _newest(self._spec, last, late) if due > last]
        chosen = {"skip": [], "last": newest[-1:], "all": newest}[self._spec.missed]
        if chosen:
            await self._given.sink.emit([self._event(due) for due in chosen])
            await self._save(chosen[-1])
        return times(self._spec, max(last, late))

    async def _until(self, due: float) -> None:
        while (left := due - self._given.wall()) > 0:
            await asyncio.sleep(min(left, STRIDE_SECONDS))

    async def _fire(self, due: float) -> bool:
        """False: JetStream was away for so long that this is a missed firing now."""
        while self._given.wall() - due <= GRACE_SECONDS:
            try:
                await self._given.sink.emit([self._event(due)])
                await self._save(due)
                return True
            except UnavailableError as error:
                log.debug("Trigger %s: cannot fire yet: %s", self._trigger.key, error)
                await asyncio.sleep(RETRY_SECONDS)
        return False

    async def _save(self, due: float) -> None:
        await self._given.state.save(_KEY, repr(due).encode())

    def _event(self, due: float) -> CloudEvent:
        spec, trigger = self._spec, self._trigger
        time = datetime.fromtimestamp(due, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        what = {"cron": spec.cron} if spec.cron else {"at": spec.at}
        data: dict[str, Any] = {**what, "timeZone": spec.zone, "scheduledTime": time, "detail": dict(spec.data or {})}
        source = f"/kappa/{trigger.namespace}/{trigger.name}"
        return CloudEvent(id=time, source=source, type=TYPE, subject=trigger.name, time=time, data=data)


def times(spec: Schedule, after: float) -> Iterator[float]:
    """Epoch seconds of the firings after this time, oldest first. Raises SourceError."""
    zone = _zone(spec.zone)
    if spec.at:
        return iter([due] if (due := _at(spec.at, zone)) > after else [])
    try:
        ticks = CronSim(spec.cron, datetime.fromtimestamp(after, zone))
    except CronSimError as error:
        raise SourceError(f"the schedule {spec.cron!r} is not understood: {error}") from error
    return (tick.timestamp() for tick in ticks)


def _newest(spec: Schedule, after: float, until: float) -> list[float]:
    """The newest firings in (after, until], at most MOST_MISSED, oldest first. Looks backwards: a year of minutes that
    were missed costs no more than the thousand that count."""
    if until <= after:
        return []
    if spec.at:
        return [due for due in times(spec, after) if due <= until]
    zone = _zone(spec.zone)
    try:
        # What is looked for backwards ends before the time given, so a second is added
        begin = datetime.fromtimestamp(until, UTC).replace(microsecond=0) + timedelta(seconds=1)
        ticks = CronSim(spec.cron, begin.astimezone(zone), reverse=True)
    except CronSimError as error:
        raise SourceError(f"the schedule {spec.cron!r} is not understood: {error}") from error
    found = []
    for tick in islice(ticks, MOST_MISSED):
        if tick.timestamp() <= after:
            break
        found.append(tick.timestamp())
    return [due for due in sorted(set(found)) if due <= until]


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError) as error:
        raise SourceError(f"the time zone {name!r} is not known") from error


def _at(text: str, zone: ZoneInfo) -> float:
    """A time with an offset is what it says; one without is in the zone."""
    found = datetime.fromisoformat(text)
    return (found if found.tzinfo else found.replace(tzinfo=zone)).timestamp()
