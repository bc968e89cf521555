"""Functions, actions and pools together against a fake API server and fake pods, in virtual time."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from kappa_operator_fakes import ApiError, FakeKube, Time

from kappa_api.function import Function
from kappa_api.wire import Health, LoadError, Specialize
from kappa_operator.actions import Actions
from kappa_operator.events import Recorder
from kappa_operator.functions import Functions
from kappa_operator.instance import LoadFailedError, PodError, PodTimeoutError, WrongRevisionError
from kappa_operator.metrics import Metrics
from kappa_operator.observed import Pod, rfc3339
from kappa_operator.pools import Pools
from kappa_operator.settings import Settings
from kappa_operator.sources import Sources
from kappa_operator.store import Keys, Store, function_work, pool_work

Json = Any

FUNCTION = "/apis/kappa.dev/v1/namespaces/ns/functions/fn"
PODS = "/api/v1/namespaces/ns/pods"
SETTINGS = Settings(b"secret", "op-1", gateway_url="http://g")


class Pods:
    """What runs in the pods. `load` is what a specialize does to each next pod: an exception, seconds, or nothing."""

    def __init__(self, time: Time) -> None:
        self.time = time
        self.held: dict[str, Specialize] = {}
        self.silent: set[str] = set()
        self.load: list[Exception | float | None] = []
        self.drained: list[str] = []
        self.drain_seconds = 0.0

    async def health(self, pod: Pod) -> Health:
        if pod.name in self.silent or not pod.ip:
            raise PodError(f"{pod.key}: refused")
        held = self.held.get(pod.name)
        return Health("serving", f"{held.namespace}/{held.name}", held.revision) if held else Health("empty")

    async def specialize(self, pod: Pod, message: Specialize, timeout: float) -> None:
        if pod.name in self.silent or not pod.ip:
            raise PodError(f"{pod.key}: refused")
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

    def wanted(self, function: Function, running: int) -> int:
        return self.number

    def proven(self, function: Function) -> None:
        self.number = max(1, self.number)

    def forget(self, key: str) -> None: ...

    def in_service(self, pods: Iterable[Pod]) -> Mapping[str, int]:
        return {}

    def drained(self, pod: Pod) -> bool:
        return self.is_drained


class World:
    """A cluster of fakes with Runtime `python` (pool of `pool`) and an operator that can be started anew."""

    def __init__(self, pool: int = 1) -> None:
        self.time = Time()
        self.kube = FakeKube()
        self.pods = Pods(self.time)
        self.wants = Wants()
        self.pool_size = pool
        self.names = iter(f"x{n}" for n in range(1000))
        self.start()

    def start(self) -> None:
        """A new leader, which knows only what the API server has."""
        self.store, self.queue = Store(), set[str]()
        clock, metrics = self.time.clock(), Metrics()
        self.events = Recorder(self.kube, "op", suffix=lambda: "x", wall=clock.wall)  # type: ignore[arg-type]
        sources = Sources(self.kube, self.store)  # type: ignore[arg-type]
        self.functions = Functions(
            self.kube,  # type: ignore[arg-type]
            self.store,
            sources,
            self.wants,
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
            clock=clock,
        )
        spec = {"image": "img", "pool": {"min": self.pool_size, "max": 9}}
        self.store.put_runtime({"metadata": {"name": "python", "uid": "r"}, "spec": spec})
        for path, raw in list(self.kube.objects.items()):
            if path.startswith(PODS):
                self.store.put_pod(raw)
            if path.startswith(FUNCTION):
                self.store.put_function(raw)
        self.wake(frozenset({function_work("ns/fn"), pool_work("ns", "python")}))

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
                self._kubelet()
                keys, self.queue = self.queue, set()
                for key in sorted(keys):
                    kind, _, rest = key.partition("/")
                    await (self.functions if kind == "function" else self.pools).reconcile(rest)
                if not keys and not self.queue:
                    break
            if self.time.now >= end:
                return
            await self.time.pass_(min(0.5, end - self.time.now))
            self.wake(frozenset({function_work("ns/fn"), pool_work("ns", "python")}))

    def _kubelet(self) -> None:
        for path, raw in list(self.kube.objects.items()):
            if path.startswith(PODS) and not raw.get("status"):
                conditions = [{"type": "Ready", "status": "True"}]
                created = {**raw["metadata"], "creationTimestamp": rfc3339(self.time.now)}
                status = {"phase": "Running", "podIP": "10.0.0.1", "conditions": conditions}
                raw = self.kube.put(path, {**raw, "metadata": created, "status": status})
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


@pytest.fixture
async def world() -> World:
    return World()


async def test_from_an_applied_function_to_an_instance(world: World) -> None:
    world.apply("one")
    await world.run(1)
    assert world.state() == ["pool", "serving:one"]
    assert world.ready() == ("True", "Active")
    assert (world.status["replicas"], world.status["url"]) == (1, "http://g/fn/ns/fn")


async def test_a_proven_revision_is_labelled_while_it_loads(world: World) -> None:
    world.apply("one")
    await world.run(1)
    world.pods.load = [0.3]
    world.wants.number = 2
    world.wake(frozenset({function_work("ns/fn")}))
    await world.run()
    assert world.state() == ["pool", "serving", "serving:one"]
    await world.run(1)
    assert world.state() == ["pool", "serving:one", "serving:one"]


async def test_an_unproven_one_is_not(world: World) -> None:
    world.pods.load = [0.3]
    world.apply("one")
    await world.run()
    assert world.state() == ["pool", "starting"]
    await world.run(1)
    assert world.state() == ["pool", "serving:one"]


async def test_an_empty_pool_makes_a_pod_for_the_function() -> None:
    world = World(pool=0)
    world.apply("one")
    await world.run(1)
    assert world.state() == ["serving:one"]
    (name,) = world.pods.held
    assert name.startswith("fn-")


async def test_to_zero_drains_first(world: World) -> None:
    world.pods.drain_seconds = 3
    world.apply("one")
    await world.run(1)
    world.wants.number = 0
    await world.run(1)
    assert world.state() == ["draining:one", "pool"]
    await world.run(4)
    assert world.state() == ["pool"]
    assert len(world.pods.drained) == 1
    assert world.ready() == ("True", "ScaledToZero")


async def test_a_drain_has_an_end(world: World) -> None:
    world.pods.drain_seconds = 1000
    world.apply("one", timeoutSeconds=10)
    await world.run(1)
    world.wants.number = 0
    await world.run(14)
    assert world.state() == ["draining:one", "pool"]
    await world.run(3)
    assert world.state() == ["pool"]


async def test_a_roll_out(world: World) -> None:
    world.apply("one")
    await world.run(1)
    world.wants.number = 2
    await world.run(1)
    first = world.status["activeRevision"]
    world.apply("two")
    await world.run(3)
    assert world.state() == ["pool", "serving:two", "serving:two"]
    assert world.status["activeRevision"] != first


async def test_code_that_does_not_load_leaves_the_old_serving_and_is_not_tried_again(world: World) -> None:
    world.apply("one")
    await world.run(1)
    first = world.status["activeRevision"]
    world.pods.load = [LoadFailedError(LoadError("ImportError", "no module", file="main.py", line=3))]
    world.apply("two")
    await world.run(200)
    assert world.ready() == ("False", "LoadFailed")
    second = world.status["failedRevision"]
    assert world.status["conditions"][0]["message"] == (
        f"revision {second} failed to load: ImportError: no module (main.py line 3); revision {first} keeps serving"
    )
    assert world.state() == ["pool", "serving:one"]
    assert world.pods.load == []

    await world.die()
    world.start()
    await world.run(100)
    assert world.ready() == ("False", "LoadFailed")
    assert world.state() == ["pool", "serving:one"]

    world.apply("three")
    await world.run(2)
    assert world.state() == ["pool", "serving:three"]
    assert "failedRevision" not in world.status


async def test_the_old_revision_is_started_again_from_its_snapshot(world: World) -> None:
    world.apply("one")
    await world.run(1)
    world.pods.load = [LoadFailedError(LoadError("E", "m"))]
    world.apply("two")
    await world.run(2)
    world.wants.number = 0
    await world.run(2)
    assert world.state() == ["pool"]
    await world.die()
    world.start()
    world.wants.number = 2
    await world.run(3)
    assert world.state() == ["pool", "serving:one", "serving:one"]


async def test_a_pod_that_is_gone_is_passed_over(world: World) -> None:
    world.apply("one")
    await world.run(1)
    (pool,) = world.store.pool("ns", "python")
    world.pods.silent.add(pool.name)
    world.wants.number = 2
    await world.run(2)
    assert world.state() == ["pool", "serving:one", "serving:one"]
    assert f"{PODS}/{pool.name}" not in world.kube.objects


async def test_a_pod_that_was_taken_meanwhile_is_passed_over(world: World) -> None:
    world.apply("one")
    await world.run(1)
    (pool,) = world.store.pool("ns", "python")
    del world.kube.objects[f"{PODS}/{pool.name}"]
    world.wants.number = 2
    await world.functions.reconcile("ns/fn")
    await world.run(2)
    assert world.state() == ["pool", "serving:one", "serving:one"]


async def test_a_pool_pod_that_holds_code_is_deleted(world: World) -> None:
    world.apply("one")
    await world.run(1)
    (pool,) = world.store.pool("ns", "python")
    world.pods.held[pool.name] = Specialize("ns", "other", "r", "h", "event", {"main.py": b"secret"})
    world.wants.number = 2
    await world.run(2)
    assert world.state() == ["pool", "serving:one", "serving:one"]


async def test_a_load_that_hangs_says_so_and_is_tried_again_with_back_off(world: World) -> None:
    world.pods.load = [PodTimeoutError("no answer"), None]
    world.apply("one")
    await world.run(0)
    await world.run(0.2)
    assert world.ready() == ("False", "LoadTimeout")
    assert "activeRevision" not in world.status
    await world.run(2)
    assert world.ready() == ("True", "Active")


async def test_a_refused_pod_is_told(world: World) -> None:
    world = World(pool=0)

    def quota(method: str, path: str, body: Json) -> None:
        if method == "POST" and path == PODS:
            raise ApiError(403, "Forbidden", "exceeded quota: pods")

    world.kube.before = quota
    world.apply("one")
    await world.run(3)
    assert world.ready() == ("False", "PodRefused")
    assert "exceeded quota" in world.status["conditions"][0]["message"]
    world.kube.before = lambda method, path, body: None
    await world.run(60)
    assert world.ready() == ("True", "Active")


async def test_an_image_drains_by_the_gateways_count() -> None:
    world = World(pool=0)
    spec = {"code": {"image": "web:1"}, "timeoutSeconds": 10}
    meta = {"name": "fn", "namespace": "ns", "generation": 1}
    world.wake(world.store.put_function(world.kube.put(FUNCTION, {"metadata": meta, "spec": spec})))
    await world.run(2)
    assert world.state() == ["serving"]
    assert world.pods.held == {}
    world.wants.number, world.wants.is_drained = 0, False
    await world.run(5)
    assert world.state() == ["draining"]
    world.wants.is_drained = True
    await world.run(2)
    assert world.state() == []


async def test_a_bad_spec_keeps_what_serves(world: World) -> None:
    world.apply("one")
    await world.run(1)
    world.apply("two", timeoutSeconds=0)
    await world.run(5)
    assert world.ready() == ("False", "InvalidSpec")
    assert "spec.timeoutSeconds: 0 is out of range" in world.status["conditions"][0]["message"]
    assert world.state() == ["serving:one"]


async def test_a_leader_that_dies_at_any_write_is_followed_without_loss() -> None:
    """The operator is killed at its n-th write, for every n: the next one ends in the same state."""
    for fatal in range(1, 40):
        world = World()
        writes = 0

        def count(method: str, path: str, body: Json, world: World = world, fatal: int = fatal) -> None:
            nonlocal writes
            writes += 1
            if writes == fatal:
                # The write itself happens; the answer is never read.
                asyncio.get_running_loop().call_soon(lambda: [t.cancel() for t in world.actions._tasks])

        world.kube.before = count
        world.apply("one")
        await world.run(1)
        world.wants.number = 2
        world.apply("two")
        await world.run(1)
        world.kube.before = lambda method, path, body: None
        await world.die()
        world.start()
        await world.run(30)
        assert world.state() == ["pool", "serving:two", "serving:two"], f"killed at write {fatal}"
        assert world.ready() == ("True", "Active")
        if writes < fatal:
            break
    else:
        raise AssertionError("the story has more writes than were tried")
