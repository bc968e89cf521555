"""The operator's view of the cluster: one dict per kind, and the indexes that reconciling needs.

Fed by watch events, by lists, and by the answers to the operator's own writes, so that it reads what it has just
written; an object older than the one held is ignored. Each change returns the work that it causes, as queue keys.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from kappa_api import names
from kappa_api.errors import SpecError
from kappa_api.function import Function
from kappa_api.routes import Claim, Conflict, assign
from kappa_api.runtime import Runtime, own_pod_reason, parse_runtime
from kappa_operator import states
from kappa_operator.observed import FunctionRecord, Pod, parse_pod, parse_record, version_of

Json = Any
logger = logging.getLogger(__name__)
Keys = frozenset[str]
ROUTES = "routes"


def function_work(key: str) -> str:
    """Queue key of a Function (`namespace/name`)."""
    return f"function/{key}"


def pool_work(namespace: str, runtime: str) -> str:
    """Queue key of the pool of one Runtime in one namespace."""
    return f"pool/{namespace}/{runtime}"


class Store:
    """See the module. Not thread-safe: belongs to the event loop."""

    def __init__(self) -> None:
        self.shared_hosts: frozenset[str] = frozenset()
        self.functions: dict[str, FunctionRecord] = {}
        self.runtimes: dict[str, Runtime] = {}
        self.bad_runtimes: dict[str, str] = {}
        self.pods: dict[str, Pod] = {}
        self.unexpected = 0  # pods seen in a state that no move of `states.POD` leads to
        self.max_instances: dict[str, int] = {}
        self.conflicts: dict[str, tuple[Conflict, ...]] = {}
        self._instances: dict[str, dict[str, Pod]] = {}
        self._pools: dict[tuple[str, str], dict[str, Pod]] = {}
        self._gateways: dict[str, dict[str, Pod]] = {}
        self._by_runtime: dict[str, set[str]] = {}
        self._pool_users: dict[tuple[str, str], set[str]] = {}
        self._claims: dict[str, Claim] = {}
        self._config_users: dict[tuple[str, str], set[str]] = {}
        self._config_digests: dict[tuple[str, str], str] = {}

    # --- reading ------------------------------------------------------------------------------------------------------
    def instances(self, key: str) -> tuple[Pod, ...]:
        """Every pod of a function, whatever its state; not those of an earlier Function of the same name."""
        found, record = self._instances.get(key, {}).values(), self.functions.get(key)
        return _owned(found, record.uid if record is not None else "")

    def pool(self, namespace: str, runtime: str) -> tuple[Pod, ...]:
        """Every pod without code of a runtime in a namespace; not those of an earlier Runtime of the same name."""
        found, known = self._pools.get((namespace, runtime), {}).values(), self.runtimes.get(runtime)
        return _owned(found, known.uid if known is not None else "")

    def gateways(self, namespace: str, *, leaving: bool = False) -> tuple[Pod, ...]:
        """The gateways that run: those whose readings are needed before anything is scaled down. With `leaving` also
        those that were told to end, and finish what they have."""
        found = self._gateways.get(namespace, {}).values()
        return tuple(pod for pod in found if (pod.live or (leaving and not pod.ended)) and pod.ip and pod.admin_port)

    def pool_users(self, namespace: str, runtime: str) -> int:
        """How many functions of a namespace can use the pool of a runtime."""
        return len(self._pool_users.get((namespace, runtime), ()))

    def pool_keys(self) -> set[str]:
        """Queue keys of every pool that exists or should."""
        keys = {pool_work(namespace, runtime) for namespace, runtime in self._pools}
        for runtime, users in self._by_runtime.items():
            keys |= {pool_work(key.partition("/")[0], runtime) for key in users}
        return keys

    def config_digest(self, namespace: str, name: str) -> str | None:
        """The digest of a ConfigMap's data as far as it is known; empty when there is no such ConfigMap."""
        return self._config_digests.get((namespace, name))

    def set_config_digest(self, namespace: str, name: str, digest: str) -> None:
        self._config_digests[namespace, name] = digest

    # --- functions ----------------------------------------------------------------------------------------------------
    def put_function(self, raw: Mapping[str, Json]) -> Keys:
        """Takes a Function over. A change of status only causes no work: the operator itself wrote it."""
        record = parse_record(raw)
        old = self.functions.get(record.key)
        if old is not None and old.uid == record.uid and old.version > record.version:
            return frozenset()
        if record.function is None and old is not None and old.uid == record.uid:
            record = replace(record, last=old.scaled)
        same = old is not None and old.uid == record.uid and old.generation == record.generation
        self.functions[record.key] = record
        if same and old is not None and old.deleting == record.deleting:
            return frozenset()
        return self._relate(record.key, old, record)

    def drop_function(self, key: str) -> Keys:
        old = self.functions.pop(key, None)
        return self._relate(key, old, None)

    def _relate(self, key: str, old: FunctionRecord | None, new: FunctionRecord | None) -> Keys:
        work = {function_work(key)}
        before = old.function if old is not None else None
        after = new.function if new is not None else None
        for function, add in ((before, False), (after, True)):
            if function is None:
                continue
            _index(self._by_runtime, function.spec.runtime, key, add)
            self._index_pool(key, function, add and new is not None and not new.deleting)
            if function.spec.code.config_map:
                where = (function.namespace, function.spec.code.config_map)
                _index(self._config_users, where, key, add)
                if where not in self._config_users:
                    self._config_digests.pop(where, None)
            if function.spec.runtime:
                work.add(pool_work(function.namespace, function.spec.runtime))
        if _claim(before) != _claim(after):
            work.add(ROUTES)
            claim = _claim(after)
            if claim is None:
                self._claims.pop(key, None)
            else:
                self._claims[key] = claim
        return frozenset(work)

    def _index_pool(self, key: str, function: Function, add: bool) -> None:
        """Kept up to date, because a pool is looked at with every change of its pods, however many functions exist."""
        runtime = function.spec.runtime
        usable = add and bool(runtime) and not own_pod_reason(function.spec, self.runtimes.get(runtime))
        _index(self._pool_users, (function.namespace, runtime), key, usable)

    def assign_routes(self) -> Keys:
        """Works out anew who owns which route; returns the functions for whom that changed something."""
        found: dict[str, list[Conflict]] = {}
        for conflict in assign(self._claims.values(), self.shared_hosts)[1]:
            found.setdefault(conflict.owner, []).append(conflict)
        conflicts = {key: tuple(items) for key, items in found.items()}
        changed = {
            key for key in conflicts.keys() | self.conflicts.keys() if conflicts.get(key) != self.conflicts.get(key)
        }
        self.conflicts = conflicts
        return frozenset(function_work(key) for key in changed)

    # --- runtimes -----------------------------------------------------------------------------------------------------
    def put_runtime(self, raw: Mapping[str, Json]) -> Keys:
        name = str(raw["metadata"]["name"])
        try:
            runtime = parse_runtime(raw)
        except SpecError as error:
            self.runtimes.pop(name, None)
            self.bad_runtimes[name] = str(error)
        else:
            if self.runtimes.get(name) == runtime:
                return frozenset()
            self.bad_runtimes.pop(name, None)
            self.runtimes[name] = runtime
        return self._runtime_work(name)

    def drop_runtime(self, name: str) -> Keys:
        self.runtimes.pop(name, None)
        self.bad_runtimes.pop(name, None)
        return self._runtime_work(name)

    def _runtime_work(self, name: str) -> Keys:
        users = self._by_runtime.get(name, ())
        for record in (self.functions[key] for key in users):
            if record.function is not None:
                self._index_pool(record.key, record.function, not record.deleting)
        pools = {pool_work(namespace, runtime) for namespace, runtime in self._pools if runtime == name}
        pools |= {pool_work(key.partition("/")[0], name) for key in users}
        return frozenset(pools | {function_work(key) for key in users})

    # --- namespaces ---------------------------------------------------------------------------------------------------
    def put_namespace(self, raw: Mapping[str, Json]) -> None:
        """Takes over how many instances a namespace may have, if it says so. The autoscaler reads it with each
        decision, so this causes no work."""
        meta = raw["metadata"]
        text = str((meta.get("annotations") or {}).get(names.ANNOTATION_MAX_INSTANCES, ""))
        if text.isdecimal():
            self.max_instances[meta["name"]] = int(text)
            return
        if text:
            logger.warning(
                "namespace %s: %s: %r is not a number; ignored", meta["name"], names.ANNOTATION_MAX_INSTANCES, text
            )
        self.max_instances.pop(meta["name"], None)

    def drop_namespace(self, name: str) -> None:
        self.max_instances.pop(name, None)

    def keep_namespaces(self, seen: Iterable[str]) -> None:
        for name in self.max_instances.keys() - set(seen):
            self.drop_namespace(name)

    # --- pods ---------------------------------------------------------------------------------------------------------
    def put_pod(self, raw: Mapping[str, Json]) -> Keys:
        pod = parse_pod(raw)
        old = self.pods.get(pod.key)
        if old is not None and old.uid == pod.uid and old.version >= pod.version > 0:
            return frozenset()
        if old is not None and old.uid == pod.uid:
            self._expect(old, pod)
        self.pods[pod.key] = pod
        return self._file(old, pod)

    def _expect(self, old: Pod, new: Pod) -> None:
        """Only we move pods, and only along the table; a watch may show several moves as one. Anything else somebody
        has done by hand. It is a fact now: the plan goes on from it, but people should know."""
        if old.state != new.state and new.state not in states.POD.reachable(old.state):
            self.unexpected += 1
            logger.warning("pod %s: its state was changed from %r to %r, not by Kappa", new.key, old.state, new.state)

    def drop_pod(self, key: str, uid: str = "") -> Keys:
        """Forgets a pod; with `uid` only that very one (its name may have been taken again)."""
        old = self.pods.get(key)
        if old is None or (uid and old.uid != uid):
            return frozenset()
        del self.pods[key]
        return self._file(old, None)

    def mark_deleting(self, key: str, uid: str) -> Keys:
        """The operator has deleted this pod; the watch will say so in its own time."""
        old = self.pods.get(key)
        if old is None or old.uid != uid or old.deleting:
            return frozenset()
        self.pods[key] = new = replace(old, deleting=True)
        return self._file(old, new)

    def _file(self, old: Pod | None, new: Pod | None) -> Keys:
        work: set[str] = set()
        for pod, add in ((old, False), (new, True)):
            if pod is None:
                continue
            if pod.component == names.COMPONENT_GATEWAY:
                _place(self._gateways, pod.namespace, pod, add)
            if pod.component != names.COMPONENT_INSTANCE:
                continue
            if pod.function:
                _place(self._instances, pod.function_key, pod, add)
                work.add(function_work(pod.function_key))
            elif pod.runtime:
                _place(self._pools, (pod.namespace, pod.runtime), pod, add)
                work.add(pool_work(pod.namespace, pod.runtime))
        return frozenset(work)

    # --- ConfigMaps ---------------------------------------------------------------------------------------------------
    def config_changed(self, namespace: str, name: str) -> Keys:
        """A ConfigMap appeared, changed or went: those who use it as code read it again."""
        users = self._config_users.get((namespace, name))
        if not users:
            return frozenset()
        self._config_digests.pop((namespace, name), None)
        return frozenset(function_work(key) for key in users)

    # --- whole lists --------------------------------------------------------------------------------------------------
    def keep_pods(self, seen: Iterable[str], known: Mapping[str, int]) -> Keys:
        """Drops each pod that a list did not have, though it was `known`, by key and version, before the list was asked
        for. Comparing with the list's own versions would spare what changed last, and was then deleted."""
        missing = known.keys() - set(seen)
        return _union(self.drop_pod(key) for key in missing if _is_still(self.pods.get(key), known[key]))

    def keep_functions(self, seen: Iterable[str], known: Mapping[str, int]) -> Keys:
        missing = known.keys() - set(seen)
        return _union(self.drop_function(key) for key in missing if _is_still(self.functions.get(key), known[key]))

    def keep_runtimes(self, seen: Iterable[str]) -> Keys:
        return _union(self.drop_runtime(name) for name in self.runtimes.keys() - set(seen))


def _owned(pods: Iterable[Pod], uid: str) -> tuple[Pod, ...]:
    """The pods whose owner has this uid; all of them where one of the two is not known."""
    return tuple(pod for pod in pods if not uid or pod.owner in ("", uid))


def _is_still(held: Pod | FunctionRecord | None, version: int) -> bool:
    return held is not None and held.version == version


def _claim(function: Function | None) -> Claim | None:
    if function is None or not function.spec.http.routes:
        return None
    return Claim(function.key, function.created, function.spec.http.routes)


def _index(index: dict[Any, set[str]], where: Any, key: str, add: bool) -> None:
    if add:
        index.setdefault(where, set()).add(key)
    elif where in index:
        index[where].discard(key)
        if not index[where]:
            del index[where]


def _place(index: dict[Any, dict[str, Pod]], where: Any, pod: Pod, add: bool) -> None:
    if add:
        index.setdefault(where, {})[pod.key] = pod
    elif where in index:
        index[where].pop(pod.key, None)
        if not index[where]:
            del index[where]


def _union(parts: Iterator[Keys]) -> Keys:
    return frozenset(key for keys in parts for key in keys)


__all__ = ["ROUTES", "Keys", "Store", "function_work", "pool_work", "version_of"]
