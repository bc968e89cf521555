"""Gives a pod its code and waits until it has loaded; and finds out what became of a pod that stopped answering."""

from typing import Any

from kappa_api import names
from kappa_api.runtime import own_pod_reason
from kappa_api.wire import RUNTIME_LOADING, Specialize
from kappa_operator.bytecode import MOST_SOURCE_BYTES, ByteCodes, Key
from kappa_operator.clock import Clock
from kappa_operator.env import expanded
from kappa_operator.instance import PodClient, PodError, PodTimeoutError, WrongRevisionError
from kappa_operator.kube import ApiError, Kube, core_path
from kappa_operator.observed import FunctionRecord, Pod, parse_pod
from kappa_operator.settings import Settings
from kappa_operator.sources import Content
from kappa_operator.store import Store

Json = Any

POLL_SECONDS = 0.02


class Loader:
    """See the module."""

    def __init__(self, kube: Kube, client: PodClient, store: Store, settings: Settings, clock: Clock) -> None:
        self._kube, self._client, self._store, self._settings, self._clock = kube, client, store, settings, clock
        self._byte_codes = ByteCodes()

    async def specialize(self, record: FunctionRecord, pod: Pod, revision: str, content: Content) -> None:
        """Waits for the pod to listen, gives it the code, and waits until that has loaded."""
        spec = content.spec
        own = bool(own_pod_reason(spec, self._store.runtimes.get(spec.runtime)))
        key = Key(record.key, revision, pod.image)
        small = sum(map(len, content.files.values())) <= MOST_SOURCE_BYTES
        ask = small and not self._byte_codes.known(key)
        message = Specialize(
            namespace=record.namespace,
            name=record.name,
            revision=revision,
            handler=spec.handler,
            signature=spec.signature,
            files=content.files,
            env={} if own else expanded(spec.pod.env, _address(pod, self._settings.inside_url)),
            timeout_seconds=spec.timeout_seconds,
            concurrency=spec.concurrency,
            memory_mb=_memory_mb(spec.pod.resources),
            want_byte_code=ask,
            byte_code=self._byte_codes.get(key),
        )
        if not pod.ready:
            await self._until_listening(pod)
        deadline = self._clock.monotonic() + self._settings.load_seconds
        while True:
            try:
                found = await self._client.specialize(pod, message, max(1.0, deadline - self._clock.monotonic()))
                if found is not None:
                    self._byte_codes.put(key, found, message)
                return
            except WrongRevisionError as error:
                same = error.health.revision == revision and error.health.function == record.key
                if not same or error.health.state != RUNTIME_LOADING:
                    raise
            if self._clock.monotonic() > deadline:
                raise PodTimeoutError(f"{pod.key}: still loading")
            await self._clock.sleep(POLL_SECONDS)

    async def _until_listening(self, pod: Pod) -> None:
        """A new pod listens well before the kubelet's probe says so."""
        deadline = self._clock.monotonic() + self._settings.start_seconds
        pause = POLL_SECONDS
        while True:
            try:
                await self._client.health(pod)
                return
            except PodError:
                now = self._store.pods.get(pod.key)
                if now is None or not now.live or self._clock.monotonic() > deadline:
                    raise
            await self._clock.sleep(pause)
            pause = min(0.5, pause * 1.2)

    async def why(self, pod: Pod, error: Exception) -> tuple[str, str]:
        """What became of a pod that stopped answering, as the kubelet tells it (it takes a moment to)."""
        for _ in range(20):
            try:
                now = parse_pod(await self._kube.get(core_path("pods", pod.namespace, pod.name)))
            except ApiError:
                break
            if now.problem[0]:
                return now.problem[0], now.problem[1]
            if isinstance(error, WrongRevisionError):
                break
            await self._clock.sleep(0.1)
        return "InstanceFailed", str(error)


def _address(pod: Pod, gateway_url: str) -> dict[str, str]:
    found = {names.ENV_PORT: str(names.INSTANCE_PORT), names.ENV_POD_IP: pod.ip, names.ENV_POD_NAME: pod.name}
    return found | ({names.ENV_GATEWAY_URL: gateway_url} if gateway_url else {})


def _memory_mb(resources: Any) -> int:
    """The memory limit in MiB, 0 without one."""
    text = str((resources.get("limits") or {}).get("memory", "0"))
    units = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
    for unit in sorted(units, key=len, reverse=True):
        if text.endswith(unit):
            return int(float(text.removesuffix(unit)) * units[unit]) >> 20
    try:
        return int(float(text)) >> 20
    except ValueError:
        return 0
