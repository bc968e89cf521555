"""The status as a table, and what stays of an old one."""

from dataclasses import replace
from typing import Any

import pytest

from kappa_api.routes import Conflict, Route
from kappa_operator.memory import Memory
from kappa_operator.status import Observation, ready_condition, status_patch

NOW, EARLIER = "2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z"
BASE = Observation(name="fn", generation=2, url="http://g/fn/ns/fn", target="new", active="new")
CONFLICT = Conflict("ns/fn", "ns/older", Route("/a", "h.example", ("GET", "POST")))

READY = {
    "serves": (replace(BASE, replicas=1, ready_replicas=1), ("True", "Active", "revision new serves")),
    "at zero": (BASE, ("True", "ScaledToZero", "revision new is proven; the next call starts an instance")),
    "first one is loading": (replace(BASE, active=""), ("Unknown", "Loading", "revision new is being loaded")),
    "next one is loading": (
        replace(BASE, active="old"),
        ("Unknown", "Loading", "revision new is being loaded; revision old keeps serving"),
    ),
    "cannot be read": (
        replace(BASE, target="", active="", blocked=("InvalidSpec", "spec.code: is required")),
        ("False", "InvalidSpec", "spec.code: is required"),
    ),
    "cannot be read any more": (
        replace(BASE, target="", active="old", blocked=("InvalidSpec", "spec.code: is required")),
        ("False", "InvalidSpec", "spec.code: is required; revision old keeps serving"),
    ),
    "does not load": (
        replace(BASE, active="old", failed="new", blocked=("LoadFailed", "revision new failed to load: E: m")),
        ("False", "LoadFailed", "revision new failed to load: E: m; revision old keeps serving"),
    ),
    "may load later": (
        replace(BASE, active="", trouble=("FetchFailed", "timeout")),
        ("False", "FetchFailed", "timeout; it will be tried again"),
    ),
    "too few": (
        replace(BASE, ready_replicas=1, wanted=2, trouble=("PodRefused", "quota")),
        ("False", "PodRefused", "quota; it will be tried again"),
    ),
    "old trouble": (
        replace(BASE, replicas=2, ready_replicas=2, wanted=2, trouble=("PodRefused", "quota")),
        ("True", "Active", "revision new serves"),
    ),
    "no route": (
        replace(BASE, conflicts=(CONFLICT,)),
        (
            "False",
            "RouteConflict",
            "GET POST h.example/a belongs to ns/older (older): choose another host or path, or remove it there",
        ),
    ),
}


@pytest.mark.parametrize("row", READY.values(), ids=READY.keys())
def test_ready(row: tuple[Observation, tuple[str, str, str]]) -> None:
    seen, expected = row
    assert ready_condition(seen) == expected


def apply(old: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    merged = {**old, **patch}
    return {key: value for key, value in merged.items() if value is not None}


def test_the_whole_status() -> None:
    seen = replace(BASE, replicas=2, ready_replicas=1, has_routes=True)
    assert apply({}, status_patch(seen, {}, NOW)) == {
        "observedGeneration": 2,
        "activeRevision": "new",
        "replicas": 2,
        "readyReplicas": 1,
        "selector": "kappa.dev/function=fn",
        "url": "http://g/fn/ns/fn",
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "Active",
                "message": "revision new serves",
                "lastTransitionTime": NOW,
                "observedGeneration": 2,
            },
            {
                "type": "Serving",
                "status": "True",
                "reason": "RevisionActive",
                "message": "revision new takes the calls",
                "lastTransitionTime": NOW,
                "observedGeneration": 2,
            },
            {
                "type": "Routes",
                "status": "True",
                "reason": "Assigned",
                "message": "every route leads here",
                "lastTransitionTime": NOW,
                "observedGeneration": 2,
            },
        ],
    }


def test_why_the_pool_is_of_no_use_stands_in_a_condition_until_it_is() -> None:
    own = apply({}, status_patch(replace(BASE, own_pods="env uses valueFrom"), {}, EARLIER))
    assert own["conditions"][-1] == {
        "type": "Pooled",
        "status": "False",
        "reason": "OwnPods",
        "message": "env uses valueFrom, so every instance gets a pod of its own, which starts more slowly than one of "
        "the pool",
        "lastTransitionTime": EARLIER,
        "observedGeneration": 2,
    }
    assert [c["type"] for c in status_patch(BASE, own, NOW)["conditions"]] == ["Ready", "Serving"]


def test_nothing_is_written_when_nothing_changed() -> None:
    old = apply({}, status_patch(BASE, {}, EARLIER))
    assert status_patch(BASE, old, NOW) == {}


def test_a_transition_time_changes_with_the_status_only() -> None:
    old = apply({}, status_patch(BASE, {}, EARLIER))
    patch = status_patch(replace(BASE, replicas=1), old, NOW)
    assert sorted(patch) == ["conditions", "replicas"]
    assert [c["lastTransitionTime"] for c in patch["conditions"]] == [EARLIER, EARLIER]
    worse = status_patch(replace(BASE, active=""), old, NOW)
    assert [c["lastTransitionTime"] for c in worse["conditions"]] == [NOW, NOW]
    assert worse["activeRevision"] is None


def test_conditions_of_others_are_kept() -> None:
    theirs = {"type": "Audited", "status": "True"}
    patch = status_patch(BASE, {"conditions": [theirs]}, NOW)
    assert patch["conditions"][-1] == theirs


def test_a_failure_survives_a_change_of_leader_word_for_word() -> None:
    seen = replace(BASE, active="old", failed="new", blocked=("LoadFailed", "revision new failed to load: E: m"))
    status = apply({}, status_patch(seen, {}, NOW))
    memory = Memory.from_status("uid", status)
    assert memory.failure is not None
    again = replace(seen, active=memory.active, blocked=(memory.failure.reason, memory.failure.message))
    assert status_patch(again, status, "later") == {}
