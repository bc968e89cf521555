"""The operator's picture of the Triggers, and which of them invoke which Function. Fed like `store.Store`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from kappa_api import names
from kappa_api.errors import SpecError
from kappa_api.trigger import Trigger, parse_trigger
from kappa_operator.observed import identity_of
from kappa_operator.store import Keys

Json = Any
WORK_PREFIX = "trigger/"
FUNCTION_PREFIX = "function/"


def trigger_work(key: str) -> str:
    """Queue key of a Trigger (`namespace/name`)."""
    return f"{WORK_PREFIX}{key}"


@dataclass(frozen=True, slots=True)
class TriggerRecord:
    """One Trigger: parsed, or with what is wrong with it; and the status as it stands in the API.

    `trigger` is None exactly when `problems` has text.
    """

    kind: ClassVar[str] = names.TRIGGER_KIND

    namespace: str
    name: str
    uid: str
    version: int
    generation: int
    deleting: bool
    trigger: Trigger | None
    problems: str
    status: Mapping[str, Json]

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


def parse_trigger_record(raw: Mapping[str, Json]) -> TriggerRecord:
    """Reads a Trigger, valid or not."""
    trigger, problems = None, ""
    try:
        trigger = parse_trigger(raw)
    except SpecError as error:
        problems = str(error)
    return TriggerRecord(**identity_of(raw), trigger=trigger, problems=problems, status=raw.get("status") or {})


class TriggerStore:
    """All Triggers by `namespace/name`. Each change returns the work that it causes."""

    def __init__(self) -> None:
        self.records: dict[str, TriggerRecord] = {}
        self._users: dict[str, set[str]] = {}

    def put(self, raw: Mapping[str, Json]) -> Keys:
        """Takes a Trigger over, unless it is older than what is held. A change of status only causes no work."""
        record = parse_trigger_record(raw)
        old = self.records.get(record.key)
        same = old is not None and old.uid == record.uid
        if old is not None and same and old.version > record.version:
            return frozenset()
        self.records[record.key] = record
        if old is not None and same and (old.generation, old.deleting) == (record.generation, record.deleting):
            return frozenset()
        self._index(old, False)
        self._index(record, True)
        return frozenset({trigger_work(record.key)})

    def drop(self, key: str) -> Keys:
        old = self.records.pop(key, None)
        self._index(old, False)
        return frozenset({trigger_work(key)}) if old is not None else frozenset()

    def keep(self, seen: Iterable[str], known: Mapping[str, int]) -> Keys:
        """Drops each Trigger that a list did not have, though it was `known`, by key and version, before the list."""
        work: set[str] = set()
        for key in known.keys() - set(seen):
            held = self.records.get(key)
            if held is not None and held.version == known[key]:
                work |= self.drop(key)
        return frozenset(work)

    def versions(self) -> dict[str, int]:
        return {key: record.version for key, record in self.records.items()}

    def of_functions(self, work: Keys) -> Keys:
        """The Triggers of the Functions for which there is work: a Function that appears or goes changes theirs."""
        if not self._users:
            return frozenset()
        functions = (key.removeprefix(FUNCTION_PREFIX) for key in work if key.startswith(FUNCTION_PREFIX))
        return frozenset(trigger_work(key) for function in functions for key in self._users.get(function, ()))

    def _index(self, record: TriggerRecord | None, add: bool) -> None:
        if record is None or record.trigger is None:
            return
        function = record.trigger.function_key
        if add:
            self._users.setdefault(function, set()).add(record.key)
        elif function in self._users:
            self._users[function].discard(record.key)
            if not self._users[function]:
                del self._users[function]
