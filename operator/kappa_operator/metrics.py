"""The operator's own metrics, in a registry of its own. No label grows with the number of functions but the replica
gauges, which exist only for functions that have instances."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """Every metric as an attribute."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.reconcile = Histogram(
            "kappa_operator_reconcile_seconds",
            "One look at one object.",
            ["kind"],
            buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2, 10),
            registry=registry,
        )
        self.reconcile_errors = Counter(
            "kappa_operator_reconcile_errors_total",
            "Looks that failed and are tried again.",
            ["kind"],
            registry=registry,
        )
        self.queue = Gauge("kappa_operator_queue_depth", "Objects that wait for a look.", registry=registry)
        self.specialize = Histogram(
            "kappa_operator_specialize_seconds",
            "From the choice of a pod to loaded code.",
            ["source"],
            buckets=(0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 15, 60),
            registry=registry,
        )
        self.load_failures = Counter(
            "kappa_operator_load_failures_total", "Loads that the code failed.", registry=registry
        )
        self.leader = Gauge("kappa_operator_leader", "1 on the replica that leads.", registry=registry)
        self.wanted = Gauge(
            "kappa_operator_wanted_instances", "Instances wanted.", ["namespace", "function"], registry=registry
        )
        self.decisions = Counter(
            "kappa_operator_scale_decisions_total", "Changes of a wanted number.", ["way"], registry=registry
        )
        self.scrapes = Counter(
            "kappa_operator_gateway_scrapes_total", "Scrapes of gateways.", ["result"], registry=registry
        )
        self.functions = Gauge("kappa_operator_functions", "Functions known.", registry=registry)

    def reconciled(self, key: str, seconds: float, failed: bool) -> None:
        """Takes one look into account; `key` is a queue key."""
        kind = key.partition("/")[0]
        self.reconcile.labels(kind).observe(seconds)
        if failed:
            self.reconcile_errors.labels(kind).inc()
