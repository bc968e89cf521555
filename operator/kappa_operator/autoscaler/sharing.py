"""Feeds the rules of sharing (`share`, `room`) with what every function asks for, and hands out the limits.

A limit costs nothing as long as everybody can have what he wants: each namespace's sum is kept, and only where it is
over the quota, or where there is no room, shares are reckoned.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from kappa_api import names
from kappa_operator.autoscaler.keepalive import IdleHistogram
from kappa_operator.autoscaler.room import Room
from kappa_operator.autoscaler.share import Claim, IdleInstance, Limit, over_memory, share
from kappa_operator.store import Store

#: In a full cluster shares are reckoned at most this often, however many gateways ask.
RECKON_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the admin of the cluster allows. `per_namespace`: instances in a namespace that says nothing itself (0: any
    number). `idle_memory`: bytes that idle instances may hold in all (0: any)."""

    per_namespace: int = 0
    idle_memory: int = 0


class Sharing:
    """See the module. `current` tells how many instances a function is to have as of now."""

    def __init__(self, store: Store, bounds: Bounds, current: Callable[[str], int]) -> None:
        self.room = Room()
        self._store, self._bounds, self._current = store, bounds, current
        self._claims: defaultdict[str, dict[str, Claim]] = defaultdict(dict)
        self._sums: defaultdict[str, int] = defaultdict(int)
        self._idle: list[IdleInstance] = []
        self._too_much: frozenset[str] = frozenset()
        self._reckoned_at, self._reckoned = float("-inf"), dict[str, Limit]()

    # --- instances ----------------------------------------------------------------------------------------------------
    def claim(self, claim: Claim) -> None:
        """What a function wants now, were it alone."""
        space = self._claims[claim.namespace]
        old = space.get(claim.key)
        self._sums[claim.namespace] += claim.wanted - (old.wanted if old is not None else 0)
        space[claim.key] = claim
        if not claim.wanted:
            self.forget(claim.key)

    def forget(self, key: str) -> None:
        namespace = key.partition("/")[0]
        old = self._claims[namespace].pop(key, None)
        if old is not None:
            self._sums[namespace] -= old.wanted
        if not self._claims[namespace]:
            del self._claims[namespace]
            self._sums.pop(namespace, None)

    def quota(self, namespace: str) -> int | None:
        """Instances that a namespace may have, None for any number."""
        return self._store.max_instances.get(namespace, self._bounds.per_namespace or None)

    def limits(self, now: float, namespaces: Iterable[str]) -> Mapping[str, Limit]:
        """Limits of the functions in these namespaces, and of every one where the cluster has no room."""
        limits: dict[str, Limit] = {}
        for namespace in namespaces:
            quota = self.quota(namespace)
            if quota is not None and self._sums.get(namespace, 0) > quota:
                limits |= share(self._claims[namespace].values(), {namespace: quota})
        if self.room:
            if now - self._reckoned_at >= RECKON_SECONDS:
                self._reckoned_at, self._reckoned = now, self._reckon(now)
            for key, limit in self._reckoned.items():
                if key not in limits or limit.most < limits[key].most:
                    limits[key] = limit
        return limits

    def _reckon(self, now: float) -> dict[str, Limit]:
        claims = {key: claim for space in self._claims.values() for key, claim in space.items()}
        current = {key: self._current(key) for key in claims}
        return self.room.limits(now, claims, current, {key: self._running(key) for key in claims})

    def _running(self, key: str) -> int:
        """Instances that have found a place."""
        states = (names.STATE_SERVING, names.STATE_STARTING)
        return sum(p.live and p.state in states and not p.problem[0] for p in self._store.instances(key))

    # --- memory -------------------------------------------------------------------------------------------------------
    @property
    def counts_memory(self) -> bool:
        """Whether anybody wants to know of idle instances."""
        return bool(self._bounds.idle_memory)

    def idle(self, instances: Iterable[IdleInstance]) -> None:
        """All idle instances as of now."""
        self._idle = list(instances)
        self._too_much = over_memory(self._idle, self._bounds.idle_memory) if self.counts_memory else frozenset()

    def too_much_memory(self, key: str) -> bool:
        """Whether this function's idle instances have to go."""
        return key in self._too_much

    def has_memory_for(self, found: IdleInstance) -> bool:
        """Whether one more idle instance could stay, or would be the first to go again."""
        return found.key not in over_memory([*self._idle, found], self._bounds.idle_memory or 1 << 62)


def chance(histogram: IdleHistogram, idle: float, until: float) -> float:
    """The chance that an idle period which has lasted for `idle` seconds ends before `until`; a half when nothing is
    known, and nearly that when little is."""
    rest = histogram.outside
    hits = 0.0
    for found in histogram.bins.values():
        if found.high > idle:
            rest += found.count
            hits += found.count * (found.high <= until)
    return (hits + 0.5) / (rest + 1.0)
