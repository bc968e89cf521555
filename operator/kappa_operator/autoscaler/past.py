"""What is known of idle times from before this process, and what is to outlive it. The I/O is in `idle_times`."""

from collections.abc import Callable, Iterable, Mapping

from kappa_operator.autoscaler.keepalive import IdleHistogram
from kappa_operator.autoscaler.remembered import Remembered
from kappa_operator.autoscaler.targets import Target, Targets
from kappa_operator.clock import Clock
from kappa_operator.store import Store

#: Functions that come back at zero get their first look spread over time, so many a second.
LOOKS_PER_SECOND = 2000


class Past:
    """`learnt` is told of each function whose idle times have changed, or are to be forgotten."""

    def __init__(self, store: Store, targets: Targets, clock: Clock) -> None:
        self.learnt: Callable[[str], None] = lambda key: None
        self._store, self._targets, self._clock = store, targets, clock
        self._untaken: dict[str, IdleHistogram] = {}

    def recall(self, keys: Iterable[str]) -> dict[str, Remembered]:
        """What is known of those of these functions that still exist."""
        found = {}
        past = self._clock.wall() - self._clock.monotonic()
        for key in keys:
            record, target = self._store.functions.get(key), self._targets.get(key)
            idle = target.idle if target is not None else self._untaken.get(key)
            if record is not None and idle is not None and idle.count:
                found[key] = Remembered(record.uid, idle, past + target.last_activity if target is not None else 0.0)
        return found

    def remember(self, found: Mapping[str, Remembered]) -> None:
        """Takes over what an earlier leader knew."""
        now, wall = self._clock.monotonic(), self._clock.wall()
        for number, (key, old) in enumerate(found.items()):
            record, target = self._store.functions.get(key), self._targets.get(key)
            if record is None or record.function is None or not record.uid.startswith(old.uid):
                self.learnt(key)  # so that it is left out of the next writing
                continue
            if target is not None:
                target.idle = old.idle if not target.idle.count else target.idle
            elif old.active_at and not record.function.spec.scaling.min_replicas and not self._store.instances(key):
                # At zero, and perhaps to be started ahead of the next call.
                since = min(now, now - (wall - old.active_at))
                review = now + number / LOOKS_PER_SECOND
                self._targets.put(key, Target(0, since, review=review, settled=True, idle=old.idle))
            else:
                self._untaken[key] = old.idle

    def take(self, key: str) -> IdleHistogram | None:
        """What is known of a function that gets a target only now."""
        return self._untaken.pop(key, None)

    def forget(self, key: str) -> None:
        """The function is gone."""
        self._untaken.pop(key, None)
        self.learnt(key)
