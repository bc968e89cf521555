"""Field sets and server-side apply."""

from __future__ import annotations

from typing import Any

import pytest

from kappa_local import fieldset
from kappa_local.apply import apply, owned, track
from kappa_local.errors import ApiError
from kappa_local.schema import builtin

POD = builtin("io.k8s.api.core.v1.Pod")
Obj = dict[str, Any]


def pod(*containers: Obj, **spec: Any) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a"},
        "spec": {"containers": list(containers), **spec},
    }


def manager(name: str) -> Obj:
    return {"manager": name, "apiVersion": "v1", "time": "now"}


def test_fields_v1() -> None:
    encoded = fieldset.encode(owned(pod({"name": "m", "command": ["x"]}, hostname="h"), POD))
    assert encoded == {
        "f:spec": {
            "f:containers": {'k:{"name":"m"}': {".": {}, "f:command": {}, "f:name": {}}},
            "f:hostname": {},
        }
    }
    assert fieldset.encode(fieldset.decode(encoded)) == encoded


def test_paths_for_people() -> None:
    assert (
        fieldset.dotted(("f:spec", "f:containers", 'k:{"name":"m"}', "f:image")) == '.spec.containers[name="m"].image'
    )


def test_two_managers_and_a_removal() -> None:
    first = apply(None, pod({"name": "a", "image": "a:1"}), POD, manager("one"), force=False)
    both = apply(first, pod({"name": "b", "image": "b:1"}), POD, manager("two"), force=False)
    assert [item["name"] for item in both["spec"]["containers"]] == ["a", "b"]
    left = apply(both, pod({"name": "c"}), POD, manager("two"), force=False)
    assert [item["name"] for item in left["spec"]["containers"]] == ["a", "c"]
    assert [entry["manager"] for entry in left["metadata"]["managedFields"]] == ["one", "two"]


def test_a_conflict_names_manager_and_field() -> None:
    first = apply(None, pod(hostname="x"), POD, manager("one"), force=False)
    with pytest.raises(ApiError, match=r'Apply failed with 1 conflict: conflict with "one": \.spec\.hostname'):
        apply(first, pod(hostname="y"), POD, manager("two"), force=False)
    taken = apply(first, pod(hostname="y"), POD, manager("two"), force=True)
    assert taken["spec"]["hostname"] == "y"


def test_the_same_value_is_shared_without_a_conflict() -> None:
    first = apply(None, pod(hostname="x"), POD, manager("one"), force=False)
    shared = apply(first, pod(hostname="x"), POD, manager("two"), force=False)
    dropped = apply(shared, pod(), POD, manager("one"), force=False)
    assert dropped["spec"]["hostname"] == "x"


def test_an_ordinary_write_is_tracked_after_the_first_apply() -> None:
    first = apply(None, pod(hostname="x"), POD, manager("one"), force=False)
    changed = track(first, {**first, "spec": {**first["spec"], "hostname": "y"}}, POD, manager("hand"))
    entries = {entry["manager"]: entry for entry in changed["metadata"]["managedFields"]}
    assert entries["hand"]["operation"] == "Update"
    assert entries["hand"]["fieldsV1"] == {"f:spec": {"f:hostname": {}}}
    assert "f:hostname" not in entries["one"]["fieldsV1"].get("f:spec", {})


def test_what_was_there_before_belongs_to_nobody_in_particular() -> None:
    with pytest.raises(ApiError, match='conflict with "before-first-apply" using v1'):
        apply(pod(hostname="x"), pod(hostname="y"), POD, manager("one"), force=False)
