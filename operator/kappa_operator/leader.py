"""Everything that runs while this replica leads, wired together: store, queue, actions, pools, autoscaler, watches."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable
from typing import Any

import kopf

from kappa_api.wire import Demand
from kappa_operator import handlers
from kappa_operator.actions import Actions
from kappa_operator.autoscaler.idle_times import IdleTimes
from kappa_operator.autoscaler.loop import Autoscaler
from kappa_operator.clock import Clock
from kappa_operator.events import Recorder
from kappa_operator.functions import Functions
from kappa_operator.instance import PodClient
from kappa_operator.kube import ApiError, Kube
from kappa_operator.metrics import Metrics
from kappa_operator.pods import SUFFIX_ALPHABET
from kappa_operator.pools import Pools
from kappa_operator.reconciler import Reconciler
from kappa_operator.resync import everything, resync
from kappa_operator.settings import Settings
from kappa_operator.sources import Sources
from kappa_operator.store import ROUTES, Keys, Store
from kappa_operator.triggers.scrape import ReportReader
from kappa_operator.triggers.triggers import Triggers

Json = Any
logger = logging.getLogger(__name__)

#: Watches that begin from a list do so together, and a list comes in pages: one resync for all of it.
GATHER_LISTS_SECONDS = 1.0
#: How long an orderly end may take to write down what was learnt.
LAST_WRITE_SECONDS = 2.0


def suffix() -> str:
    """Five random characters, without vowels and look-alikes, as Kubernetes itself names pods."""
    return "".join(secrets.choice(SUFFIX_ALPHABET) for _ in range(5))


class Leader:
    """The leading operator. Implements `admin.Leader`. `on_signals` sets the process's signal handlers (again)."""

    def __init__(
        self,
        kube: Kube,
        settings: Settings,
        metrics: Metrics,
        on_signals: Callable[[], None],
        clock: Clock | None = None,
    ) -> None:
        clock = clock or Clock()
        self._on_signals = on_signals
        self._kube, self._settings, self._metrics, self._clock = kube, settings, metrics, clock
        self.store = Store()
        self._listed = asyncio.Event()
        self.store.shared_hosts = settings.shared_hosts
        self._client = PodClient(settings.keys)
        self._queue = Reconciler(self._handle, workers=settings.workers, observe=self._observe)
        self._events = Recorder(kube, settings.identity, suffix=suffix, wall=clock.wall)
        sources = Sources(
            kube, self.store, ca_file=settings.archive_ca_file, destinations=settings.archive_destinations
        )
        self.scaler = Autoscaler(
            self.store, settings, wake=self._wake, events=self._events, metrics=metrics, clock=clock
        )
        self._triggers = Triggers(
            kube,
            self.store,
            settings.system_namespace,
            ReportReader(settings.keys),
            wake=self._wake,
            events=self._events,
            clock=clock,
        )
        self._functions = Functions(
            kube,
            self.store,
            sources,
            self.scaler,
            settings,
            wake=self._wake,
            events=self._events,
            metrics=metrics,
            clock=clock,
        )
        self._actions = Actions(kube, self._client, self.store, settings, self._functions, suffix=suffix, clock=clock)
        self._functions.actions = self._actions
        self._pools = Pools(
            kube, self.store, self._actions, settings, wake=self._wake, suffix=suffix, metrics=metrics, clock=clock
        )
        self._pools.full = self.scaler.full
        past = self.scaler.past
        self._idle_times = IdleTimes(kube, settings.system_namespace, past.recall, past.remember, clock)
        past.learnt = self._idle_times.changed

    def demand(self, message: Demand) -> None:
        self.scaler.demand(message)

    def decisions(self) -> Json:
        return self.scaler.decisions()

    async def run(self, synced: asyncio.Event) -> None:
        """Leads until cancelled, or until one of the parts fails. Sets `synced` when it knows all there is."""
        await self._first_sync()
        await self._idle_times.read()
        synced.set()
        self._wake(everything(self.store, self._triggers.records))
        parts = {
            "watches": self._watch(),
            "queue": self._queue.run(),
            "autoscaler": self.scaler.run(),
            "events": self._events.run(),
            "resync": self._resync(),
            "idle times": self._idle_times.run(),
            "triggers": self._triggers.run(),
        }
        tasks = [asyncio.create_task(part, name=name) for name, part in parts.items()]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
                raise RuntimeError(f"{task.get_name()} ended")
        finally:
            # The watches last: kopf cancels every task that is younger than itself when it ends.
            for task in reversed(tasks):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task
            await self._actions.stop()
            await self._client.close()
            with contextlib.suppress(asyncio.CancelledError, TimeoutError):
                await asyncio.wait_for(self._idle_times.write(), LAST_WRITE_SECONDS)

    def _wake(self, keys: Keys) -> None:
        if keys:
            self._queue.add(keys | self._triggers.records.of_functions(keys))

    async def _handle(self, key: str) -> float:
        kind, _, rest = key.partition("/")
        if kind == "function":
            return await self._functions.reconcile(rest)
        if kind == "pool":
            return await self._pools.reconcile(rest)
        if kind == "trigger":
            return await self._triggers.reconcile(rest)
        if key == ROUTES:
            self._wake(self.store.assign_routes())
        return 0.0

    def _observe(self, key: str, seconds: float, failed: bool) -> None:
        self._metrics.reconciled(key, seconds, failed)
        self._metrics.queue.set(len(self._queue.queue))

    async def _watch(self) -> None:
        registry = kopf.OperatorRegistry()
        sinks = handlers.Sinks(self.store, self._triggers.records, self._wake)
        handlers.register(registry, sinks, self._kube, self._listed.set)
        # What `kopf.operator` does, but between the two steps the signals become ours again: spawning takes them.
        others = asyncio.all_tasks()
        tasks = await kopf.spawn_tasks(
            registry=registry, settings=handlers.settings(), standalone=True, clusterwide=True
        )
        self._on_signals()
        await kopf.run_tasks(tasks, ignored=others)

    async def _first_sync(self) -> None:
        while True:
            try:
                await resync(self._kube, self.store, self._triggers.records)
                return
            except ApiError as error:
                logger.warning("cannot read the cluster yet: %s", error)
                await self._clock.sleep(1.0)

    async def _resync(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.resync_seconds):
                    await self._listed.wait()
                    await asyncio.sleep(GATHER_LISTS_SECONDS)
            self._listed.clear()
            try:
                self._wake(await resync(self._kube, self.store, self._triggers.records))
            except ApiError as error:
                logger.warning("resync: %s", error)
                self._listed.set()  # what was missed still is
            self._actions.forget_gone()
            self._wake(frozenset(self.store.pool_keys()))
