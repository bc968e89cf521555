"""The patch types, on built-in and custom resources."""

from __future__ import annotations

import pytest
from kappa_fixtures_local import JSON, MERGE, STRATEGIC, Api, Obj

SERVICES = "/api/v1/namespaces/{ns}/services"
MAPS = "/api/v1/namespaces/{ns}/configmaps"
WIDGETS = "/apis/suite.kappa.dev/v1/namespaces/{ns}/widgets"


@pytest.fixture
async def config_map(api: Api, name: str) -> str:
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"a": "1"}},
        "data": {"x": "1", "y": "2"},
    }
    (await api.post(MAPS, body)).ok()
    return f"{MAPS}/{name}"


@pytest.fixture
async def widget(api: Api, name: str) -> str:
    spec = {"size": 3, "tags": ["a", "b"], "parts": [{"name": "one"}, {"name": "two", "count": 2}]}
    body = {"apiVersion": "suite.kappa.dev/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec}
    (await api.post(WIDGETS, body)).ok()
    return f"{WIDGETS}/{name}"


@pytest.fixture
async def service(api: Api, name: str) -> str:
    ports = [
        {"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080},
        {"name": "admin", "port": 81, "protocol": "TCP", "targetPort": 81},
    ]
    body = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"ports": ports, "selector": {"app": "x"}},
    }
    (await api.post(SERVICES, body)).ok()
    return f"{SERVICES}/{name}"


async def test_merge_sets_and_removes(api: Api, config_map: str) -> None:
    patch = {"metadata": {"labels": {"a": None, "b": "2"}}, "data": {"x": None, "z": "3"}}
    body = (await api.patch(config_map, patch, MERGE)).ok()
    assert body["metadata"]["labels"] == {"b": "2"}
    assert body["data"] == {"y": "2", "z": "3"}


async def test_merge_replaces_lists(api: Api, widget: str) -> None:
    body = (await api.patch(widget, {"spec": {"tags": ["c"], "parts": [{"name": "three"}]}}, MERGE)).ok()
    assert body["spec"]["tags"] == ["c"]
    assert body["spec"]["parts"] == [{"name": "three", "count": 1}]


async def test_json_operations(api: Api, widget: str) -> None:
    operations = [
        {"op": "test", "path": "/spec/size", "value": 3},
        {"op": "replace", "path": "/spec/size", "value": 4},
        {"op": "add", "path": "/spec/tags/1", "value": "new"},
        {"op": "remove", "path": "/spec/tags/0"},
        {"op": "add", "path": "/metadata/annotations", "value": {"example.com/a": "b"}},
        {"op": "add", "path": "/metadata/annotations/example.com~1c", "value": "d"},
    ]
    body = (await api.patch(widget, operations, JSON)).ok()
    assert body["spec"]["size"] == 4
    assert body["spec"]["tags"] == ["new", "b"]
    assert body["metadata"]["annotations"] == {"example.com/a": "b", "example.com/c": "d"}


@pytest.mark.parametrize(
    "operations",
    [
        [{"op": "test", "path": "/spec/size", "value": 99}],
        [{"op": "remove", "path": "/spec/none"}],
        [{"op": "add", "path": "/spec/none/deeper", "value": 1}],
    ],
)
async def test_json_operations_that_fail(api: Api, widget: str, operations: list[Obj]) -> None:
    (await api.patch(widget, operations, JSON)).refused(422, "Invalid")


async def test_a_patched_object_is_validated(api: Api, widget: str) -> None:
    message = (await api.patch(widget, {"spec": {"size": 99}}, MERGE)).refused(422, "Invalid")
    assert "spec.size in body should be less than or equal to 10" in message


async def test_strategic_merges_lists_by_key(api: Api, service: str) -> None:
    patch = {"spec": {"ports": [{"port": 81, "targetPort": 9000}, {"port": 82, "name": "more"}]}}
    ports = (await api.patch(service, patch, STRATEGIC)).ok()["spec"]["ports"]
    assert {(port["name"], port["port"], port["targetPort"]) for port in ports} == {
        ("http", 80, 8080),
        ("admin", 81, 9000),
        ("more", 82, 82),
    }


async def test_strategic_deletes_by_directive(api: Api, service: str) -> None:
    patch = {"spec": {"ports": [{"port": 81, "$patch": "delete"}]}}
    ports = (await api.patch(service, patch, STRATEGIC)).ok()["spec"]["ports"]
    assert [port["port"] for port in ports] == [80]


async def test_strategic_replaces_by_directive(api: Api, service: str) -> None:
    patch = {"spec": {"selector": {"$patch": "replace", "role": "y"}}}
    assert (await api.patch(service, patch, STRATEGIC)).ok()["spec"]["selector"] == {"role": "y"}


async def test_strategic_sets_and_removes_finalizers(api: Api, config_map: str) -> None:
    await api.patch(config_map, {"metadata": {"finalizers": ["example.com/a"]}}, STRATEGIC)
    body = (await api.patch(config_map, {"metadata": {"finalizers": ["example.com/b"]}}, STRATEGIC)).ok()
    assert set(body["metadata"]["finalizers"]) == {"example.com/a", "example.com/b"}
    patch = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["example.com/a", "example.com/b"]}}
    assert "finalizers" not in (await api.patch(config_map, patch, STRATEGIC)).ok()["metadata"]


async def test_strategic_does_not_fit_custom_resources(api: Api, widget: str) -> None:
    (await api.patch(widget, {"spec": {"size": 4}}, STRATEGIC)).refused(415, "UnsupportedMediaType")


async def test_an_unknown_patch_type(api: Api, config_map: str) -> None:
    (await api.patch(config_map, {}, "text/plain")).refused(415, "UnsupportedMediaType")


async def test_a_version_in_a_patch_is_a_precondition(api: Api, config_map: str) -> None:
    version = (await api.get(config_map)).ok()["metadata"]["resourceVersion"]
    patch = {"metadata": {"resourceVersion": version, "labels": {"owner": "me"}}}
    (await api.patch(config_map, patch, MERGE)).ok()
    (await api.patch(config_map, patch | {"data": {"q": "1"}}, MERGE)).refused(409, "Conflict")


async def test_server_fields_cannot_be_patched(api: Api, config_map: str) -> None:
    before = (await api.get(config_map)).ok()["metadata"]
    after = (
        await api.patch(config_map, {"metadata": {"creationTimestamp": "2001-01-01T00:00:00Z", "generation": 9}}, MERGE)
    ).ok()["metadata"]
    assert after["creationTimestamp"] == before["creationTimestamp"]
    (await api.patch(config_map, {"metadata": {"uid": "00000000-0000-0000-0000-000000000000"}}, MERGE)).refused(
        422, "Invalid"
    )
