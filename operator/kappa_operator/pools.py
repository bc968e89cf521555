"""Keeps every pool at its size: the I/O around pool.py. Also reacts to a claim, which leaves a gap."""

import asyncio
import logging
from collections.abc import Callable

from kappa_operator import pods
from kappa_operator.actions import Actions
from kappa_operator.clock import Clock
from kappa_operator.kube import ApiError, Kube, core_path
from kappa_operator.pool import plan_pool
from kappa_operator.settings import Settings
from kappa_operator.store import Keys, Store

logger = logging.getLogger(__name__)

LOOK_AGAIN_SECONDS = 10.0


class Pools:
    """Reconciles one pool (`namespace/runtime`) at a time."""

    def __init__(
        self,
        kube: Kube,
        store: Store,
        actions: Actions,
        settings: Settings,
        *,
        wake: Callable[[Keys], None],
        suffix: Callable[[], str],
        clock: Clock | None = None,
    ) -> None:
        self._kube, self._store, self._actions, self._settings = kube, store, actions, settings
        self._wake, self._suffix = wake, suffix
        self._clock = clock or Clock()

    async def reconcile(self, key: str) -> float:
        """Looks at one pool; returns in how many seconds it must be looked at again, 0 for only on events."""
        namespace, _, name = key.partition("/")
        runtime = self._store.runtimes.get(name)
        found = self._store.pool(namespace, name)
        users = self._store.pool_users(namespace, name)
        todo = plan_pool(runtime, found, users, self._actions.reserved, self._clock.wall(), self._settings.sick_seconds)
        for pod_key, reason in todo.delete:
            pod = self._store.pods.get(pod_key)
            if pod is not None and pod_key not in self._actions.busy:
                logger.info("pool %s: deleting %s: %s", key, pod.name, reason)
                await self._actions.delete(pod)
        if runtime is not None and todo.create:
            # Creating waits for all: the next look must see what this one has made.
            results = await asyncio.gather(
                *(self._create(namespace, name) for _ in range(todo.create)), return_exceptions=True
            )
            for result in results:
                if isinstance(result, BaseException):
                    raise result
        restless = any(pod.live and not pod.ready for pod in found)
        return LOOK_AGAIN_SECONDS if restless else 0.0

    async def _create(self, namespace: str, runtime_name: str) -> None:
        runtime = self._store.runtimes[runtime_name]
        name = f"{runtime.name.replace('.', '-')}-pool-{self._suffix()}"
        manifest = pods.pool_pod(runtime, pods.Identity(namespace, name, self._settings.secret))
        try:
            raw = await self._kube.create(core_path("pods", namespace), manifest)
        except ApiError as error:
            raise ApiError(
                error.status, error.reason, f"pool of {runtime_name} in {namespace}: {error.message}"
            ) from error
        self._wake(self._store.put_pod(raw))
