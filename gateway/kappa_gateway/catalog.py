"""All functions and instances this gateway knows, and what the watches change in them.

A change costs what it touches: one entry, one queue. The host table is built anew, but only when a function with routes
changes, and many changes in a row are gathered (`routes_stale` asks the owner to set `routes` soon).
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kappa_api import names
from kappa_api.errors import SpecError
from kappa_api.function import parse_function
from kappa_gateway.dispatch import Instance, Queue
from kappa_gateway.errors import GatewayError
from kappa_gateway.faults import fault_of
from kappa_gateway.metrics import Counters
from kappa_gateway.routes import Entry, RouteTable

Json = Any


class State:
    """One function at this gateway.

    `entry` is None while only its pods are known, after it was deleted, and for a spec that was never valid. `fault`
    says why no instance will come (`faults.py`); empty when one may.
    """

    __slots__ = ("counters", "entry", "fault", "queue")

    def __init__(self, key: str) -> None:
        self.entry: Entry | None = None
        self.fault = ""
        self.queue = Queue(key)
        self.counters = Counters()

    def __repr__(self) -> str:
        return f"<State {'known' if self.entry else 'unknown'} {self.queue!r}>"


class Catalog:
    """`functions` maps `namespace/name` to its State; `routes` is the table for hosts."""

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        routes_stale: Callable[[], None],
        instance_gone: Callable[[str], None],
    ) -> None:
        self._clock, self._routes_stale, self._instance_gone = clock, routes_stale, instance_gone
        self.functions: dict[str, State] = {}
        self.routes = RouteTable()
        self.draining: dict[str, Instance] = {}
        self._owners: dict[str, str] = {}  # instance key -> function key

    # --- Functions ----------------------------------------------------------------------------------------------------
    def put_function(self, resource: Mapping[str, Json]) -> None:
        """A Function was added or changed. One with a spec that is not valid keeps its last valid form."""
        meta = resource["metadata"]
        key = f"{meta.get('namespace')}/{meta.get('name')}"
        self._put_fault(key, fault_of(resource))
        known = self.functions.get(key)
        version = (str(meta.get("uid", "")), int(meta.get("generation", 0)))
        if known is not None and known.entry is not None and version[1] and known.entry.version == version:
            return  # only its status or its metadata changed, as they often do
        try:
            entry = Entry.of(parse_function(resource))
        except SpecError:
            return
        state = self.functions.get(entry.key)
        if state is None:
            state = self.functions[entry.key] = State(entry.key)
        before, state.entry = state.entry, entry
        if entry.routes != (before.routes if before else ()):
            self._routes_stale()

    def remove_function(self, key: str) -> None:
        """A Function was deleted: whoever waits for it gets 404, whoever is in service finishes."""
        state = self.functions.get(key)
        if state is None:
            return
        if state.entry is not None and state.entry.routes:
            self._routes_stale()
        state.entry, state.fault = None, ""
        self._reject(state, GatewayError("not_found", f"function {key} was deleted"))
        self._forget_if_unused(key, state)

    def _put_fault(self, key: str, fault: str) -> None:
        """Whoever waits when a fault appears learns of it at once."""
        state = self.functions.get(key)
        if state is None:
            if not fault:
                return
            state = self.functions[key] = State(key)
        state.fault = fault
        if fault and not state.queue.instances:
            self._reject(state, GatewayError("not_ready", fault))
        self._forget_if_unused(key, state)

    def _reject(self, state: State, failure: GatewayError) -> None:
        now = self._clock()
        for waiter in state.queue.waiters():
            state.queue.leave(waiter, now)
            waiter.rejected(failure)

    def routed(self) -> list[Entry]:
        """All entries that have host routes: what a table is made of."""
        return [state.entry for state in self.functions.values() if state.entry is not None and state.entry.routes]

    def rebuild_routes(self) -> None:
        """Makes the host table of all functions at once."""
        self.routes = RouteTable(self.routed())

    # --- Pods ---------------------------------------------------------------------------------------------------------
    def put_pod(self, pod: Mapping[str, Json]) -> None:
        """A pod was added or changed; whether it is an instance is read from its labels and status."""
        meta = pod.get("metadata") or {}
        labels = meta.get("labels") or {}
        status = pod.get("status") or {}
        key = f"{meta.get('namespace')}/{meta.get('name')}"
        name, address = labels.get(names.LABEL_FUNCTION), status.get("podIP")
        state = labels.get(names.LABEL_STATE)
        over = status.get("phase") in ("Succeeded", "Failed")
        if not name or not address or over or state not in (names.STATE_SERVING, names.STATE_DRAINING):
            self.remove_pod(key)
            return
        owner = f"{meta.get('namespace')}/{name}"
        if self._owners.get(key, owner) != owner:
            self.remove_pod(key)
        found = self.functions.get(owner)
        if found is None:
            found = self.functions[owner] = State(owner)
        instance = Instance(key, address, self._concurrency(meta, found), labels.get(names.LABEL_REVISION, ""))
        instance.draining = state == names.STATE_DRAINING or bool(meta.get("deletionTimestamp"))
        self._owners[key] = owner
        found.queue.put(instance, self._clock())
        known = found.queue.instances[key]
        if known.draining:
            self.draining[key] = known

    def remove_pod(self, key: str) -> None:
        owner = self._owners.pop(key, None)
        self.draining.pop(key, None)
        if owner is None:
            return
        state = self.functions[owner]
        state.queue.remove(key, self._clock())
        self._instance_gone(key)
        self._forget_if_unused(owner, state)

    def pods(self) -> Iterator[str]:
        """Keys of all known instances."""
        return iter(self._owners)

    def known_functions(self) -> Iterator[str]:
        return (key for key, state in self.functions.items() if state.entry is not None or state.fault)

    @staticmethod
    def _concurrency(meta: Mapping[str, Json], state: State) -> int:
        text = str((meta.get("annotations") or {}).get(names.ANNOTATION_CONCURRENCY, ""))
        if text.isdigit() and int(text) > 0:
            return int(text)
        return state.entry.concurrency if state.entry else 1

    def _forget_if_unused(self, key: str, state: State) -> None:
        if state.entry is None and not state.fault and not state.queue.instances and self.functions.get(key) is state:
            del self.functions[key]
