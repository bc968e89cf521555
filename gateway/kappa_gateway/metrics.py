"""Counters of the hot path (plain integers) and the Prometheus collector that reads them when it is asked.

Labels come only from functions that exist, so callers cannot create series; a deleted function takes its series along.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from kappa_gateway.app import Gateway

#: Upper bounds of the latency histogram in seconds.
BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BUCKETS: Final = len(BOUNDS) + 1
CLASSES: Final = ("gone", "1xx", "2xx", "3xx", "4xx", "5xx")


class Counters:
    """Of one function. `classes[0]`: the caller left before the end. Seconds are floats."""

    __slots__ = (
        "classes",
        "cold_latency",
        "cold_seconds",
        "cold_starts",
        "errors",
        "finished",
        "latency",
        "latency_sum",
        "rejected",
    )

    def __init__(self) -> None:
        self.classes = [0] * len(CLASSES)
        self.latency = [0] * _BUCKETS
        self.latency_sum = 0.0
        self.finished = 0
        self.errors = 0
        self.cold_starts = 0
        self.cold_seconds = 0.0
        self.cold_latency: list[int] = []
        self.rejected: dict[str, int] = {}

    def reject(self, reason: str) -> None:
        """A call was refused by a limit of its function."""
        self.rejected[reason] = self.rejected.get(reason, 0) + 1

    def finish(self, status: int, seconds: float, *, failed: bool) -> None:
        """An invocation is over. `status` 0: the caller left. `failed`: by the function's or our fault."""
        self.finished += 1
        self.classes[status // 100] += 1
        self.latency[bisect_left(BOUNDS, seconds)] += 1
        self.latency_sum += seconds
        if failed:
            self.errors += 1

    def cold(self, seconds: float) -> None:
        """An invocation got its first instance after that long."""
        if not self.cold_starts:
            self.cold_latency = [0] * _BUCKETS
        self.cold_starts += 1
        self.cold_seconds += seconds
        self.cold_latency[bisect_left(BOUNDS, seconds)] += 1


def _cumulative(counts: list[int]) -> list[tuple[str, int]]:
    bounds = (*map(str, BOUNDS), "+Inf")
    return list(zip(bounds, accumulate(counts), strict=True))


class GatewayCollector(Collector):
    """Reads the gateway's state at each scrape."""

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "kappa_gateway_requests",
            "Invocations that ended, by class of the reply (gone: the caller left first).",
            labels=("namespace", "function", "class"),
        )
        latency = HistogramMetricFamily(
            "kappa_gateway_request_seconds",
            "Time from the head of the request to the end of the reply.",
            labels=("namespace", "function"),
        )
        cold = CounterMetricFamily(
            "kappa_gateway_cold_starts", "Invocations that found no instance.", labels=("namespace", "function")
        )
        cold_seconds = HistogramMetricFamily(
            "kappa_gateway_cold_start_seconds", "Time they waited for one.", labels=("namespace", "function")
        )
        waiting = GaugeMetricFamily(
            "kappa_gateway_waiting", "Invocations that wait for an instance.", labels=("namespace", "function")
        )
        in_service = GaugeMetricFamily(
            "kappa_gateway_in_service", "Invocations at an instance.", labels=("namespace", "function")
        )
        rejected = CounterMetricFamily(
            "kappa_gateway_rejected",
            "Calls refused by a limit of their function, by reason.",
            labels=("namespace", "function", "reason"),
        )
        hung = GaugeMetricFamily(
            "kappa_gateway_hung_instances",
            "Instances that were late and do not say that they live.",
            labels=("namespace", "function"),
        )
        for function, count in Counter(function for _, function in self._gateway.doubts.hung()).items():
            hung.add_metric(function.split("/", 1), count)
        known = 0
        for key, state in self._gateway.catalog.functions.items():
            known += state.entry is not None
            labels = key.split("/", 1)
            counters = state.counters
            for reason, count in counters.rejected.items():
                rejected.add_metric([*labels, reason], count)
            if not state.queue.arrivals:
                continue
            for name, count in zip(CLASSES, counters.classes, strict=True):
                if count:
                    requests.add_metric([*labels, name], count)
            latency.add_metric(labels, _cumulative(counters.latency), counters.latency_sum)
            cold.add_metric(labels, counters.cold_starts)
            if counters.cold_starts:
                cold_seconds.add_metric(labels, _cumulative(counters.cold_latency), counters.cold_seconds)
            waiting.add_metric(labels, state.queue.waiting)
            in_service.add_metric(labels, state.queue.in_service)
        yield from (requests, latency, cold, cold_seconds, waiting, in_service, rejected, hung)
        yield GaugeMetricFamily("kappa_gateway_functions", "Functions known.", value=known)
        yield from self._process()

    def _process(self) -> Iterator[Metric]:
        gateway = self._gateway
        retries = CounterMetricFamily("kappa_gateway_retries", "Attempts repeated, by reason.", labels=("reason",))
        for outcome, count in gateway.retries.items():
            retries.add_metric([outcome.value], count)
        refused = CounterMetricFamily(
            "kappa_gateway_refused", "Requests answered before any function was found, by code.", labels=("code",)
        )
        for code, count in gateway.refused.items():
            refused.add_metric([code], count)
        upstream = GaugeMetricFamily("kappa_gateway_upstream_connections", "To instances.", labels=("state",))
        opened, idle = gateway.pools.counts()
        upstream.add_metric(["idle"], idle)
        upstream.add_metric(["busy"], opened - idle)
        doubts = CounterMetricFamily(
            "kappa_gateway_questions", "Instances that were late, asked whether they live.", labels=("answer",)
        )
        doubts.add_metric(["heard"], gateway.doubts.heard)
        doubts.add_metric(["silent"], gateway.doubts.silent)
        yield from (retries, refused, upstream, doubts)
        yield GaugeMetricFamily(
            "kappa_gateway_client_connections", "Open connections of callers.", value=gateway.connections()
        )
        yield GaugeMetricFamily("kappa_gateway_tasks", "Tasks of the event loop.", value=gateway.tasks())
        yield from self._limits()

    def _limits(self) -> Iterator[Metric]:
        door, admission, budget = self._gateway.server.door, self._gateway.admission, self._gateway.bodies.budget
        turned_away = CounterMetricFamily(
            "kappa_gateway_connections_turned_away", "Connections beyond a cap, by which.", labels=("reason",)
        )
        for reason, count in door.turned_away.items():
            turned_away.add_metric([reason], count)
        yield turned_away
        yield CounterMetricFamily(
            "kappa_gateway_connections_evicted", "Idle connections closed to make room.", value=door.evicted
        )
        yield CounterMetricFamily(
            "kappa_gateway_rests", "Pauses of connections refused in a loop.", value=self._gateway.server.rests
        )
        for name, text, value in (
            ("client_connections_limit", "Cap of the connections of callers.", door.total),
            ("held_body_bytes", "Bodies of calls that wait or run.", budget.used),
            ("held_body_bytes_limit", "The most they may take.", budget.total),
            ("limited_callers", "Callers remembered for rate limits.", admission.room.used),
            ("gateways", "Ready gateways that share rate limits.", admission.peers.count),
        ):
            yield GaugeMetricFamily(f"kappa_gateway_{name}", text, value=value)
