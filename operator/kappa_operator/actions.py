"""Performs the actions of a plan against Kubernetes and the pods, each in a task of its own.

What is under way stands in `busy` (pods) and in the memory's `claiming` (claims without a pod yet), so that the next
plan counts it. Every outcome is told to `Outcomes`, which plans again. A crash in the middle leaves only states that
the next leader's plan knows how to go on from. How each action is done: `claims.py`, `proofs.py`, `endings.py`.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine
from typing import Any

from kappa_operator.claiming import Claiming, Reservations
from kappa_operator.claims import Claims
from kappa_operator.clock import Clock
from kappa_operator.endings import Endings
from kappa_operator.instance import PodClient
from kappa_operator.kube import ApiError, Kube
from kappa_operator.observed import FunctionRecord, Pod
from kappa_operator.outcomes import Outcomes
from kappa_operator.plan import Action, Claim, Delete, Drain, Promote, Question, Specialize, Verify
from kappa_operator.proofs import Proofs
from kappa_operator.settings import Settings
from kappa_operator.store import Store
from kappa_operator.tools import Tools

logger = logging.getLogger(__name__)


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
        tools = self._tools = Tools(kube, client, store, settings, outcomes, clock or Clock())
        self.client = client
        self.on_claim: Callable[[str, str], None] = lambda namespace, runtime: None
        self._proofs = Proofs(tools)
        self._claims = Claims(tools, self._proofs, suffix=suffix, on_claim=lambda *pool: self.on_claim(*pool))
        self._endings = Endings(tools)
        self.leaving: set[str] = set()  # those of the busy pods that a drain or a deletion is at work on
        self._tasks: set[asyncio.Task[None]] = set()

    # --- what is known of pods, by `namespace/name` -------------------------------------------------------------------
    @property
    def busy(self) -> set[str]:
        """An action is at work on them."""
        return self._tools.busy

    @property
    def verified(self) -> set[str]:
        """They hold their revision, as far as this leader has seen to it."""
        return self._tools.verified

    @property
    def empty(self) -> set[str]:
        """They are of a pool and hold no code. Whoever finds another one adds it."""
        return self._tools.empty

    @property
    def reserved(self) -> Reservations:
        """They are chosen, by a claim or by their pool. Whoever chooses another one adds it."""
        return self._tools.reserved

    @property
    def claims(self) -> Collection[Claiming]:
        """Those under way."""
        return self._claims.under_way

    def forget_gone(self) -> None:
        """To be called now and then."""
        self._tools.forget_gone()

    async def delete(self, pod: Pod) -> None:
        """Deletes this very pod."""
        await self._tools.delete(pod)

    # --- tasks --------------------------------------------------------------------------------------------------------
    async def stop(self) -> None:
        """Cancels what is under way; another leader goes on with it."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def start(self, action: Action, record: FunctionRecord) -> None:
        """Begins an action; returns at once."""
        key = record.key
        if isinstance(action, Claim):
            self._spawn(key, action.revision, self._claims.claim(record, action))
            return
        pod = self._tools.store.pods.get(action.pod)
        if pod is None or action.pod in self.busy:
            return
        match action:
            case Specialize(revision=revision, prove=prove):
                self._spawn(key, pod.revision, self._proofs.load(record, pod, revision, prove=prove), pod.key)
            case Verify(revision=revision):
                self._spawn(key, pod.revision, self._proofs.verify(record, pod, revision), pod.key)
            case Promote(revision=revision):
                self._spawn(key, pod.revision, self._proofs.promote(record, pod, revision), pod.key)
            case Question():
                if not self._endings.heard_lately(pod):
                    self._spawn(key, pod.revision, self._endings.question(record, pod), pod.key)
            case Drain():
                self.leaving.add(pod.key)
                logger.info("%s: draining %s: %s", key, pod.name, action.reason)
                self._spawn(key, pod.revision, self._endings.drain(record, pod), pod.key)
            case Delete():
                self.leaving.add(pod.key)
                logger.info("%s: deleting %s: %s", key, pod.name, action.reason)
                self._spawn(key, pod.revision, self._endings.bury(record, pod, action.trouble), pod.key)

    def _spawn(self, key: str, revision: str, work: Coroutine[Any, Any, object], pod: str = "") -> None:
        async def run() -> None:
            try:
                await work
            except ApiError as error:
                self._trouble(key, "KubernetesError", str(error), revision)
            except Exception as error:
                logger.exception("%s: an action failed", key)
                self._trouble(key, "InternalError", f"{type(error).__name__}: {error}", revision)
            finally:
                self.busy.discard(pod)
                self.leaving.discard(pod)
                self._tools.outcomes.changed(frozenset({f"function/{key}"}))

        if pod:
            self.busy.add(pod)
        task = asyncio.create_task(run(), name=f"action {key} {pod}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: work.close())  # one that was cancelled before its first step

    def _trouble(self, key: str, reason: str, message: str, revision: str) -> None:
        self._tools.outcomes.trouble(key, reason, message, revision)
