"""Reconciles one Function at a time: observe, plan, start the actions, write the status.

Everything that waits (claims, loads, drains) runs in Actions; this only decides, and hears of the outcomes. So one
look at a function takes milliseconds, and a new spec is never stuck behind an old one that is still loading.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from kappa_api import names
from kappa_api.function import Function
from kappa_api.runtime import own_pod_reason
from kappa_api.wire import LoadError
from kappa_operator.actions import Actions
from kappa_operator.autoscaler.room import QUOTA, UNSCHEDULABLE, Stuck
from kappa_operator.clock import Clock
from kappa_operator.events import Recorder
from kappa_operator.kube import Kube, NotFoundError, function_path
from kappa_operator.memory import Failure, Memory
from kappa_operator.metrics import Metrics
from kappa_operator.observed import FunctionRecord, Pod, rfc3339
from kappa_operator.plan import Claim, Situation, plan
from kappa_operator.settings import Settings
from kappa_operator.snapshots import Snapshots
from kappa_operator.sources import Content, SourceError, Sources
from kappa_operator.start_times import Start
from kappa_operator.status import Observation, ready_condition, status_patch
from kappa_operator.store import Keys, Store, function_work

Json = Any
logger = logging.getLogger(__name__)

#: A function with starting or unready pods is looked at again, because time alone may change the plan.
LOOK_AGAIN_SECONDS = 5.0
#: Reasons that tell of the cluster, not of the function.
NO_ROOM = (UNSCHEDULABLE, QUOTA)


class Scaler(Protocol):
    """What the autoscaler tells and is told. Keys are `namespace/name`."""

    def wanted(self, function: Function, running: int) -> int: ...
    def proven(self, function: Function) -> None: ...
    def forget(self, key: str) -> None: ...
    def started(self, start: Start, seconds: float) -> None: ...
    def stuck(self, key: str, stuck: Stuck | None) -> None: ...
    def shortage(self, key: str) -> tuple[str, str]: ...
    def in_service(self, pods: Iterable[Pod]) -> Mapping[str, int]: ...
    def hung(self) -> frozenset[str]: ...
    def drained(self, pod: Pod) -> bool: ...


class Functions:
    """See the module. `wake` puts work into the queue. Implements `outcomes.Outcomes`."""

    def __init__(
        self,
        kube: Kube,
        store: Store,
        sources: Sources,
        scaler: Scaler,
        settings: Settings,
        *,
        wake: Callable[[Keys], None],
        events: Recorder,
        metrics: Metrics,
        clock: Clock | None = None,
    ) -> None:
        self.kube, self.store, self.sources, self.scaler, self.settings = kube, store, sources, scaler, settings
        self.clock = clock or Clock()
        self.snapshots = Snapshots(kube, sources)
        self.actions: Actions
        self._wake, self._events, self._metrics = wake, events, metrics
        self._memories: dict[str, Memory] = {}

    async def reconcile(self, key: str) -> float:
        """Looks at one function; returns in how many seconds it must be looked at again, 0 for only on events."""
        record = self.store.functions.get(key)
        if record is None or record.deleting:
            self._memories.pop(key, None)
            self.scaler.forget(key)
            return 0.0
        memory = self._memories.get(key)
        if memory is None or memory.uid != record.uid:
            memory = self._memories[key] = Memory.from_status(record.uid, record.status)
        target, blocked = await self._target(record, memory)
        pods = self.store.instances(key)
        if target and target != memory.active and _serves(pods, target):
            memory.active = target  # proven by an earlier leader that had no time to write it down
        self._mourn(record, pods)
        self.scaler.stuck(key, _stuck(memory, pods))
        situation = self._situation(record, memory, pods, target if not blocked[0] else "")
        for action in plan(situation):
            if isinstance(action, Claim):
                memory.claiming[action.revision] = memory.claiming.get(action.revision, 0) + 1
            self.actions.start(action, record)
        serving = sum(1 for pod in pods if pod.live and pod.state == names.STATE_SERVING)
        if memory.active == target and serving >= situation.wanted and self.clock.monotonic() > memory.trouble.until:
            memory.trouble.clear()
        await self._write_status(record, memory, target, blocked, situation.wanted)
        return self._again(memory, situation)

    async def _target(self, record: FunctionRecord, memory: Memory) -> tuple[str, tuple[str, str]]:
        """The revision the spec asks for, and why it cannot be had (reason, message)."""
        function = record.function
        if function is None:
            return "", ("InvalidSpec", record.problems)
        runtime = function.spec.runtime
        if runtime and runtime not in self.store.runtimes:
            if runtime in self.store.bad_runtimes:
                return "", ("RuntimeInvalid", f"Runtime {runtime!r} is not valid: {self.store.bad_runtimes[runtime]}")
            known = ", ".join(sorted(self.store.runtimes)) or "none"
            return "", ("RuntimeNotFound", f"there is no Runtime {runtime!r}; there are: {known}")
        try:
            target = await self.sources.revision(function)
        except SourceError as error:
            return "", (error.reason, str(error))
        failure = memory.failure
        if failure is not None and failure.revision == target:
            return target, (failure.reason, failure.message)
        memory.failure = None
        memory.aim(target)
        return target, ("", "")

    def _situation(self, record: FunctionRecord, memory: Memory, pods: tuple[Pod, ...], target: str) -> Situation:
        function = record.scaled
        # An earlier leader wanted those that start with a proven revision just as much as those that serve.
        running = sum(
            pod.live
            and (
                pod.state == names.STATE_SERVING
                or (pod.state == names.STATE_STARTING and pod.revision == memory.active)
            )
            for pod in pods
        )
        wanted = self.scaler.wanted(function, running) if function is not None else running
        return Situation(
            target=target,
            active=memory.active,
            wanted=wanted,
            pods=pods,
            hold=self.clock.monotonic() < memory.trouble.until,
            hold_proof=self.clock.monotonic() < memory.proving.until,
            refused=memory.trouble.reason == QUOTA,
            claiming=dict(memory.claiming),
            busy=frozenset(pod.key for pod in pods if pod.key in self.actions.busy),
            leaving=frozenset(pod.key for pod in pods if pod.key in self.actions.leaving),
            verified=frozenset(pod.key for pod in pods if pod.key in self.actions.verified),
            in_service=self.scaler.in_service(pods),
            hung=self.scaler.hung(),
            now=self.clock.wall(),
            start_seconds=self.settings.start_seconds,
            sick_seconds=self.settings.sick_seconds,
        )

    def _again(self, memory: Memory, situation: Situation) -> float:
        now = self.clock.monotonic()
        holds = [trouble.until - now for trouble in (memory.trouble, memory.proving) if trouble.until > now]
        if holds:
            return min(holds)
        restless = any(pod.live and not (pod.state == names.STATE_SERVING and pod.ready) for pod in situation.pods)
        return LOOK_AGAIN_SECONDS if restless else 0.0

    async def _write_status(
        self, record: FunctionRecord, memory: Memory, target: str, blocked: tuple[str, str], wanted: int
    ) -> None:
        pods = [
            pod
            for pod in self.store.instances(record.key)
            if pod.live and pod.state in (names.STATE_STARTING, names.STATE_SERVING)
        ]
        stuck = next((pod.problem for pod in pods if pod.problem[0]), ("", ""))
        felt = memory.proving if memory.proving.reason and target != memory.active else memory.trouble
        trouble = (felt.reason, felt.message)
        if target == memory.active:
            # What there is serves: that there is no room for more stands in a condition of its own.
            trouble, stuck = (("", "") if found[0] in NO_ROOM else found for found in (trouble, stuck))
        seen = Observation(
            name=record.name,
            generation=record.generation,
            url=f"{self.settings.gateway_url}/fn/{record.namespace}/{record.name}",
            target=target,
            active=memory.active,
            failed=memory.failure.revision if memory.failure else "",
            blocked=blocked,
            trouble=trouble if trouble[0] else stuck,
            replicas=len(pods),
            ready_replicas=sum(1 for pod in pods if pod.state == names.STATE_SERVING),
            wanted=wanted,
            has_routes=bool(record.function and record.function.spec.http.routes),
            conflicts=self.store.conflicts.get(record.key, ()),
            own_pods=self._own_pods(record.function),
            shortage=self.scaler.shortage(record.key),
        )
        self._tell(record, memory, seen)
        current = self.store.functions.get(record.key, record)
        patch = status_patch(seen, current.status, rfc3339(self.clock.wall()))
        if not patch:
            return
        try:
            raw = await self.kube.merge(
                function_path(record.namespace, record.name, "status"),
                {"metadata": {"uid": record.uid}, "status": patch},
            )
        except NotFoundError:
            self._wake(self.store.drop_function(record.key))
            return
        self._wake(self.store.put_function(raw))

    def _own_pods(self, function: Function | None) -> str:
        return own_pod_reason(function.spec, self.store.runtimes.get(function.spec.runtime)) if function else ""

    def _mourn(self, record: FunctionRecord, pods: tuple[Pod, ...]) -> None:
        for pod in pods:
            if pod.ended and pod.state == names.STATE_SERVING and not pod.deleting:
                reason, message = pod.problem
                self._events.warning(
                    record, "InstanceDied", f"instance {pod.name} ended: {reason or pod.phase}: {message}"
                )

    def _tell(self, record: FunctionRecord, memory: Memory, seen: Observation) -> None:
        """Events for what a user wants to know: each new reason of Ready that is bad news."""
        status, reason, message = ready_condition(seen)
        if memory.said == f"{reason} {message}":
            return
        memory.said = f"{reason} {message}"
        if status == "False":
            self._events.warning(record, reason, message)

    # --- outcomes of actions ------------------------------------------------------------------------------------------
    async def keep(self, key: str, revision: str, content: Content) -> None:
        record, memory = self.store.functions.get(key), self._memories.get(key)
        if record is not None and memory is not None and memory.active != revision:
            await self.snapshots.save(record, revision, content)

    def proven(self, key: str, revision: str) -> None:
        record, memory = self.store.functions.get(key), self._memories.get(key)
        if record is None or memory is None:
            return
        memory.trouble_of(revision).clear()
        if memory.active != revision:
            old = f", replaces {memory.active}" if memory.active else ""
            memory.active = revision
            self._events.normal(record, "RevisionActive", f"revision {revision} has loaded and takes the calls{old}")
            if record.function is not None:
                self.scaler.proven(record.function)
        self._wake(frozenset({function_work(key)}))

    def load_failed(self, key: str, revision: str, error: LoadError, *, proving: bool) -> None:
        memory = self._memories.get(key)
        if memory is None:
            return
        where = f" ({error.file} line {error.line})" if error.file and error.line else ""
        message = f"revision {revision} failed to load: {error.type}: {error.message}{where}"
        if proving:
            memory.failure = Failure(revision, "LoadFailed", message)
        else:
            self.trouble(key, "LoadFailed", message, revision)
        self._metrics.load_failures.inc()

    def source_failed(self, key: str, revision: str, error: SourceError) -> None:
        memory = self._memories.get(key)
        if memory is not None and error.permanent and error.reason == "FetchFailed" and revision != memory.active:
            memory.failure = Failure(revision, error.reason, str(error))
        else:
            self.trouble(key, error.reason, str(error), revision)

    def trouble(self, key: str, reason: str, message: str, revision: str) -> None:
        memory = self._memories.get(key)
        if memory is not None:
            memory.trouble_of(revision).add(reason, message, self.clock.monotonic())
            logger.warning("%s: %s: %s", key, reason, message)

    def hung(self, key: str, pod: Pod) -> None:
        record = self.store.functions.get(key)
        self._metrics.hung.inc()
        logger.warning("%s: %s answers nothing, not even whether it lives: it is replaced", key, pod.name)
        if record is not None:
            text = f"instance {pod.name} answers nothing, not even whether it lives: it is replaced"
            self._events.warning(record, "InstanceHung", text)

    def claim_counted(self, key: str, revision: str) -> None:
        memory = self._memories.get(key)
        if memory is not None and memory.claiming.get(revision):
            memory.claiming[revision] -= 1
            if not memory.claiming[revision]:
                del memory.claiming[revision]

    def claim_again(self, key: str, revision: str) -> None:
        memory = self._memories.get(key)
        if memory is not None:
            memory.claiming[revision] = memory.claiming.get(revision, 0) + 1

    def changed(self, keys: Keys) -> None:
        self._wake(keys)

    def drained(self, pod: Pod) -> bool:
        return self.scaler.drained(pod)

    def specialized(self, seconds: float, *, pooled: bool) -> None:
        self._metrics.specialize.labels("pool" if pooled else "own").observe(seconds)

    def claimed(self, source: str, reason: str) -> None:
        self._metrics.claimed(source, reason)

    def served(self, start: Start, seconds: float, *, usual: bool) -> None:
        self._metrics.claim.labels("pool" if start.pooled else "own").observe(seconds)
        memory = self._memories.get(start.function)
        if memory is not None and memory.trouble.reason == QUOTA:
            memory.trouble.clear()  # there is room again
        if usual:
            self.scaler.started(start, seconds)

    async def content(self, key: str, revision: str) -> Content:
        """Code of a revision: from the spec when it is the spec's, else from the snapshot. Raises SourceError."""
        record = self.store.functions.get(key)
        if record is None:
            raise SourceError("FunctionGone", "the function is gone", permanent=True)
        if record.function is not None and await self._is_current(record.function, revision):
            return await self.sources.content(record.function)
        return await self.snapshots.load(record, revision)

    async def _is_current(self, function: Function, revision: str) -> bool:
        try:
            return await self.sources.revision(function) == revision
        except SourceError:
            return False


def _stuck(memory: Memory, pods: Iterable[Pod]) -> Stuck | None:
    """Why there is no room for more instances of the active revision: what scheduler or quota said last."""
    for pod in pods:
        if pod.live and pod.revision == memory.active and pod.problem[0] == UNSCHEDULABLE:
            return Stuck(UNSCHEDULABLE, pod.problem[1] or "the scheduler finds no node")
    if memory.trouble.reason == QUOTA:
        return Stuck(QUOTA, memory.trouble.message)
    return None


def _serves(pods: Iterable[Pod], revision: str) -> bool:
    return any(pod.live and pod.state == names.STATE_SERVING and pod.revision == revision for pod in pods)
