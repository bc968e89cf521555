"""Which instance gets which invocation, or that it waits: synchronous code without I/O, with the clock as an argument.

One `Queue` per function holds its instances and its waiting invocations. The rules, in order:

* no instance ever has more than its concurrency in service, nor takes anything unless it serves (`states.py`);
* the instance with the least in service gets the next invocation; among equals the one used last (its connection is
  warm, and the others can be drained);
* whoever arrived first is served first. An invocation that an instance refused goes back to its place: before everybody
  who never had an instance;
* asynchronous work is patient: it lets every caller pass, and keeps this order among itself;
* a slot that becomes free goes to a waiting invocation in the same call, so nobody waits beside a free slot; nobody
  gets one after his deadline.

Instances stand in buckets by their number in service: choosing and releasing cost O(1), however many there are.
Time integrals are kept as `sum of ends - sum of starts`, one addition per event: the integral up to `now` is that plus
`current * now`, exactly.
"""

from bisect import insort
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

from kappa_gateway import states
from kappa_gateway.states import (
    ANSWERED,
    DOUBTED,
    DRAINED,
    DRAINING,
    GONE,
    HEARD,
    IN_SERVICE,
    LATE,
    REFUSED,
    REMOVED,
    RESTED,
    RESTING,
    SEEN,
    SERVING,
    SILENT,
    WAITING,
)

_QUEUED: Final = states.INVOCATION.on(states.QUEUED)
_GRANTED: Final = states.INVOCATION.on(states.GRANTED)
_AGAIN: Final = states.INVOCATION.on(states.AGAIN)
_RELEASED: Final = states.INVOCATION.on(states.RELEASED)
_LEFT: Final = states.INVOCATION.on(states.LEFT)

#: Places of patient invocations begin here: behind those of all others, whenever these come.
PATIENT: Final = 1 << 60


class Waiter(Protocol):
    """An invocation as the queue sees it. All but `deadline` and `expired` is set by the queue alone."""

    deadline: float  # no slot from this time on
    expired: bool  # whoever keeps the deadlines has ended it
    place: str  # state of `states.INVOCATION`
    instance: "Instance | None"  # whose slot it has; None unless it is in service
    order: int  # place in the order of arrival
    since: float  # when it began to wait

    def granted(self, now: float) -> None:
        """A slot of `instance` is now the invocation's own. Called once per wait, from inside a queue operation."""

    def rejected(self, error: Exception) -> None:
        """The wait is over without an instance: the function is gone."""


class Instance:
    """One pod as this gateway knows it. Only its Queue changes it."""

    __slots__ = (
        "address",
        "admits",
        "concurrency",
        "failures",
        "in_service",
        "key",
        "rests",
        "revision",
        "state",
        "uid",
    )

    def __init__(self, key: str, address: str, concurrency: int, revision: str = "", uid: str = "") -> None:
        self.key = key  # namespace/pod
        self.address = address
        self.concurrency = concurrency
        self.revision = revision
        self.uid = uid  # of the pod: its name and address may be given to another one
        self.admits = False  # a runtime of ours: it may refuse, and says when it does not
        self.state = states.INSTANCE.first
        self.in_service = 0
        self.failures = 0  # how often in a row it refused, or was late
        self.rests = 0  # how often it came to rest: which of its back-offs is over

    @property
    def free(self) -> int:
        """Slots that the next invocations may have."""
        return max(0, self.concurrency - self.in_service) if self.state is SERVING else 0

    @property
    def gone(self) -> bool:
        return self.state is GONE

    @property
    def draining(self) -> bool:
        return self.state is DRAINING

    def __repr__(self) -> str:
        state = "" if self.state is SERVING else f" {self.state}"
        return f"<Instance {self.key} {self.in_service}/{self.concurrency}{state}>"


#: Called, inside another operation of the queue, with each instance that comes to be doubted. Whoever then asks it
#: whether it lives says `heard` or `silent` later.
Doubt = Callable[["Queue", Instance], None]


def nobody_asks(queue: "Queue", instance: Instance) -> None:
    """A `Doubt` where there is nobody who could."""


class Queue:
    """Instances, waiting invocations and exact counters of one function.

    Raises IllegalMoveError, before anything has changed, for what `states.py` has no move for.
    """

    __slots__ = (
        "_again",
        "_buckets",
        "_doubt",
        "_lowest",
        "_order",
        "_patient",
        "_service_sum",
        "_tenth",
        "_waiting",
        "_waiting_sum",
        "arrivals",
        "in_service",
        "instances",
        "key",
        "moments",
    )

    def __init__(self, key: str, doubt: Doubt = nobody_asks) -> None:
        self.key = key  # namespace/name
        self._doubt = doubt
        self.instances: dict[str, Instance] = {}
        self.in_service = 0
        self.arrivals = 0
        self.moments = 0  # tenths of a second in which an invocation arrived
        self._tenth = -1
        self._order = 0
        self._waiting: OrderedDict[int, Waiter] = OrderedDict()
        self._patient: OrderedDict[int, Waiter] = OrderedDict()
        self._again: list[tuple[int, Waiter]] = []
        self._buckets: list[dict[Instance, None]] = [{}]
        self._lowest = 0
        self._service_sum = 0.0
        self._waiting_sum = 0.0

    # --- what invocations do ------------------------------------------------------------------------------------------
    def enter(self, waiter: Waiter, now: float, *, patient: bool = False) -> Instance | None:
        """A new invocation. Returns its instance; None means that it waits and `granted` will be called, or that its
        deadline has passed already. `patient`: it lets those pass that are not."""
        place = _QUEUED[waiter.place]
        self.arrivals += 1
        if (tenth := int(now * 10)) != self._tenth:
            self._tenth = tenth
            self.moments += 1
        waiter.order = self._order = self._order + 1
        if patient:
            waiter.order += PATIENT
        if waiter.deadline <= now:
            waiter.place = _LEFT[place]
            return None
        if not self._waiting and not self._again and not (patient and self._patient):
            instance = self._take(now)
            if instance is not None:
                waiter.place = _GRANTED[place]
                waiter.instance = instance
                return instance
        waiter.place = place
        waiter.since = now
        (self._patient if patient else self._waiting)[waiter.order] = waiter
        self._waiting_sum -= now
        return None

    def leave(self, waiter: Waiter, now: float) -> None:
        """The invocation is over, wherever it is: deadline, the caller went away, or all is done. Frees what it holds,
        once. Of an instance that it was at this says nothing, unless it was there until its deadline."""
        place = waiter.place
        if place is IN_SERVICE:
            self.release(waiter, now, LATE if waiter.expired else "")
            return
        waiter.place = _LEFT[place]
        if place is WAITING:
            line = self._patient if waiter.order > PATIENT else self._waiting
            if line.pop(waiter.order, None) is None:
                self._again.remove((waiter.order, waiter))
            self._waiting_sum += now

    def release(self, waiter: Waiter, now: float, told: str = ANSWERED) -> None:
        """The instance is done with the invocation: the slot is free again.

        `told`: what that says about the instance, as an event of `states.INSTANCE`; empty for nothing.
        """
        waiter.place = _RELEASED[waiter.place]
        self._give_back(waiter, now, told)
        if self._again or self._waiting or self._patient:
            self._settle(now)

    def again(self, waiter: Waiter, now: float, told: str) -> None:
        """The invocation must be sent once more: its slot is free, and it waits in its old place.

        `granted` may be called before this returns. `told` as for `release`.
        """
        waiter.place = _AGAIN[waiter.place]
        self._give_back(waiter, now, told)
        waiter.since = now
        insort(self._again, (waiter.order, waiter))
        self._waiting_sum -= now
        self._settle(now)

    # --- what the cluster does ----------------------------------------------------------------------------------------
    def put(self, instance: Instance, now: float, *, draining: bool = False) -> None:
        """A new instance, or one whose pod was seen again with other values (matched by key; counts are kept)."""
        known = self.instances.get(instance.key)
        if known is None or known.address != instance.address or known.uid != instance.uid:
            if known is not None:
                self.remove(known.key, now)
            self.instances[instance.key] = known = instance
        self._unplace(known)
        known.concurrency, known.revision = instance.concurrency, instance.revision
        self._tell(known, DRAINED if draining else SEEN)
        self._settle(now)

    def drain(self, instance: Instance) -> None:
        """The instance gets no new invocation, ever."""
        self._tell(instance, DRAINED)

    def rested(self, instance: Instance, rest: int, now: float) -> None:
        """The time of leaving the instance alone is over. Does nothing when that rest (the value of `rests` in it) has
        ended in another way: a later one has a time of its own."""
        if instance.state is RESTING and instance.rests == rest:
            self._tell(instance, RESTED)
            self._settle(now)

    def heard(self, instance: Instance, now: float) -> None:
        """The instance has said that it lives."""
        self._tell(instance, HEARD)
        self._settle(now)

    def silent(self, instance: Instance) -> None:
        """The instance was asked whether it lives, and has not answered."""
        self._tell(instance, SILENT)

    def remove(self, key: str, now: float) -> Instance | None:
        """The pod is gone. Invocations that are still in service there end by themselves."""
        instance = self.instances.pop(key, None)
        if instance is not None:
            self._tell(instance, REMOVED)
        return instance

    # --- what observers ask -------------------------------------------------------------------------------------------
    @property
    def waiting(self) -> int:
        return len(self._waiting) + len(self._again) + len(self._patient)

    @property
    def callers_waiting(self) -> int:
        """Those of them that are not patient."""
        return self.waiting - len(self._patient) - sum(1 for order, _ in self._again if order > PATIENT)

    @property
    def free(self) -> int:
        return sum(instance.free for instance in self.instances.values())

    def waiters(self) -> list[Waiter]:
        """Everybody who waits, in the order they will be served."""
        again = [waiter for _, waiter in self._again]
        patient = [waiter for waiter in again if waiter.order > PATIENT]
        first = again[: len(again) - len(patient)] + list(self._waiting.values())
        return first + patient + list(self._patient.values())

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

    def _give_back(self, waiter: Waiter, now: float, told: str) -> None:
        instance = waiter.instance
        assert instance is not None
        waiter.instance = None
        if told and (told is not ANSWERED or instance.failures):  # without failures it serves, and goes on with it
            self._tell(instance, told)
        self._unplace(instance)
        instance.in_service -= 1
        self.in_service -= 1
        self._service_sum += now
        self._place(instance)

    def _settle(self, now: float) -> None:
        """Gives free slots to those who wait."""
        while (waiter := self._first()) is not None:
            if waiter.deadline <= now:
                self.leave(waiter, now)
                continue
            instance = self._take(now)
            if instance is None:
                return
            if self._again and self._again[0][1] is waiter:
                self._again.pop(0)
            else:
                (self._patient if waiter.order > PATIENT else self._waiting).popitem(last=False)
            self._waiting_sum += now
            waiter.place = _GRANTED[waiter.place]
            waiter.instance = instance
            waiter.granted(now)

    def _first(self) -> Waiter | None:
        """Whose turn it is."""
        again = self._again
        if again and (again[0][0] < PATIENT or not self._waiting):
            return again[0][1]
        for line in (self._waiting, self._patient):
            if line:
                return next(iter(line.values()))
        return None

    def _tell(self, instance: Instance, event: str) -> None:
        """Something has happened to the instance: its next state, and its place in the buckets."""
        old, new = instance.state, states.INSTANCE.next(instance.state, event)
        self._unplace(instance)
        if event is ANSWERED or event is HEARD:
            instance.failures = 0
        elif event is REFUSED and old is not RESTING:  # what it refused at the same time counts once
            instance.failures += 1
            instance.rests += 1
        elif event is LATE:
            instance.failures += 1
        instance.state = new
        self._place(instance)
        if new is DOUBTED and old is not DOUBTED:
            self._doubt(self, instance)

    def _place(self, instance: Instance) -> None:
        if instance.state is not SERVING or instance.in_service >= instance.concurrency:
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
