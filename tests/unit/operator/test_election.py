"""The Lease in virtual time: who leads, when another may take over, and when a leader must stop."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from kappa_operator_fakes import ApiError, FakeKube, Time
from kappa_virtual import VirtualLoop

from kappa_operator.election import Election, LeaseLostError, Terms

PATH = "/apis/coordination.k8s.io/v1/namespaces/sys/leases/kappa-operator"
TERMS = Terms("sys", "a", "10.0.0.1:8081")


def election(kube: FakeKube, time: Time, identity: str = "a") -> Election:
    terms = replace(TERMS, identity=identity, address=f"{identity}:8081")
    clock = time.clock()
    return Election(kube, terms, clock=clock.monotonic, wall=clock.wall, sleep=clock.sleep)  # type: ignore[arg-type]


async def acquired(one: Election, time: Time, seconds: float = 0.0) -> "asyncio.Task[None]":
    task = asyncio.create_task(one.acquire())
    await time.pass_(seconds)
    return task


async def test_the_first_makes_the_lease() -> None:
    kube, time = FakeKube(), Time(0)
    task = await acquired(election(kube, time), time)
    assert task.done()
    lease = kube.objects[PATH]
    assert lease["spec"] == {
        "holderIdentity": "a",
        "leaseDurationSeconds": 6,
        "acquireTime": "1970-01-01T00:00:00.000000Z",
        "renewTime": "1970-01-01T00:00:00.000000Z",
        "leaseTransitions": 0,
    }
    assert lease["metadata"]["annotations"] == {"kappa.dev/address": "a:8081"}


async def test_the_second_waits_until_the_lease_has_not_changed_for_its_duration() -> None:
    kube, time = FakeKube(), Time()
    one, two = election(kube, time, "a"), election(kube, time, "b")
    await acquired(one, time)
    holding = asyncio.create_task(one.hold())
    waiting = await acquired(two, time, 30)
    assert not waiting.done()
    holding.cancel()
    await time.pass_(5)
    assert not waiting.done()
    await time.pass_(4)
    assert waiting.done()
    spec = kube.objects[PATH]["spec"]
    assert (spec["holderIdentity"], spec["leaseTransitions"]) == ("b", 1)
    assert kube.objects[PATH]["metadata"]["annotations"] == {"kappa.dev/address": "b:8081"}


async def test_a_released_lease_is_taken_at_the_next_look() -> None:
    kube, time = FakeKube(), Time()
    one, two = election(kube, time, "a"), election(kube, time, "b")
    await acquired(one, time)
    waiting = await acquired(two, time, 3)
    await one.release()
    assert kube.objects[PATH]["spec"]["holderIdentity"] == ""
    await time.pass_(1)
    assert waiting.done()


async def test_of_two_who_try_one_succeeds() -> None:
    kube, time = FakeKube(), Time()
    kube.put(PATH, {"metadata": {"name": "kappa-operator"}, "spec": {"holderIdentity": ""}})
    one, two = election(kube, time, "a"), election(kube, time, "b")
    tasks = [asyncio.create_task(one.acquire()), asyncio.create_task(two.acquire())]
    await time.pass_(0)
    assert [task.done() for task in tasks].count(True) == 1
    for task in tasks:
        task.cancel()


@pytest.mark.parametrize("what", ["unreachable", "taken"])
async def test_a_leader_that_cannot_renew_stops_before_another_may_start(what: str) -> None:
    kube, time = FakeKube(), Time()
    one = election(kube, time, "a")
    await acquired(one, time)
    holding = asyncio.create_task(one.hold())
    await time.pass_(10)
    assert not holding.done()
    if what == "taken":
        lease = kube.objects[PATH]
        kube.put(PATH, {**lease, "spec": {**lease["spec"], "holderIdentity": "b"}})
    else:

        def refuse(method: str, path: str, body: Any) -> None:
            raise ApiError(0, "Unreachable", "no route")

        kube.before = refuse
    await time.pass_(TERMS.deadline + TERMS.renew)
    assert isinstance(holding.exception(), LeaseLostError)
    assert not one.leading


async def test_one_missed_renewal_is_no_loss() -> None:
    kube, time = FakeKube(), Time()
    one = election(kube, time, "a")
    await acquired(one, time)
    holding = asyncio.create_task(one.hold())
    failures = iter([True, False, False, True, False])

    def sometimes(method: str, path: str, body: Any) -> None:
        if next(failures, False):
            raise ApiError(500, "InternalError", "")

    kube.before = sometimes
    await time.pass_(30)
    assert not holding.done()
    holding.cancel()


async def test_labels_and_annotations_of_others_are_kept() -> None:
    kube, time = FakeKube(), Time()
    meta = {"name": "kappa-operator", "labels": {"helm": "yes"}, "annotations": {"note": "mine"}}
    kube.put(PATH, {"metadata": meta, "spec": {}})
    await acquired(election(kube, time), time)
    found = kube.objects[PATH]["metadata"]
    assert found["labels"] == {"helm": "yes"}
    assert found["annotations"] == {"note": "mine", "kappa.dev/address": "a:8081"}


class SlowKube(FakeKube):
    """Each answer takes `seconds`; what was asked is done half-way."""

    seconds = 1.0

    async def get(self, path: str) -> Any:
        await asyncio.sleep(self.seconds)
        return await super().get(path)

    async def create(self, path: str, body: Any) -> Any:
        await asyncio.sleep(self.seconds)
        return await super().create(path, body)

    async def replace(self, path: str, body: Any) -> Any:
        await asyncio.sleep(self.seconds / 2)
        answer = await super().replace(path, body)
        await asyncio.sleep(self.seconds / 2)
        return answer


@pytest.mark.parametrize("seconds", [1.0, 1.5, 1.9])
def test_a_slow_api_server_costs_no_leadership(seconds: float) -> None:
    """Two replicas, and every answer late: the first leads on, and the second never does."""
    loop, kube = VirtualLoop(), SlowKube()
    kube.seconds = seconds
    one, two = (
        Election(kube, replace(TERMS, identity=name), clock=loop.time, wall=loop.time)  # type: ignore[arg-type]
        for name in "ab"
    )
    loop.run_until_complete(one.acquire())
    tasks = [loop.create_task(one.hold()), loop.create_task(two.acquire())]
    loop.pass_(120)
    assert [task.done() for task in tasks] == [False, False]
    assert kube.objects[PATH]["spec"]["holderIdentity"] == "a"
    loop.stop_all()


def test_it_is_lost_in_time_when_answers_never_come() -> None:
    """Others may take over after `duration`: we have stopped by then, though our last request may still arrive."""
    loop, kube = VirtualLoop(), SlowKube()
    one = Election(kube, TERMS, clock=loop.time, wall=loop.time)  # type: ignore[arg-type]
    loop.run_until_complete(one.acquire())
    held = loop.time()
    holding = loop.create_task(one.hold())
    kube.seconds = 1000.0
    loop.pass_(TERMS.duration)
    assert isinstance(holding.exception(), LeaseLostError)
    assert loop.time() - held <= TERMS.duration
    loop.stop_all()


async def test_a_lease_that_was_renewed_without_our_hearing_of_it_is_released() -> None:
    kube, time = FakeKube(), Time()
    one = election(kube, time, "a")
    await acquired(one, time)
    lease = kube.objects[PATH]
    kube.put(PATH, {**lease, "spec": {**lease["spec"], "renewTime": "later"}})
    await one.release()
    assert kube.objects[PATH]["spec"]["holderIdentity"] == ""


async def test_a_lease_that_another_took_is_not_released() -> None:
    kube, time = FakeKube(), Time()
    one = election(kube, time, "a")
    await acquired(one, time)
    lease = kube.objects[PATH]
    kube.put(PATH, {**lease, "spec": {**lease["spec"], "holderIdentity": "b"}})
    await one.release()
    assert kube.objects[PATH]["spec"]["holderIdentity"] == "b"
