"""Which events of a source a Trigger takes, and in which partition they stand when it wants them in order. Pure."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kappa_api.cloudevents import CloudEvent
from kappa_api.patterns import Pattern, compile_pattern
from kappa_api.trigger import Trigger

Json = Any
#: Lanes of an ordered Trigger: as many events of different keys can be delivered at a time.
PARTITIONS: Final = 16


@dataclass(frozen=True, slots=True)
class Filter:
    """The compiled `spec.filter`; None lets everything pass."""

    pattern: Pattern | None

    @classmethod
    def of(cls, trigger: Trigger) -> "Filter":
        return cls(compile_pattern(trigger.filter) if trigger.filter is not None else None)

    def passes(self, event: CloudEvent) -> bool:
        return self.pattern is None or self.pattern.matches(view(event))


def view(event: CloudEvent) -> Mapping[str, Json]:
    """The event as patterns see it: attributes by name, and the data, which is opaque if it is bytes."""
    found: dict[str, Json] = dict(event.attributes())
    if event.data is not None:
        found["data"] = "" if isinstance(event.data, bytes) else event.data
    return found


def partition(trigger: Trigger, event: CloudEvent) -> str:
    """Of an ordered Trigger: events with equal values under its key have equal partitions; those without have one."""
    if not trigger.ordered:
        return ""
    value: Json = view(event)
    for name in trigger.ordered.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return str(int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) % PARTITIONS)
