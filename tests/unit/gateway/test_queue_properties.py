"""The queue at random: any order of events, against a model that counts by hand.

The model: who arrived when, who holds which slot, until when an instance is left alone, the integrals added up step by
step. Deadlines, the table of retries and its back-off are the real ones.
"""

import heapq
import itertools
from dataclasses import dataclass

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)
from kappa_profiles import tries

from kappa_gateway import retry
from kappa_gateway.deadlines import SLOT_SECONDS, Deadlines
from kappa_gateway.dispatch import Instance, Queue
from kappa_gateway.retry import Outcome
from kappa_gateway.states import DOUBTED, DRAINING, HUNG, IN_SERVICE, NEW, OVER, RESTING, SERVING, WAITING


@dataclass(eq=False)
class Call:
    """An invocation. `granted_at`: when it got its last slot."""

    machine: "QueueMachine"
    deadline: float
    place: str = NEW
    order: int = 0
    since: float = 0.0
    instance: Instance | None = None
    granted_at: float = -1.0
    expired: bool = False
    patient: bool = False

    def granted(self, now: float) -> None:
        assert self.instance is not None
        self.granted_at = now

    def rejected(self, error: Exception) -> None:
        raise NotImplementedError

    def expire(self) -> None:
        """As the gateway does it: whoever is past his deadline gives back what he holds."""
        assert not self.expired
        self.expired = True
        self.machine.end(self)


class QueueMachine(RuleBasedStateMachine):
    calls = Bundle("calls")
    pods = Bundle("pods")

    @initialize()
    def begin(self) -> None:
        self.queue = Queue("default/hello", self.doubts)
        self.asked: set[Instance] = set()
        self.deadlines = Deadlines()
        self.now = 0.0
        self.alive: list[Call] = []
        self.instances: list[Instance] = []
        self.drained: set[Instance] = set()
        self.service = self.waiting = 0.0
        self.counter = itertools.count(1)
        self.timers: list[tuple[float, int, Instance, int]] = []
        self.alone: dict[Instance, float] = {}  # until when it is left alone

    def doubts(self, queue: Queue, instance: Instance) -> None:
        assert instance.state is DOUBTED
        self.asked.add(instance)

    def end(self, call: Call) -> None:
        self.queue.leave(call, self.now)
        self.alive.remove(call)

    # --- invocations --------------------------------------------------------------------------------------------------
    @rule(target=calls, seconds=st.sampled_from([0, 1, 3, 30]), patient=st.booleans())
    def arrives(self, seconds: int, patient: bool) -> Call:
        call = Call(self, self.now + seconds, patient=patient)
        before = self.queue.waiting
        instance = self.queue.enter(call, self.now, patient=patient)
        assert instance is call.instance
        assert instance is None or before == 0, "overtook somebody who waits"
        if call.place is not OVER:
            self.alive.append(call)
            self.deadlines.add(call)
        else:
            assert not seconds
        return call

    @rule(target=calls, call=consumes(calls), outcome=st.sampled_from([None, *Outcome]), repeat=st.booleans())
    def an_attempt_ends(self, call: Call, outcome: Outcome | None, repeat: bool):  # type: ignore[no-untyped-def]
        instance = call.instance
        if call.place is not IN_SERVICE or instance is None:
            return call
        rests = instance.rests
        if outcome is None:
            self.queue.release(call, self.now)
            self.alone.pop(instance, None)
        elif retry.may_repeat(outcome, idempotent=repeat, resendable=True, replied=False):
            self.queue.again(call, self.now, retry.TELLS[outcome])
        else:
            self.queue.release(call, self.now, retry.TELLS[outcome])
        if instance.rests != rests:
            pause = retry.backoff(instance.failures)
            assert retry.FIRST_BACKOFF <= pause <= retry.LAST_BACKOFF
            self.alone[instance] = self.now + pause
            heapq.heappush(self.timers, (self.now + pause, next(self.counter), instance, instance.rests))
        if outcome is Outcome.DRAINING:
            self.drained.add(instance)
        if call.place is OVER:
            self.alive.remove(call)
            self.deadlines.discard(call)
            return multiple()
        return call

    @rule(call=calls)
    def leaves(self, call: Call) -> None:
        """Also again and again, and after all is over."""
        if call in self.alive:
            self.alive.remove(call)
        self.deadlines.discard(call)
        self.queue.leave(call, self.now)
        assert call.place is OVER

    # --- time ---------------------------------------------------------------------------------------------------------
    @rule(step=st.sampled_from([0.002, 0.005, 0.02, 0.05, 0.1, 0.5, 2.0]))
    def time_passes(self, step: float) -> None:
        end = self.now + step
        while self.timers and self.timers[0][0] <= end:
            due, _, instance, rest = heapq.heappop(self.timers)
            self.advance(due)
            if self.alone.get(instance, due) <= due:
                self.alone.pop(instance, None)
            self.queue.rested(instance, rest, self.now)
            self.only_those_that_serve_have_free_slots()
        self.advance(end)

    @precondition(lambda self: self.alive)
    @rule()
    def the_next_deadline_passes(self) -> None:
        """The wheel has not noticed yet."""
        self.time_passes(max(0.0, min(call.deadline for call in self.alive) - self.now))

    def advance(self, end: float) -> None:
        seconds = end - self.now
        self.service += seconds * sum(1 for call in self.alive if call.instance)
        self.waiting += seconds * sum(1 for call in self.alive if call.place is WAITING)
        self.now = end
        self.deadlines.tick(end)

    # --- whether they live --------------------------------------------------------------------------------------------
    @precondition(lambda self: self.asked)
    @rule(number=st.integers(0, 50), lives=st.booleans())
    def a_question_ends(self, number: int, lives: bool) -> None:
        instance = sorted(self.asked, key=lambda instance: instance.key)[number % len(self.asked)]
        before = instance.state
        if lives:
            self.queue.heard(instance, self.now)
            self.alone.pop(instance, None)
            assert instance.state not in (DOUBTED, HUNG)
        else:
            self.queue.silent(instance)
            assert instance.state is (HUNG if before is DOUBTED else before)
        if instance.state not in (DOUBTED, HUNG):
            self.asked.remove(instance)

    # --- pods ---------------------------------------------------------------------------------------------------------
    @rule(target=pods, concurrency=st.integers(1, 3), draining=st.booleans())
    def pod_appears(self, concurrency: int, draining: bool) -> Instance:
        number = next(self.counter)
        instance = Instance(f"default/p{number}", f"10.0.0.{number}", concurrency, uid=f"u{number}")
        self.instances.append(instance)
        self.queue.put(instance, self.now, draining=draining)
        if draining:
            self.drained.add(instance)
        return instance

    @rule(pod=pods, concurrency=st.integers(1, 3), draining=st.booleans())
    def pod_is_seen_again(self, pod: Instance, concurrency: int, draining: bool) -> None:
        if not pod.gone:
            self.queue.put(Instance(pod.key, pod.address, concurrency, uid=pod.uid), self.now, draining=draining)
            assert pod.concurrency == concurrency
            if draining:
                self.drained.add(pod)

    @rule(target=pods, pod=pods)
    def its_name_is_given_to_another(self, pod: Instance) -> Instance:
        instance = Instance(pod.key, pod.address, 1, uid=f"u{next(self.counter)}")
        self.instances.append(instance)
        known = self.queue.instances.get(pod.key)
        self.queue.put(instance, self.now)
        assert known is None or known.gone
        return instance

    @rule(pod=consumes(pods))
    def pod_goes(self, pod: Instance) -> None:
        known = self.queue.instances.get(pod.key)
        assert self.queue.remove(pod.key, self.now) is known
        assert self.queue.remove(pod.key, self.now) is None

    # --- what always holds --------------------------------------------------------------------------------------------
    @invariant()
    def slots_are_counted(self) -> None:
        held = [call for call in self.alive if call.place is IN_SERVICE]
        assert all((call.instance is not None) == (call.place is IN_SERVICE) for call in self.alive)
        assert self.queue.in_service == len(held) == sum(i.in_service for i in self.instances)
        for instance in self.instances:
            assert instance.in_service == sum(1 for call in held if call.instance is instance)
        assert self.queue.service_seconds(self.now) == pytest.approx(self.service)
        assert self.queue.waiting_seconds(self.now) == pytest.approx(self.waiting)

    @invariant()
    def nobody_is_forgotten(self) -> None:
        waiting = sorted((c for c in self.alive if c.place is WAITING), key=lambda call: call.order)
        assert self.queue.waiters() == waiting, "forgotten, or out of order"
        assert self.queue.waiting == len(waiting)
        callers = [call for call in waiting if not call.patient]
        assert waiting[: len(callers)] == callers, "asynchronous work before a caller"
        assert self.queue.callers_waiting == len(callers)
        if waiting:
            assert self.queue.free == 0, "somebody waits beside a free slot"

    @invariant()
    def deadlines_hold(self) -> None:
        for call in self.alive:
            assert call.granted_at < call.deadline
            assert call.deadline > self.now - 2 * SLOT_SECONDS, "alive after its deadline"
            assert not call.expired

    @invariant()
    def only_those_that_serve_have_free_slots(self) -> None:
        for instance in self.instances:
            if instance.free:
                assert instance.state is SERVING
                assert instance not in self.drained
                assert self.queue.instances[instance.key] is instance
                assert self.alone.get(instance, 0.0) <= self.now, "not left alone for its whole back-off"
            if instance.in_service > instance.concurrency:  # its concurrency was lowered meanwhile
                assert instance.free == 0
            if instance.state in (DOUBTED, HUNG):
                assert instance in self.asked, "doubted, and nobody asks it"
            if instance.state is RESTING:
                assert any(i is instance and rest == instance.rests for _, _, i, rest in self.timers), "for ever"

    def teardown(self) -> None:
        """Everybody leaves: nothing is left over."""
        if not hasattr(self, "queue"):
            return
        self.time_passes(31.0)
        assert self.alive == []
        assert (self.queue.in_service, self.queue.waiting, len(self.deadlines)) == (0, 0, 0)
        for instance in self.queue.instances.values():
            if instance.state in (DOUBTED, HUNG):
                self.queue.heard(instance, self.now)
            assert instance.state in (SERVING, DRAINING)


QueueMachine.TestCase.settings = tries(100, steps=50)
TestQueueAtRandom = QueueMachine.TestCase
