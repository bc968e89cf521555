"""Pruning, defaults, validation, CRD faults."""

from __future__ import annotations

from typing import Any

import pytest

from kappa_local import crd
from kappa_local.schema import Node, builtin, default, prune
from kappa_local.validate import validate

Obj = dict[str, Any]


def node(**schema: Any) -> Node:
    return Node({"type": "object", **schema}, {})


def props(**properties: Any) -> Node:
    return node(properties=properties)


def test_pruning_names_what_it_drops() -> None:
    schema = props(
        spec={
            "type": "object",
            "properties": {
                "a": {"type": "string"},
                "l": {"type": "array", "items": {"type": "object", "properties": {}, "additionalProperties": False}},
            },
        }
    )
    unknown: list[str] = []
    kept = prune({"kind": "K", "spec": {"a": "1", "b": 2}, "extra": {}}, schema, unknown=unknown, root=True)
    assert kept == {"kind": "K", "spec": {"a": "1"}}
    assert unknown == ["spec.b", "extra"]


def test_pruning_keeps_the_object_when_nothing_goes() -> None:
    value = {"spec": {"a": [{"b": 1}]}}
    schema = props(
        spec={
            "type": "object",
            "properties": {
                "a": {"type": "array", "items": {"type": "object", "properties": {"b": {"type": "integer"}}}}
            },
        }
    )
    assert prune(value, schema, root=True) is value


def test_preserved_fields_are_still_pruned_below_known_ones() -> None:
    schema = node(
        **{"x-kubernetes-preserve-unknown-fields": True},
        properties={"spec": {"type": "object", "properties": {"a": {"type": "string"}}}},
    )
    assert prune({"spec": {"a": "1", "b": "2"}, "other": 1}, schema, root=True) == {"spec": {"a": "1"}, "other": 1}


def test_pruning_a_pod() -> None:
    unknown: list[str] = []
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a"},
        "spec": {"containers": [{"name": "a", "imagee": "x"}]},
    }
    prune(pod, builtin("io.k8s.api.core.v1.Pod"), unknown=unknown, root=True)
    assert unknown == ["spec.containers[0].imagee"]


def test_defaults_reach_into_lists_and_maps() -> None:
    item = {"type": "object", "properties": {"n": {"type": "integer", "default": 1}}}
    schema = props(
        l={"type": "array", "items": item},
        m={"type": "object", "additionalProperties": item},
        d={"type": "object", "default": {}, "properties": {"x": {"type": "string", "default": "y"}}},
    )
    assert default({"l": [{}, {"n": 2}], "m": {"a": {}}}, schema) == {
        "l": [{"n": 1}, {"n": 2}],
        "m": {"a": {"n": 1}},
        "d": {"x": "y"},
    }


def test_defaults_are_copied() -> None:
    schema = props(d={"type": "object", "default": {"a": []}})
    default({}, schema)["d"]["a"].append(1)
    assert default({}, schema) == {"d": {"a": []}}


@pytest.mark.parametrize(
    ("schema", "value", "message"),
    [
        ({"type": "string"}, 1, 'Invalid value: "integer": f in body must be of type string: "integer"'),
        ({"type": "integer"}, 1.0, None),
        ({"type": "integer"}, 1.5, 'Invalid value: "number": f in body must be of type integer: "number"'),
        ({"type": "integer"}, True, 'Invalid value: "boolean": f in body must be of type integer: "boolean"'),
        ({"type": "string"}, None, 'Invalid value: "null": f in body must be of type string: "null"'),
        ({"type": "string", "nullable": True}, None, None),
        (
            {"type": "number", "minimum": 0, "exclusiveMinimum": True},
            0,
            "Invalid value: 0: f in body should be greater than 0",
        ),
        ({"type": "number", "multipleOf": 5}, 12, "Invalid value: 12: f in body should be a multiple of 5"),
        ({"type": "integer", "format": "int32"}, 2**31, "must be of type int32"),
        ({"type": "string", "maxLength": 2}, "abc", 'Invalid value: "abc": f in body should be at most 2 chars long'),
        ({"type": "string", "pattern": "^a"}, "ba", "Invalid value: \"ba\": f in body should match '^a'"),
        ({"type": "string", "format": "ipv4"}, "1.2.3", "must be of type ipv4"),
        ({"type": "string", "format": "date-time"}, "2024-01-01T00:00:00Z", None),
        ({"type": "array", "minItems": 1}, [], "Invalid value: []: f in body should have at least 1 items"),
        ({"type": "array", "uniqueItems": True}, [1, 1], "shouldn't contain duplicates"),
        ({"type": "object", "minProperties": 1}, {}, "should have at least 1 properties"),
        ({"enum": ["a", 1]}, "1", 'Unsupported value: "1": supported values: "a", "1"'),
        ({"x-kubernetes-int-or-string": True}, "x", None),
        ({"not": {"enum": ["x"]}}, "x", 'Invalid value: "": "f" must not validate the schema (not)'),
        (
            {"anyOf": [{"minLength": 3}, {"pattern": "^z"}]},
            "a",
            'Invalid value: "": "f" must validate at least one schema (anyOf)',
        ),
        ({"allOf": [{"minLength": 3}]}, "a", "should be at least 3 chars long"),
    ],
)
def test_validation(schema: Obj, value: object, message: str | None) -> None:
    found = [cause.message for cause in validate({"f": value}, props(f=schema))]
    if message is None:
        assert found == []
    else:
        assert any(message in text for text in found), found


def definition(**change: Any) -> Obj:
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
    spec = {
        "group": "g.io",
        "scope": "Namespaced",
        "names": {"plural": "things", "kind": "Thing"},
        "versions": [version],
        **change,
    }
    return {"metadata": {"name": "things.g.io"}, "spec": spec}


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({}, []),
        ({"scope": ""}, ["spec.scope"]),
        ({"group": "other.io"}, ["metadata.name"]),
        ({"versions": []}, ["spec.versions"]),
    ],
)
def test_crd_faults(change: Obj, fields: list[str]) -> None:
    assert [cause.field for cause in crd.faults(definition(**change))] == fields


def test_a_level_without_a_type_is_not_structural() -> None:
    schema = {"type": "object", "properties": {"a": {"properties": {}}, "b": {"x-kubernetes-int-or-string": True}}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    assert [cause.field for cause in crd.faults(definition(versions=[version]))] == [
        "spec.versions[0].schema.openAPIV3Schema.properties[a].type"
    ]


def test_resources_of_a_crd() -> None:
    resource = crd.resources(crd.defaulted(definition()))[0]
    assert (resource.api_version, resource.kind, resource.list_name, resource.table) == (
        "g.io/v1",
        "Thing",
        "ThingList",
        "things.g.io",
    )
    assert [column.name for column in resource.columns or ()] == ["Name", "Age"]
