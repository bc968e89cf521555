"""Strategic merge and merge patches, as tables."""

from __future__ import annotations

from typing import Any

import pytest

from kappa_local.errors import ApiError
from kappa_local.patch import json_patch, merge_patch, strategic_patch
from kappa_local.schema import builtin

POD = builtin("io.k8s.api.core.v1.Pod")
Obj = dict[str, Any]


def test_rfc_7386() -> None:
    """The examples of the RFC's appendix that concern objects."""
    assert merge_patch({"a": "b"}, {"a": "c"}) == {"a": "c"}
    assert merge_patch({"a": "b"}, {"a": None}) == {}
    assert merge_patch({"a": ["b"]}, {"a": "c"}) == {"a": "c"}
    assert merge_patch({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}) == {"a": {"b": "d"}}
    assert merge_patch({"e": None}, {"a": 1}) == {"e": None, "a": 1}
    assert merge_patch({}, {"a": {"bb": {"ccc": None}}}) == {"a": {"bb": {}}}


def test_the_target_is_not_changed() -> None:
    target = {"a": {"b": 1}}
    merge_patch(target, {"a": {"b": 2}})
    json_patch(target, [{"op": "replace", "path": "/a/b", "value": 2}])
    assert target == {"a": {"b": 1}}


@pytest.mark.parametrize("operations", [{}, [{"op": "remove", "path": "/none"}], [{"op": "nonsense", "path": "/a"}]])
def test_json_patches_that_fail(operations: Any) -> None:
    with pytest.raises(ApiError):
        json_patch({"a": 1}, operations)


CONTAINERS = {"spec": {"containers": [{"name": "a", "image": "a:1"}, {"name": "b", "image": "b:1"}]}}


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"spec": {"hostname": "x"}}, {"spec": {"hostname": None}}, {"spec": {}}),
        (
            CONTAINERS,
            {"spec": {"containers": [{"name": "b", "image": "b:2"}, {"name": "c"}]}},
            {"spec": {"containers": [{"name": "a", "image": "a:1"}, {"name": "b", "image": "b:2"}, {"name": "c"}]}},
        ),
        (
            CONTAINERS,
            {"spec": {"containers": [{"name": "a", "$patch": "delete"}]}},
            {"spec": {"containers": [{"name": "b", "image": "b:1"}]}},
        ),
        (
            CONTAINERS,
            {"spec": {"containers": [{"name": "z"}, {"$patch": "replace"}]}},
            {"spec": {"containers": [{"name": "z"}]}},
        ),
        (
            CONTAINERS,
            {"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}},
            {"spec": {"containers": [{"name": "b", "image": "b:1"}, {"name": "a", "image": "a:1"}]}},
        ),
        (
            {"metadata": {"finalizers": ["a", "b"]}},
            {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}},
            {"metadata": {"finalizers": ["b", "c"]}},
        ),
        (
            {"spec": {"containers": [{"name": "a", "command": ["x", "y"]}]}},
            {"spec": {"containers": [{"name": "a", "command": ["z"]}]}},
            {"spec": {"containers": [{"name": "a", "command": ["z"]}]}},
        ),
        (
            {"spec": {"nodeSelector": {"a": "1"}}},
            {"spec": {"nodeSelector": {"$patch": "replace", "b": "2"}}},
            {"spec": {"nodeSelector": {"b": "2"}}},
        ),
        (
            {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}},
            {"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "secret"], "secret": {"secretName": "s"}}]}},
            {"spec": {"volumes": [{"name": "v", "secret": {"secretName": "s"}}]}},
        ),
    ],
)
def test_strategic(target: Obj, patch: Obj, result: Obj) -> None:
    assert strategic_patch(target, patch, POD) == result


def test_an_item_without_its_key() -> None:
    with pytest.raises(ApiError, match="does not contain declared merge key: name"):
        strategic_patch(CONTAINERS, {"spec": {"containers": [{"image": "x"}]}}, POD)
