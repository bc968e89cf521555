"""The operator's parts together, without processes: fake API server, fake pods, a scaler that is told, virtual time."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kappa_operator_fakes import FakeKube, Time

from kappa_api.function import Function
from kappa_api.wire import Health, Specialize
from kappa_operator.actions import Actions
from kappa_operator.autoscaler.room import Stuck
from kappa_operator.events import Recorder
from kappa_operator.functions import Functions, Scaler
from kappa_operator.instance import HEALTH_SECONDS, PodError, PodTimeoutError, PodUnreachableError, WrongRevisionError
from kappa_operator.metrics import Metrics
from kappa_operator.observed import Pod, rfc3339
from kappa_operator.pools import Pools
from kappa_operator.settings import Settings
from kappa_operator.sources import Sources
from kappa_operator.start_times import Start
from kappa_operator.store import Keys, Store, function_work, pool_work

Json = Any

FUNCTION = "/apis/kappa.dev/v1/namespaces/ns/functions/fn"
PODS = "/api/v1/namespaces/ns/pods"
SETTINGS = Settings(b"secret", "op-1", gateway_url="http://g")


class Pods:
    """What runs in the pods. `load` is what a specialize does to each next pod: an exception, seconds, or nothing.

    `before` is called with each specialize, and may raise.
    """

    def __init__(self, time: Time) -> None:
        self.time = time
        self.held: dict[str, Specialize] = {}
        self.silent: set[str] = set()
        self.load: list[Exception | float | None] = []
        self.drained: list[str] = []
        self.drain_seconds = 0.0
        self.before: Callable[[Pod], None] = lambda pod: None

    async def health(self, pod: Pod) -> Health:
        if pod.name in self.silent or not pod.ip:
            raise PodError(f"{pod.key}: refused")
        held = self.held.get(pod.name)
        return Health("serving", f"{held.namespace}/{held.name}", held.revision) if held else Health("empty")

    async def lives(self, pod: Pod) -> bool:
        if pod.name in self.silent:
            await self.time.sleep(HEALTH_SECONDS)
        return pod.name not in self.silent

    async def specialize(self, pod: Pod, message: Specialize, timeout: float) -> None:
        self.before(pod)
        if pod.name in self.silent or not pod.ip:
            raise PodUnreachableError(f"{pod.key}: refused")
        held = self.held.get(pod.name)
        if held is not None:
            if held.revision == message.revision and held.name == message.name:
                return
            raise WrongRevisionError(Health("serving", f"{held.namespace}/{held.name}", held.revision))
        what = self.load.pop(0) if self.load else None
        if isinstance(what, Exception):
            raise what
        if what:
            await self.time.sleep(what)
        self.held[pod.name] = message

    async def drain(self, pod: Pod, timeout: float) -> None:
        await self.time.sleep(min(timeout, self.drain_seconds))
        if self.drain_seconds > timeout:
            raise PodTimeoutError("still busy")
        self.drained.append(pod.name)


class Wants:
    """A scaler that wants what the test says."""

    def __init__(self) -> None:
        self.number = 0
        self.is_drained = True
        self.starts: list[tuple[Start, float]] = []
        self.is_stuck: Stuck | None = None
        self.short = ("", "")
        self.are_hung: set[str] = set()

    def wanted(self, function: Function, running: int) -> int:
        return self.number

    def proven(self, function: Function) -> None:
        self.number = max(1, self.number)

    def forget(self, key: str) -> None: ...

    def started(self, start: Start, seconds: float) -> None:
        self.starts.append((start, seconds))

    def stuck(self, key: str, stuck: Stuck | None) -> None:
        self.is_stuck = stuck

    def shortage(self, key: str) -> tuple[str, str]:
        return self.short

    def in_service(self, pods: Iterable[Pod]) -> Mapping[str, int]:
        return {}

    def hung(self) -> frozenset[str]:
        return frozenset(self.are_hung)

    def drained(self, pod: Pod) -> bool:
        return self.is_drained


class World:
    """A cluster of fakes with Runtime `python` (pool of `pool`) and an operator that can be started anew."""

    def __init__(self, pool: int = 1, kube: FakeKube | None = None, most: int = 0) -> None:
        self.time = Time()
        self.kube = kube or FakeKube()
        self.pods = Pods(self.time)
        self.wants = Wants()
        self.pool_size, self.pool_most = pool, max(pool, most)
        self.image = "img"
        self.names = iter(f"x{n}" for n in range(1000))
        self.start()

    def start(self) -> None:
        """A new leader, which knows only what the API server has."""
        self.store, self.queue = Store(), set[str]()
        clock, metrics = self.time.clock(), Metrics()
        self.metrics = metrics
        self.events = Recorder(self.kube, "op", suffix=lambda: "x", wall=clock.wall)  # type: ignore[arg-type]
        sources = Sources(self.kube, self.store)  # type: ignore[arg-type]
        self.functions = Functions(
            self.kube,  # type: ignore[arg-type]
            self.store,
            sources,
            self.scaler(),
            SETTINGS,
            wake=self.wake,
            events=self.events,
            metrics=metrics,
            clock=clock,
        )
        self.actions = Actions(
            self.kube,  # type: ignore[arg-type]
            self.pods,  # type: ignore[arg-type]
            self.store,
            SETTINGS,
            self.functions,
            suffix=lambda: next(self.names),
            clock=clock,
        )
        self.functions.actions = self.actions
        self.pools = Pools(
            self.kube,  # type: ignore[arg-type]
            self.store,
            self.actions,
            SETTINGS,
            wake=self.wake,
            suffix=lambda: next(self.names),
            metrics=metrics,
            clock=clock,
        )
        spec = {"image": self.image, "pool": {"min": self.pool_size, "max": self.pool_most}}
        self.store.put_runtime({"metadata": {"name": "python", "uid": "r"}, "spec": spec})
        for path, raw in list(self.kube.objects.items()):
            if path.startswith(PODS):
                self.store.put_pod(raw)
            if path.startswith(FUNCTION):
                self.store.put_function(raw)
        self.wake(frozenset({function_work("ns/fn"), pool_work("ns", "python")}))

    def scaler(self) -> Scaler:
        """The scaler of a new leader."""
        return self.wants

    async def die(self) -> None:
        """SIGKILL: tasks stop where they are."""
        await self.actions.stop()

    def wake(self, keys: Keys) -> None:
        self.queue |= keys

    def apply(self, code: str = "one", **spec: Json) -> None:
        old = self.kube.objects.get(FUNCTION, {"metadata": {"generation": 0}})
        meta = {**old["metadata"], "name": "fn", "namespace": "ns", "generation": old["metadata"]["generation"] + 1}
        base = {"runtime": "python", "handler": "main.handler", "code": {"inline": code}, **spec}
        raw = self.kube.put(FUNCTION, {**old, "metadata": meta, "spec": base})
        self.wake(self.store.put_function(raw))

    async def run(self, seconds: float = 0.0) -> None:
        """Works off the queue, again and again while time passes; new pods get an address and become Ready."""
        end = self.time.now + seconds
        while True:
            for _ in range(30):
                await self.time.settle()
                self.kubelet()
                self.watch()
                keys, self.queue = self.queue, set()
                for key in sorted(keys):
                    await self.look(key)
                if not keys and not self.queue:
                    break
            if self.time.now >= end:
                return
            await self.time.pass_(min(0.5, end - self.time.now))
            self.wake(frozenset({function_work("ns/fn"), pool_work("ns", "python")}))

    async def look(self, key: str) -> None:
        """Works on one key of the queue."""
        kind, _, rest = key.partition("/")
        await (self.functions if kind == "function" else self.pools).reconcile(rest)

    def kubelet(self) -> None:
        for path, raw in list(self.kube.objects.items()):
            if path.startswith(PODS) and not raw.get("status"):
                conditions = [{"type": "Ready", "status": "True"}]
                created = {**raw["metadata"], "creationTimestamp": rfc3339(self.time.now)}
                status = {"phase": "Running", "podIP": "10.0.0.1", "conditions": conditions}
                raw = self.kube.put(path, {**raw, "metadata": created, "status": status})
                self.wake(self.store.put_pod(raw))

    def watch(self) -> None:
        """What the API server tells the store of the pods."""
        for path, raw in list(self.kube.objects.items()):
            if path.startswith(PODS):
                self.wake(self.store.put_pod(raw))
        for key, pod in list(self.store.pods.items()):
            if f"{PODS}/{pod.name}" not in self.kube.objects:
                self.wake(self.store.drop_pod(key))

    def state(self) -> list[str]:
        """`state:revision's first file` of every pod, sorted; pool pods as `pool`."""
        found = []
        for path, raw in self.kube.objects.items():
            if path.startswith(PODS):
                labels = raw["metadata"]["labels"]
                held = self.pods.held.get(raw["metadata"]["name"])
                text = f":{held.files['main.py'].decode()}" if held else ""
                found.append(labels["kappa.dev/state"] + text)
        return sorted(found)

    @property
    def status(self) -> Json:
        return self.kube.objects[FUNCTION].get("status", {})

    def ready(self) -> tuple[str, str]:
        found = next(c for c in self.status["conditions"] if c["type"] == "Ready")
        return found["status"], found["reason"]
