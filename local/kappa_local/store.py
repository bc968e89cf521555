"""The object store: tables of objects, one resource version counter, a bounded history, watchers.

All of it is synchronous and in memory. One write costs: two dict updates, one event, and one append per watcher of
that table; it never looks at other objects. An object is encoded to JSON at most once per version (`Entry.body`),
whoever lists or watches it.

Versions start at the wall clock in milliseconds, so that a client which outlives a restart finds its version too old
(410) and lists again, as it would after etcd's compaction.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from kappa_local.errors import expired
from kappa_local.types import Key, Obj

HISTORY = 10_000
"""Events kept per table at most. A watch from before them gets 410. More costs memory: old versions stay alive."""

FRESH_SECONDS, LEAST = 120.0, 100
"""Older events are dropped, but for the last LEAST: memory depends on how much happens, not on how long it has been
happening. The real server's watch cache goes by the same rule, with 75 seconds.
"""

WATCHER_BACKLOG = 50_000
"""Events a watcher may lag behind before it is cut off (it lists again then)."""

Clock = Callable[[], float]
EventType = Literal["ADDED", "MODIFIED", "DELETED"]


class Entry:
    """One version of one object. `body` is its JSON without the outer brace, `apiVersion` and `kind`."""

    __slots__ = ("_body", "key", "obj", "rv")

    def __init__(self, key: Key, obj: Obj, rv: int) -> None:
        self.key = key
        self.obj = obj
        self.rv = rv
        self._body: bytes | None = None

    @property
    def body(self) -> bytes:
        if self._body is None:
            self._body = encode_body(self.obj)
        return self._body

    def __repr__(self) -> str:
        return f"<Entry {'/'.join(self.key)} rv={self.rv}>"


def encode_body(obj: Obj) -> bytes:
    rest = {key: value for key, value in obj.items() if key not in ("apiVersion", "kind")}
    return json.dumps(rest, separators=(",", ":"), ensure_ascii=False).encode()[1:]


@dataclass(frozen=True, slots=True)
class Event:
    """One change. `entry` is the new version (for DELETED the last one), `before` the version it replaced."""

    type: EventType
    entry: Entry
    before: Entry | None


@dataclass(eq=False)
class Watcher:
    """A subscription. `pending` is filled by the store; `wake` is called when it turns from empty to not empty."""

    namespace: str | None
    name: str | None
    wake: Callable[[], None]
    pending: deque[Event] = field(default_factory=deque)
    overrun: bool = False

    def offer(self, event: Event) -> None:
        namespace, name = event.entry.key
        if (self.namespace is not None and self.namespace != namespace) or (
            self.name is not None and self.name != name
        ):
            return
        if len(self.pending) >= WATCHER_BACKLOG:
            self.overrun = True
        else:
            self.pending.append(event)
        self.wake()


class Table:
    """All objects of one resource."""

    def __init__(self, floor: int, history: int = HISTORY, clock: Clock = time.monotonic) -> None:
        self._namespaces: dict[str, dict[str, Entry]] = {}
        self._ordered: dict[str | None, list[Key]] = {}
        self._history: deque[Event] = deque()
        self._times: deque[float] = deque()
        self._most, self._clock = history, clock
        self._floor = floor
        self._watchers: dict[int, Watcher] = {}

    def __len__(self) -> int:
        return sum(len(names) for names in self._namespaces.values())

    def get(self, key: Key) -> Entry | None:
        return self._namespaces.get(key[0], {}).get(key[1])

    def entries(self, namespace: str | None = None) -> list[Entry]:
        """Every entry (of one namespace), in key order, as etcd returns them."""
        keys = self._ordered.get(namespace)
        if keys is None:
            keys = sorted(self._keys(namespace))
            self._ordered[namespace] = keys
        return [self._namespaces[space][name] for space, name in keys]

    def _keys(self, namespace: str | None) -> Iterator[Key]:
        spaces = self._namespaces if namespace is None else {namespace: self._namespaces.get(namespace, {})}
        return ((space, name) for space, names in spaces.items() for name in names)

    def put(self, entry: Entry) -> Event:
        space, name = entry.key
        names = self._namespaces.setdefault(space, {})
        before = names.get(name)
        names[name] = entry
        if before is None:
            self._ordered.pop(space, None)
            self._ordered.pop(None, None)
        return self._publish(Event("MODIFIED" if before else "ADDED", entry, before))

    def remove(self, entry: Entry) -> Event:
        space, name = entry.key
        before = self._namespaces[space].pop(name)
        if not self._namespaces[space]:
            del self._namespaces[space]
        self._ordered.pop(space, None)
        self._ordered.pop(None, None)
        return self._publish(Event("DELETED", entry, before))

    def _publish(self, event: Event) -> Event:
        now = self._clock()
        self._history.append(event)
        self._times.append(now)
        while len(self._times) > self._most or (len(self._times) > LEAST and now - self._times[0] > FRESH_SECONDS):
            self._times.popleft()
            self._floor = self._history.popleft().entry.rv
        for watcher in tuple(self._watchers.values()):
            watcher.offer(event)
        return event

    def watch(self, watcher: Watcher, since: int | None) -> None:
        """Subscribe; with `since`, first replay what happened after that version. Raises 410 when that is not known."""
        if since is not None:
            if since < self._floor:
                raise expired(f"too old resource version: {since} ({self._floor})")
            missed: list[Event] = []
            for event in reversed(self._history):
                if event.entry.rv <= since:
                    break
                missed.append(event)
            for event in reversed(missed):
                watcher.offer(event)
        self._watchers[id(watcher)] = watcher

    def unwatch(self, watcher: Watcher) -> None:
        self._watchers.pop(id(watcher), None)

    def close_watchers(self) -> None:
        """Cut every watcher off: the resource is gone."""
        for watcher in tuple(self._watchers.values()):
            watcher.overrun = True
            watcher.wake()


Listener = Callable[[str, Event], None]


class Store:
    """Every table, and the version counter that they share. Writers pass objects that they own and give up."""

    def __init__(self, start: int | None = None, history: int = HISTORY, clock: Clock = time.monotonic) -> None:
        self.version = start if start is not None else time.time_ns() // 1_000_000
        self._floor = self.version
        self._history, self._clock = history, clock
        self._tables: dict[str, Table] = {}
        self._listeners: list[Listener] = []

    def table(self, name: str) -> Table:
        """The table of a resource, named `plural.group`; made on first use."""
        found = self._tables.get(name)
        if found is None:
            found = self._tables[name] = Table(self._floor, self._history, self._clock)
        return found

    def tables(self) -> dict[str, Table]:
        return dict(self._tables)

    def drop(self, name: str) -> None:
        table = self._tables.pop(name, None)
        if table is not None:
            table.close_watchers()

    def listen(self, listener: Listener) -> None:
        """Call `listener(table name, event)` after every write, in order. Controllers start here."""
        self._listeners.append(listener)

    def put(self, table: str, key: Key, obj: Obj) -> Entry:
        """Create or replace. Stamps the new resource version into `obj`."""
        entry = self._stamp(key, obj)
        self._tell(table, self.table(table).put(entry))
        return entry

    def remove(self, table: str, key: Key, obj: Obj) -> Entry:
        """Delete; `obj` is the object's last state, which watchers see with the version of the deletion."""
        entry = self._stamp(key, obj)
        self._tell(table, self.table(table).remove(entry))
        return entry

    def _stamp(self, key: Key, obj: Obj) -> Entry:
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        return Entry(key, obj, self.version)

    def _tell(self, table: str, event: Event) -> None:
        for listener in self._listeners:
            listener(table, event)
