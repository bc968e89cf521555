"""What `/v1/stats` answers: exact counters of every function that had traffic, and what is in service where.

A reader that names the clock of its last reading is spared the functions at which nothing has happened since: ten
thousand functions that were called once, and are idle, cost it nothing.
"""

from dataclasses import dataclass

from kappa_api.wire import FunctionStats, Stats
from kappa_gateway.catalog import Catalog, State


@dataclass(frozen=True, slots=True)
class _Quiet:
    """A function without anything going on, as it was first read at `clock`. It stays so as long as the counts do."""

    state: State
    arrivals: int
    finished: int
    clock: float

    def holds(self, state: State) -> bool:
        counts = (state.queue.arrivals, state.counters.finished)
        return self.state is state and counts == (self.arrivals, self.finished)


class Readings:
    """Reads the catalog's queues. `gateway` and `epoch` name this process."""

    def __init__(self, catalog: Catalog, gateway: str, epoch: str) -> None:
        self._catalog, self._gateway, self._epoch = catalog, gateway, epoch
        self._quiet: dict[str, _Quiet] = {}

    def take(self, now: float, since: float = 0.0) -> Stats:
        """One reading; `since`: the clock of the reader's last one of this epoch, 0 for a whole reading."""
        functions: dict[str, FunctionStats] = {}
        instances: dict[str, int] = {}
        known = self._catalog.functions
        for key, state in known.items():
            queue = state.queue
            if not queue.arrivals or (not queue.in_service and not queue.waiting and self._old(key, state, now, since)):
                continue
            functions[key] = _counters(state, now)
            # With one instance only, the function's own number says it.
            if queue.in_service and len(queue.instances) > 1:
                for name, instance in queue.instances.items():
                    if instance.in_service and not instance.draining:
                        instances[name] = instance.in_service
        if len(self._quiet) > 2 * len(known) + 100:
            self._quiet = {key: mark for key, mark in self._quiet.items() if key in known}
        draining = {key: instance.in_service for key, instance in self._catalog.draining.items()}
        return Stats(self._gateway, self._epoch, now, functions, draining, instances, since)

    def _old(self, key: str, state: State, now: float, since: float) -> bool:
        """Whether the reader knows this idle function already as it is."""
        mark = self._quiet.get(key)
        if mark is None or not mark.holds(state):
            self._quiet[key] = _Quiet(state, state.queue.arrivals, state.counters.finished, now)
            return False
        return mark.clock <= since


def _counters(state: State, now: float) -> FunctionStats:
    queue, counters = state.queue, state.counters
    return FunctionStats(
        invocations=counters.finished,
        errors=counters.errors,
        arrivals=queue.arrivals,
        cold_starts=counters.cold_starts,
        service_seconds=queue.service_seconds(now),
        waiting_seconds=queue.waiting_seconds(now),
        in_service=queue.in_service,
        waiting=queue.waiting,
        moments=queue.moments,
    )
