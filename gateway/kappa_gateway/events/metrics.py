"""Metrics of events and asynchronous invocations: read from the ledger and the registry when Prometheus asks."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kappa_gateway.events.work import ASYNC, OUTCOME, TRIGGER

if TYPE_CHECKING:
    from kappa_gateway.events.engine import Events

#: What became of work, as fields of `ledger.Tally`. `failed` counts attempts, `throttled` times without room.
OUTCOMES: Final = ("succeeded", "failed", "dead", "expired", "looped", "cancelled", "throttled")
_KINDS: Final = (
    (ASYNC, "async", "function"),
    (TRIGGER, "trigger", "trigger"),
    (OUTCOME, "destination", "owner"),
)


class EventsCollector(Collector):
    """One scrape reads what this gateway counted, and what its last look at the stream showed."""

    def __init__(self, events: "Events") -> None:
        self._events = events

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        events, now_ms = self._events, time.time() * 1000
        yield GaugeMetricFamily("kappa_nats_up", "Whether the connection to NATS stands.", value=float(events.bus.up))
        yield CounterMetricFamily("kappa_nats_outages", "Times that it was lost.", value=events.bus.outages)
        yield CounterMetricFamily(
            "kappa_async_accepted", "Asynchronous invocations accepted here.", value=events.submit.accepted
        )
        yield GaugeMetricFamily("kappa_events_in_hand", "Messages of the work stream held here.", value=events.in_hand)
        lost = CounterMetricFamily("kappa_destination_failures", "Outcomes that no destination took.", labels=("kind",))
        for kind, count in events.destinations.failed.items():
            lost.add_metric([kind], count)
        yield lost
        shares = events.shares
        yield GaugeMetricFamily("kappa_work_bytes", "What the work stream holds.", value=shares.held)
        yield GaugeMetricFamily("kappa_work_bytes_limit", "The most that it takes.", value=shares.most)
        parts = GaugeMetricFamily("kappa_work_namespace_bytes", "About what a namespace holds.", labels=("namespace",))
        for namespace, held in shares.namespaces.items():
            parts.add_metric([namespace], held)
        yield parts
        letters = GaugeMetricFamily(
            "kappa_dead_namespace_bytes", "About what a namespace's dead letters hold.", labels=("namespace",)
        )
        for namespace, held in events.dead.shares.namespaces.items():
            letters.add_metric([namespace], held)
        yield letters
        for kind, prefix, label in _KINDS:
            yield from self._lanes(kind, prefix, label, now_ms)
        yield from self._triggers()
        yield from self._leftovers()

    def _lanes(self, kind: str, prefix: str, label: str, now_ms: float) -> Iterator[Metric]:
        labels = ("namespace", label)
        outcomes = CounterMetricFamily(
            f"kappa_{prefix}_outcomes", "What became of work delivered here.", labels=(*labels, "outcome")
        )
        backlog = GaugeMetricFamily(f"kappa_{prefix}_backlog", "Messages in the work stream.", labels=labels)
        oldest = GaugeMetricFamily(f"kappa_{prefix}_oldest_seconds", "Age of the oldest of them.", labels=labels)
        for (of, key), tally in self._events.ledger.tallies.items():
            if of != kind:
                continue
            names = key.split("/", 1)
            for outcome in OUTCOMES:
                if count := getattr(tally, outcome):
                    outcomes.add_metric([*names, outcome], count)
            backlog.add_metric(names, tally.backlog)
            age = max(0.0, now_ms - tally.oldest_ms) / 1000 if tally.oldest_ms else 0.0
            oldest.add_metric(names, age)
        yield from (outcomes, backlog, oldest)

    def _triggers(self) -> Iterator[Metric]:
        labels = ("namespace", "trigger")
        events = CounterMetricFamily(
            "kappa_trigger_events", "Events that came in here, by what became of them.", labels=(*labels, "fate")
        )
        rejected = CounterMetricFamily(
            "kappa_trigger_rejected", "Posts refused for a limit, by which.", labels=(*labels, "reason")
        )
        connected = GaugeMetricFamily("kappa_trigger_connected", "Whether the source reads, here.", labels=labels)
        registry = self._events.host.triggers
        for key in registry.known():
            counts, names = registry.counts(key), key.split("/", 1)
            for fate in ("received", "filtered", "duplicates", "dropped"):
                events.add_metric([*names, fate], getattr(counts, fate))
            for reason, count in counts.rejected.items():
                rejected.add_metric([*names, reason], count)
            if counts.running:
                connected.add_metric(names, float(counts.connected))
        yield from (events, rejected, connected)

    def _leftovers(self) -> Iterator[Metric]:
        clearing = self._events.host.clearing
        left = GaugeMetricFamily(
            "kappa_trigger_leftovers",
            "What a Trigger left in another system and this gateway could not clear yet.",
            labels=("namespace", "trigger"),
        )
        for key, count in Counter(clearing.waiting).items():
            left.add_metric(key.split("/", 1), count)
        yield left
        yield CounterMetricFamily(
            "kappa_trigger_leftovers_given_up", "Those that it could not clear for a day.", value=clearing.given_up
        )
