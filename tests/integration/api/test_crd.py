"""Custom resources: defaults, pruning, validation, status, scale, generation."""

from __future__ import annotations

import re

import pytest
from kappa_fixtures_local import MERGE, Api, Obj

WIDGETS = "/apis/suite.kappa.dev/v1/namespaces/{ns}/widgets"


def widget(name: str, **spec: object) -> Obj:
    return {
        "apiVersion": "suite.kappa.dev/v1",
        "kind": "Widget",
        "metadata": {"name": name},
        "spec": {"size": 3, **spec},
    }


def without_index(text: str) -> str:
    """Old servers (1.20) do not say which item of a list is wrong."""
    return re.sub(r"\[\d+\]", "", text)


async def test_defaults(api: Api, name: str) -> None:
    made = (await api.post(WIDGETS, widget(name, parts=[{"name": "a"}, {"name": "b", "count": 5}]))).ok()
    assert made["spec"] == {
        "size": 3,
        "color": "red",
        "parts": [{"name": "a", "count": 1}, {"name": "b", "count": 5}],
        "nested": {"deep": "yes"},
    }


async def test_null_counts_as_absent_unless_nullable(api: Api, name: str) -> None:
    spec = (await api.post(WIDGETS, widget(name, color=None, label=None, maybe=None))).ok()["spec"]
    assert spec["color"] == "red"
    assert "label" not in spec
    assert spec["maybe"] is None


async def test_unknown_fields_are_dropped(api: Api, name: str) -> None:
    spec = (
        await api.post(WIDGETS, widget(name, bogus=1, nested={"deep": "x", "bogus": 2}, free={"any": {"thing": 1}}))
    ).ok()["spec"]
    assert "bogus" not in spec
    assert spec["nested"] == {"deep": "x"}
    assert spec["free"] == {"any": {"thing": 1}}


@pytest.mark.parametrize(
    ("spec", "field", "reason", "text"),
    [
        (
            {"size": 0},
            "spec.size",
            "FieldValueInvalid",
            "Invalid value: 0: spec.size in body should be greater than or equal to 1",
        ),
        (
            {"size": 11},
            "spec.size",
            "FieldValueInvalid",
            "Invalid value: 11: spec.size in body should be less than or equal to 10",
        ),
        (
            {"color": "blue"},
            "spec.color",
            "FieldValueNotSupported",
            'Unsupported value: "blue": supported values: "red", "green"',
        ),
        (
            {"label": "ABC"},
            "spec.label",
            "FieldValueInvalid",
            "Invalid value: \"ABC\": spec.label in body should match '^[a-z]+$'",
        ),
        ({"limits": {"a": 1, "b": 2, "c": 3}}, "spec.limits", "", "properties"),
        (
            {"ratio": 0},
            "spec.ratio",
            "FieldValueInvalid",
            "Invalid value: 0: spec.ratio in body should be greater than 0",
        ),
        ({"when": "yesterday"}, "spec.when", "FieldValueInvalid", "spec.when in body must be of type date-time"),
        ({"tags": ["a", "b", "c"]}, "spec.tags", "", ""),
        ({"label": "abcdef"}, "spec.label", "", ""),
        ({"label": "a"}, "spec.label", "FieldValueInvalid", "spec.label in body should be at least 2 chars long"),
        ({"unique": ["a", "a"]}, "spec.unique[1]", "FieldValueDuplicate", 'Duplicate value: "a"'),
        ({"parts": [{"name": "a"}, {"name": "a"}]}, "spec.parts[1]", "FieldValueDuplicate", "Duplicate value"),
        ({"parts": [{"count": 1}]}, "spec.parts[0].name", "FieldValueRequired", "Required value"),
        ({"limits": {"a": "x"}}, "spec.limits.a", "", "spec.limits.a in body must be of type integer"),
        ({"size": "big"}, "spec.size", "", "spec.size in body must be of type integer"),
        ({"tags": "x"}, "spec.tags", "", "spec.tags in body must be of type array"),
        ({"nested": []}, "spec.nested", "", "spec.nested in body must be of type object"),
        ({"tags": [1]}, "spec.tags[0]", "", "spec.tags[0] in body must be of type string"),
    ],
)
async def test_faults(api: Api, name: str, spec: Obj, field: str, reason: str, text: str) -> None:
    reply = await api.post(WIDGETS, widget(name, **spec))
    message = reply.refused(422, "Invalid")
    assert message.startswith(f'Widget.suite.kappa.dev "{name}" is invalid: ')
    causes = reply.body["details"]["causes"]
    found = [cause for cause in causes if without_index(cause["field"]) == without_index(field)]
    assert found, causes
    cause = found[0]
    assert without_index(text) in without_index(cause["message"])
    assert cause["message"] in message
    if reason:
        assert cause["reason"] == reason


async def test_every_fault_is_named(api: Api, name: str) -> None:
    body = widget(name, color="blue", label="ABC")
    del body["spec"]["size"]
    reply = await api.post(WIDGETS, body)
    reply.refused(422, "Invalid")
    assert {cause["field"] for cause in reply.body["details"]["causes"]} == {"spec.size", "spec.color", "spec.label"}
    assert reply.body["details"] | {"causes": []} == {
        "name": name,
        "group": "suite.kappa.dev",
        "kind": "Widget",
        "causes": [],
    }


async def test_a_missing_spec(api: Api, name: str) -> None:
    body = {"apiVersion": "suite.kappa.dev/v1", "kind": "Widget", "metadata": {"name": name}}
    assert (await api.post(WIDGETS, body)).refused(
        422, "Invalid"
    ) == f'Widget.suite.kappa.dev "{name}" is invalid: spec: Required value'


@pytest.mark.parametrize("source", [{}, {"a": "1", "b": "2"}])
async def test_one_of(api: Api, name: str, source: Obj) -> None:
    message = (await api.post(WIDGETS, widget(name, source=source))).refused(422, "Invalid")
    assert "must validate one and only one schema (oneOf)" in message


@pytest.mark.parametrize(("port", "good"), [(80, True), ("http", True), (True, False), (1.5, False)])
async def test_int_or_string(api: Api, name: str, port: object, good: bool) -> None:
    body = {"apiVersion": "suite.kappa.dev/v1", "kind": "Gadget", "metadata": {"name": name}, "spec": {"port": port}}
    reply = await api.post(WIDGETS.replace("widgets", "gadgets"), body)
    if good:
        assert reply.ok()["spec"]["port"] == port
    else:
        assert "spec.port in body must be of type" in reply.refused(422, "Invalid")


async def test_generation_counts_changes_of_the_spec(api: Api, name: str) -> None:
    path = f"{WIDGETS}/{name}"
    assert (await api.post(WIDGETS, widget(name))).ok()["metadata"]["generation"] == 1
    assert (await api.patch(path, {"metadata": {"labels": {"a": "b"}}})).ok()["metadata"]["generation"] == 1
    assert (await api.patch(f"{path}/status", {"status": {"phase": "Up"}})).ok()["metadata"]["generation"] == 1
    assert (await api.patch(path, {"spec": {"size": 4}})).ok()["metadata"]["generation"] == 2
    assert (await api.patch(path, {"spec": {"size": 4}})).ok()["metadata"]["generation"] == 2


async def test_status_and_spec_are_written_apart(api: Api, name: str) -> None:
    path = f"{WIDGETS}/{name}"
    made = (await api.post(WIDGETS, {**widget(name), "status": {"phase": "Sneaky"}})).ok()
    assert "status" not in made
    body = (await api.patch(path, {"status": {"phase": "Sneaky"}, "spec": {"size": 5}})).ok()
    assert "status" not in body
    assert body["spec"]["size"] == 5
    patch = {"status": {"phase": "Up"}, "spec": {"size": 9}, "metadata": {"labels": {"no": "no"}}}
    body = (await api.patch(f"{path}/status", patch)).ok()
    assert body["status"] == {"phase": "Up"}
    assert body["spec"]["size"] == 5
    assert "labels" not in body["metadata"]
    body["status"] = {"phase": "Down", "replicas": 2}
    assert (await api.put(f"{path}/status", body)).ok()["status"] == {"phase": "Down", "replicas": 2}
    assert (await api.get(f"{path}/status")).ok()["status"]["phase"] == "Down"


async def test_status_is_validated(api: Api, name: str) -> None:
    await api.post(WIDGETS, widget(name))
    message = (await api.patch(f"{WIDGETS}/{name}/status", {"status": {"replicas": "many"}})).refused(422, "Invalid")
    assert "status.replicas in body must be of type integer" in message


async def test_scale(api: Api, name: str) -> None:
    path = f"{WIDGETS}/{name}"
    await api.post(WIDGETS, widget(name, nested={"replicas": 2}))
    await api.patch(f"{path}/status", {"status": {"replicas": 1, "selector": "a=b"}})
    scale = (await api.get(f"{path}/scale")).ok()
    assert (scale["kind"], scale["apiVersion"]) == ("Scale", "autoscaling/v1")
    assert scale["spec"] == {"replicas": 2}
    assert scale["status"] == {"replicas": 1, "selector": "a=b"}
    assert (await api.patch(f"{path}/scale", {"spec": {"replicas": 5}}, MERGE)).ok()["spec"] == {"replicas": 5}
    body = (await api.get(path)).ok()
    assert body["spec"]["nested"]["replicas"] == 5
    assert body["metadata"]["generation"] == 2


async def test_a_crd_appears_and_goes(api: Api, name: str) -> None:
    group = f"{name}.example.com"
    definition = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.{group}"
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"things.{group}"},
        "spec": {
            "group": group,
            "scope": "Cluster",
            "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }
    (await api.post(definition.rpartition("/")[0], crd)).ok()
    api.kubectl("wait", "--for=condition=Established", f"crd/things.{group}", "--timeout=20s")
    made = (await api.get(definition)).ok()
    assert made["spec"]["names"] == {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"}
    assert made["status"]["storedVersions"] == ["v1"]
    api.kubectl(
        "create", "-f", "-", stdin=f"{{apiVersion: {group}/v1, kind: Thing, metadata: {{name: it}}, any: thing}}"
    )
    thing = f"/apis/{group}/v1/things/it"
    assert (await api.get(thing)).ok()["any"] == "thing"
    (await api.delete(definition)).ok()
    await api.until_gone(definition)
    assert (await api.get(thing)).status == 404


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"scope": "Galaxy"}, "spec.scope"),
        ({"group": ""}, "spec.group"),
        ({"versions": [{"name": "v1", "served": True, "storage": True}]}, "spec.versions[0].schema.openAPIV3Schema"),
        (
            {
                "versions": [
                    {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "string"}}}
                ]
            },
            "openAPIV3Schema.type",
        ),
    ],
)
async def test_crds_that_are_refused(api: Api, name: str, change: Obj, field: str) -> None:
    group = f"{name}.example.com"
    schema = {"openAPIV3Schema": {"type": "object"}}
    spec = {
        "group": group,
        "scope": "Cluster",
        "names": {"plural": "things", "kind": "Thing"},
        "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        **change,
    }
    body = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"things.{group}"},
        "spec": spec,
    }
    reply = await api.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", body)
    reply.refused(422, "Invalid")
    assert any(field in cause["field"] for cause in reply.body["details"]["causes"]), reply.body
