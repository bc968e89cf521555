"""Which pool pod is taken, and how a pool keeps its size."""

from dataclasses import replace
from typing import Any

import pytest

from kappa_api.runtime import Pool, Runtime
from kappa_operator.observed import Pod
from kappa_operator.pool import PoolPlan, pick, plan_pool

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
        image="image:1",
        ready=True,
    )
    return replace(base, **fields)


def plan(
    *pods: Pod, runtime: Runtime | None = RUNTIME, users: int = 1, reserved: frozenset[str] = frozenset()
) -> PoolPlan:
    return plan_pool(runtime, pods, users, reserved, NOW)


FEWER = "the pool needs fewer pods"
ROWS = {
    "filled": (plan(), PoolPlan(create=2)),
    "full": (plan(pod("a"), pod("b")), PoolPlan()),
    "a claimed one leaves a gap at once": (plan(pod("a"), pod("b"), reserved=frozenset({"ns/a"})), PoolPlan(create=1)),
    "one on its way out does not count": (plan(pod("a"), pod("b", deleting=True)), PoolPlan(create=1)),
    "an ended one is replaced": (
        plan(pod("a"), pod("b", phase="Failed", problem=("OOMKilled", ""))),
        PoolPlan(1, (("ns/b", "ended: OOMKilled"),)),
    ),
    "a sick one is replaced": (
        plan(pod("a"), pod("b", ready=False, unready_since=NOW - 61)),
        PoolPlan(1, (("ns/b", "not Ready for 60 s"),)),
    ),
    "a starting one counts": (plan(pod("a"), pod("b", ready=False, unready_since=NOW - 5)), PoolPlan()),
    "one that waits for its image is not replaced by another that would": (
        plan(pod("a"), pod("b", phase="Pending", ready=False, problem=("ImagePullBackOff", ""))),
        PoolPlan(),
    ),
    "another image": (
        plan(pod("a"), pod("b", image="image:0")),
        PoolPlan(1, (("ns/b", "has image image:0, not image:1"),)),
    ),
    "nobody uses it": (plan(pod("a"), pod("b"), users=0), PoolPlan(0, (("ns/a", FEWER), ("ns/b", FEWER)))),
    "too many: those that are not Ready go first": (
        plan(pod("a"), pod("b"), pod("c", ready=False, unready_since=NOW)),
        PoolPlan(0, (("ns/c", FEWER),)),
    ),
    "no runtime": (plan(pod("a"), runtime=None), PoolPlan(0, (("ns/a", "its Runtime is gone"),))),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_plan(row: tuple[PoolPlan, PoolPlan]) -> None:
    assert row[0] == row[1]


def chosen(*pods: Pod, reserved: frozenset[str] = frozenset()) -> str:
    found = pick(pods, "image:1", reserved)
    return found.name if found else ""


def test_pick() -> None:
    starting = pod("s", ready=False)
    assert chosen() == ""
    assert chosen(starting, pod("b"), pod("a", created=NOW - 200)) == "a"
    assert chosen(starting, pod("a"), reserved=frozenset({"ns/a"})) == "s"
    assert chosen(pod("p", ready=False, ip=""), starting) == "s"
    assert chosen(pod("a", deleting=True), pod("b", image="image:0"), pod("c", phase="Failed")) == ""
    assert chosen(pod("a", ready=False, problem=("ErrImagePull", ""))) == ""
