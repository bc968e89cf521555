"""Server-side apply: create or merge, ownership of fields, conflicts."""

from __future__ import annotations

from kappa_fixtures_local import APPLY, Api, Obj

MAPS = "/api/v1/namespaces/{ns}/configmaps"
WIDGETS = "/apis/suite.kappa.dev/v1/namespaces/{ns}/widgets"
SERVICES = "/api/v1/namespaces/{ns}/services"


def config_map(name: str, **data: str) -> Obj:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def widget(name: str, **spec: object) -> Obj:
    return {"apiVersion": "suite.kappa.dev/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec}


async def test_it_creates(api: Api, name: str) -> None:
    reply = await api.patch(f"{WIDGETS}/{name}", widget(name, size=3), APPLY, fieldManager="one")
    assert reply.status == 201
    assert reply.body["spec"] == {"size": 3, "color": "red", "nested": {"deep": "yes"}}
    entry = reply.body["metadata"]["managedFields"][0]
    assert (entry["manager"], entry["operation"], entry["apiVersion"]) == ("one", "Apply", "suite.kappa.dev/v1")
    assert entry["fieldsV1"]["f:spec"]["f:size"] == {}


async def test_it_merges_and_says_200(api: Api, name: str) -> None:
    path = f"{MAPS}/{name}"
    await api.patch(path, config_map(name, a="1"), APPLY, fieldManager="one")
    reply = await api.patch(path, config_map(name, b="2"), APPLY, fieldManager="two")
    assert (reply.status, reply.body["data"]) == (200, {"a": "1", "b": "2"})


async def test_the_same_again_makes_no_version(api: Api, name: str) -> None:
    path = f"{MAPS}/{name}"
    first = (await api.patch(path, config_map(name, a="1"), APPLY, fieldManager="one")).ok()
    again = (await api.patch(path, config_map(name, a="1"), APPLY, fieldManager="one")).ok()
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


async def test_a_field_that_is_no_longer_applied_goes(api: Api, name: str) -> None:
    path = f"{MAPS}/{name}"
    await api.patch(path, config_map(name, a="1", b="2"), APPLY, fieldManager="one")
    body = (await api.patch(path, config_map(name, a="1"), APPLY, fieldManager="one")).ok()
    assert body["data"] == {"a": "1"}


async def test_a_field_that_another_applies_too_stays(api: Api, name: str) -> None:
    path = f"{MAPS}/{name}"
    await api.patch(path, config_map(name, a="1", b="2"), APPLY, fieldManager="one")
    await api.patch(path, config_map(name, b="2"), APPLY, fieldManager="two")
    body = (await api.patch(path, config_map(name, a="1"), APPLY, fieldManager="one")).ok()
    assert body["data"] == {"a": "1", "b": "2"}


async def test_conflicts(api: Api, name: str) -> None:
    path = f"{MAPS}/{name}"
    await api.patch(path, config_map(name, a="1"), APPLY, fieldManager="one")
    reply = await api.patch(path, config_map(name, a="2"), APPLY, fieldManager="two")
    message = reply.refused(409, "Conflict")
    assert message == 'Apply failed with 1 conflict: conflict with "one": .data.a'
    assert reply.body["details"]["causes"] == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "one"', "field": ".data.a"}
    ]
    body = (await api.patch(path, config_map(name, a="2"), APPLY, fieldManager="two", force="true")).ok()
    assert body["data"] == {"a": "2"}
    reply = await api.patch(path, config_map(name, a="3"), APPLY, fieldManager="one")
    assert 'conflict with "two"' in reply.refused(409, "Conflict")


async def test_an_ordinary_write_takes_a_field_over(api: Api, name: str) -> None:
    path = f"{MAPS}/{name}"
    await api.patch(path, config_map(name, a="1"), APPLY, fieldManager="one")
    (await api.patch(path, {"data": {"a": "2"}}, fieldManager="hand")).ok()
    message = (await api.patch(path, config_map(name, a="1"), APPLY, fieldManager="one")).refused(409, "Conflict")
    assert 'conflict with "hand" using v1' in message
    assert ".data.a" in message


async def test_list_items_belong_to_their_managers(api: Api, name: str) -> None:
    path = f"{WIDGETS}/{name}"
    one = widget(name, size=3, parts=[{"name": "a"}, {"name": "b"}])
    two = widget(name, parts=[{"name": "c", "count": 3}])
    await api.patch(path, one, APPLY, fieldManager="one")
    body = (await api.patch(path, two, APPLY, fieldManager="two")).ok()
    assert [part["name"] for part in body["spec"]["parts"]] == ["a", "b", "c"]
    body = (await api.patch(path, widget(name, size=3, parts=[{"name": "b"}]), APPLY, fieldManager="one")).ok()
    assert [(part["name"], part["count"]) for part in body["spec"]["parts"]] == [("b", 1), ("c", 3)]


async def test_lists_without_keys_are_one_value(api: Api, name: str) -> None:
    path = f"{WIDGETS}/{name}"
    await api.patch(path, widget(name, size=3, tags=["a", "b"]), APPLY, fieldManager="one")
    body = (await api.patch(path, widget(name, size=3, tags=["c"]), APPLY, fieldManager="one")).ok()
    assert body["spec"]["tags"] == ["c"]
    (await api.patch(path, widget(name, tags=["d"]), APPLY, fieldManager="two")).refused(409, "Conflict")


async def test_ports_of_a_service(api: Api, name: str) -> None:
    path = f"{SERVICES}/{name}"
    body = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"ports": [{"port": 80, "protocol": "TCP"}], "selector": {"a": "b"}},
    }
    (await api.patch(path, body, APPLY, fieldManager="one")).ok()
    body["spec"]["ports"] = [
        {"port": 80, "protocol": "TCP", "name": "http"},
        {"port": 81, "protocol": "TCP", "name": "more"},
    ]
    ports = (await api.patch(path, body, APPLY, fieldManager="one")).ok()["spec"]["ports"]
    assert [(port["port"], port.get("name")) for port in ports] == [(80, "http"), (81, "more")]


async def test_yaml_bodies(api: Api, name: str) -> None:
    text = f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata:\n  a: '1'\n"
    assert (await api.patch(f"{MAPS}/{name}", text, APPLY, fieldManager="one")).ok()["data"] == {"a": "1"}


async def test_what_is_refused(api: Api, name: str) -> None:
    path = f"{MAPS}/{name}"
    (await api.patch(path, config_map("other"), APPLY, fieldManager="one")).refused(400, "BadRequest")
    (await api.patch(path, config_map(name), APPLY)).refused(422, "Invalid")
    managed = config_map(name)
    managed["metadata"]["managedFields"] = [
        {"manager": "x", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {}}
    ]
    (await api.patch(path, managed, APPLY, fieldManager="one")).refused(400, "BadRequest")


async def test_apply_to_the_status(api: Api, name: str) -> None:
    (await api.post(WIDGETS, widget(name, size=3))).ok()
    body = {**widget(name), "status": {"phase": "Up"}}
    del body["spec"]
    reply = await api.patch(f"{WIDGETS}/{name}/status", body, APPLY, fieldManager="one", force="true")
    assert reply.ok()["status"] == {"phase": "Up"}
