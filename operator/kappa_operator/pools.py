"""Keeps every pool at its size: the I/O around pool.py, and what is remembered of each pool.

All of the memory may be lost: the next leader takes the pods that it finds as the size, and asks each of them once
whether it is really empty (its code may have been sent and never labelled).
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from kappa_api.wire import RUNTIME_EMPTY
from kappa_operator import pods
from kappa_operator.actions import Actions
from kappa_operator.clock import Clock
from kappa_operator.instance import PodError
from kappa_operator.kube import ApiError, Kube, core_path
from kappa_operator.memory import Trouble
from kappa_operator.metrics import Metrics
from kappa_operator.observed import Pod
from kappa_operator.plan import YOUNG_SECONDS
from kappa_operator.pool import PoolState, plan_pool
from kappa_operator.pool_size import ClaimHistory
from kappa_operator.settings import Settings
from kappa_operator.store import Keys, Store, pool_work

logger = logging.getLogger(__name__)

LOOK_AGAIN_SECONDS = 10.0
#: A pool that is too large loses one pod in this time.
SHED_SECONDS = 15.0
#: After a claim a pool that still has a Ready pod rests this long before it makes the next one: on a small node a
#: starting process would take the processor from the very call that the claim was made for (docs/performance.md).
REFILL_REST_SECONDS = 0.15


@dataclass(slots=True)
class _Memory:
    """One pool. `made`: pods that are not Ready yet, and when they were made.
    Monotonic seconds."""

    shed_at: float
    claimed_at: float = float("-inf")
    claims: ClaimHistory = field(default_factory=ClaimHistory)
    trouble: Trouble = field(default_factory=Trouble)
    made: dict[str, float] = field(default_factory=dict)


class Pools:
    """Reconciles one pool (`namespace/runtime`) at a time. Hears of claims from the Actions it is given."""

    def __init__(
        self,
        kube: Kube,
        store: Store,
        actions: Actions,
        settings: Settings,
        *,
        wake: Callable[[Keys], None],
        suffix: Callable[[], str],
        metrics: Metrics,
        clock: Clock | None = None,
    ) -> None:
        self._kube, self._store, self._actions, self._settings = kube, store, actions, settings
        self._wake, self._suffix, self._metrics = wake, suffix, metrics
        self._clock = clock or Clock()
        self._memories: dict[str, _Memory] = {}
        self.full: Callable[[str], bool] = lambda namespace: False
        actions.on_claim = self.claimed

    def claimed(self, namespace: str, runtime: str) -> None:
        """A function takes a pod, or would if there were one."""
        memory, now = self._memory(f"{namespace}/{runtime}"), self._clock.monotonic()
        memory.claims.claimed(now)
        memory.claimed_at = now
        self._wake(frozenset({pool_work(namespace, runtime)}))

    async def reconcile(self, key: str) -> float:
        """Looks at one pool; returns in how many seconds it must be looked at again, 0 for only on events."""
        namespace, _, name = key.partition("/")
        found = self._store.pool(namespace, name)
        runtime, users = self._store.runtimes.get(name), self._store.pool_users(namespace, name)
        if not found and not users:
            self._memories.pop(key, None)
            self._metrics.pool(namespace, name, 0, 0)
            return 0.0
        now, memory = self._clock.monotonic(), self._memory(key)
        secret, url = self._settings.keys.current, self._settings.inside_url
        self._measure(memory, found, now)
        wanted = memory.claims.size(runtime.pool.min, runtime.pool.max, now) if runtime is not None else 0
        self._metrics.pool(namespace, name, wanted if users else 0, sum(pod.live and pod.ready for pod in found))
        todo = plan_pool(
            PoolState(
                runtime=runtime,
                template=pods.pool_template(runtime, secret, url) if runtime is not None else "",
                pods=found,
                # Where there is no room for instances, a pool is as good as without users.
                users=0 if self.full(namespace) else users,
                wanted=wanted,
                reserved=self._actions.reserved,
                now=self._clock.wall(),
                hold=now < memory.trouble.until,
                shed=now - memory.shed_at >= SHED_SECONDS,
                sick_seconds=self._settings.sick_seconds,
                start_seconds=self._settings.start_seconds,
            )
        )
        if todo.shed:
            memory.shed_at = now
        # Before the deletions: what replaces a pod is on its way when that one goes.
        rest = memory.claimed_at + REFILL_REST_SECONDS - now
        resting = bool(todo.create) and rest > 0 and self._can_be_claimed(found)
        if todo.create and not resting:
            await self._fill(namespace, name, todo.create)
        for pod_key, reason in todo.delete:
            await self._remove(memory, pod_key, reason)
        await self._examine(memory, found)
        return rest if resting else self._again(memory, found, wanted, now)

    def _can_be_claimed(self, found: Iterable[Pod]) -> bool:
        return any(pod.live and pod.ready and pod.key not in self._actions.reserved for pod in found)

    def _memory(self, key: str) -> _Memory:
        memory = self._memories.get(key)
        if memory is None:
            now = self._clock.monotonic()
            memory = self._memories[key] = _Memory(shed_at=now)
            namespace, _, name = key.partition("/")
            memory.claims.found(sum(pod.live for pod in self._store.pool(namespace, name)), now)
        return memory

    def _measure(self, memory: _Memory, found: Iterable[Pod], now: float) -> None:
        """How long the pods that have become Ready took, and which have died without having lived."""
        there = {pod.key: pod for pod in found}
        for key, made in list(memory.made.items()):
            pod = there.get(key)
            if pod is None:
                del memory.made[key]  # claimed or deleted meanwhile
            elif pod.ready:
                memory.claims.started(now - made)
                del memory.made[key]
        for pod in there.values():
            if pod.ended and not pod.deleting and self._clock.wall() - pod.created < YOUNG_SECONDS:
                memory.trouble.add("PoolPodEnded", ": ".join(part for part in pod.problem if part), now)

    def _again(self, memory: _Memory, found: tuple[Pod, ...], wanted: int, now: float) -> float:
        if memory.trouble.until > now:
            return memory.trouble.until - now
        runtime = self._store.runtimes.get(next(iter(found)).runtime) if found else None
        if sum(pod.live for pod in found) > wanted or (runtime is not None and wanted > runtime.pool.min):
            return SHED_SECONDS
        known = self._actions.empty
        return LOOK_AGAIN_SECONDS if any(p.live and (not p.ready or p.key not in known) for p in found) else 0.0

    async def _fill(self, namespace: str, name: str, count: int) -> None:
        # Creating waits for all: the next look must see what this one has made.
        results = await asyncio.gather(*(self._create(namespace, name) for _ in range(count)), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _create(self, namespace: str, runtime_name: str) -> None:
        runtime = self._store.runtimes[runtime_name]
        name = f"{runtime.name.replace('.', '-')}-pool-{self._suffix()}"
        who = pods.Identity(namespace, name, self._settings.keys.current, self._settings.inside_url)
        manifest = pods.pool_pod(runtime, who)
        begun = self._clock.monotonic()
        try:
            raw = await self._kube.create(core_path("pods", namespace), manifest)
        except ApiError as error:
            raise ApiError(
                error.status, error.reason, f"pool of {runtime_name} in {namespace}: {error.message}"
            ) from error
        memory = self._memory(f"{namespace}/{runtime_name}")
        memory.made[f"{namespace}/{name}"] = begun
        self._actions.empty.add(f"{namespace}/{name}")
        self._wake(self._store.put_pod(raw))

    async def _remove(self, memory: _Memory, key: str, reason: str) -> None:
        """Deletes a pod of the pool, unless it was claimed meanwhile."""
        pod = self._store.pods.get(key)
        if pod is None or pod.function or pod.deleting or key in self._actions.busy | self._actions.reserved:
            return
        logger.info("pool of %s in %s: deleting %s: %s", pod.runtime, pod.namespace, pod.name, reason)
        self._actions.reserved.add(key)  # nobody may choose it while the API server is being told
        try:
            await self._actions.delete(pod)
        finally:
            self._actions.reserved.discard(key)

    async def _examine(self, memory: _Memory, found: Iterable[Pod]) -> None:
        """Asks the pods that an earlier leader made whether they hold no code; one that does will never be of use."""
        known = self._actions.empty | self._actions.reserved
        strangers = [pod for pod in found if pod.live and pod.ready and pod.key not in known]
        answers = await asyncio.gather(*map(self._actions.client.health, strangers), return_exceptions=True)
        for pod, answer in zip(strangers, answers, strict=True):
            if isinstance(answer, PodError):
                continue  # the kubelet's probe decides; a claim finds out too
            if isinstance(answer, BaseException):
                raise answer
            if answer.state == RUNTIME_EMPTY:
                self._actions.empty.add(pod.key)
            else:
                await self._remove(memory, pod.key, f"holds revision {answer.revision} of {answer.function}")
