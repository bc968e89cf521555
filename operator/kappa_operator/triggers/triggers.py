"""Reconciles Triggers, one at a time: compare what the gateways say with the status, and write what is new.

The gateways run the sources and deliver; all that is done here is to check and to tell. Every few seconds they are
asked; a status is written at once when a condition changes, and else with the next turn.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from kappa_api.trigger_report import AsyncReport, GatewayReport, TriggerReport
from kappa_operator.clock import Clock
from kappa_operator.events import Recorder
from kappa_operator.kube import ApiError, Kube, NotFoundError, function_path, trigger_path
from kappa_operator.observed import FunctionRecord, Pod, rfc3339
from kappa_operator.status import READY
from kappa_operator.store import Keys, Store
from kappa_operator.triggers.records import TriggerRecord, TriggerStore, trigger_work
from kappa_operator.triggers.status import URGENT, Seen, ready_condition, status_patch

Json = Any
logger = logging.getLogger(__name__)

#: How often the gateways are asked, and the least time between two writes of counters of one object.
TURN_SECONDS = 5.0
#: While a Trigger has just been made or changed, it is asked more often: somebody waits to see it ready.
SOON_SECONDS = 0.5
FRESH_SECONDS = 15.0


class Reader(Protocol):
    """`scrape.ReportReader`, or a fake."""

    async def read(self, pod: Pod) -> GatewayReport | None: ...
    async def close(self) -> None: ...


@dataclass(slots=True)
class Reports:
    """What the gateways said last. `there` are those that exist, `epochs` the processes that answered."""

    there: frozenset[str] = frozenset()
    epochs: dict[str, str] = field(default_factory=dict)
    triggers: dict[str, dict[tuple[str, str], TriggerReport]] = field(default_factory=dict)  # by uid
    functions: dict[str, AsyncReport] = field(default_factory=dict)

    @classmethod
    def of(cls, there: frozenset[str], answers: list[GatewayReport]) -> "Reports":
        found = cls(there, {answer.gateway: answer.epoch for answer in answers})
        for answer in answers:
            for report in answer.triggers:
                found.triggers.setdefault(report.uid, {})[answer.gateway, answer.epoch] = report
            for key, function in answer.functions.items():
                held = found.functions.get(key, AsyncReport())
                found.functions[key] = AsyncReport(
                    max(held.waiting, function.waiting),
                    max(held.oldest_seconds, function.oldest_seconds),
                    max(held.dead_letters, function.dead_letters),
                )
        return found


class Triggers:
    """See the module. `wake` puts work into the queue."""

    def __init__(
        self,
        kube: Kube,
        store: Store,
        namespace: str,
        reader: Reader,
        *,
        wake: Callable[[Keys], None],
        events: Recorder,
        clock: Clock,
    ) -> None:
        self.records = TriggerStore()
        self._kube, self._store, self._namespace, self._reader = kube, store, namespace, reader
        self._wake, self._events, self._clock = wake, events, clock
        self._reports: Reports | None = None  # nothing is told before they were asked for the first time
        self._written: dict[str, float] = {}  # when counters were last written, by uid
        self._said: dict[str, str] = {}  # the last reason that an Event told, by uid
        self._unsure: dict[str, tuple[int, float]] = {}  # of which generation nobody knows yet whether it is ready

    async def run(self) -> None:
        """Asks the gateways until cancelled."""
        try:
            while True:
                try:
                    await self.turn()
                except Exception:
                    logger.exception("reading the gateways' Triggers failed")
                await self._pause()
        finally:
            await self._reader.close()

    async def _pause(self) -> None:
        """Until the next turn is due: sooner if a Trigger has changed and is not ready yet."""
        end = self._clock.monotonic() + TURN_SECONDS
        while (now := self._clock.monotonic()) < end:
            await self._clock.sleep(min(SOON_SECONDS, end - now))
            if any(now - since < FRESH_SECONDS for _, since in self._unsure.values()):
                return

    async def turn(self) -> None:
        """Asks every gateway once, and looks at all that may have changed."""
        pods = self._store.gateways(self._namespace, leaving=True)
        answers = await asyncio.gather(*(self._reader.read(pod) for pod in pods))
        there = frozenset(pod.name for pod in pods)
        self._reports = Reports.of(there, [answer for answer in answers if answer is not None])
        self._wake(frozenset(trigger_work(key) for key in self.records.records))
        if self._reports.epochs:
            await self._tell_functions(self._reports.functions)
        known = {record.uid for record in self.records.records.values()}
        for memory in (self._written, self._said, self._unsure):
            for uid in memory.keys() - known:
                del memory[uid]

    async def reconcile(self, key: str) -> float:
        """Looks at one Trigger; returns in how many seconds it must be looked at again, 0 for only on events."""
        record = self.records.records.get(key)
        if record is None or record.deleting or self._reports is None:
            return 0.0
        seen = self._seen(record, self._reports)
        self._tell(record, seen)
        patch = status_patch(record, seen, rfc3339(self._clock.wall()))
        now = self._clock.monotonic()
        if not patch:
            return 0.0
        if not any(field in patch for field in URGENT):
            left = self._written.get(record.uid, now - TURN_SECONDS) + TURN_SECONDS - now
            if left > 0:
                return left
        try:
            raw = await self._kube.merge(
                trigger_path(record.namespace, record.name, "status"),
                {"metadata": {"uid": record.uid}, "status": patch},
            )
        except NotFoundError:
            self._wake(self.records.drop(record.key))
            return 0.0
        self._written[record.uid] = now
        self._wake(self.records.put(raw))
        return 0.0

    def _seen(self, record: TriggerRecord, reports: Reports) -> Seen:
        trigger = record.trigger
        function = self._store.functions.get(trigger.function_key) if trigger is not None else None
        return Seen(
            function_exists=function is not None and not function.deleting,
            reports=reports.triggers.get(record.uid, {}),
            there=reports.there,
            silent=not reports.there <= reports.epochs.keys(),
        )

    def _tell(self, record: TriggerRecord, seen: Seen) -> None:
        """Events for changes of Ready. Unknown is what every start begins with, and nothing to tell."""
        status, reason, message = ready_condition(record, seen)
        if status == "Unknown":
            if self._unsure.get(record.uid, (0, 0.0))[0] != record.generation:
                self._unsure[record.uid] = (record.generation, self._clock.monotonic())
            return
        self._unsure.pop(record.uid, None)
        conditions: list[Json] = record.status.get("conditions") or []
        old: Json = next((item for item in conditions if item.get("type") == READY), {})
        said = f"{reason} {message}"
        if self._said.get(record.uid, f"{old.get('reason')} {old.get('message')}") == said:
            return
        self._said[record.uid] = said
        if status == "True" or reason == "Suspended":
            self._events.normal(record, reason, message)
        else:
            self._events.warning(record, reason, message)

    # --- asynchronous invocations of Functions ------------------------------------------------------------------------
    async def _tell_functions(self, reports: Mapping[str, AsyncReport]) -> None:
        """`status.async` of every Function that has, or had, asynchronous invocations."""
        had = {key for key, record in self._store.functions.items() if _waits(record.status.get("async"))}
        for key in sorted(had | reports.keys()):
            record = self._store.functions.get(key)
            if record is None or record.deleting:
                continue
            now = _async_status(reports.get(key, AsyncReport()))
            if record.status.get("async", _NOTHING) != now:
                await self._write_function(record, now)

    async def _write_function(self, record: FunctionRecord, status: Json) -> None:
        try:
            raw = await self._kube.merge(
                function_path(record.namespace, record.name, "status"),
                {"metadata": {"uid": record.uid}, "status": {"async": status}},
            )
        except NotFoundError:
            return  # the watch will say so
        except ApiError as error:
            logger.info("%s: status.async not written: %s", record.key, error)
            return
        self._wake(self._store.put_function(raw))


_NOTHING: Mapping[str, Json] = {"waiting": 0, "oldestSeconds": 0, "deadLetters": 0}


def _async_status(report: AsyncReport) -> dict[str, Json]:
    return {
        "waiting": report.waiting,
        "oldestSeconds": int(report.oldest_seconds),
        "deadLetters": report.dead_letters,
    }


def _waits(status: Json) -> bool:
    return isinstance(status, Mapping) and status != _NOTHING
