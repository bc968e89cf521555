"""Which instance gets which invocation, or that it waits: synchronous code without I/O, with the clock as an argument.

One `Queue` per function holds its instances and its waiting invocations. The rules, in order:

* no instance ever has more than its concurrency in service, nor takes anything while it drains or is blocked;
* the instance with the least in service gets the next invocation; among equals the one used last (its connection is
  warm, and the others can be drained);
* whoever arrived first is served first. An invocation that an instance refused goes back to its place: before everybody
  who never had an instance;
* a slot that becomes free goes to a waiting invocation in the same call, so nobody waits beside a free slot.

Instances stand in buckets by their number in service: choosing and releasing cost O(1), however many there are.
Time integrals are kept as `sum of ends - sum of starts`, one addition per event: the integral up to `now` is that plus
`current * now`, exactly.
"""

from bisect import insort
from collections import OrderedDict
from typing import Protocol


class Waiter(Protocol):
    """An invocation as the queue sees it."""

    order: int  # place in the order of arrival; set by the queue
    since: float  # when it began to wait; set by the queue

    def granted(self, instance: "Instance", now: float) -> None:
        """A slot of this instance is now the invocation's own. Called once per wait, from inside a queue operation."""

    def rejected(self, error: Exception) -> None:
        """The wait is over without an instance: the function is gone."""


class Instance:
    """One pod as this gateway knows it. Only its Queue changes it."""

    __slots__ = ("address", "blocked", "concurrency", "draining", "failures", "gone", "in_service", "key", "revision")

    def __init__(self, key: str, address: str, concurrency: int, revision: str = "") -> None:
        self.key = key  # namespace/pod
        self.address = address
        self.concurrency = concurrency
        self.revision = revision
        self.in_service = 0
        self.failures = 0  # refusals in a row
        self.blocked = False
        self.draining = False
        self.gone = False

    @property
    def free(self) -> int:
        """Slots that the next invocations may have."""
        if self.gone or self.draining or self.blocked:
            return 0
        return max(0, self.concurrency - self.in_service)

    def __repr__(self) -> str:
        flags = [flag for flag in ("blocked", "draining", "gone") if getattr(self, flag)]
        return f"<Instance {self.key} {self.in_service}/{self.concurrency}{''.join(' ' + flag for flag in flags)}>"


class Queue:
    """Instances, waiting invocations and exact counters of one function."""

    __slots__ = (
        "_again",
        "_buckets",
        "_lowest",
        "_order",
        "_service_sum",
        "_waiting",
        "_waiting_sum",
        "arrivals",
        "in_service",
        "instances",
        "key",
    )

    def __init__(self, key: str) -> None:
        self.key = key  # namespace/name
        self.instances: dict[str, Instance] = {}
        self.in_service = 0
        self.arrivals = 0
        self._order = 0
        self._waiting: OrderedDict[int, Waiter] = OrderedDict()
        self._again: list[tuple[int, Waiter]] = []
        self._buckets: list[dict[Instance, None]] = [{}]
        self._lowest = 0
        self._service_sum = 0.0
        self._waiting_sum = 0.0

    # --- what invocations do ------------------------------------------------------------------------------------------
    def enter(self, waiter: Waiter, now: float) -> Instance | None:
        """A new invocation. Returns its instance; None means that it waits and `granted` will be called."""
        self.arrivals += 1
        self._order += 1
        waiter.order = self._order
        if not self._waiting and not self._again:
            instance = self._take(now)
            if instance is not None:
                return instance
        waiter.since = now
        self._waiting[waiter.order] = waiter
        self._waiting_sum -= now
        return None

    def leave(self, waiter: Waiter, now: float) -> None:
        """The invocation stops waiting: deadline, or the client went away. Does nothing when it does not wait."""
        if self._waiting.pop(waiter.order, None) is None:
            entry = next((e for e in self._again if e[0] == waiter.order), None)
            if entry is None:
                return
            self._again.remove(entry)
        self._waiting_sum += now

    def release(self, instance: Instance, now: float, *, block: bool = False) -> None:
        """An invocation ended: its slot is free again.

        Without `block` the instance has shown that it works, so one that was blocked takes invocations again; with it,
        the instance gets nothing more until `unblock`.
        """
        if block:
            self._block(instance)
        elif instance.failures:
            instance.failures = 0
            instance.blocked = False
        self._give_back(instance, now)
        if self._again or self._waiting:
            self._settle(now)

    def again(self, waiter: Waiter, instance: Instance, now: float, *, block: bool) -> None:
        """The invocation must be sent once more: its slot is free, and it waits in its old place.

        `block`: the instance gets nothing more until `unblock`. `granted` may be called before this returns.
        """
        if block:
            self._block(instance)
        self._give_back(instance, now)
        waiter.since = now
        insort(self._again, (waiter.order, waiter))
        self._waiting_sum -= now
        self._settle(now)

    # --- what the cluster does ----------------------------------------------------------------------------------------
    def put(self, instance: Instance, now: float) -> None:
        """A new instance, or one whose pod was seen again with other values (matched by key; counts are kept)."""
        known = self.instances.get(instance.key)
        if known is None or known.address != instance.address:
            if known is not None:
                self.remove(known.key, now)
            self.instances[instance.key] = known = instance
        self._unplace(known)
        known.concurrency, known.revision = instance.concurrency, instance.revision
        known.draining = known.draining or instance.draining
        self._place(known)
        self._settle(now)

    def drain(self, instance: Instance) -> None:
        """The instance gets no new invocation, ever."""
        self._unplace(instance)
        instance.draining = True

    def unblock(self, instance: Instance, now: float) -> None:
        """The time of leaving the instance alone is over."""
        if instance.blocked:
            instance.blocked = False
            self._place(instance)
            self._settle(now)

    def remove(self, key: str, now: float) -> Instance | None:
        """The pod is gone. Invocations that are still in service there end by themselves."""
        instance = self.instances.pop(key, None)
        if instance is not None:
            self._unplace(instance)
            instance.gone = True
        return instance

    # --- what observers ask -------------------------------------------------------------------------------------------
    @property
    def waiting(self) -> int:
        return len(self._waiting) + len(self._again)

    @property
    def free(self) -> int:
        return sum(instance.free for instance in self.instances.values())

    def waiters(self) -> list[Waiter]:
        """Everybody who waits, in the order they will be served."""
        return [waiter for _, waiter in self._again] + list(self._waiting.values())

    def service_seconds(self, now: float) -> float:
        """Integral over time of `in_service` up to now."""
        return self._service_sum + self.in_service * now

    def waiting_seconds(self, now: float) -> float:
        """Integral over time of `waiting` up to now."""
        return self._waiting_sum + self.waiting * now

    def __repr__(self) -> str:
        return (
            f"<Queue {self.key} instances={len(self.instances)} free={self.free} "
            f"in_service={self.in_service} waiting={self.waiting}>"
        )

    # --- inside -------------------------------------------------------------------------------------------------------
    def _take(self, now: float) -> Instance | None:
        buckets = self._buckets
        load, end = self._lowest, len(buckets)
        while load < end and not buckets[load]:
            load += 1
        self._lowest = load
        if load == end:
            return None
        instance, _ = buckets[load].popitem()
        instance.in_service = load + 1
        self._place(instance)
        self.in_service += 1
        self._service_sum -= now
        return instance

    def _give_back(self, instance: Instance, now: float) -> None:
        self._unplace(instance)
        instance.in_service -= 1
        self.in_service -= 1
        self._service_sum += now
        self._place(instance)

    def _settle(self, now: float) -> None:
        """Gives free slots to those who wait."""
        while self._again or self._waiting:
            instance = self._take(now)
            if instance is None:
                return
            waiter = self._again.pop(0)[1] if self._again else self._waiting.popitem(last=False)[1]
            self._waiting_sum += now
            waiter.granted(instance, now)

    def _block(self, instance: Instance) -> None:
        if not instance.blocked:  # what it refused at the same time counts once
            self._unplace(instance)
            instance.failures += 1
            instance.blocked = True

    def _place(self, instance: Instance) -> None:
        if instance.gone or instance.draining or instance.blocked or instance.in_service >= instance.concurrency:
            return
        load = instance.in_service
        while len(self._buckets) <= load:
            self._buckets.append({})
        self._buckets[load][instance] = None
        if load < self._lowest:
            self._lowest = load

    def _unplace(self, instance: Instance) -> None:
        if instance.in_service < len(self._buckets):
            self._buckets[instance.in_service].pop(instance, None)
