"""Gets a function one more instance: takes a pod of the pool, or else makes one.

Several operators may do so at the same time, for some seconds: who labels a pod first has it.
"""

import asyncio
import logging
from collections.abc import Callable

from kappa_api.function import Function
from kappa_api.runtime import own_pod_reason
from kappa_operator import pods, states
from kappa_operator.claiming import Claiming
from kappa_operator.instance import LoadFailedError, PodError, WrongRevisionError
from kappa_operator.kube import ApiError, ConflictError, NotFoundError, core_path
from kappa_operator.observed import FunctionRecord, Pod
from kappa_operator.plan import Claim
from kappa_operator.pool import pick
from kappa_operator.proofs import Proofs
from kappa_operator.refusals import refusal
from kappa_operator.sources import Content, SourceError
from kappa_operator.start_times import Start
from kappa_operator.store import pool_work
from kappa_operator.tools import Tools

logger = logging.getLogger(__name__)

CLAIM_TRIES = 5
POOL_EMPTY = "the pool had no pod to spare"


class Claims:
    """See the module. `on_claim` hears of each claim that is for a pool, with namespace and runtime; `suffix` makes the
    ends of pods' names."""

    def __init__(
        self, tools: Tools, proofs: Proofs, *, suffix: Callable[[], str], on_claim: Callable[[str, str], None]
    ) -> None:
        self._tools, self._outcomes, self._clock = tools, tools.outcomes, tools.clock
        self._proofs, self._suffix, self._on_claim = proofs, suffix, on_claim
        self.under_way: set[Claiming] = set()

    async def claim(self, record: FunctionRecord, action: Claim) -> None:
        begun = self._clock.monotonic()
        claiming = Claiming(self._outcomes, self._tools.reserved, record.key, action.revision, begun)
        self.under_way.add(claiming)
        try:
            async with self._tools.slots:
                try:
                    content = await self._outcomes.content(record.key, action.revision)
                except SourceError as error:
                    self._outcomes.source_failed(record.key, action.revision, error)
                    return
                await self._claim_with(record, action, content, claiming)
        finally:
            claiming.end()
            self.under_way.discard(claiming)

    async def _claim_with(self, record: FunctionRecord, action: Claim, content: Content, claiming: Claiming) -> None:
        spec = content.spec
        runtime = self._tools.store.runtimes.get(spec.runtime)
        reason = own_pod_reason(spec, runtime)
        template = ""
        if not reason and runtime is not None:
            settings = self._tools.settings
            template = pods.pool_template(runtime, settings.keys.current, settings.inside_url)
            self._on_claim(record.namespace, runtime.name)
        for _ in range(CLAIM_TRIES):
            pod = None
            if not reason and runtime is not None:
                # Resources that the function names were compared with the Runtime's newest.
                exact = bool(spec.pod.resources)
                pool = self._tools.store.pool(record.namespace, runtime.name)
                pod = pick(pool, template, self._tools.reserved, exact=exact)
            if pod is None:
                await self._create(record, action.revision, content, reason, claiming.begun)
                return
            claiming.reserve(pod.key)
            self._tools.busy.add(pod.key)
            try:
                if await self._take(record, action, content, pod, claiming):
                    self._outcomes.claimed("pool", "ready" if pod.ready else "starting")
                    return
            finally:
                claiming.let_go()
                self._tools.busy.discard(pod.key)
        self._outcomes.trouble(
            record.key, "NoPod", f"{CLAIM_TRIES} pods of the pool could not be used", action.revision
        )

    async def _take(
        self, record: FunctionRecord, action: Claim, content: Content, pod: Pod, claiming: Claiming
    ) -> bool:
        """Makes this pool pod an instance. False: it could not be used, another may.

        A pod that somebody else has labelled ends the claim: it may be another leader, at work for the same function.
        The next plan sees what that one did; the pod is left to it.
        """
        begun = self._clock.monotonic()
        # One that may hold another function's code must not be labelled serving before it has told.
        at_once = pod.ready and not action.prove and pod.key in self._tools.empty
        self._tools.empty.discard(pod.key)
        state = states.POD.next(pod.state, states.TAKEN if at_once else states.CLAIMED)
        patch = pods.claim_patch(record, action.revision, state, content.spec.concurrency)
        if not at_once:
            try:
                pod = await self._tools.patch(pod, patch)
            except (ConflictError, NotFoundError) as error:
                await self._tools.refresh(pod)
                if isinstance(error, ConflictError):
                    return True
                claiming.failed()
                return False
            claiming.labelled()
            if not pod.ip:
                return True  # goes on as a starting pod, when it has an address
            return await self._proofs.load(
                record, pod, action.revision, prove=action.prove, content=content, claiming=claiming
            )

        async def label() -> Pod:
            new = await self._tools.patch(pod, patch)
            claiming.labelled()
            return new

        labelled, loaded = await asyncio.gather(
            label(), self._tools.loader.specialize(record, pod, action.revision, content), return_exceptions=True
        )
        for result in (labelled, loaded):
            if isinstance(result, BaseException) and not isinstance(
                result, ConflictError | NotFoundError | PodError | LoadFailedError | WrongRevisionError
            ):
                self._outcomes.changed(frozenset({pool_work(pod.namespace, pod.runtime)}))  # it has to be asked
                raise result
        if isinstance(labelled, Pod) and loaded is None:
            self._tools.verified.add(pod.key)
            self._outcomes.specialized(self._clock.monotonic() - begun, pooled=True)
            start = Start(record.key, content.spec.runtime, True)
            self._outcomes.served(start, self._clock.monotonic() - claiming.begun, usual=True)
            return True
        if isinstance(labelled, ConflictError):
            await self._tools.refresh(pod)
            return True
        if not isinstance(loaded, LoadFailedError):
            claiming.failed()
        await self._tools.delete(pod)
        if isinstance(loaded, LoadFailedError):
            self._outcomes.load_failed(record.key, action.revision, loaded.error, proving=False)
            return True
        logger.warning("%s: %s cannot be used: %s", record.key, pod.name, loaded or labelled)
        return False

    async def _create(self, record: FunctionRecord, revision: str, content: Content, own: str, begun: float) -> None:
        """Makes a pod for a claim of `begun`. `own`: why no pool pod could be used; empty: there was none to spare."""
        spec = content.spec
        reason = own or POOL_EMPTY
        runtime = self._tools.store.runtimes.get(spec.runtime)
        function = Function(record.namespace, record.name, record.uid, record.generation, "", spec)
        settings = self._tools.settings
        name = f"{record.name}-{revision}-{self._suffix()}"
        who = pods.Identity(record.namespace, name, settings.keys.current, settings.inside_url)
        if spec.code.image is not None:
            manifest = pods.image_pod(function, revision, who)
        elif runtime is not None:
            manifest = pods.own_pod(function, revision, runtime, who, reason)
        else:
            self._outcomes.trouble(record.key, "RuntimeNotFound", f"there is no Runtime {spec.runtime!r}", revision)
            return
        try:
            raw = await self._tools.kube.create(core_path("pods", record.namespace), manifest)
        except ApiError as error:
            if error.status not in (400, 403, 422):
                raise
            why, message = refusal(error.message or str(error))
            self._outcomes.trouble(record.key, why, message, revision)
            return
        self._tools.made[f"{who.namespace}/{who.name}"] = begun
        self._outcomes.claimed("own", reason)
        self._outcomes.changed(self._tools.store.put_pod(raw))
