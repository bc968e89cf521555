"""What the gateway knows of Triggers: their specs, from a watch, and what happened to their events here.

Counters grow for as long as this process lives; the operator adds up what the gateways say into the status.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from kappa_api.errors import SpecError
from kappa_api.trigger import Trigger, parse_trigger
from kappa_gateway.events.filters import Filter
from kappa_gateway.events.kinds import load_kind, shape_of
from kappa_gateway.events.ledger import Ledger, Tally
from kappa_gateway.events.work import TRIGGER

log = logging.getLogger(__name__)

Json = Any


@dataclass(slots=True)
class Counts:
    """What came in for a Trigger in this process. What was delivered stands in the Ledger.

    `received`: taken into the stream, each event once; `filtered`: did not pass the filter; `duplicates`: the stream
    had them already; `dropped`: too large to be taken. `rejected`: requests that were refused for a limit, by which.
    `last_event`: epoch seconds, 0 for never. `connected` and
    `message` are what the source says when it runs here (`running`).
    """

    received: int = 0
    filtered: int = 0
    duplicates: int = 0
    dropped: int = 0
    last_event: float = 0.0
    running: bool = False
    connected: bool = False
    message: str = ""
    rejected: dict[str, int] = field(default_factory=dict)

    def reject(self, reason: str) -> None:
        self.rejected[reason] = self.rejected.get(reason, 0) + 1


@dataclass(frozen=True, slots=True)
class Known:
    """One Trigger. `trigger`: its last spec that was valid, None if there was none, and `spec` as it was written;
    `fault`: what is wrong now."""

    key: str
    uid: str
    generation: int
    trigger: Trigger | None
    filter: Filter
    fault: str = ""
    spec: Mapping[str, Json] = field(default_factory=dict)

    @property
    def runs(self) -> Trigger | None:
        """The Trigger whose source is to run."""
        return self.trigger if self.trigger and not self.fault and not self.trigger.delivery.suspend else None


class Triggers:
    """The registry. `changed` is told the key of every Trigger that is new, changed or gone. `synced`: the first list
    has come; until then a Trigger that is not known may well be there. `ledger`: where it stands how much waits."""

    def __init__(self, ledger: Ledger | None = None, wall: Callable[[], float] = time.time) -> None:
        self._ledger, self._wall = ledger or Ledger(), wall
        self.synced = False
        self._known: dict[str, Known] = {}
        self._by_kind: dict[tuple[str, str], dict[str, Trigger]] = {}  # (namespace, kind): each post asks for one
        self._counts: dict[str, Counts] = {}  # by uid
        self.changed: list[Callable[[str], None]] = []
        self.refused = ""

    # --- the watch ----------------------------------------------------------------------------------------------------
    def put(self, resource: Mapping[str, Json]) -> None:
        """A Trigger was added or changed."""
        meta = resource["metadata"]
        key, uid = f"{meta.get('namespace')}/{meta['name']}", str(meta.get("uid", ""))
        generation = int(meta.get("generation") or 0)
        before = self._known.get(key)
        if before is not None and (before.uid, before.generation) == (uid, generation) and generation:
            return  # only its status, or its labels
        if before is not None and before.uid != uid:
            self._forget(before)
            before = None
        try:
            trigger = parse_trigger(resource)
            found = Known(key, uid, generation, trigger, Filter.of(trigger), spec=resource["spec"])
        except SpecError as error:
            found = Known(key, uid, generation, None, Filter(None), str(error))
            if before is not None:
                found = replace(before, generation=generation, fault=str(error))
            log.warning("Trigger %s is not valid: %s", key, error)
        self._file(self._known.get(key), found)
        self._known[key] = found
        self._tell(key)

    def remove(self, key: str) -> None:
        if (gone := self._known.pop(key, None)) is not None:
            self._forget(gone)
            self._file(gone, None)
            self._tell(key)

    def _file(self, before: Known | None, after: Known | None) -> None:
        if before is not None and (old := before.trigger) is not None:
            self._by_kind.get((old.namespace, old.kind), {}).pop(before.key, None)
        if after is not None and (new := after.trigger) is not None:
            self._by_kind.setdefault((new.namespace, new.kind), {})[after.key] = new

    def _forget(self, gone: Known) -> None:
        """Who has the name next begins at nothing."""
        self._counts.pop(gone.uid, None)
        self._ledger.tallies.pop((TRIGGER, gone.key), None)

    def known(self) -> Iterable[str]:
        return iter(list(self._known))

    def heard(self, refused: str) -> None:
        """Whether the API server gives Triggers: an older chart has no right to read them, or not even the CRD."""
        if refused and refused != self.refused:
            log.warning("Triggers cannot be read, so there are none: %s", refused)
        self.refused = refused
        self.synced = self.synced or not refused

    def _tell(self, key: str) -> None:
        for listener in self.changed:
            listener(key)

    # --- asking -------------------------------------------------------------------------------------------------------
    def get(self, key: str) -> Trigger | None:
        """The last valid spec of `namespace/name`; None: there is no such Trigger, or it never was valid."""
        found = self._known.get(key)
        return found.trigger if found else None

    def find(self, key: str) -> Known | None:
        return self._known.get(key)

    def of_kind(self, namespace: str, kind: str) -> list[Trigger]:
        """Those of a namespace that have, or had, a valid spec with a source of this kind; suspended ones too."""
        return list(self._by_kind.get((namespace, kind), {}).values())

    def counts(self, key: str) -> Counts:
        """The counters of `namespace/name`; of nobody's when there is no such Trigger."""
        found = self._known.get(key)
        return Counts() if found is None else self._counts.setdefault(found.uid, Counts())

    def shape(self, trigger: Trigger) -> str:
        """In which shape handlers get the events of this Trigger (one of names.SHAPES)."""
        return shape_of(load_kind(trigger.kind), trigger)

    def report(self) -> list[dict[str, Json]]:
        """What GET /v1/triggers says, in the order of keys."""
        now, rows = self._wall(), sorted(self._known.items())
        return [_row(known, self.counts(key), self._ledger.at(TRIGGER, key), now) for key, known in rows]


def _row(known: Known, counts: Counts, tally: Tally, now: float) -> dict[str, Json]:
    last = datetime.fromtimestamp(math.floor(counts.last_event), UTC) if counts.last_event else None
    return {
        "key": known.key,
        "uid": known.uid,
        "generation": known.generation,
        "kind": known.trigger.kind if known.trigger else "",
        "running": counts.running,
        "connected": counts.connected,
        "message": known.fault or counts.message,
        "lastEvent": last.strftime("%Y-%m-%dT%H:%M:%SZ") if last else "",
        "received": counts.received,
        "filtered": counts.filtered,
        "duplicates": counts.duplicates,
        "dropped": counts.dropped,
        "delivered": tally.succeeded,
        "failed": tally.failed,
        "deadLetters": tally.dead,
        "lag": tally.backlog,
        "oldestSeconds": round(max(0.0, now - tally.oldest_ms / 1000), 3) if tally.oldest_ms else 0,
    }
