"""Performs the actions of a plan against Kubernetes and the pods, each in a task of its own.

What is under way stands in `busy` (pods) and in the memory's `claiming` (claims without a pod yet), so that the next
plan counts it. Every outcome is told to `Outcomes`, which plans again. A crash in the middle leaves only states that
the next leader's plan knows how to go on from.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from kappa_api import names
from kappa_api.function import Function
from kappa_api.runtime import own_pod_reason
from kappa_api.wire import RUNTIME_LOADING, LoadError
from kappa_operator import pods, states
from kappa_operator.claiming import Claiming, Reservations
from kappa_operator.clock import Clock
from kappa_operator.instance import (
    LoadFailedError,
    PodClient,
    PodError,
    PodTimeoutError,
    PodUnreachableError,
    WrongRevisionError,
)
from kappa_operator.kube import ApiError, ConflictError, Kube, NotFoundError, core_path
from kappa_operator.loading import Loader
from kappa_operator.observed import FunctionRecord, Pod, parse_pod, rfc3339
from kappa_operator.plan import Action, Claim, Delete, Drain, Promote, Verify
from kappa_operator.plan import Specialize as Load
from kappa_operator.pool import pick
from kappa_operator.refusals import refusal
from kappa_operator.settings import Settings
from kappa_operator.sources import Content, SourceError
from kappa_operator.start_times import Start
from kappa_operator.store import Keys, Store, pool_work

Json = Any
logger = logging.getLogger(__name__)

CLAIM_TRIES = 5
VERIFY_AGAIN_SECONDS = 5.0
DELETE_GRACE_SECONDS = 10
POOL_EMPTY = "the pool had no pod to spare"


class Outcomes(Protocol):
    """Who wants to know how an action ended. Keys are `namespace/name` of the function."""

    async def keep(self, key: str, revision: str, content: Content) -> None: ...
    def proven(self, key: str, revision: str) -> None: ...
    def load_failed(self, key: str, revision: str, error: LoadError, *, proving: bool) -> None: ...
    def trouble(self, key: str, reason: str, message: str, revision: str) -> None: ...
    def source_failed(self, key: str, revision: str, error: SourceError) -> None: ...
    def claim_counted(self, key: str, revision: str) -> None: ...
    def claim_again(self, key: str, revision: str) -> None: ...
    def changed(self, keys: Keys) -> None: ...
    async def content(self, key: str, revision: str) -> Content: ...
    def drained(self, pod: Pod) -> bool: ...
    def specialized(self, seconds: float, *, pooled: bool) -> None: ...
    def claimed(self, source: str, reason: str) -> None: ...
    def served(self, start: Start, seconds: float, *, usual: bool) -> None: ...


class Actions:
    """See the module. One per leader. `on_claim` hears of each claim that is for a pool, with namespace and runtime."""

    def __init__(
        self,
        kube: Kube,
        client: PodClient,
        store: Store,
        settings: Settings,
        outcomes: Outcomes,
        *,
        suffix: Callable[[], str],
        clock: Clock | None = None,
    ) -> None:
        self.kube, self.client, self.store, self.settings, self.outcomes = kube, client, store, settings, outcomes
        self.clock = clock or Clock()
        self.loader = Loader(kube, client, store, settings, self.clock)
        self.busy: set[str] = set()
        self.leaving: set[str] = set()  # those of them that a drain or a deletion is at work on
        self.verified: set[str] = set()
        self.reserved = Reservations()
        self.empty: set[str] = set()  # pods of pools that are known to hold no code; `Pools` asks the others
        self._made: dict[str, float] = {}  # own pods that do not serve yet: when they were claimed
        self.on_claim: Callable[[str, str], None] = lambda namespace, runtime: None
        self._suffix = suffix
        self._slots = asyncio.Semaphore(settings.pod_tasks)
        self._tasks: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        """Cancels what is under way; another leader goes on with it."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def start(self, action: Action, record: FunctionRecord) -> None:
        """Begins an action; returns at once."""
        key = record.key
        if isinstance(action, Claim):
            self._spawn(key, action.revision, self._claim(record, action))
            return
        pod = self.store.pods.get(action.pod)
        if pod is None or action.pod in self.busy:
            return
        match action:
            case Load(revision=revision, prove=prove):
                self._spawn(key, pod.revision, self._load(record, pod, revision, prove=prove), pod.key)
            case Verify(revision=revision):
                self._spawn(key, pod.revision, self._verify(record, pod, revision), pod.key)
            case Promote(revision=revision):
                self._spawn(key, pod.revision, self._promote(record, pod, revision), pod.key)
            case Drain():
                self.leaving.add(pod.key)
                logger.info("%s: draining %s: %s", key, pod.name, action.reason)
                self._spawn(key, pod.revision, self._drain(record, pod), pod.key)
            case Delete():
                self.leaving.add(pod.key)
                logger.info("%s: deleting %s: %s", key, pod.name, action.reason)
                self._spawn(key, pod.revision, self._bury(record, pod, action.trouble), pod.key)

    def _spawn(self, key: str, revision: str, work: Coroutine[Any, Any, object], pod: str = "") -> None:
        async def run() -> None:
            try:
                await work
            except ApiError as error:
                self.outcomes.trouble(key, "KubernetesError", str(error), revision)
            except Exception as error:
                logger.exception("%s: an action failed", key)
                self.outcomes.trouble(key, "InternalError", f"{type(error).__name__}: {error}", revision)
            finally:
                self.busy.discard(pod)
                self.leaving.discard(pod)
                self.outcomes.changed(frozenset({f"function/{key}"}))

        if pod:
            self.busy.add(pod)
        task = asyncio.create_task(run(), name=f"action {key} {pod}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: work.close())  # one that was cancelled before its first step

    # --- claims -------------------------------------------------------------------------------------------------------
    async def _claim(self, record: FunctionRecord, action: Claim) -> None:
        begun = self.clock.monotonic()
        claiming = Claiming(self.outcomes, self.reserved, record.key, action.revision, begun)
        try:
            async with self._slots:
                try:
                    content = await self.outcomes.content(record.key, action.revision)
                except SourceError as error:
                    self.outcomes.source_failed(record.key, action.revision, error)
                    return
                await self._claim_with(record, action, content, claiming)
        finally:
            claiming.end()

    async def _claim_with(self, record: FunctionRecord, action: Claim, content: Content, claiming: Claiming) -> None:
        spec = content.spec
        runtime = self.store.runtimes.get(spec.runtime)
        reason = own_pod_reason(spec, runtime)
        template = ""
        if not reason and runtime is not None:
            template = pods.pool_template(runtime, self.settings.keys.current)
            self.on_claim(record.namespace, runtime.name)
        for _ in range(CLAIM_TRIES):
            pod = None
            if not reason and runtime is not None:
                # Resources that the function names were compared with the Runtime's newest.
                exact = bool(spec.pod.resources)
                pool = self.store.pool(record.namespace, runtime.name)
                pod = pick(pool, template, self.reserved, exact=exact)
            if pod is None:
                await self._create(record, action.revision, content, reason, claiming.begun)
                return
            claiming.reserve(pod.key)
            self.busy.add(pod.key)
            try:
                if await self._take(record, action, content, pod, claiming):
                    self.outcomes.claimed("pool", "ready" if pod.ready else "starting")
                    return
            finally:
                claiming.let_go()
                self.busy.discard(pod.key)
        self.outcomes.trouble(record.key, "NoPod", f"{CLAIM_TRIES} pods of the pool could not be used", action.revision)

    async def _take(
        self, record: FunctionRecord, action: Claim, content: Content, pod: Pod, claiming: Claiming
    ) -> bool:
        """Makes this pool pod an instance. False: it could not be used, another may.

        A pod that somebody else has labelled ends the claim: it may be another leader, at work for the same function.
        The next plan sees what that one did; the pod is left to it.
        """
        begun = self.clock.monotonic()
        # One that may hold another function's code must not be labelled serving before it has told.
        at_once = pod.ready and not action.prove and pod.key in self.empty
        self.empty.discard(pod.key)
        state = states.POD.next(pod.state, states.TAKEN if at_once else states.CLAIMED)
        patch = pods.claim_patch(record, action.revision, state, content.spec.concurrency)
        if not at_once:
            try:
                pod = await self._patch(pod, patch)
            except (ConflictError, NotFoundError) as error:
                await self._refresh(pod)
                if isinstance(error, ConflictError):
                    return True
                claiming.failed()
                return False
            claiming.labelled()
            if not pod.ip:
                return True  # goes on as a starting pod, when it has an address
            return await self._load(
                record, pod, action.revision, prove=action.prove, content=content, claiming=claiming
            )

        async def label() -> Pod:
            new = await self._patch(pod, patch)
            claiming.labelled()
            return new

        labelled, loaded = await asyncio.gather(
            label(), self.loader.specialize(record, pod, action.revision, content), return_exceptions=True
        )
        for result in (labelled, loaded):
            if isinstance(result, BaseException) and not isinstance(
                result, ConflictError | NotFoundError | PodError | LoadFailedError | WrongRevisionError
            ):
                self.outcomes.changed(frozenset({pool_work(pod.namespace, pod.runtime)}))  # it has to be asked
                raise result
        if isinstance(labelled, Pod) and loaded is None:
            self.verified.add(pod.key)
            self.outcomes.specialized(self.clock.monotonic() - begun, pooled=True)
            start = Start(record.key, content.spec.runtime, True)
            self.outcomes.served(start, self.clock.monotonic() - claiming.begun, usual=True)
            return True
        if isinstance(labelled, ConflictError):
            await self._refresh(pod)
            return True
        if not isinstance(loaded, LoadFailedError):
            claiming.failed()
        await self.delete(pod)
        if isinstance(loaded, LoadFailedError):
            self.outcomes.load_failed(record.key, action.revision, loaded.error, proving=False)
            return True
        logger.warning("%s: %s cannot be used: %s", record.key, pod.name, loaded or labelled)
        return False

    async def _create(self, record: FunctionRecord, revision: str, content: Content, own: str, begun: float) -> None:
        """Makes a pod for a claim of `begun`. `own`: why no pool pod could be used; empty: there was none to spare."""
        spec = content.spec
        reason = own or POOL_EMPTY
        runtime = self.store.runtimes.get(spec.runtime)
        function = Function(record.namespace, record.name, record.uid, record.generation, "", spec)
        who = pods.Identity(record.namespace, f"{record.name}-{revision}-{self._suffix()}", self.settings.keys.current)
        if spec.code.image is not None:
            manifest = pods.image_pod(function, revision, who)
        elif runtime is not None:
            manifest = pods.own_pod(function, revision, runtime, who, reason)
        else:
            self.outcomes.trouble(record.key, "RuntimeNotFound", f"there is no Runtime {spec.runtime!r}", revision)
            return
        try:
            raw = await self.kube.create(core_path("pods", record.namespace), manifest)
        except ApiError as error:
            if error.status not in (400, 403, 422):
                raise
            why, message = refusal(error.message or str(error))
            self.outcomes.trouble(record.key, why, message, revision)
            return
        self._made[f"{who.namespace}/{who.name}"] = begun
        self.outcomes.claimed("own", reason)
        self.outcomes.changed(self.store.put_pod(raw))

    # --- loading ------------------------------------------------------------------------------------------------------
    async def _load(
        self,
        record: FunctionRecord,
        pod: Pod,
        revision: str,
        *,
        prove: bool,
        content: Content | None = None,
        claiming: Claiming | None = None,
    ) -> bool:
        """Takes a starting pod to serving, or deletes it and says why. False: a claim may try another."""
        begun = self.clock.monotonic()
        try:
            if content is None:
                content = await self.outcomes.content(record.key, revision)
            await self.loader.specialize(record, pod, revision, content)
            # Kept before it can become the active revision: from then on it must survive the spec and this process.
            await self.outcomes.keep(record.key, revision, content)
            await self._patch(pod, pods.move_patch(pod, states.LOADED))
        except SourceError as error:
            self.outcomes.source_failed(record.key, revision, error)
            await self.delete(pod)
        except LoadFailedError as error:
            self.outcomes.load_failed(record.key, revision, error.error, proving=prove)
            await self.delete(pod)
        except PodTimeoutError:
            limit = self.settings.load_seconds
            self.outcomes.trouble(
                record.key, "LoadTimeout", f"revision {revision} did not load within {limit:g} s", revision
            )
            await self.delete(pod)
        except (PodError, WrongRevisionError) as error:
            if claiming is not None and isinstance(error, PodUnreachableError | WrongRevisionError):
                logger.warning("%s: %s cannot be used: %s", record.key, pod.name, error)
                claiming.failed()
                await self.delete(pod)
                return False
            reason, message = await self.loader.why(pod, error)
            self.outcomes.trouble(record.key, reason, f"revision {revision} did not load: {message}", revision)
            await self.delete(pod)
        except (ConflictError, NotFoundError):
            await self._refresh(pod)
        else:
            self.verified.add(pod.key)
            self.outcomes.specialized(self.clock.monotonic() - begun, pooled=pod.ready)
            self._served(record, pod, content.spec.runtime, claiming)
            if prove:
                self.outcomes.proven(record.key, revision)
        return True

    def _served(self, record: FunctionRecord, pod: Pod, image: str, claiming: Claiming | None) -> None:
        """An instance has come to serve: one whose start this process has seen from the beginning is measured."""
        made, now = self._made.pop(pod.key, None), self.clock.monotonic()
        if made is not None:
            self.outcomes.served(Start(record.key, image, False), now - made, usual=True)
        elif claiming is not None:
            self.outcomes.served(Start(record.key, image, True), now - claiming.begun, usual=pod.ready)

    async def _verify(self, record: FunctionRecord, pod: Pod, revision: str) -> None:
        """A pod labelled serving by an earlier leader: does it hold its revision? An empty one gets it now."""
        try:
            health = await self.client.health(pod)
            if health.function != record.key or health.revision != revision or health.state == RUNTIME_LOADING:
                await self.loader.specialize(record, pod, revision, await self.outcomes.content(record.key, revision))
            self.verified.add(pod.key)
        except (WrongRevisionError, LoadFailedError) as error:
            logger.warning("%s: %s does not hold revision %s: %s", record.key, pod.name, revision, error)
            await self.delete(pod)
        except (PodError, SourceError) as error:
            # It may serve well and only be out of our reach: the kubelet's probe decides, not this.
            logger.warning("%s: %s cannot be verified: %s", record.key, pod.name, error)
            await self.clock.sleep(VERIFY_AGAIN_SECONDS)

    async def _promote(self, record: FunctionRecord, pod: Pod, revision: str) -> None:
        try:
            await self.outcomes.keep(record.key, revision, await self.outcomes.content(record.key, revision))
            await self._patch(pod, pods.move_patch(pod, states.LOADED))
        except SourceError as error:
            self.outcomes.source_failed(record.key, revision, error)
        except (ConflictError, NotFoundError):
            await self._refresh(pod)
        else:
            self._served(record, pod, pod.image, None)
            self.outcomes.proven(record.key, revision)

    # --- the end of an instance ---------------------------------------------------------------------------------------
    async def _drain(self, record: FunctionRecord, pod: Pod) -> None:
        timeout = record.function.spec.timeout_seconds if record.function else 30
        if pod.state != states.POD.next(pod.state, states.DRAINED):
            since = {names.ANNOTATION_DRAIN_SINCE: rfc3339(self.clock.wall())}
            try:
                pod = await self._patch(pod, pods.move_patch(pod, states.DRAINED, since))
            except (ConflictError, NotFoundError):
                await self._refresh(pod)
                return
        since_at = pod.drain_since or self.clock.wall()
        left = max(1.0, since_at + timeout + self.settings.drain_grace_seconds - self.clock.wall())
        grace = DELETE_GRACE_SECONDS
        if pod.runtime:
            try:
                await self.client.drain(pod, left)
            except PodError as error:
                logger.info("%s: %s did not drain: %s", record.key, pod.name, error)
                grace = max(grace, int(since_at + timeout - self.clock.wall()))
        else:
            deadline = self.clock.monotonic() + left
            while not self.outcomes.drained(pod) and self.clock.monotonic() < deadline:
                await self.clock.sleep(0.5)
        await self.delete(pod, grace)

    async def _bury(self, record: FunctionRecord, pod: Pod, trouble: tuple[str, str]) -> None:
        """Deletes an instance that has failed; its last words go into the status."""
        if trouble[0]:
            words = await self._last_words(pod)
            message = trouble[1] + (f"; last output: {words}" if words else "")
            self.outcomes.trouble(record.key, trouble[0], message, pod.revision)
        await self.delete(pod)

    async def _last_words(self, pod: Pod) -> str:
        path = core_path("pods", pod.namespace, f"{pod.name}/log")
        try:
            text = await self.kube.text(
                path, {"tailLines": "5", "limitBytes": "2000", "container": names.CONTAINER_NAME}
            )
        except ApiError:
            return ""
        return " | ".join(line.strip() for line in text.splitlines() if line.strip())[:500]

    async def delete(self, pod: Pod, grace: int = DELETE_GRACE_SECONDS) -> None:
        """Deletes this very pod."""
        await self.kube.delete(core_path("pods", pod.namespace, pod.name), uid=pod.uid, grace=grace)
        self.verified.discard(pod.key)
        self.empty.discard(pod.key)
        self._made.pop(pod.key, None)
        self.outcomes.changed(self.store.mark_deleting(pod.key, pod.uid))

    async def _patch(self, pod: Pod, operations: list[Json]) -> Pod:
        raw = await self.kube.patch(core_path("pods", pod.namespace, pod.name), operations)
        self.outcomes.changed(self.store.put_pod(raw))
        return parse_pod(raw)

    async def _refresh(self, pod: Pod) -> None:
        """Our picture of this pod was wrong: read it again."""
        try:
            raw = await self.kube.get(core_path("pods", pod.namespace, pod.name))
        except NotFoundError:
            self.outcomes.changed(self.store.drop_pod(pod.key, pod.uid))
        else:
            self.outcomes.changed(self.store.put_pod(raw))
