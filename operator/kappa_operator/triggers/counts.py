"""Adds the gateways' counters up, so that neither a restart of a gateway nor one of the operator loses or repeats any.

Gateways count from zero with each start. `status.gateways` holds what of each gateway's present counters is in the sums
already; it is written in the same patch as the sums, so the next leader goes on exactly there. Pure.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from kappa_api.trigger_report import COUNTERS

Json = Any


@dataclass(frozen=True, slots=True)
class Reading:
    """The counters of one Trigger at one gateway, of the process `epoch`."""

    gateway: str
    epoch: str
    counts: Mapping[str, int]


def counted(status: Mapping[str, Json], readings: Collection[Reading], there: Collection[str]) -> dict[str, Json]:
    """The sums and `gateways` of the next status. `there`: gateways that exist; of the others nothing more will come.
    One that exists and was not read keeps its place."""
    sums = {name: _number(status.get(name)) for name in COUNTERS}
    before = {str(item.get("name")): item for item in status.get("gateways") or () if isinstance(item, Mapping)}
    after = {name: item for name, item in before.items() if name in there}
    for reading in readings:
        held = before.get(reading.gateway, {})
        had = held.get("counts") if held.get("epoch") == reading.epoch else None
        now = [max(0, reading.counts.get(name, 0)) for name in COUNTERS]
        base = had if isinstance(had, list) and len(had) == len(COUNTERS) else [0] * len(COUNTERS)
        for name, new, old in zip(COUNTERS, now, base, strict=True):
            sums[name] += max(0, new - _number(old))
        if any(now):
            after[reading.gateway] = {"name": reading.gateway, "epoch": reading.epoch, "counts": now}
        else:
            after.pop(reading.gateway, None)
    return {**sums, "gateways": [after[name] for name in sorted(after)]}


def _number(value: Json) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
