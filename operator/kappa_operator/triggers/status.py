"""The status of a Trigger: a pure function from observations to the object that `kubectl get triggers` shows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kappa_api.trigger_report import TriggerReport
from kappa_operator.status import MAX_MESSAGE, READY
from kappa_operator.triggers.counts import Reading, counted
from kappa_operator.triggers.records import TriggerRecord

Json = Any
#: Fields that are worth a write at once; the others wait for the next turn.
URGENT = ("conditions", "observedGeneration", "source")


@dataclass(frozen=True, slots=True)
class Seen:
    """What the status is made from besides the Trigger. `reports`: of each gateway that answered, under its name and
    epoch; `there`: the gateways that exist; `silent`: whether one of them did not answer."""

    function_exists: bool
    reports: Mapping[tuple[str, str], TriggerReport]
    there: frozenset[str]
    silent: bool = False


def ready_condition(record: TriggerRecord, seen: Seen) -> tuple[str, str, str]:
    """(status, reason, message) of `Ready`."""
    trigger = record.trigger
    if trigger is None:
        return "False", "InvalidSpec", record.problems
    if not seen.function_exists:
        return "False", "FunctionNotFound", f"there is no Function {trigger.function!r} in {record.namespace}"
    if trigger.delivery.suspend:
        return "False", "Suspended", "spec.suspend is set: nothing is read or delivered until it is taken away"
    if not seen.there:
        return "Unknown", "NoGateway", "no gateway runs"
    reports = [report for report in seen.reports.values() if report.generation == record.generation]
    if any(report.connected for report in reports):
        return "True", "Connected", "events come in and are delivered"
    messages = sorted({report.message for report in reports if report.message})
    if messages:
        return "False", "SourceFailed", "; ".join(messages)
    was = _was(record)
    if seen.silent and was.get("observedGeneration") == record.generation:
        return str(was["status"]), str(was.get("reason")), str(was.get("message"))  # one that is slow changes nothing
    if not reports:
        return "Unknown", "Unseen", "no gateway has reported on it yet; without NATS (KAPPA_NATS_URL) none will"
    return "Unknown", "Connecting", "no gateway has reached the source yet"


def status_patch(record: TriggerRecord, seen: Seen, now: str) -> dict[str, Json]:
    """The merge patch that brings the status up to date; empty when it is. `now` is RFC 3339."""
    old, reports = record.status, seen.reports.values()
    readings = [Reading(name, epoch, report.counts) for (name, epoch), report in seen.reports.items()]
    new: dict[str, Json] = {
        "observedGeneration": record.generation,
        "source": record.trigger.kind if record.trigger is not None else old.get("source"),
        "conditions": _conditions(record, seen, now),
        **counted(old, readings, seen.there),
    }
    if reports:
        new["lag"] = max(report.lag for report in reports)
    # One format, in UTC: the latest is the greatest.
    if latest := max((report.last_event for report in reports), default=""):
        new["lastEvent"] = max(latest, str(old.get("lastEvent") or ""))
    return {key: value for key, value in new.items() if old.get(key) != value}


def _was(record: TriggerRecord) -> Mapping[str, Json]:
    """`Ready` as it stands; empty when it does not."""
    conditions: list[Json] = record.status.get("conditions") or []
    return next((item for item in conditions if item.get("type") == READY), {})


def _conditions(record: TriggerRecord, seen: Seen, now: str) -> list[Json]:
    old = record.status.get("conditions") or []
    was = _was(record)
    status, reason, message = ready_condition(record, seen)
    kept = was.get("lastTransitionTime") if was.get("status") == status else None
    ready = {
        "type": READY,
        "status": status,
        "reason": reason,
        "message": message[:MAX_MESSAGE],
        "lastTransitionTime": kept or now,
        "observedGeneration": record.generation,
    }
    return [ready, *(item for item in old if item.get("type") != READY)]
