"""The autoscaler's one loop: scrape the gateways, decide for the functions that had traffic or have instances, wake
them.

A demand message decides at once, between two scrapes. Functions at zero without traffic cost nothing here.
"""

import asyncio
import logging
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import aiohttp

from kappa_api import names
from kappa_api.function import Function
from kappa_api.runtime import own_pod_reason
from kappa_api.tokens import internal_token
from kappa_api.wire import Demand, Stats, WireError
from kappa_operator.autoscaler.decide import Decision, Inputs, Policy, decide
from kappa_operator.autoscaler.keepalive import IdleHistogram, KeepPolicy
from kappa_operator.autoscaler.measure import Measure
from kappa_operator.autoscaler.need import Sample
from kappa_operator.autoscaler.signals import Signals
from kappa_operator.autoscaler.upscale import Load, Supply
from kappa_operator.clock import Clock
from kappa_operator.events import Recorder
from kappa_operator.metrics import Metrics
from kappa_operator.observed import Pod
from kappa_operator.settings import Settings
from kappa_operator.store import Keys, Store, function_work

Json = Any
logger = logging.getLogger(__name__)

KEPT_DECISIONS = 20
KEPT_FUNCTIONS = 500
SCRAPE_TIMEOUT = 2.0
#: A gateway not read for this many scrapes is not heard.
MISSED_SCRAPES = 4
#: An instance stays at least this long (or for idleSeconds, if that is shorter); shorter idle times teach nothing.
LINGER = 5.0
#: What a start takes with a pool pod, and with a pod that has to be made (a real node; see docs/performance.md).
WARM_SECONDS, COLD_SECONDS = 0.03, 1.0
#: How long a pod without any gateway drains at least.
DRAIN_WITHOUT_GATEWAYS = 2.0


@dataclass(slots=True)
class _Target:
    """One function that has, or once had, instances. `review`: when to decide again though nothing happens. `peak`: the
    most that was in service and waiting since the last reading."""

    wanted: int
    last_activity: float
    changed: float = -math.inf
    review: float = 0.0
    peak: int = 0
    idle: IdleHistogram = field(default_factory=IdleHistogram)
    measure: Measure = field(default_factory=Measure)
    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=120))


class Autoscaler:
    """Holds the wanted number of each function. Implements `functions.Scaler`."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        *,
        wake: Callable[[Keys], None],
        events: Recorder,
        metrics: Metrics,
        clock: Clock | None = None,
    ) -> None:
        self.store, self.settings = store, settings
        self.signals = Signals()
        self._wake, self._events, self._metrics = wake, events, metrics
        self._clock = clock or Clock()
        self._targets: dict[str, _Target] = {}
        self._decisions: OrderedDict[str, deque[Decision]] = OrderedDict()
        self._session: aiohttp.ClientSession | None = None
        self._read_at = self._clock.monotonic()

    # --- what the reconciler asks -------------------------------------------------------------------------------------
    def wanted(self, function: Function, running: int) -> int:
        """How many instances this function should have. One that is met for the first time (after a restart of the
        operator) keeps what it has: its traffic is not known yet."""
        scaling = function.spec.scaling
        target = self._targets.get(function.key)
        if target is None:
            if not running and not scaling.min_replicas:
                return 0
            target = self._target(function.key, min(max(running, scaling.min_replicas), scaling.max_replicas))
        bounded = min(max(target.wanted, scaling.min_replicas), scaling.max_replicas)
        if bounded != target.wanted:
            self._evaluate(function.key)
        return target.wanted

    def proven(self, function: Function) -> None:
        """A revision has loaded: its first instance is there and idles from now on."""
        target = self._target(function.key, 0)
        target.last_activity = self._clock.monotonic()
        target.wanted = max(target.wanted, 1, function.spec.scaling.min_replicas)

    def forget(self, key: str) -> None:
        """The function is gone."""
        if self._targets.pop(key, None) is not None:
            self._settle(key)

    def _settle(self, key: str) -> None:
        """The function is at zero: its idle times stay known, nothing else is kept."""
        namespace, _, name = key.partition("/")
        try:
            self._metrics.wanted.remove(namespace, name)
        except KeyError:
            pass
        self.signals.forget(key)

    def in_service(self, pods: Iterable[Pod]) -> Mapping[str, int]:
        """Invocations per pod, as far as gateways tell: not yet."""
        return {}

    def drained(self, pod: Pod) -> bool:
        gateways = self._gateway_names()
        if not gateways:
            return self._clock.wall() - pod.drain_since > DRAIN_WITHOUT_GATEWAYS
        return self.signals.drained(pod.key, gateways)

    # --- what comes in ------------------------------------------------------------------------------------------------
    def demand(self, message: Demand) -> None:
        """A gateway has invocations waiting and no free instance: decide now."""
        now = self._clock.monotonic()
        known = frozenset(key for key in message.functions if key in self.store.functions)
        self.signals.demand(Demand(message.gateway, {key: message.functions[key] for key in known}), now)
        for key in known:
            self._evaluate(key)

    def decisions(self) -> Json:
        """The last decisions of every function, newest last, with their inputs."""
        return {key: [asdict(d) for d in decisions] for key, decisions in self._decisions.items()}

    async def run(self) -> None:
        """Scrapes and decides until cancelled."""
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(SCRAPE_TIMEOUT)) as session:
            self._session = session
            while True:
                begun = self._clock.monotonic()
                try:
                    await self._round()
                except Exception:
                    logger.exception("the autoscaler's round failed")
                spent = self._clock.monotonic() - begun
                await self._clock.sleep(max(0.05, self.settings.scrape_seconds - spent))

    async def _round(self) -> None:
        gateways = self.store.gateways(self.settings.system_namespace)
        self.signals.keep(self._gateway_names(), self._clock.monotonic())
        active: set[str] = set()
        for found in await asyncio.gather(*(self._scrape(pod) for pod in gateways)):
            active |= found
        self.review(active)
        self._metrics.functions.set(len(self.store.functions))

    def review(self, active: Iterable[str]) -> None:
        """After the gateways were read: decides for those that are active, have instances, or whose time has come."""
        now = self._clock.monotonic()
        seconds, self._read_at = now - self._read_at, now
        for key in {*active} | {key for key, target in self._targets.items() if target.wanted or target.review <= now}:
            self._reading(key, now, seconds)
            self._evaluate(key)

    async def _scrape(self, pod: Pod) -> Keys:
        assert self._session is not None
        host = f"[{pod.ip}]" if ":" in pod.ip else pod.ip
        url = f"http://{host}:{pod.admin_port}{names.PATH_STATS}"
        headers = {"Authorization": f"Bearer {internal_token(self.settings.secret)}"}
        try:
            async with self._session.get(url, headers=headers) as answer:
                answer.raise_for_status()
                stats = Stats.from_json(await answer.json())
        except (aiohttp.ClientError, OSError, TimeoutError, WireError, ValueError) as error:
            self._metrics.scrapes.labels("failed").inc()
            logger.info("gateway %s not read: %s", pod.name, error or type(error).__name__)
            return frozenset()
        self._metrics.scrapes.labels("read").inc()
        return self.signals.observe(pod.name, stats, self._clock.monotonic())

    # --- deciding -----------------------------------------------------------------------------------------------------
    def _gateway_names(self) -> frozenset[str]:
        return frozenset(pod.name for pod in self.store.gateways(self.settings.system_namespace))

    def _target(self, key: str, wanted: int) -> _Target:
        target = self._targets.get(key)
        if target is None:
            target = self._targets[key] = _Target(wanted, self._clock.monotonic())
        return target

    def _reading(self, key: str, now: float, seconds: float) -> None:
        """Takes what the gateways said about the last `seconds` into the function's history."""
        target, need = self._target(key, 0), self.signals.need(key)
        target.measure.reading(seconds, need.arrivals, need.ended, need.busy * seconds, need.in_service)
        target.samples.append(Sample(now, seconds, need.busy, max(target.peak, need.waiting + need.in_service)))
        target.peak = 0

    def _supply(self, function: Function, wanted: int) -> Supply:
        """The instances that serve, those that are wanted but do not serve yet, and the pool pods that could."""
        pods = [pod for pod in self.store.instances(function.key) if pod.live]
        ready = sum(pod.state == names.STATE_SERVING for pod in pods)
        slow = sum(pod.state == names.STATE_STARTING and not pod.ready for pod in pods)
        runtime = self.store.runtimes.get(function.spec.runtime)
        pooled = runtime is not None and not own_pod_reason(function.spec, runtime)
        pool = self.store.pool(function.namespace, function.spec.runtime) if pooled else ()
        warm = sum(pod.live and pod.ready for pod in pool)
        starting = max(0, wanted - ready)
        # Claims that have no pod yet take the pool's pods first; what is left of them waits for new pods.
        claims = max(0, starting - slow)
        slow += max(0, claims - warm)
        mean = WARM_SECONDS + (COLD_SECONDS - WARM_SECONDS) * min(1.0, slow / starting) if starting else 0.0
        return Supply(min(ready, wanted), starting, mean, max(0, warm - claims), WARM_SECONDS, COLD_SECONDS)

    def _evaluate(self, key: str) -> None:
        record = self.store.functions.get(key)
        if record is None or record.function is None:
            return
        now = self._clock.monotonic()
        scaling = record.function.spec.scaling
        policy = Policy(
            min_replicas=scaling.min_replicas,
            max_replicas=scaling.max_replicas,
            idle_seconds=float(scaling.idle_seconds),
            concurrency=record.function.spec.concurrency,
            window_seconds=self.settings.down_window_seconds,
        )
        target = self._target(key, 0)
        need = self.signals.need(key)
        keep = KeepPolicy(idle_seconds=policy.idle_seconds, linger=min(LINGER, policy.idle_seconds))
        if need.waiting or need.in_service or need.arrivals:
            if now - target.last_activity >= LINGER:
                target.idle.add(now - target.last_activity)
            target.last_activity = now
        target.peak = max(target.peak, need.waiting + need.in_service)
        heard = self.signals.complete(
            self._gateway_names(), now, max(MISSED_SCRAPES * self.settings.scrape_seconds, 2 * SCRAPE_TIMEOUT)
        )
        inputs = Inputs(
            load=Load(need.waiting, need.in_service, target.measure.arrivals, target.measure.service),
            current=target.wanted,
            supply=self._supply(record.function, target.wanted),
            last_activity=target.last_activity,
            changed=target.changed,
            samples=tuple(target.samples),
            keep=target.idle.plan(keep) if not policy.min_replicas else None,
            heard=heard,
        )
        decision = decide(now, inputs, policy)
        target.review = decision.review
        if decision.wanted == target.wanted:
            if not decision.wanted and now - target.last_activity > policy.idle_seconds:
                self._settle(key)
            return
        way = "up" if decision.wanted > target.wanted else "down"
        self._metrics.decisions.labels(way).inc()
        self._metrics.wanted.labels(record.namespace, record.name).set(decision.wanted)
        logger.info("%s: %d -> %d instances: %s", key, target.wanted, decision.wanted, decision.reason)
        text = f"{target.wanted} -> {decision.wanted} instances: {decision.reason}"
        self._events.normal(record, "ScaledUp" if way == "up" else "ScaledDown", text)
        target.wanted, target.changed = decision.wanted, now
        self._keep(key, decision)
        self._wake(frozenset({function_work(key)}))

    def _keep(self, key: str, decision: Decision) -> None:
        """The last decisions of the functions that changed last."""
        self._decisions.setdefault(key, deque(maxlen=KEPT_DECISIONS)).append(decision)
        self._decisions.move_to_end(key)
        while len(self._decisions) > KEPT_FUNCTIONS:
            self._decisions.popitem(last=False)
