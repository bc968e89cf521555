"""Which pool pod is taken, and how a pool gets to its size without being empty on the way."""

import random
from dataclasses import replace
from typing import Any

import pytest

from kappa_api.runtime import Pool, Runtime
from kappa_operator.observed import Pod
from kappa_operator.pool import PoolPlan, PoolState, pick, plan_pool

NOW = 1000.0
RUNTIME = Runtime("python", "uid", "image:1", pool=Pool(2, 5))


def pod(name: str, **fields: Any) -> Pod:
    base = Pod(
        namespace="ns",
        name=name,
        uid=name,
        version=1,
        created=NOW - 100,
        runtime="python",
        state="pool",
        phase="Running",
        ip="10.0.0.1",
        template="new",
        ready=True,
    )
    return replace(base, **fields)


def starting(name: str, seconds: float, **fields: Any) -> Pod:
    since = NOW - seconds
    return pod(name, **{"ready": False, "phase": "Pending", "created": since, "unready_since": since, **fields})


def state(*pods: Pod, **fields: Any) -> PoolState:
    base: dict[str, Any] = {"runtime": RUNTIME, "template": "new", "users": 1, "wanted": 2, "now": NOW}
    return PoolState(**{**base, **fields}, pods=pods)


FEWER = "the pool needs fewer pods"
EARLIER = "was made from an earlier spec of its Runtime"
ROOM = "makes room for one of the newest spec"
OLD = {"template": "old"}
NO_ROOM = {"problem": ("Unschedulable", "0/1 nodes are available")}
ROWS = {
    # --- its size ---
    "filled": (state(), PoolPlan(create=2)),
    "full": (state(pod("a"), pod("b")), PoolPlan()),
    "a claimed one leaves a gap at once": (state(pod("a"), pod("b"), reserved={"ns/a"}), PoolPlan(create=1)),
    "one on its way out does not count": (state(pod("a"), pod("b", deleting=True)), PoolPlan(create=1)),
    "a starting one counts": (state(pod("a"), starting("b", 5)), PoolPlan()),
    "no new ones during a back-off": (state(hold=True), PoolPlan()),
    "one too many goes in its own time": (state(pod("a"), pod("b"), pod("c"), shed=False), PoolPlan()),
    "one at a time": (
        state(pod("a"), pod("b"), pod("c"), pod("d"), shed=True),
        PoolPlan(0, (("ns/a", FEWER),), shed=True),
    ),
    "those that are not Ready go first": (
        state(pod("a"), pod("b"), starting("c", 1), shed=True),
        PoolPlan(0, (("ns/c", FEWER),), shed=True),
    ),
    "more than the Runtime allows go at once": (
        state(*(pod(name) for name in "abcdefg")),
        PoolPlan(0, (("ns/a", FEWER), ("ns/b", FEWER))),
    ),
    "nobody uses it": (state(pod("a"), pod("b"), users=0), PoolPlan(0, (("ns/a", FEWER), ("ns/b", FEWER)))),
    "no runtime": (state(pod("a"), runtime=None), PoolPlan(0, (("ns/a", "its Runtime is gone"),))),
    # --- pods of no use ---
    "an ended one is replaced": (
        state(pod("a"), pod("b", phase="Failed", ready=False, problem=("OOMKilled", ""))),
        PoolPlan(1, (("ns/b", "ended: OOMKilled"),)),
    ),
    "a sick one is replaced": (
        state(pod("a"), pod("b", ready=False, unready_since=NOW - 61)),
        PoolPlan(1, (("ns/b", "not Ready for 60 s"),)),
    ),
    "not for a moment": (state(pod("a"), pod("b", ready=False, unready_since=NOW - 59)), PoolPlan()),
    "one that hangs before it runs is replaced": (
        state(pod("a"), starting("b", 121)),
        PoolPlan(1, (("ns/b", "did not start within 120 s"),)),
    ),
    "one that waits for its image is not replaced by another that would": (
        state(pod("a"), starting("b", 500, problem=("ImagePullBackOff", ""))),
        PoolPlan(),
    ),
    "until another node may have it": (
        state(pod("a"), starting("b", 601, problem=("ImagePullBackOff", ""))),
        PoolPlan(1, (("ns/b", "did not start within 600 s: ImagePullBackOff"),)),
    ),
    "one that finds no node waits": (state(pod("a"), starting("b", 601, **NO_ROOM)), PoolPlan()),
    # --- the Runtime's spec has changed ---
    "a new one first": (state(pod("a", **OLD), pod("b", **OLD)), PoolPlan(create=1)),
    "while it starts the old ones stay": (state(pod("a", **OLD), pod("b", **OLD), starting("c", 1)), PoolPlan()),
    "an old one for each that is Ready, and the next one": (
        state(pod("a", **OLD), pod("b", **OLD), pod("c")),
        PoolPlan(1, (("ns/a", EARLIER),)),
    ),
    "the last old one": (state(pod("b", **OLD), pod("c"), pod("d")), PoolPlan(0, (("ns/b", EARLIER),))),
    "a quarter at a time": (
        state(*(pod(f"o{n}", **OLD) for n in range(8)), wanted=8),
        PoolPlan(create=2),
    ),
    "an old one that is not Ready is worth nothing": (
        state(pod("a", **OLD), starting("b", 1, **OLD)),
        PoolPlan(2, (("ns/b", EARLIER),)),
    ),
    "a new image that cannot be pulled leaves the old ones": (
        state(pod("a", **OLD), pod("b", **OLD), starting("c", 90, problem=("ErrImagePull", "")), shed=True),
        PoolPlan(),
    ),
    "a full cluster takes the old one for the new one": (
        state(pod("a", **OLD), pod("b", **OLD), starting("c", 61, **NO_ROOM), shed=True),
        PoolPlan(0, (("ns/a", ROOM),), shed=True),
    ),
    "not at once": (
        state(pod("a", **OLD), pod("b", **OLD), starting("c", 59, **NO_ROOM), shed=True),
        PoolPlan(),
    ),
    "and slowly": (state(pod("a", **OLD), pod("b", **OLD), starting("c", 99, **NO_ROOM)), PoolPlan()),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_plan(row: tuple[PoolState, PoolPlan]) -> None:
    given, expected = row
    assert plan_pool(given) == expected


@pytest.mark.parametrize("size", range(1, 10))
def test_a_changed_runtime_replaces_every_pod_and_never_lowers_the_number_that_can_be_claimed(size: int) -> None:
    chance = random.Random(size)
    runtime = replace(RUNTIME, pool=Pool(size, size))
    there = {f"o{n}": pod(f"o{n}", **OLD) for n in range(size)}
    for step in range(200):
        todo = plan_pool(state(*there.values(), runtime=runtime, wanted=size))
        for key, _ in todo.delete:
            del there[key.partition("/")[2]]
        there |= {f"n{step}-{n}": starting(f"n{step}-{n}", 1) for n in range(todo.create)}
        assert sum(p.ready for p in there.values()) >= size
        assert len(there) <= size + max(1, size // 4)
        for name, found in list(there.items()):
            if not found.ready and chance.random() < 0.5:
                there[name] = pod(name)
    assert [p.template for p in there.values()] == ["new"] * size


def chosen(*pods: Pod, reserved: frozenset[str] = frozenset(), exact: bool = False) -> str:
    found = pick(pods, "new", reserved, exact=exact)
    return found.name if found else ""


def test_pick() -> None:
    started = pod("s", ready=False)
    assert chosen() == ""
    assert chosen(started, pod("b"), pod("a", created=NOW - 200)) == "a"
    assert chosen(started, pod("a"), reserved=frozenset({"ns/a"})) == "s"
    assert chosen(pod("p", ready=False, ip=""), started) == "s"
    assert chosen(pod("a", deleting=True), pod("c", phase="Failed")) == ""
    assert chosen(pod("a", ready=False, problem=("ErrImagePull", ""))) == ""
    assert chosen(pod("a", state="serving")) == ""


def test_one_of_an_earlier_spec_is_better_than_none_unless_it_must_be_exact() -> None:
    old = pod("old", created=NOW - 500, **OLD)
    assert chosen(old, pod("new")) == "new"
    assert chosen(old, starting("new", 1)) == "old"
    assert chosen(old, starting("new", 1), exact=True) == "new"
    assert chosen(old, exact=True) == ""
    assert chosen(starting("old", 1, **OLD)) == ""
