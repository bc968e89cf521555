"""An autoscaler over a pretended cluster, in virtual time: as many calls at once as a test says, room for so many pods.

Pods follow what is wanted within a step: those that find no room stay `Unschedulable`, and are placed as soon as there
is room again, oldest first, whosever they are.
"""

from collections.abc import Mapping
from typing import Any

from kappa_api.wire import Demand, FunctionStats, Stats
from kappa_operator.autoscaler.loop import Autoscaler
from kappa_operator.autoscaler.room import UNSCHEDULABLE, Stuck
from kappa_operator.clock import Clock
from kappa_operator.metrics import Metrics
from kappa_operator.observed import rfc3339
from kappa_operator.settings import Settings
from kappa_operator.store import Store

Json = Any
WALL = 1_700_000_000.0
MISSING = "0/1 nodes are available: 1 Insufficient memory."


class Events:
    """Collects the Events instead of posting them; bad news begin with `!`."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def normal(self, about: Any, reason: str, message: str) -> None:
        self.said.append(f"{about.name} {reason}: {message}")

    def warning(self, about: Any, reason: str, message: str) -> None:
        self.said.append(f"!{about.name} {reason}: {message}")

    def bad(self, reason: str = "") -> list[str]:
        return [text for text in self.said if text.startswith("!") and reason in text]


class ScalingWorld:
    """`calls`: how many invocations each function (`namespace/name`) has at once, from now on.

    `misfits`: functions whose pods fit nowhere.
    """

    def __init__(self, *functions: str, room: int = 1 << 30, settings: Mapping[str, Any] | None = None) -> None:
        self.now, self.room = 100.0, room
        self.calls: dict[str, int] = {}
        self.misfits: set[str] = set()
        self.store, self.events = Store(), Events()
        self.settings = Settings(b"secret", "me", **(settings or {}))
        self.served: dict[str, float] = {}
        self.waited: dict[str, float] = {}
        self.arrived: dict[str, int] = {}
        self._count = self._version = 0
        self.store.put_pod(self._pod("g", "kappa-system", "gateway", port=8081))
        for key in functions:
            self.function(key)
        self.start()

    def start(self) -> None:
        """A new leader, which knows only the store."""
        self.scaler = Autoscaler(
            self.store,
            self.settings,
            wake=lambda keys: None,
            events=self.events,  # type: ignore[arg-type]
            metrics=Metrics(),
            clock=Clock(lambda: self.now, lambda: WALL + self.now),
        )

    def function(self, key: str, **scaling: int) -> None:
        namespace, _, name = key.partition("/")
        self._version += 1
        meta: Json = {"name": name, "namespace": namespace, "uid": f"uid-{key}", "resourceVersion": str(self._version)}
        meta["generation"] = self._version
        scaling = {"idleSeconds": 60, "maxReplicas": 50, **scaling}
        spec = {"runtime": "python", "handler": "main.handler", "code": {"inline": ""}, "scaling": scaling}
        self.store.put_function({"metadata": meta, "spec": spec})

    def quota(self, namespace: str, most: object) -> None:
        self.store.put_namespace(
            {"metadata": {"name": namespace, "annotations": {"kappa.dev/max-instances": str(most)}}}
        )

    def wanted(self, key: str) -> int:
        function = self.store.functions[key].function
        assert function is not None
        return self.scaler.wanted(function, len(self.serving(key)))

    def serving(self, key: str) -> list[str]:
        return [pod.key for pod in self.store.instances(key) if pod.ready]

    def pending(self, key: str) -> list[str]:
        return [pod.key for pod in self.store.instances(key) if not pod.ready]

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.step()

    def step(self) -> None:
        """One second: calls ask for instances, pods follow, and the gateway is read."""
        self.now += 1
        waiting = {key: (n - self._busy(key), self._busy(key)) for key, n in self.calls.items() if n > self._busy(key)}
        if waiting:
            self.scaler.demand(Demand("g", waiting))
        self._follow()
        readings = {}
        for key in {**self.arrived, **self.calls}:
            calls = self.calls.get(key, 0)
            busy = self._busy(key)
            self.served[key] = self.served.get(key, 0.0) + busy
            self.waited[key] = self.waited.get(key, 0.0) + calls - busy
            self.arrived[key] = self.arrived.get(key, 0) + 10 * busy + (not self.arrived.get(key) and calls > 0)
            readings[key] = FunctionStats(
                arrivals=self.arrived[key],
                invocations=self.arrived[key],
                service_seconds=self.served[key],
                waiting_seconds=self.waited[key],
                in_service=busy,
                waiting=calls - busy,
            )
        seen = self.scaler.signals.observe("g", Stats("g", "e", self.now, readings, {}, {}), self.now)
        self.scaler.review(seen)
        self._follow()

    def _busy(self, key: str) -> int:
        return min(self.calls.get(key, 0), len(self.serving(key)))

    def _follow(self) -> None:
        """The reconciler, the scheduler and the kubelet: all that lies between a wish and a pod."""
        for key in self.store.functions:
            pods = sorted(self.store.instances(key), key=lambda pod: (pod.ready, pod.name))
            wanted = self.wanted(key)
            for pod in pods[: max(0, len(pods) - wanted)]:
                self.store.drop_pod(pod.key)
            for _ in range(wanted - len(pods)):
                self._count += 1
                namespace, _, name = key.partition("/")
                self.store.put_pod(self._pod(f"p{self._count:05}", namespace, "instance", name, placed=False))
        placed = sum(pod.ready for pod in self.store.pods.values() if pod.function)
        for pod in sorted(self.store.pods.values(), key=lambda pod: pod.name):
            if pod.function and not pod.ready and placed < self.room and pod.function_key not in self.misfits:
                placed += 1
                self.store.put_pod(self._pod(pod.name, pod.namespace, "instance", pod.function))
        for key in self.store.functions:
            self.scaler.stuck(key, Stuck(UNSCHEDULABLE, MISSING) if self.pending(key) else None)

    def _pod(
        self, name: str, namespace: str, component: str, function: str = "", *, port: int = 0, placed: bool = True
    ) -> Json:
        self._version += 1
        labels = {"app.kubernetes.io/component": component}
        owners = []
        if function:
            labels |= {"kappa.dev/function": function, "kappa.dev/revision": "r", "kappa.dev/runtime": "python"}
            labels["kappa.dev/state"] = "serving" if placed else "starting"
            owners = [
                {
                    "apiVersion": "kappa.dev/v1",
                    "kind": "Function",
                    "name": function,
                    "uid": f"uid-{namespace}/{function}",
                }
            ]
            owners[0]["controller"] = True  # type: ignore[assignment]
        ready = {"type": "Ready", "status": "True"}
        lost = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": MISSING}
        return {
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": f"{namespace}/{name}",
                "resourceVersion": str(self._version),
                "creationTimestamp": rfc3339(WALL + self.now),
                "labels": labels,
                "ownerReferences": owners,
            },
            "spec": {
                "containers": [{"name": "x", "ports": [{"name": "admin", "containerPort": port}] if port else []}]
            },
            "status": {
                "phase": "Running" if placed else "Pending",
                "podIP": "10.0.0.1" if placed else "",
                "conditions": [ready if placed else lost],
            },
        }
