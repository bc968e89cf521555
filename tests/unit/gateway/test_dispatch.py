"""The queue: a table of situations. Everything at random is in test_queue_properties.py."""

from dataclasses import dataclass, field

import pytest

from kappa_api.machine import IllegalMoveError
from kappa_gateway import states
from kappa_gateway.dispatch import Instance, Queue
from kappa_gateway.states import OVER, REFUSED, RESTING, SERVING


@dataclass(eq=False)
class Call:
    """An invocation that remembers what it was told."""

    name: str = ""
    deadline: float = 1e9
    expired: bool = False
    place: str = states.NEW
    order: int = 0
    since: float = 0.0
    instance: Instance | None = None
    grants: list[str] = field(default_factory=list)
    error: Exception | None = None

    def granted(self, now: float) -> None:
        assert self.instance is not None
        self.grants.append(self.instance.key)

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
    assert queue.enter(call, now) is call.instance
    return call


def test_least_in_service_first_then_the_last_used() -> None:
    queue, (a, b, c) = make(2, 2, 2)
    first = enter(queue)
    assert first.instance is c
    assert {enter(queue).instance, enter(queue).instance} == {a, b}
    queue.release(first, 1.0)
    assert enter(queue).instance is c
    assert [i.in_service for i in (a, b, c)] == [1, 1, 1]
    assert queue.free == 3


def test_waiting_is_served_in_order_of_arrival() -> None:
    queue, (a,) = make(1)
    first = enter(queue)
    assert first.instance is a
    second, third = enter(queue), enter(queue)
    assert queue.waiting == 2
    queue.release(first, 1.0)
    assert (second.instance, third.instance) == (a, None)
    queue.release(second, 2.0)
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
    queue.again(first, 1.0, REFUSED)
    assert (a.state, a.failures, queue.waiting, a.free) == (RESTING, 1, 2, 0)
    queue.rested(a, a.rests, 2.0)
    assert (first.instance, second.instance) == (a, None)


def test_two_refused_invocations_keep_their_order() -> None:
    queue, (a,) = make(2)
    first, second = enter(queue), enter(queue)
    queue.again(second, 1.0, REFUSED)
    queue.again(first, 1.0, REFUSED)
    assert queue.waiters() == [first, second]
    assert a.failures == 1  # two refusals at the same time say the same


def test_a_refused_invocation_goes_to_another_instance_at_once() -> None:
    queue, (a, b) = make(1, 1)
    call = enter(queue)
    assert call.instance is b
    queue.again(call, 1.0, REFUSED)
    assert (call.instance, b.in_service, queue.waiting) == (a, 0, 0)


def test_an_answer_ends_a_rest() -> None:
    queue, (a,) = make(3)
    one, two = enter(queue), enter(queue)
    queue.again(two, 1.0, REFUSED)
    assert two.instance is None
    queue.release(one, 2.0)
    assert (two.instance, a.failures, a.state) == (a, 0, SERVING)


def test_a_caller_that_leaves_does_not_end_a_rest() -> None:
    """It says nothing about the instance, which may hang."""
    queue, (a,) = make(3)
    one, two = enter(queue), enter(queue)
    queue.again(two, 1.0, REFUSED)
    queue.leave(one, 2.0)
    assert (two.instance, a.failures, a.state, a.in_service) == (None, 1, RESTING, 0)


def test_the_timer_of_an_earlier_rest_does_not_end_a_later_one() -> None:
    queue, (a,) = make(2)
    one, two = enter(queue), enter(queue)
    queue.again(two, 1.0, REFUSED)
    earlier = a.rests
    queue.release(one, 1.001)
    assert two.instance is a
    queue.again(two, 1.002, REFUSED)
    queue.rested(a, earlier, 1.005)
    assert two.instance is None
    queue.rested(a, a.rests, 1.007)
    assert two.instance is a


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
    first = enter(queue)
    waiting = enter(queue)
    queue.put(Instance(a.key, a.address, 2, "r2"), 1.0)
    assert queue.instances[a.key] is a
    assert (a.concurrency, a.in_service, a.revision) == (2, 2, "r2")
    assert waiting.instance is a
    queue.put(Instance(a.key, a.address, 1), 2.0)
    queue.release(first, 3.0)
    assert (a.in_service, a.free) == (1, 0)


@pytest.mark.parametrize(("address", "uid"), [("10.9.9.9", ""), ("10.0.0.0", "another")])
def test_a_pod_with_another_address_or_uid_is_another_instance(address: str, uid: str) -> None:
    queue, (a,) = make(1)
    queue.drain(a)
    b = Instance(a.key, a.address, 1, uid="one")
    queue.put(b, 0.0)
    first = enter(queue)
    assert (a.gone, first.instance) == (True, b)
    queue.put(Instance(a.key, address, 1, uid=uid), 1.0)
    assert b.gone
    assert queue.instances[a.key] is not b
    assert enter(queue).instance is queue.instances[a.key]
    queue.release(first, 2.0)
    assert queue.in_service == 1


def test_leaving_frees_the_place() -> None:
    queue, (a,) = make(1)
    first = enter(queue)
    second, third = enter(queue, 1.0), enter(queue, 1.0)
    queue.leave(second, 3.0)
    queue.leave(second, 4.0)
    queue.release(first, 5.0)
    assert (second.grants, third.instance) == ([], a)


def test_nobody_gets_a_slot_after_his_deadline() -> None:
    queue, (a,) = make(1)
    first, late, next_ = enter(queue), Call(deadline=2.0), Call(deadline=3.0)
    queue.enter(late, 1.0)
    queue.enter(next_, 1.0)
    queue.release(first, 2.0)
    assert (late.place, late.grants, next_.instance) == (OVER, [], a)
    too_late = Call(deadline=2.0)
    assert queue.enter(too_late, 2.0) is None
    assert (too_late.place, queue.waiting) == (OVER, 0)
    queue.again(next_, 3.0, "")
    assert (next_.place, a.in_service, queue.waiting_seconds(9.0)) == (OVER, 0, 2.0)


def test_what_cannot_be_is_an_error_and_changes_nothing() -> None:
    queue, (a,) = make(1)
    first, second = enter(queue), enter(queue)
    before = repr(queue)
    for wrong in (
        lambda: queue.enter(first, 1.0),
        lambda: queue.enter(second, 1.0),
        lambda: queue.release(second, 1.0),
        lambda: queue.again(second, 1.0, REFUSED),
    ):
        with pytest.raises(IllegalMoveError):
            wrong()
    assert (repr(queue), first.instance) == (before, a)
    queue.release(first, 1.0)
    with pytest.raises(IllegalMoveError, match="invocation: 'released' cannot happen to one that is 'over'"):
        queue.release(first, 1.0)
    assert queue.in_service == 1


def test_integrals_are_exact() -> None:
    queue, _ = make(1)
    first = enter(queue, 10.0)
    waiting = enter(queue, 11.0)
    assert (queue.service_seconds(12.0), queue.waiting_seconds(12.0)) == (2.0, 1.0)
    queue.release(first, 14.0)
    assert (queue.service_seconds(14.0), queue.waiting_seconds(14.0)) == (4.0, 3.0)
    queue.again(waiting, 15.0, REFUSED)
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
