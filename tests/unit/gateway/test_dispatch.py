"""The queue: a table of situations, then everything at random against a model that counts by hand."""

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from kappa_gateway.dispatch import Instance, Queue


@dataclass(eq=False)
class Call:
    """An invocation that remembers what it was told."""

    name: str = ""
    order: int = 0
    since: float = 0.0
    instance: Instance | None = None
    grants: list[str] = field(default_factory=list)
    error: Exception | None = None

    def granted(self, instance: Instance, now: float) -> None:
        assert self.instance is None, "granted while it has a slot"
        self.instance = instance
        self.grants.append(instance.key)

    def rejected(self, error: Exception) -> None:
        self.error = error


def make(*concurrencies: int) -> tuple[Queue, list[Instance]]:
    queue = Queue("default/hello")
    instances = [Instance(f"default/p{n}", f"10.0.0.{n}", c) for n, c in enumerate(concurrencies)]
    for instance in instances:
        queue.put(instance, 0.0)
    return queue, instances


def enter(queue: Queue, now: float = 0.0, name: str = "") -> Call:
    call = Call(name)
    call.instance = queue.enter(call, now)
    return call


def test_least_in_service_first_then_the_last_used() -> None:
    queue, (a, b, c) = make(2, 2, 2)
    first = enter(queue)
    assert first.instance is c
    assert {enter(queue).instance, enter(queue).instance} == {a, b}
    queue.release(c, 1.0)
    assert enter(queue).instance is c
    assert [i.in_service for i in (a, b, c)] == [1, 1, 1]
    assert queue.free == 3


def test_waiting_is_served_in_order_of_arrival() -> None:
    queue, (a,) = make(1)
    assert enter(queue).instance is a
    second, third = enter(queue), enter(queue)
    assert queue.waiting == 2
    queue.release(a, 1.0)
    assert (second.instance, third.instance) == (a, None)
    queue.release(a, 2.0)
    assert third.instance is a


def test_a_new_instance_serves_who_waits_at_once() -> None:
    queue = Queue("default/hello")
    calls = [enter(queue) for _ in range(3)]
    queue.put(Instance("default/p", "10.0.0.1", 2), 1.0)
    assert [call.instance is not None for call in calls] == [True, True, False]


def test_a_refused_invocation_keeps_its_place() -> None:
    queue, (a,) = make(1)
    first = enter(queue)
    second = enter(queue)
    first.instance = None
    queue.again(first, a, 1.0, block=True)
    assert (a.blocked, a.failures, queue.waiting, a.free) == (True, 1, 2, 0)
    queue.unblock(a, 2.0)
    assert (first.instance, second.instance) == (a, None)


def test_two_refused_invocations_keep_their_order() -> None:
    queue, (a,) = make(2)
    first, second = enter(queue), enter(queue)
    first.instance = second.instance = None
    queue.again(second, a, 1.0, block=True)
    queue.again(first, a, 1.0, block=True)
    assert queue.waiters() == [first, second]
    assert a.failures == 1  # two refusals at the same time say the same


def test_a_refused_invocation_goes_to_another_instance_at_once() -> None:
    queue, (a, b) = make(1, 1)
    call = enter(queue)
    assert call.instance is b
    call.instance = None
    queue.again(call, b, 1.0, block=True)
    assert (call.instance, b.in_service, queue.waiting) == (a, 0, 0)


def test_success_ends_a_block() -> None:
    queue, (a,) = make(3)
    one, two = enter(queue), enter(queue)
    two.instance = None
    queue.again(two, a, 1.0, block=True)
    assert two.instance is None
    queue.release(a, 2.0)
    assert (two.instance, a.failures, a.blocked) == (a, 0, False)
    assert one.instance is a


def test_draining_and_gone_instances_get_nothing() -> None:
    queue, (a, b) = make(1, 1)
    queue.drain(a)
    queue.remove(b.key, 0.0)
    assert enter(queue).instance is None
    assert (queue.free, list(queue.instances)) == (0, [a.key])
    again = Instance(a.key, a.address, 5)
    queue.put(again, 1.0)
    assert (queue.waiting, a.draining) == (1, True)


def test_a_pod_seen_again_keeps_its_counts_and_takes_new_values() -> None:
    queue, (a,) = make(1)
    enter(queue)
    waiting = enter(queue)
    queue.put(Instance(a.key, a.address, 2, "r2"), 1.0)
    assert queue.instances[a.key] is a
    assert (a.concurrency, a.in_service, a.revision) == (2, 2, "r2")
    assert waiting.instance is a
    queue.put(Instance(a.key, a.address, 1), 2.0)
    queue.release(a, 3.0)
    assert (a.in_service, a.free) == (1, 0)


def test_a_pod_with_another_address_is_another_instance() -> None:
    queue, (a,) = make(1)
    enter(queue)
    queue.put(Instance(a.key, "10.9.9.9", 1), 1.0)
    assert a.gone
    assert queue.instances[a.key] is not a
    assert enter(queue).instance is queue.instances[a.key]
    queue.release(a, 2.0)
    assert queue.in_service == 1


def test_leaving_frees_the_place() -> None:
    queue, (a,) = make(1)
    enter(queue)
    second, third = enter(queue, 1.0), enter(queue, 1.0)
    queue.leave(second, 3.0)
    queue.leave(second, 4.0)
    queue.release(a, 5.0)
    assert (second.grants, third.instance) == ([], a)


def test_integrals_are_exact() -> None:
    queue, (a,) = make(1)
    enter(queue, 10.0)
    waiting = enter(queue, 11.0)
    assert (queue.service_seconds(12.0), queue.waiting_seconds(12.0)) == (2.0, 1.0)
    queue.release(a, 14.0)
    assert (queue.service_seconds(14.0), queue.waiting_seconds(14.0)) == (4.0, 3.0)
    waiting.instance = None
    queue.again(waiting, a, 15.0, block=True)
    assert (queue.service_seconds(17.0), queue.waiting_seconds(17.0)) == (5.0, 5.0)
    queue.leave(waiting, 18.0)
    assert (queue.service_seconds(99.0), queue.waiting_seconds(99.0)) == (5.0, 6.0)


def test_repr_tells_the_state() -> None:
    queue, (a, b) = make(1, 2)
    enter(queue)
    queue.drain(a)
    assert repr(queue) == "<Queue default/hello instances=2 free=1 in_service=1 waiting=0>"
    assert repr(a) == "<Instance default/p0 0/1 draining>"
    assert repr(b) == "<Instance default/p1 1/2>"


class Machine(RuleBasedStateMachine):
    """Any order of events. The model: who arrived when, who holds which slot, the integrals added up step by step."""

    calls = Bundle("calls")
    pods = Bundle("pods")

    def __init__(self) -> None:
        super().__init__()
        self.queue = Queue("default/hello")
        self.now = 0.0
        self.alive: list[Call] = []
        self.instances: list[Instance] = []
        self.service = self.waiting = 0.0
        self.number = 0

    @rule(step=st.integers(1, 8))
    def time_passes(self, step: int) -> None:
        seconds = step / 4
        self.service += seconds * sum(1 for call in self.alive if call.instance)
        self.waiting += seconds * sum(1 for call in self.alive if not call.instance)
        self.now += seconds

    @rule(target=calls)
    def arrives(self) -> Call:
        call = Call(f"c{self.queue.arrivals}")
        self.alive.append(call)
        before = self.queue.waiting
        call.instance = self.queue.enter(call, self.now)
        if call.instance is not None:
            assert before == 0, "overtook somebody who waits"
        return call

    @rule(target=calls, call=consumes(calls), how=st.sampled_from(["ends", "fails", "refused", "blocked"]))
    def in_service(self, call: Call, how: str):  # type: ignore[no-untyped-def]
        instance = call.instance
        if instance is None:
            return call
        if how in ("ends", "fails"):
            call.instance = None
            self.alive.remove(call)
            self.queue.release(instance, self.now, block=how == "fails")
            return multiple()
        call.instance = None
        self.queue.again(call, instance, self.now, block=how == "blocked")
        return call

    @rule(call=consumes(calls))
    def leaves(self, call: Call) -> None:
        self.alive.remove(call)
        if call.instance is None:
            self.queue.leave(call, self.now)
        else:
            instance, call.instance = call.instance, None
            self.queue.release(instance, self.now)

    @rule(target=pods, concurrency=st.integers(1, 3))
    def pod_appears(self, concurrency: int) -> Instance:
        self.number += 1
        instance = Instance(f"default/p{self.number}", f"10.0.0.{self.number}", concurrency)
        self.instances.append(instance)
        self.queue.put(instance, self.now)
        return instance

    @rule(pod=pods, concurrency=st.integers(1, 3))
    def pod_changes(self, pod: Instance, concurrency: int) -> None:
        if not pod.gone:
            self.queue.put(Instance(pod.key, pod.address, concurrency), self.now)

    @rule(pod=pods)
    def pod_drains(self, pod: Instance) -> None:
        self.queue.drain(pod)

    @rule(pod=pods)
    def pod_is_let_alone_no_more(self, pod: Instance) -> None:
        self.queue.unblock(pod, self.now)

    @rule(pod=consumes(pods))
    def pod_goes(self, pod: Instance) -> None:
        self.queue.remove(pod.key, self.now)

    @invariant()
    def holds(self) -> None:
        queue = self.queue
        held = [call for call in self.alive if call.instance is not None]
        waiting = [call for call in self.alive if call.instance is None]
        assert queue.in_service == len(held)
        assert queue.waiters() == sorted(waiting, key=lambda call: call.order), "forgotten, or out of order"
        assert queue.waiting == len(waiting)
        if waiting:
            assert queue.free == 0, "somebody waits beside a free slot"
        for instance in self.instances:
            used = sum(1 for call in held if call.instance is instance)
            assert instance.in_service == used
        assert queue.service_seconds(self.now) == pytest.approx(self.service)
        assert queue.waiting_seconds(self.now) == pytest.approx(self.waiting)

    @invariant()
    def never_too_many(self) -> None:
        for instance in self.instances:
            if instance.in_service > instance.concurrency:
                # only a pod whose concurrency was lowered meanwhile may have more; it gets nothing new
                assert instance.free == 0


Machine.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestQueueAtRandom = Machine.TestCase
