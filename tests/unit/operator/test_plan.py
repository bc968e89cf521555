"""`plan` as a table: each row is a situation and the actions that it calls for."""

from dataclasses import replace
from typing import Any

import pytest

from kappa_operator.observed import Pod
from kappa_operator.plan import Action, Claim, Delete, Drain, Promote, Question, Situation, Specialize, Verify, plan

NOW = 1000.0


def pod(name: str, revision: str = "new", state: str = "serving", **fields: Any) -> Pod:
    base = Pod(
        namespace="ns",
        name=name,
        uid=name,
        version=1,
        created=NOW - 70,
        runtime="python",
        function="fn",
        revision=revision,
        state=state,
        phase="Running",
        ip="10.0.0.1",
        ready=True,
    )
    return replace(base, **fields)


def all_verified(*pods: Pod) -> frozenset[str]:
    return frozenset(p.key for p in pods if p.state == "serving")


def situation(*pods: Pod, **fields: Any) -> Situation:
    base: dict[str, Any] = {
        "target": "new",
        "active": "new",
        "wanted": 1,
        "pods": pods,
        "now": NOW,
        "verified": all_verified(*pods),
    }
    return Situation(**{**base, **fields})


ENDED = Delete("ns/a", "ended: Error")
DIED = Delete("ns/a", "ended: Error", ("Error", "instance a ended: boom"))
LATE = Delete("ns/a", "did not start within 120 s", ("StartTimeout", "instance a did not start within 120 s"))
SURPLUS = "is not needed any more"
REPLACED = "revision old is replaced by new"

ROWS: dict[str, tuple[Situation, list[Action]]] = {
    # --- nothing to do ---
    "as many as wanted": (situation(pod("a")), []),
    "at zero": (situation(wanted=0), []),
    "nothing can run": (situation(target="", active=""), []),
    # --- the first revision ---
    "a first revision is proven even at zero": (situation(active="", wanted=0), [Claim("new", True)]),
    "proven by one, however many are wanted": (situation(active="", wanted=5), [Claim("new", True)]),
    "one claim proves": (situation(active="", claiming={"new": 1}), []),
    "not during its back-off": (situation(active="", hold_proof=True), []),
    "its back-off does not hold the old one": (
        situation(active="old", hold_proof=True),
        [Claim("old", False)],
    ),
    "nor the other way round": (situation(pod("a", "old"), active="old", hold=True), [Claim("new", True)]),
    "a pod that starts with it gets the code": (
        situation(pod("a", state="starting"), active=""),
        [Specialize("ns/a", "new", True)],
    ),
    "not before it has an address": (situation(pod("a", state="starting", ip=""), active=""), []),
    "not twice": (situation(pod("a", state="starting"), active="", busy=frozenset({"ns/a"})), []),
    "an image serves when Ready": (
        situation(pod("a", state="starting", runtime=""), active=""),
        [Promote("ns/a", "new")],
    ),
    "an image that is not Ready yet": (situation(pod("a", state="starting", runtime="", ready=False), active=""), []),
    # --- up and down ---
    "more are wanted": (situation(pod("a"), wanted=3), [Claim("new", False)] * 2),
    "claims under way count": (situation(pod("a"), wanted=3, claiming={"new": 2}), []),
    "starting pods count": (
        situation(pod("a", state="starting"), wanted=1),
        [Specialize("ns/a", "new", False)],
    ),
    "no claims during a back-off": (situation(pod("a"), wanted=3, hold=True), []),
    "the newest goes first": (
        situation(pod("a"), pod("b", created=NOW - 65), wanted=1),
        [Drain("ns/b", SURPLUS)],
    ),
    "the emptiest goes before the newest": (
        situation(pod("a"), pod("b", created=NOW - 65), wanted=1, in_service={"ns/a": 0, "ns/b": 1}),
        [Drain("ns/a", SURPLUS)],
    ),
    "one that is being drained counts no more": (
        situation(pod("a"), pod("b"), pod("c"), wanted=2, busy=frozenset({"ns/a"}), leaving=frozenset({"ns/a"})),
        [],
    ),
    "after a refusal one is tried first": (
        situation(pod("a"), wanted=4, refused=True),
        [Claim("new", False)],
    ),
    "and not another one with it": (situation(pod("a"), wanted=4, refused=True, claiming={"new": 1}), []),
    "one of which nothing is known counts as busy": (
        situation(pod("a"), pod("b", created=NOW - 65), wanted=1, in_service={"ns/a": 3}),
        [Drain("ns/a", SURPLUS)],
    ),
    "starting ones go before serving ones": (
        situation(pod("a"), pod("b", state="starting"), wanted=1),
        [Delete("ns/b", SURPLUS)],
    ),
    "all at zero": (situation(pod("a"), wanted=0), [Drain("ns/a", SURPLUS)]),
    "a busy one is left alone": (situation(pod("a"), wanted=0, busy=frozenset({"ns/a"})), []),
    # --- the end of pods ---
    "an ended one is deleted and replaced": (
        situation(pod("a", phase="Failed", problem=("Error", "boom"))),
        [ENDED, Claim("new", False)],
    ),
    "one that ends young is trouble": (
        situation(pod("a", phase="Failed", problem=("Error", "boom"), created=NOW - 5), wanted=0),
        [DIED],
    ),
    "one that ends while it starts is trouble": (
        situation(pod("a", state="starting", phase="Failed", problem=("Error", "boom")), wanted=0),
        [DIED],
    ),
    "one that ends while it drains is not": (
        situation(pod("a", state="draining", phase="Failed", problem=("Error", "boom"), created=NOW - 5), wanted=0),
        [ENDED],
    ),
    "one that is being deleted is gone already": (situation(pod("a", deleting=True)), [Claim("new", False)]),
    "draining goes on": (
        situation(pod("a", state="draining"), wanted=0),
        [Drain("ns/a", "was told to drain")],
    ),
    "unless it is under way": (situation(pod("a", state="draining"), wanted=0, busy=frozenset({"ns/a"})), []),
    "one that does not start": (situation(pod("a", state="starting", ip="", created=NOW - 121)), [LATE]),
    "one whose image is missing waits": (
        situation(pod("a", state="starting", ip="", created=NOW - 900, problem=("ErrImagePull", ""))),
        [],
    ),
    "one that is not Ready for long is replaced": (
        situation(pod("a", ready=False, unready_since=NOW - 61)),
        [Drain("ns/a", "not Ready for 60 s"), Claim("new", False)],
    ),
    "one that is not Ready for a moment stays": (situation(pod("a", ready=False, unready_since=NOW - 59)), []),
    # --- a new revision ---
    "a new revision is proven beside the old one": (
        situation(pod("a", "old"), active="old", wanted=1),
        [Claim("new", True)],
    ),
    "the old one keeps its number meanwhile": (
        situation(pod("a", "old"), active="old", wanted=2, claiming={"new": 1}),
        [Claim("old", False)],
    ),
    "the proven one is raised before any old one goes": (
        situation(pod("a", "old"), pod("b", "old"), wanted=2),
        [Claim("new", False)] * 2,
    ),
    "an old one goes for each new one that serves": (
        situation(pod("a", "old"), pod("b", "old", created=NOW - 80), pod("c"), wanted=2, claiming={"new": 1}),
        [Drain("ns/a", REPLACED)],
    ),
    "not for one that only starts": (
        situation(pod("a", "old"), pod("c", state="starting"), wanted=1),
        [Specialize("ns/c", "new", False)],
    ),
    "not for one that is not verified": (
        situation(pod("a", "old"), pod("c"), wanted=1, verified=frozenset({"ns/a"})),
        [Verify("ns/c", "new")],
    ),
    "all old ones go in the end": (
        situation(pod("a", "old"), pod("c"), wanted=1),
        [Drain("ns/a", REPLACED)],
    ),
    "a failed revision leaves the old one": (situation(pod("a", "old"), target="", active="old"), []),
    "and its own starting pod goes": (
        situation(pod("a", "old"), pod("b", state="starting"), target="", active="old"),
        [Delete("ns/b", "revision new is not wanted any more")],
    ),
    "a spec that changes while it is proven": (
        situation(pod("b", "mid", state="starting"), active="", target="new"),
        [Delete("ns/b", "revision mid is not wanted any more"), Claim("new", True)],
    ),
    "the old one is raised while the new one has failed": (
        situation(target="", active="old", wanted=2),
        [Claim("old", False)] * 2,
    ),
    # --- hung instances ---
    "one that is silent to a gateway": (situation(pod("a"), hung=frozenset({"ns/a"})), [Question("ns/a")]),
    "not while it is being asked": (situation(pod("a"), hung=frozenset({"ns/a"}), busy=frozenset({"ns/a"})), []),
    "before it is verified": (
        situation(pod("a"), hung=frozenset({"ns/a"}), verified=frozenset()),
        [Question("ns/a"), Verify("ns/a", "new")],
    ),
    "one that drains has its time": (
        situation(pod("a", state="draining"), wanted=0, hung=frozenset({"ns/a"})),
        [Drain("ns/a", "was told to drain")],
    ),
    "one that has to go is drained": (
        situation(pod("a"), wanted=0, hung=frozenset({"ns/a"})),
        [Drain("ns/a", SURPLUS)],
    ),
    "idle, and not Ready for a while": (
        situation(pod("a", ready=False, unready_since=NOW - 6), in_service={"ns/a": 0}),
        [Question("ns/a")],
    ),
    "not Ready, but at work": (
        situation(pod("a", ready=False, unready_since=NOW - 6), in_service={"ns/a": 1}),
        [],
    ),
    "not Ready, and perhaps at work": (situation(pod("a", ready=False, unready_since=NOW - 6)), []),
    "idle, and not Ready yet": (
        situation(pod("a", ready=False, unready_since=NOW - 4), in_service={"ns/a": 0}),
        [],
    ),
    # --- after a restart of the operator ---
    "a serving pod is verified once": (
        situation(pod("a"), verified=frozenset()),
        [Verify("ns/a", "new")],
    ),
    "an image needs no verification": (situation(pod("a", runtime=""), verified=frozenset()), []),
    "one that goes is not verified first": (
        situation(pod("a"), wanted=0, verified=frozenset()),
        [Drain("ns/a", SURPLUS)],
    ),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_plan(row: tuple[Situation, list[Action]]) -> None:
    given, expected = row
    assert list(plan(given)) == expected


def test_a_rollout_never_goes_below_the_wanted_number() -> None:
    """The plan is carried out step by step, each action taking a random time: the number that serves never drops."""
    import random

    for seed in range(50):
        chance = random.Random(seed)
        wanted = chance.randint(1, 6)
        pods = {f"o{i}": pod(f"o{i}", "old") for i in range(wanted)}
        starting = 0
        for step in range(200):
            current = situation(*pods.values(), wanted=wanted, claiming={"new": starting})
            for action in plan(current):
                match action:
                    case Claim():
                        starting += 1
                    case Drain(pod=key):
                        name = key.partition("/")[2]
                        if pods[name].state == "serving":
                            pods[name] = replace(pods[name], state="draining")
                        elif chance.random() < 0.5:
                            del pods[name]
            if starting and chance.random() < 0.5:
                starting -= 1
                pods[f"n{step}"] = pod(f"n{step}", "new")
            assert sum(p.state == "serving" for p in pods.values()) >= wanted
        assert [p.revision for p in pods.values()] == ["new"] * wanted
