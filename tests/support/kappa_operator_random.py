"""A cluster with operators that may be killed, hang, or lead without knowing that another one does, and in which every
call to the API server or to a pod can go wrong. Virtual time; faults are armed by the test and strike once."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from kappa_operator_fakes import ApiError, FakeKube, Time
from kappa_operator_unit import PODS, Pods, Wants, World

from kappa_api import names
from kappa_api.function import Function
from kappa_api.wire import LoadError, Specialize
from kappa_operator import states
from kappa_operator.functions import Scaler
from kappa_operator.instance import LoadFailedError, PodError, PodTimeoutError, PodUnreachableError
from kappa_operator.kube import ConflictError
from kappa_operator.observed import Pod, rfc3339
from kappa_operator.store import Keys, function_work, pool_work

Json = Any
FUNCTIONS = "/apis/kappa.dev/v1/namespaces/ns/functions"
NAMES = ("fn", "fn2")
API_FAULTS = ("conflict", "fails", "fails after it was done", "slow")
POD_FAULTS = ("unreachable", "cut off", "cut off after it was done", "late", "never answers", "does not load")


class Cluster:
    """What all operators share. `wrong` collects what must never happen. `latency`, `pod_latency`: seconds that each
    call takes before it is done, and again after it: what is under way may be cut off there. `drain_seconds`: how long
    instances take to finish what they have."""

    def __init__(self, pool: int, latency: float = 0.0, pod_latency: float = 0.0, drain_seconds: float = 0.0) -> None:
        self.latency, self.pod_latency = latency, pod_latency
        self.time = Time()
        self.kube = FakeKube()
        self.objects, self.version = self.kube.objects, 100
        self.held = Pods(self.time)
        self.held.drain_seconds = drain_seconds
        self.pool = pool
        self.wants: Counter[str] = Counter()
        self.names = iter(f"x{n}" for n in range(100_000))
        self.revisions = 0
        self.api_fault = self.pod_fault = ""
        self.doubted = True  # gateways take all pods for hung
        self.only_pods = False  # whether the API fault waits for a write to a pod
        self.wrong: list[str] = []
        self.mixed: list[str] = []  # pods that gateways could choose for one function, with another one's code in them
        self.replicas: list[Replica] = []
        self.lead()

    @property
    def leader(self) -> "Replica":
        return self.replicas[-1]

    def lead(self) -> None:
        """A new operator leads."""
        self.replicas.append(Replica(self))

    # --- objects ------------------------------------------------------------------------------------------------------
    def put(self, path: str, body: Json) -> Json:
        """Every write ends here."""
        self.version += 1
        old = self.objects.get(path)
        meta = {"uid": f"uid-{self.version}", **(old or {"metadata": {}})["metadata"], **body["metadata"]}
        self.objects[path] = {**body, "metadata": {**meta, "resourceVersion": str(self.version)}}
        if path.startswith(PODS + "/"):
            self._judge(path, old, self.objects[path])
        return self.objects[path]

    def _judge(self, path: str, old: Json, new: Json) -> None:
        """Whether this is a move of the table, and the pod still the one function's it was."""
        before = old["metadata"]["labels"] if old else {}
        after = new["metadata"]["labels"]
        was, now = before.get(names.LABEL_STATE, states.ABSENT), after[names.LABEL_STATE]
        if was != now and now not in {moves.get(was) for moves in states.POD.moves.values()}:
            self.wrong.append(f"{path}: {was} -> {now}")
        owner = before.get(names.LABEL_FUNCTION)
        if owner and owner != after.get(names.LABEL_FUNCTION):
            self.wrong.append(f"{path}: was {owner}'s and is {after.get(names.LABEL_FUNCTION)}'s")
        self.look_inside(new)

    def look_inside(self, raw: Json) -> None:
        labels, held = raw["metadata"]["labels"], self.held.held.get(raw["metadata"]["name"])
        if labels[names.LABEL_STATE] == "serving" and held and held.name != labels[names.LABEL_FUNCTION]:
            self.mixed.append(f"{raw['metadata']['name']} serves {labels[names.LABEL_FUNCTION]}, holds {held.name}")

    def pods(self) -> dict[str, Json]:
        return {path: raw for path, raw in self.objects.items() if path.startswith(PODS + "/")}

    def want(self, name: str, number: int) -> None:
        """The autoscaler's decision, in every operator that believes to lead."""
        self.wants[f"ns/{name}"] = number
        for replica in self.replicas:
            replica.wake(frozenset({function_work("ns/fn")}))

    def apply(self, name: str, *, anew: bool = False) -> None:
        """New code; `anew`: the Function is deleted and made again, its pods are not collected yet."""
        path = f"{FUNCTIONS}/{name}"
        old = self.objects.pop(path, None) if anew else self.objects.get(path)
        self.revisions += 1
        meta = {} if anew or old is None else old["metadata"]
        meta = {**meta, "name": name, "namespace": "ns", "generation": meta.get("generation", 0) + 1}
        spec = {"runtime": "python", "handler": "main.handler", "code": {"inline": f"v{self.revisions}"}}
        self.put(path, {**({} if anew or old is None else old), "metadata": meta, "spec": spec})

    def code(self, name: str) -> str:
        return str(self.objects[f"{FUNCTIONS}/{name}"]["spec"]["code"]["inline"])

    def collect(self) -> None:
        """Deletes the pods of Functions that are gone."""
        uids = {raw["metadata"]["uid"] for path, raw in self.objects.items() if path.startswith(FUNCTIONS)}
        for path, raw in self.pods().items():
            owner = raw["metadata"]["ownerReferences"][0]
            if owner["kind"] == names.FUNCTION_KIND and owner["uid"] not in uids:
                del self.objects[path]

    def kubelet(self) -> None:
        for path, raw in self.pods().items():
            if not raw.get("status"):
                created = {**raw["metadata"], "creationTimestamp": rfc3339(self.time.now)}
                status = {
                    "phase": "Running",
                    "podIP": "10.0.0.1",
                    "conditions": [{"type": "Ready", "status": "True"}],
                }
                self.put(path, {**raw, "metadata": created, "status": status})

    def end_pod(self, path: str, how: str) -> None:
        raw = self.objects[path]
        if how == "gone":
            del self.objects[path]
        elif how == "failed":
            self.put(path, {**raw, "status": {"phase": "Failed", "reason": "Evicted"}})
        self.held.silent.add(raw["metadata"]["name"])

    # --- time ---------------------------------------------------------------------------------------------------------
    async def run(self, seconds: float, step: float = 0.5) -> None:
        end = self.time.now + seconds
        while True:
            for _ in range(6):
                self.kubelet()
                for replica in self.replicas:
                    await replica.work()
                await self.time.settle()
                for replica in self.replicas:
                    self.wrong += replica.miscounted()
            if self.time.now >= end:
                return
            await self.time.pass_(min(step, end - self.time.now))
            for replica in self.replicas:
                replica.wake(frozenset({function_work("ns/fn")}))

    # --- what there is ------------------------------------------------------------------------------------------------
    def state(self) -> list[str]:
        """`state function code` of every pod, sorted."""
        found = []
        for raw in self.pods().values():
            labels, held = raw["metadata"]["labels"], self.held.held.get(raw["metadata"]["name"])
            code = held.files["main.py"].decode() if held else ""
            found.append(" ".join((labels["kappa.dev/state"], labels.get("kappa.dev/function", ""), code)).strip())
        return sorted(found)

    def right(self) -> list[str]:
        """What `state` must come to when nothing goes wrong any more."""
        found = ["pool"] * self.pool
        for name in NAMES:
            if f"{FUNCTIONS}/{name}" in self.objects:
                found += [f"serving {name} {self.code(name)}"] * self.wants[f"ns/{name}"]
        return sorted(found)


class Replica(World):
    """One operator. `paused`: it hangs at its next call. `unaware`: it goes on though another one leads."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.time = cluster.time
        self.kube = _Kube(cluster, self)
        self.pods = _Pods(cluster, self)
        self.wants = _Wants(cluster)
        self.pool_size = self.pool_most = cluster.pool
        self.image, self.names = "img", cluster.names
        self.dead = False
        self._open = asyncio.Event()
        self._open.set()
        self._looks: dict[str, asyncio.Task[None]] = {}
        self.start()

    def scaler(self) -> Scaler:
        return self.wants

    def wake(self, keys: Keys) -> None:
        if function_work("ns/fn") in keys:
            keys = keys | {function_work("ns/fn2"), pool_work("ns", "python")}
        self.queue |= keys

    # --- its fate -----------------------------------------------------------------------------------------------------
    def pause(self) -> None:
        self._open.clear()

    def resume(self) -> None:
        self._open.set()

    @property
    def paused(self) -> bool:
        return not self._open.is_set()

    async def gate(self, seconds: float) -> None:
        if seconds:
            await self.time.sleep(seconds)
        await self._open.wait()

    async def die(self) -> None:
        """SIGKILL."""
        self.dead = True
        for task in self._looks.values():
            task.cancel()
        await super().die()
        if self in self.cluster.replicas:
            self.cluster.replicas.remove(self)

    # --- its work -----------------------------------------------------------------------------------------------------
    async def work(self) -> None:
        """One turn of its queue, as the real one: no key twice at a time, and one that waits holds up no other."""
        if self.paused:
            return
        self.watch()
        keys, self.queue = self.queue, set()
        for key in sorted(keys):
            if key in self._looks and not self._looks[key].done():
                self.queue.add(key)
            else:
                self._looks[key] = asyncio.create_task(self._try(key))
        await self.time.settle()

    async def _try(self, key: str) -> None:
        try:
            await self.look(key)
        except ApiError:
            await self.time.sleep(1.0)
            self.queue.add(key)

    def watch(self) -> None:
        super().watch()
        for path, raw in self.cluster.objects.items():
            if path.startswith(FUNCTIONS) and path.count("/") == FUNCTIONS.count("/") + 1:
                self.wake(self.store.put_function(raw))
        for key in list(self.store.functions):
            if f"{FUNCTIONS}/{key.partition('/')[2]}" not in self.cluster.objects:
                self.wake(self.store.drop_function(key))

    @property
    def idle(self) -> bool:
        """Nothing is under way."""
        return not self.actions._tasks and all(task.done() for task in self._looks.values())

    def left_over(self) -> list[str]:
        """What stays behind though nothing is under way."""
        found = [f"reserved {key}" for key in self.actions.reserved] + [f"busy {key}" for key in self.actions.busy]
        for key, memory in self.functions._memories.items():
            if memory.claiming:
                found.append(f"claiming {key} {memory.claiming}")
        return found

    def bugs(self) -> list[str]:
        """Errors that nobody foresaw."""
        troubles = [t for memory in self.functions._memories.values() for t in (memory.trouble, memory.proving)]
        return [trouble.message for trouble in troubles if trouble.reason == "InternalError"]

    def miscounted(self) -> list[str]:
        """Claims that a plan would count though their pod is counted, or the other way round. Of the revisions that are
        wanted: a Function that was made anew begins to count anew."""
        there = Counter((claim.key, claim.revision) for claim in self.actions.claims if claim.counted)
        found = []
        for key, memory in self.functions._memories.items():
            for revision in {memory.target, memory.active}:
                claims, counted = there[key, revision], memory.claiming.get(revision, 0)
                if claims != counted:
                    found.append(f"{key} {revision}: {claims} claims without a pod, {counted} counted")
        return found


class _Wants(Wants):
    """What all operators' autoscalers come to."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__()
        self._cluster, self._numbers = cluster, cluster.wants

    def wanted(self, function: Function, running: int) -> int:
        return self._numbers[function.key]

    def proven(self, function: Function) -> None:
        self._numbers[function.key] = max(1, self._numbers[function.key])

    def in_service(self, pods: Iterable[Pod]) -> Mapping[str, int]:
        return {}

    def hung(self) -> frozenset[str]:
        """Some gateway cannot reach any of them; those that are silent indeed have to go."""
        found = self._cluster.pods().values() if self._cluster.doubted else ()
        return frozenset(f"ns/{raw['metadata']['name']}" for raw in found)


class _Kube(FakeKube):
    """One operator's way to the API server."""

    def __init__(self, cluster: Cluster, replica: Replica) -> None:
        super().__init__()
        self._cluster, self._replica = cluster, replica
        self.objects = cluster.objects

    def put(self, path: str, body: Json) -> Json:
        return self._cluster.put(path, body)

    async def create(self, path: str, body: Json) -> Json:
        return await self._write(path, lambda: FakeKube.create(self, path, body))

    async def replace(self, path: str, body: Json) -> Json:
        return await self._write(path, lambda: FakeKube.replace(self, path, body))

    async def merge(self, path: str, body: Json) -> Json:
        return await self._write(path, lambda: FakeKube.merge(self, path, body))

    async def patch(self, path: str, operations: list[Json]) -> Json:
        return await self._write(path, lambda: FakeKube.patch(self, path, operations), patch=True)

    async def delete(self, path: str, *, uid: str = "", grace: int | None = None) -> None:
        await self._write(path, lambda: FakeKube.delete(self, path, uid=uid, grace=grace))

    async def _write(self, path: str, write: Callable[[], Awaitable[Json]], *, patch: bool = False) -> Json:
        await self._replica.gate(self._cluster.latency)
        fault = ""
        if path.startswith(PODS) or not self._cluster.only_pods:
            fault, self._cluster.api_fault = self._cluster.api_fault, ""
        if fault == "fails" or (fault == "conflict" and not patch):
            raise ApiError(500, "InternalError", "etcd has no leader")
        if fault == "conflict":
            raise ConflictError(422, "Invalid", "somebody else was faster")
        if fault == "slow":
            await self._replica.time.sleep(1.5)
        found = await write()
        if fault == "fails after it was done":
            raise ApiError(504, "Timeout", "the answer was lost")
        await self._replica.gate(self._cluster.latency)
        return found


class _Pods(Pods):
    """One operator's way to the pods."""

    def __init__(self, cluster: Cluster, replica: Replica) -> None:
        self.__dict__.update(cluster.held.__dict__)
        self._cluster, self._replica = cluster, replica

    async def lives(self, pod: Pod) -> bool:
        await self._replica.gate(self._cluster.pod_latency)
        return await super().lives(pod)

    async def specialize(self, pod: Pod, message: Specialize, timeout: float) -> None:
        await self._replica.gate(self._cluster.pod_latency)
        fault, self._cluster.pod_fault = self._cluster.pod_fault, ""
        if fault == "unreachable":
            raise PodUnreachableError(f"{pod.key}: refused")
        if fault == "cut off":
            raise PodError(f"{pod.key}: the connection broke")
        if fault == "never answers":
            await self.time.sleep(timeout)
            raise PodTimeoutError(f"{pod.key}: no answer")
        if fault == "does not load" and pod.name not in self.held:
            raise LoadFailedError(LoadError("ImportError", "no module"))
        if fault == "late":
            await self.time.sleep(3.0)
        await super().specialize(pod, message, timeout)
        if f"{PODS}/{pod.name}" in self._cluster.objects:
            self._cluster.look_inside(self._cluster.objects[f"{PODS}/{pod.name}"])
        if fault == "cut off after it was done":
            raise PodError(f"{pod.key}: the connection broke")
        await self._replica.gate(self._cluster.pod_latency)
