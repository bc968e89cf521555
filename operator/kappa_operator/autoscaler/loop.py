"""The autoscaler's one loop: scrape the gateways, decide for the functions that had traffic or have instances, wake
them.

A demand message decides at once, between two scrapes. Functions at zero without traffic cost nothing here. A batch of
functions is decided for in two steps: what each wants were it alone, then what it may have (`sharing`).
"""

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

from kappa_api.function import Function
from kappa_api.wire import Demand
from kappa_operator.autoscaler.decide import Decision, Inputs, Policy, decide
from kappa_operator.autoscaler.drafts import Draft, claim_of, expected
from kappa_operator.autoscaler.keepalive import KeepPolicy
from kappa_operator.autoscaler.measure import Reading
from kappa_operator.autoscaler.need import Sample
from kappa_operator.autoscaler.past import Past
from kappa_operator.autoscaler.room import EVERYWHERE, Stuck
from kappa_operator.autoscaler.scrape import SCRAPE_TIMEOUT, Scraper
from kappa_operator.autoscaler.share import IdleInstance, Limit
from kappa_operator.autoscaler.sharing import Bounds, Sharing
from kappa_operator.autoscaler.shortage import Cause, Shortages
from kappa_operator.autoscaler.signals import Signals
from kappa_operator.autoscaler.supply import Supplies
from kappa_operator.autoscaler.targets import Target, Targets
from kappa_operator.clock import Clock
from kappa_operator.events import Recorder
from kappa_operator.metrics import Metrics
from kappa_operator.observed import FunctionRecord, Pod
from kappa_operator.settings import Settings
from kappa_operator.start_times import Start, StartTimes
from kappa_operator.store import Keys, Store, function_work

Json = Any
logger = logging.getLogger(__name__)

KEPT_DECISIONS = 20
KEPT_FUNCTIONS = 500
#: A gateway not read for this many scrapes is not heard, and what it said last does not count any more.
MISSED_SCRAPES = 4
#: An instance stays at least this long (or for idleSeconds, if that is shorter); shorter idle times teach nothing.
LINGER = 5.0
#: How long a pod without any gateway drains at least.
DRAIN_WITHOUT_GATEWAYS = 2.0


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
        self._targets = Targets()
        self._starts = StartTimes()
        self._supplies = Supplies(store, self._starts)
        bounds = Bounds(settings.max_instances_per_namespace, settings.idle_memory_bytes)
        self._sharing = Sharing(store, bounds, self._current)
        self._shortages = Shortages()
        self.past = Past(store, self._targets, self._clock)
        self._decisions: OrderedDict[str, deque[Decision]] = OrderedDict()
        self._scraper = Scraper(self.signals, settings, metrics, self._clock)
        self._read_at = self._clock.monotonic()
        self._full: frozenset[str] = frozenset()

    # --- what the reconciler asks and tells ---------------------------------------------------------------------------
    def wanted(self, function: Function, running: int) -> int:
        """How many instances this function should have. One that is met for the first time (after a restart of the
        operator) keeps what it has: its traffic is not known yet."""
        scaling = function.spec.scaling
        target = self._targets.get(function.key)
        if target is None:
            if not running and not scaling.min_replicas:
                return 0
            target = self._target(function.key, min(running, scaling.max_replicas))
        if not scaling.min_replicas <= target.wanted <= scaling.max_replicas:
            self._decide((function.key,), self._clock.monotonic())
        return target.wanted

    def proven(self, function: Function) -> None:
        """A revision has loaded: its first instance is there and idles from now on."""
        target = self._target(function.key, 0)
        target.last_activity = self._clock.monotonic()
        target.wanted = max(target.wanted, 1, function.spec.scaling.min_replicas)
        self._targets.changed(function.key)

    def forget(self, key: str) -> None:
        """The function is gone."""
        self._shortages.forget(key)
        self._sharing.room.tell(key, None, 0.0)
        self._sharing.forget(key)
        if self._targets.drop(key) is not None:
            self._forget_metric(key)
            self.signals.forget(key)
        self.past.forget(key)

    def in_service(self, pods: Iterable[Pod]) -> Mapping[str, int]:
        """Invocations per pod of one function, over all gateways; pods of which that is not known are left out."""
        found = [pod for pod in pods if pod.function]
        if not found or not self._heard(self._clock.monotonic()):
            return {}
        gateways = self.store.gateways(self.settings.system_namespace, leaving=True)
        keys = (pod.key for pod in found)
        return self.signals.in_service(found[0].function_key, keys, frozenset(pod.name for pod in gateways))

    def hung(self) -> frozenset[str]:
        """Pods that do not say to a gateway that they live."""
        return self.signals.hung(self._clock.monotonic(), self._lost_seconds)

    def drained(self, pod: Pod) -> bool:
        gateways = self._gateway_names()
        if not gateways:
            return self._clock.wall() - pod.drain_since > DRAIN_WITHOUT_GATEWAYS
        return self.signals.drained(pod.key, gateways)

    def started(self, start: Start, seconds: float) -> None:
        """A start was measured."""
        self._starts.add(start, seconds)

    def stuck(self, key: str, stuck: Stuck | None) -> None:
        """Why this function's instances cannot be made now; None: nothing hinders them."""
        now = self._clock.monotonic()
        if self._sharing.room.tell(key, stuck, now) and stuck is not None:
            self._see(key, Cause(stuck.reason, stuck.message), now)

    def full(self, namespace: str) -> bool:
        """Whether pods without code are in the way of instances there."""
        return bool(self._full & {EVERYWHERE, namespace})

    def shortage(self, key: str) -> tuple[str, str]:
        """(reason, message) of what keeps this function from the instances it needs; empty while nothing does."""
        told = self._shortages.told(key)
        return (told.kind, told.message) if told is not None else ("", "")

    # --- what comes in ------------------------------------------------------------------------------------------------
    def demand(self, message: Demand) -> None:
        """A gateway has invocations waiting and no free instance: decide now."""
        now = self._clock.monotonic()
        known = frozenset(key for key in message.functions if key in self.store.functions)
        self.signals.demand(Demand(message.gateway, {key: message.functions[key] for key in known}), now)
        self._decide(known, now)

    def decisions(self) -> Json:
        """The last decisions of every function, newest last, with their inputs."""
        return {key: [asdict(d) for d in decisions] for key, decisions in self._decisions.items()}

    async def run(self) -> None:
        """Scrapes and decides until cancelled."""
        try:
            while True:
                begun = self._clock.monotonic()
                try:
                    await self._round()
                except Exception:
                    logger.exception("the autoscaler's round failed")
                spent = self._clock.monotonic() - begun
                await self._clock.sleep(max(0.05, self.settings.scrape_seconds - spent))
        finally:
            await self._scraper.close()

    async def _round(self) -> None:
        gateways = self.store.gateways(self.settings.system_namespace, leaving=True)
        now = self._clock.monotonic()
        self.signals.keep(frozenset(pod.name for pod in gateways), now)
        active: set[str] = set()
        for found in await asyncio.gather(*(self._scraper.read(pod) for pod in gateways)):
            active |= found
        self.signals.lapse(self._clock.monotonic(), self._lost_seconds)
        self.review(active)
        found_hung = (self.store.pods.get(key) for key in self.hung())
        self._wake(frozenset(function_work(pod.function_key) for pod in found_hung if pod is not None and pod.function))
        self._metrics.functions.set(len(self.store.functions))
        self._metrics.unexpected.set(self.store.unexpected)

    def review(self, active: Iterable[str]) -> None:
        """After the gateways were read: decides for those that are active, have instances, or whose time has come."""
        now = self._clock.monotonic()
        seconds, self._read_at = now - self._read_at, now
        keys = {*active} | self._targets.up() | self._targets.due(now)
        keys |= {*self._shortages.keys(), *self._sharing.room.keys()}
        for key in keys:
            self._reading(key, now, seconds)
        self._decide(keys, now)
        if self._sharing.room.full() != self._full:
            self._full = self._sharing.room.full()
            self._wake(frozenset(self.store.pool_keys()))

    # --- deciding -----------------------------------------------------------------------------------------------------
    @property
    def _lost_seconds(self) -> float:
        return max(MISSED_SCRAPES * self.settings.scrape_seconds, 2 * SCRAPE_TIMEOUT)

    def _gateway_names(self) -> frozenset[str]:
        return frozenset(pod.name for pod in self.store.gateways(self.settings.system_namespace))

    def _heard(self, now: float) -> bool:
        return self.signals.complete(self._gateway_names(), now, self._lost_seconds)

    def _current(self, key: str) -> int:
        target = self._targets.get(key)
        return target.wanted if target is not None else 0

    def _target(self, key: str, wanted: int) -> Target:
        target = self._targets.get(key)
        if target is None:
            target = self._targets.put(key, Target(wanted, self._clock.monotonic()))
            target.idle = self.past.take(key) or target.idle
        return target

    def _reading(self, key: str, now: float, seconds: float) -> None:
        """Takes what the gateways said about the last `seconds` into the function's history."""
        target, need = self._target(key, 0), self.signals.need(key, seconds)
        waiting = max(0.0, need.average - need.busy) * seconds
        target.measure.reading(
            Reading(
                seconds,
                need.arrivals,
                need.moments,
                need.ended,
                need.busy * seconds,
                waiting,
                need.in_service,
                need.waiting,
                self._supplies.ready(key) if waiting else 0,
            )
        )
        if target.settled and need.quiet:
            return
        target.samples.append(Sample(now, seconds, need.busy, max(target.peak, need.waiting + need.in_service)))
        target.peak = 0

    def _decide(self, keys: Iterable[str], now: float) -> None:
        """Decides for these functions, and for those that have to give way to them."""
        heard = self._heard(now)
        drafts = {key: draft for key in keys if (draft := self._draft(key, now, heard)) is not None}
        limits = self._sharing.limits(now, {draft.record.namespace for draft in drafts.values()})
        for key, limit in limits.items():
            give_way = key not in drafts and self._current(key) > limit.most
            if give_way and (draft := self._draft(key, now, heard)) is not None:
                drafts[key] = draft
        if self._sharing.counts_memory:
            self._weigh(drafts, now)
        for key, draft in drafts.items():
            self._apply(key, draft, limits.get(key), now)

    def _draft(self, key: str, now: float, heard: bool) -> Draft | None:
        """What one function wants, were it alone; told to `sharing` as its claim."""
        record = self.store.functions.get(key)
        function = record.scaled if record is not None else None
        if record is None or function is None:
            return None
        scaling = function.spec.scaling
        policy = Policy(
            min_replicas=scaling.min_replicas,
            max_replicas=scaling.max_replicas,
            idle_seconds=float(scaling.idle_seconds),
            concurrency=function.spec.concurrency,
            window_seconds=self.settings.down_window_seconds,
        )
        target = self._target(key, 0)
        need, measure = self.signals.need(key), target.measure
        if need.waiting or need.in_service or need.arrivals:
            if now - target.last_activity >= LINGER:
                target.idle.add(now - target.last_activity)
                self.past.learnt(key)
            target.last_activity, target.settled = now, False
        target.peak = max(target.peak, need.waiting + need.in_service)
        if need.waiting:
            measure.watched(now, need.waiting, need.in_service)
        inputs = Inputs(
            load=measure.load(need.waiting, need.in_service),
            current=target.wanted,
            supply=self._supplies.of(function, target.wanted),
            last_activity=target.last_activity,
            changed=target.changed,
            samples=tuple(target.samples),
            keep=target.idle.plan(self._keep_policy(policy, key)) if not policy.min_replicas else None,
            heard=heard,
        )
        draft = Draft(record, function, target, inputs, policy, decide(now, inputs, policy))
        self._sharing.claim(claim_of(key, draft, now))
        return draft

    @staticmethod
    def _keep_policy(policy: Policy, key: str) -> KeepPolicy:
        return KeepPolicy(idle_seconds=policy.idle_seconds, linger=min(LINGER, policy.idle_seconds))

    def _weigh(self, drafts: Mapping[str, Draft], now: float) -> None:
        """Which idle functions hold too much memory together; only a whole review knows all of them."""
        if not self._targets.up() <= drafts.keys():
            return
        rows = [self._idle_row(key, draft, now) for key, draft in drafts.items() if draft.idle and draft.target.wanted]
        self._sharing.idle(row for row in rows if row is not None)

    def _idle_row(self, key: str, draft: Draft, now: float, more: int = 0) -> IdleInstance | None:
        count = draft.target.wanted + more - draft.policy.min_replicas
        if count <= 0:
            return None
        memory = count * self._supplies.memory(draft.function)
        return IdleInstance(key, memory, now - draft.inputs.last_activity, expected(draft, now))

    def _over_memory(self, key: str, draft: Draft, now: float) -> bool:
        if not self._sharing.counts_memory or not draft.idle:
            return False
        if draft.target.wanted:
            return self._sharing.too_much_memory(key)
        row = self._idle_row(key, draft, now, 1) if draft.free.wanted else None
        return row is not None and not self._sharing.has_memory_for(row)

    def _apply(self, key: str, draft: Draft, limit: Limit | None, now: float) -> None:
        """Makes the decision the function's, and tells whom it concerns."""
        target, decision = draft.target, draft.free
        over_memory = self._over_memory(key, draft, now)
        if limit is not None or over_memory:
            decision = decide(now, replace(draft.inputs, limit=limit, over_memory=over_memory), draft.policy)
        self._see(key, self._cause(draft, limit), now)
        target.review = decision.review
        before, target.wanted = target.wanted, decision.wanted
        if before != decision.wanted:
            target.changed = now
            self._tell(key, draft.record, before, decision)
            self._wake(frozenset({function_work(key)}))
        if not decision.wanted and draft.idle and not target.settled:
            self._settle(key, target)
        self._targets.changed(key)

    def _settle(self, key: str, target: Target) -> None:
        """The function is at zero: its idle times stay known, nothing else is kept."""
        target.settled = True
        target.samples.clear()
        self._forget_metric(key)
        self.signals.forget(key)
        self.past.learnt(key)

    def _cause(self, draft: Draft, limit: Limit | None) -> Cause | None:
        """What keeps a function from the instances that it needs now."""
        stuck = self._sharing.room.stuck(draft.record.key)
        if stuck is not None:
            return Cause(stuck.reason, stuck.message)
        if draft.idle:
            return None
        if limit is not None and draft.free.wanted > limit.most:
            return Cause(limit.kind, limit.reason)
        most = draft.policy.max_replicas
        full = draft.inputs.load.waiting and draft.target.wanted >= most and draft.inputs.supply.ready >= most
        return Cause("MaxReplicas", f"invocations wait, and maxReplicas is {most}") if full else None

    def _see(self, key: str, cause: Cause | None, now: float) -> None:
        """Tells people of a shortage that lasts, and of its end."""
        news, record = self._shortages.see(key, cause, now), self.store.functions.get(key)
        if news is None or record is None:
            return
        if news.over:
            self._events.normal(record, "EnoughInstances", f"{news.cause.kind} is over: {news.cause.message}")
        else:
            self._events.warning(record, news.cause.kind, f"no more instances: {news.cause.message}")
        self._wake(frozenset({function_work(key)}))

    def _tell(self, key: str, record: FunctionRecord, before: int, decision: Decision) -> None:
        way = "up" if decision.wanted > before else "down"
        self._metrics.decisions.labels(way).inc()
        self._metrics.wanted.labels(record.namespace, record.name).set(decision.wanted)
        logger.info("%s: %d -> %d instances: %s", key, before, decision.wanted, decision.reason)
        text = f"{before} -> {decision.wanted} instances: {decision.reason}"
        self._events.normal(record, "ScaledUp" if way == "up" else "ScaledDown", text)
        self._decisions.setdefault(key, deque(maxlen=KEPT_DECISIONS)).append(decision)
        self._decisions.move_to_end(key)
        while len(self._decisions) > KEPT_FUNCTIONS:
            self._decisions.popitem(last=False)

    def _forget_metric(self, key: str) -> None:
        namespace, _, name = key.partition("/")
        try:
            self._metrics.wanted.remove(namespace, name)
        except KeyError:
            pass
