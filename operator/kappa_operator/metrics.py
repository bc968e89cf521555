"""The operator's own metrics, in a registry of its own. No label grows with the number of functions but the replica
gauges, which exist only for functions that have instances; pools are one for each namespace and Runtime."""

import contextlib

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

#: Why a claim was served the way it was, in a word: from `own_pod_reason` and `claims`.
REASONS = {
    "ready": "ready",
    "starting": "starting",
    "the pool had no pod to spare": "pool_empty",
    "code.image brings its own server": "image",
    "env uses valueFrom": "env",
    "envFrom is set": "env",
    "volumes are mounted": "volumes",
    "serviceAccountName is set": "service_account",
    "resources differ from those of the pool": "resources",
}


class Metrics:
    """Every metric as an attribute."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        ProcessCollector(registry=registry)
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
        self.claims = Counter(
            "kappa_operator_claims_total",
            "Instances that were asked for: from the pool, or as a pod of their own and why.",
            ["source", "reason"],
            registry=registry,
        )
        self.claim = Histogram(
            "kappa_operator_claim_seconds",
            "From the claim of an instance until it serves.",
            ["source"],
            buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 15, 60),
            registry=registry,
        )
        self.pool_pods = Gauge(
            "kappa_operator_pool_pods",
            "Pods without code: how many a pool should have, and how many are Ready.",
            ["namespace", "runtime", "state"],
            registry=registry,
        )
        self.load_failures = Counter(
            "kappa_operator_load_failures_total", "Loads that the code failed.", registry=registry
        )
        self.hung = Counter(
            "kappa_operator_hung_instances_total",
            "Instances replaced because they answered nothing.",
            registry=registry,
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
        self.unexpected = Gauge(
            "kappa_operator_unexpected_pod_states",
            "Pods whose state was changed since this operator leads, and not by Kappa.",
            registry=registry,
        )
        self.tasks = Gauge("kappa_operator_tasks", "Tasks of the event loop.", registry=registry)

    def claimed(self, source: str, reason: str) -> None:
        """Counts a claim; `reason` is a sentence for people, the label one of few words."""
        self.claims.labels(source, REASONS.get(reason, "other")).inc()

    def pool(self, namespace: str, runtime: str, wanted: int, ready: int) -> None:
        """The size of a pool; 0 and 0 for one that is no more."""
        for state, count in (("wanted", wanted), ("ready", ready)):
            if wanted or ready:
                self.pool_pods.labels(namespace, runtime, state).set(count)
            else:
                with contextlib.suppress(KeyError):
                    self.pool_pods.remove(namespace, runtime, state)

    def reconciled(self, key: str, seconds: float, failed: bool) -> None:
        """Takes one look into account; `key` is a queue key."""
        kind = key.partition("/")[0]
        self.reconcile.labels(kind).observe(seconds)
        if failed:
            self.reconcile_errors.labels(kind).inc()
