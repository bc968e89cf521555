"""The Lease in virtual time: who leads, when another may take over, and when a leader must stop."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from kappa_operator_fakes import ApiError, FakeKube, Time

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
