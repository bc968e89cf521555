"""What a function has to do its work with: instances that serve or are on their way, pool pods, and how long starts
take. Reads the store; keeps nothing."""

from collections.abc import Mapping
from typing import Any

from kappa_api import names
from kappa_api.function import Function
from kappa_api.runtime import own_pod_reason
from kappa_operator.autoscaler.upscale import Supply
from kappa_operator.quantity import parse_quantity
from kappa_operator.start_times import Start, StartTimes
from kappa_operator.store import Store

Json = Any

#: What an instance counts for that has neither a limit nor a request, in bytes.
USUAL_MEMORY = 128 << 20


class Supplies:
    """See the module."""

    def __init__(self, store: Store, starts: StartTimes) -> None:
        self._store, self._starts = store, starts

    def ready(self, key: str) -> int:
        """Instances that serve."""
        return sum(pod.live and pod.state == names.STATE_SERVING for pod in self._store.instances(key))

    def of(self, function: Function, wanted: int) -> Supply:
        """The instances that serve, those that are wanted but do not serve yet, and the pool pods that could."""
        ready = slow = 0
        for pod in self._store.instances(function.key):
            ready += pod.live and pod.state == names.STATE_SERVING
            slow += pod.live and pod.state == names.STATE_STARTING and not pod.ready
        runtime = self._store.runtimes.get(function.spec.runtime)
        pooled = runtime is not None and not own_pod_reason(function.spec, runtime)
        pool = self._store.pool(function.namespace, function.spec.runtime) if pooled else ()
        warm = sum(pod.live and pod.ready for pod in pool)
        starting = max(0, wanted - ready)
        # Claims that have no pod yet take the pool's pods first; what is left of them waits for new pods.
        claims = max(0, starting - slow)
        slow += max(0, claims - warm)
        image = function.spec.runtime or function.spec.code.image or ""
        warm_seconds = self._starts.seconds(Start(function.key, image, True))
        cold_seconds = max(warm_seconds, self._starts.seconds(Start(function.key, image, False)))
        mean = warm_seconds + (cold_seconds - warm_seconds) * min(1.0, slow / starting) if starting else 0.0
        return Supply(min(ready, wanted), starting, mean, max(0, warm - claims), warm_seconds, cold_seconds)

    def memory(self, function: Function) -> int:
        """Bytes that one idle instance keeps from others: its limit, else its request."""
        runtime = self._store.runtimes.get(function.spec.runtime)
        resources: Mapping[str, Json] = function.spec.pod.resources or (runtime.resources if runtime else {})
        for kind in ("limits", "requests"):
            if text := (resources.get(kind) or {}).get("memory"):
                return parse_quantity(str(text)) or USUAL_MEMORY
        return USUAL_MEMORY
