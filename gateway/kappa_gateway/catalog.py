"""All functions and instances this gateway knows, and what the watches change in them.

A change costs what it touches: one entry, one queue. The host table is built anew, but only when a function with routes
changes, and many changes in a row are gathered (`routes_stale` asks the owner to set `routes` soon).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from kappa_api import names
from kappa_api.errors import SpecError
from kappa_api.function import parse_function
from kappa_gateway.auth.guard import Access
from kappa_gateway.dispatch import Doubt, Instance, Queue, nobody_asks
from kappa_gateway.errors import GatewayError
from kappa_gateway.faults import fault_of
from kappa_gateway.limits import Limiter
from kappa_gateway.metrics import Counters
from kappa_gateway.ownership import Ownership
from kappa_gateway.routes import Entry, RouteTable

Json = Any


class State:
    """One function at this gateway.

    `entry` is None while only its pods are known, after it was deleted, and for a spec that was never valid. `fault`
    says why no instance will come (`faults.py`); empty when one may. `limiter` is None without rate limits;
    `max_waiting`: how many may wait; `held`: bytes of bodies that are held.
    """

    __slots__ = ("counters", "entry", "fault", "held", "limiter", "max_waiting", "queue")

    def __init__(self, key: str, doubt: Doubt = nobody_asks) -> None:
        self.entry: Entry | None = None
        self.fault = ""
        self.queue = Queue(key, doubt)
        self.counters = Counters()
        self.limiter: Limiter | None = None
        self.max_waiting = 0
        self.held = 0

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
        limit: Callable[["State"], None] = lambda state: None,
        doubt: Doubt = nobody_asks,
    ) -> None:
        self._clock, self._routes_stale, self._instance_gone = clock, routes_stale, instance_gone
        self._limit, self._doubt = limit, doubt
        self.functions: dict[str, State] = {}
        self.routes = RouteTable()
        self.shared_hosts: frozenset[str] = frozenset()
        self.draining: dict[str, Instance] = {}
        self._owners: dict[str, str] = {}  # instance key -> function key
        self._ownership = Ownership()

    # --- Functions ----------------------------------------------------------------------------------------------------
    def put_function(self, resource: Mapping[str, Json]) -> None:
        """A Function was added or changed. One with a spec that is not valid keeps its last valid form."""
        meta = resource["metadata"]
        key = f"{meta.get('namespace')}/{meta.get('name')}"
        foreign, again = self._ownership.function(key, str(meta.get("uid", "")))
        for pod, uid in foreign:
            self._set_aside(pod, key, uid)
        for raw in again:
            self.put_pod(raw)
        self._put_fault(key, fault_of(resource))
        known = self.functions.get(key)
        version = (str(meta.get("uid", "")), int(meta.get("generation", 0)))
        if known is not None and known.entry is not None and version[1] and known.entry.version == version:
            return  # only its status or its metadata changed, as they often do
        if known is not None and known.entry is not None and known.entry.version[0] != version[0]:
            # The deletion in between was not seen. Whoever waits was let in by another Function's rules, and what was
            # valid so far was said by that one.
            self._end_function(key)
            self._put_fault(key, fault_of(resource))
        try:
            entry = Entry.of(parse_function(resource))
        except SpecError:
            if known is not None and known.entry is not None:  # its rules for callers hold without the rest of it
                known.entry = replace(known.entry, access=Access.salvaged(resource, known.entry.access))
            return
        state = self.functions.get(entry.key)
        if state is None:
            state = self._new(entry.key)
        before, state.entry = state.entry, entry
        self._limit(state)
        if entry.routes != (before.routes if before else ()):
            self._routes_stale()

    def remove_function(self, key: str) -> None:
        """A Function was deleted: whoever waits for it gets 404, whoever is in service finishes."""
        again = self._ownership.forget_function(key)
        self._end_function(key)
        for raw in again:
            self.put_pod(raw)

    def _new(self, key: str) -> State:
        state = self.functions[key] = State(key, self._doubt)
        return state

    def _end_function(self, key: str) -> None:
        state = self.functions.get(key)
        if state is None:
            return
        if state.entry is not None and state.entry.routes:
            self._routes_stale()
        state.entry, state.fault = None, ""
        self._limit(state)
        self._reject(state, GatewayError("not_found", f"function {key} was deleted"))
        self._forget_if_unused(key, state)

    def _put_fault(self, key: str, fault: str) -> None:
        """Whoever waits when a fault appears learns of it at once."""
        state = self.functions.get(key)
        if state is None:
            if not fault:
                return
            state = self._new(key)
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
        self.routes = RouteTable(self.routed(), self.shared_hosts)

    # --- Pods ---------------------------------------------------------------------------------------------------------
    def put_pod(self, pod: Mapping[str, Json]) -> None:
        """A pod was added or changed; whether it is an instance is read from its labels, its owner and its status."""
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
        admitted = self._ownership.admits(key, owner, pod)
        if not admitted or self._owners.get(key, owner) != owner:
            self._drop_pod(key)
        if not admitted:
            return
        found = self.functions.get(owner)
        if found is None:
            found = self._new(owner)
        revision, uid = labels.get(names.LABEL_REVISION, ""), str(meta.get("uid", ""))
        instance = Instance(key, address, self._concurrency(meta, found), revision, uid)
        instance.admits = bool(labels.get(names.LABEL_RUNTIME))  # an image's server knows nothing of refusing
        draining = state == names.STATE_DRAINING or bool(meta.get("deletionTimestamp"))
        self._owners[key] = owner
        before = found.queue.instances.get(key)
        found.queue.put(instance, self._clock(), draining=draining)
        if before is not None and before.gone:  # another pod has its name
            self.draining.pop(key, None)
            self._instance_gone(key)
        known = found.queue.instances[key]
        if known.draining:
            self.draining[key] = known

    def remove_pod(self, key: str) -> None:
        self._ownership.forget_pod(key)
        self._drop_pod(key)

    def _drop_pod(self, key: str) -> None:
        owner = self._owners.pop(key, None)
        self.draining.pop(key, None)
        if owner is None:
            return
        state = self.functions[owner]
        state.queue.remove(key, self._clock())
        self._instance_gone(key)
        if state.fault and not state.queue.instances:
            self._reject(state, GatewayError("not_ready", state.fault))
        self._forget_if_unused(owner, state)

    def _set_aside(self, key: str, function: str, owner: str) -> None:
        """This instance is another Function's of the name, perhaps one that is yet to come: it is kept as a pod."""
        namespace, _, name = function.partition("/")
        instance = self.functions[function].queue.instances[key]
        reference = {"kind": names.FUNCTION_KIND, "name": name, "uid": owner, "controller": True}
        labels = {
            names.LABEL_FUNCTION: name,
            names.LABEL_STATE: names.STATE_DRAINING if instance.draining else names.STATE_SERVING,
            names.LABEL_REVISION: instance.revision,
            names.LABEL_RUNTIME: "?" if instance.admits else "",
        }
        meta = {
            "namespace": namespace,
            "name": key.partition("/")[2],
            "uid": instance.uid,
            "labels": labels,
            "annotations": {names.ANNOTATION_CONCURRENCY: str(instance.concurrency)},
            "ownerReferences": [{"apiVersion": names.API_VERSION, **reference}],
        }
        self._drop_pod(key)
        self._ownership.set_aside(key, function, {"metadata": meta, "status": {"podIP": instance.address}})

    def pods(self) -> Iterator[str]:
        """Keys of all known instances, and of pods that may become some."""
        return self._ownership.pods()

    def has_pod(self, key: str) -> bool:
        """Whether the watch has the pod `namespace/name`, as a Function's that serves or drains."""
        return self._ownership.knows(key)

    def known_functions(self) -> Iterator[str]:
        """Keys of all Functions that were seen: also of those whose spec was never valid."""
        said = {key for key, state in self.functions.items() if state.entry is not None or state.fault}
        return iter(sorted(said | self._ownership.functions()))

    @staticmethod
    def _concurrency(meta: Mapping[str, Json], state: State) -> int:
        text = str((meta.get("annotations") or {}).get(names.ANNOTATION_CONCURRENCY, ""))
        if text.isdigit() and int(text) > 0:
            return int(text)
        return state.entry.concurrency if state.entry else 1

    def _forget_if_unused(self, key: str, state: State) -> None:
        if state.entry is None and not state.fault and not state.queue.instances and self.functions.get(key) is state:
            del self.functions[key]
