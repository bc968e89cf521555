"""Create, read, update, delete: what every resource does, and what the server says when it refuses."""

from __future__ import annotations

import re

import pytest
from kappa_fixtures_local import Api, Obj

MAPS = "/api/v1/namespaces/{ns}/configmaps"
WIDGETS = "/apis/suite.kappa.dev/v1/namespaces/{ns}/widgets"


def config_map(name: str, **data: str) -> Obj:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def widget(name: str, **spec: object) -> Obj:
    return {
        "apiVersion": "suite.kappa.dev/v1",
        "kind": "Widget",
        "metadata": {"name": name},
        "spec": {"size": 3, **spec},
    }


async def test_a_new_object_gets_the_servers_metadata(api: Api, name: str) -> None:
    reply = await api.post(MAPS, config_map(name, a="1"))
    assert reply.status == 201
    meta = reply.body["metadata"]
    assert meta["name"] == name
    assert meta["namespace"] == api.ns
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", meta["uid"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", meta["creationTimestamp"])
    assert meta["resourceVersion"].isdecimal()
    assert "generation" not in meta
    assert (await api.get(f"{MAPS}/{name}")).ok() == reply.body


async def test_what_the_client_says_of_server_fields_is_dropped(api: Api, name: str) -> None:
    given = config_map(name)
    given["metadata"] |= {"uid": "mine", "creationTimestamp": "2001-01-01T00:00:00Z", "generation": 7}
    meta = (await api.post(MAPS, given)).ok()["metadata"]
    assert meta["uid"] != "mine"
    assert not meta["creationTimestamp"].startswith("2001")


async def test_generated_names(api: Api) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "gen-"}}
    made = (await api.post(MAPS, body)).ok()
    assert re.fullmatch(r"gen-[a-z0-9]{5}", made["metadata"]["name"])
    assert made["metadata"]["generateName"] == "gen-"


async def test_no_name_at_all(api: Api) -> None:
    message = (await api.post(MAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}})).refused(422, "Invalid")
    assert "metadata.name: Required value: name or generateName is required" in message


async def test_a_name_that_is_not_allowed(api: Api) -> None:
    reply = await api.post(MAPS, config_map("Not_Good"))
    message = reply.refused(422, "Invalid")
    assert message.startswith('ConfigMap "Not_Good" is invalid: metadata.name: Invalid value: "Not_Good":')
    assert reply.body["details"]["kind"] == "ConfigMap"
    assert reply.body["details"]["causes"][0]["reason"] == "FieldValueInvalid"
    assert reply.body["details"]["causes"][0]["field"] == "metadata.name"


async def test_labels_that_are_not_allowed(api: Api, name: str) -> None:
    body = config_map(name)
    body["metadata"]["labels"] = {"app": "no spaces"}
    assert 'metadata.labels: Invalid value: "no spaces"' in (await api.post(MAPS, body)).refused(422, "Invalid")


async def test_creating_twice(api: Api, name: str) -> None:
    await api.post(MAPS, config_map(name))
    reply = await api.post(MAPS, config_map(name))
    assert reply.refused(409, "AlreadyExists") == f'configmaps "{name}" already exists'
    assert reply.body["details"] == {"name": name, "kind": "configmaps"}


async def test_creating_twice_a_custom_resource(api: Api, name: str) -> None:
    (await api.post(WIDGETS, widget(name))).ok()
    reply = await api.post(WIDGETS, widget(name))
    assert reply.refused(409, "AlreadyExists") == f'widgets.suite.kappa.dev "{name}" already exists'
    assert reply.body["details"] == {"name": name, "group": "suite.kappa.dev", "kind": "widgets"}


async def test_what_does_not_exist(api: Api) -> None:
    reply = await api.get(f"{WIDGETS}/none")
    assert reply.refused(404, "NotFound") == 'widgets.suite.kappa.dev "none" not found'
    assert reply.body["details"] == {"name": "none", "group": "suite.kappa.dev", "kind": "widgets"}
    for call in (api.delete(f"{MAPS}/none"), api.patch(f"{MAPS}/none", {})):
        assert (await call).refused(404, "NotFound") == 'configmaps "none" not found'


async def test_a_namespace_that_does_not_exist(api: Api) -> None:
    path = "/api/v1/namespaces/nowhere/configmaps"
    assert (await api.post(path, config_map("x"))).refused(404, "NotFound") == 'namespaces "nowhere" not found'
    assert (await api.get(path)).ok()["items"] == []


async def test_paths_that_do_not_exist(api: Api) -> None:
    (await api.get("/api/v1/namespaces/{ns}/gadgets")).refused(404, "NotFound")
    assert (await api.get("/apis/no.such.group/v1/things")).status == 404
    (await api.post(f"{MAPS}/x", config_map("x"))).refused(405, "MethodNotAllowed")


async def test_a_body_of_another_kind(api: Api, name: str) -> None:
    body = {**config_map(name), "kind": "Secret"}
    (await api.post(MAPS, body)).refused(400, "BadRequest")
    wrong = {**widget(name), "apiVersion": "suite.kappa.dev/v1beta1"}
    message = (await api.post(WIDGETS, wrong)).refused(400, "BadRequest")
    assert "the API version in the data (suite.kappa.dev/v1beta1) does not match the expected API version" in message


async def test_a_body_that_is_not_json(api: Api) -> None:
    (await api.post(MAPS, "{nonsense")).refused(400, "BadRequest")


async def test_a_body_of_another_namespace(api: Api, name: str) -> None:
    body = config_map(name)
    body["metadata"]["namespace"] = "default"
    message = (await api.post(MAPS, body)).refused(400, "BadRequest")
    assert "the namespace of the provided object does not match the namespace sent on the request" in message


async def test_update_replaces_all(api: Api, name: str) -> None:
    made = (await api.post(MAPS, config_map(name, a="1", b="2"))).ok()
    updated = (await api.put(f"{MAPS}/{name}", config_map(name, c="3"))).ok()
    assert updated["data"] == {"c": "3"}
    assert updated["metadata"]["uid"] == made["metadata"]["uid"]
    assert int(updated["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])


async def test_an_update_that_changes_nothing_makes_no_version(api: Api, name: str) -> None:
    made = (await api.post(MAPS, config_map(name, a="1"))).ok()
    again = (await api.put(f"{MAPS}/{name}", made)).ok()
    assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    same = (await api.patch(f"{MAPS}/{name}", {"data": {"a": "1"}})).ok()
    assert same["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_a_stale_version_is_refused(api: Api, name: str) -> None:
    made = (await api.post(WIDGETS, widget(name))).ok()
    made["spec"]["size"] = 4
    (await api.put(f"{WIDGETS}/{name}", made)).ok()
    reply = await api.put(f"{WIDGETS}/{name}", {**made, "spec": {"size": 5}})
    assert reply.refused(409, "Conflict") == (
        f'Operation cannot be fulfilled on widgets.suite.kappa.dev "{name}": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )
    stale = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}, "spec": {"size": 6}}
    (await api.patch(f"{WIDGETS}/{name}", stale)).refused(409, "Conflict")


async def test_another_uid_is_refused(api: Api, name: str) -> None:
    await api.post(MAPS, config_map(name))
    body = config_map(name, a="2")
    body["metadata"]["uid"] = "00000000-0000-0000-0000-000000000000"
    assert "UID in precondition" in (await api.put(f"{MAPS}/{name}", body)).refused(409, "Conflict")


async def test_a_custom_resource_needs_a_version_to_be_replaced(api: Api, name: str) -> None:
    await api.post(WIDGETS, widget(name))
    message = (await api.put(f"{WIDGETS}/{name}", widget(name, size=4))).refused(422, "Invalid")
    assert "metadata.resourceVersion: Invalid value: 0x0: must be specified for an update" in message


async def test_a_version_on_create_is_refused(api: Api, name: str) -> None:
    body = config_map(name)
    body["metadata"]["resourceVersion"] = "5"
    reply = await api.post(MAPS, body)
    assert reply.status == 500
    assert "resourceVersion should not be set on objects to be created" in reply.body["message"]


async def test_the_name_in_the_path_counts(api: Api, name: str) -> None:
    await api.post(MAPS, config_map(name))
    message = (await api.put(f"{MAPS}/{name}", config_map("other"))).refused(400, "BadRequest")
    assert message == f"the name of the object (other) does not match the name on the URL ({name})"


async def test_delete_answers_with_a_status(api: Api, name: str) -> None:
    made = (await api.post(WIDGETS, widget(name))).ok()
    assert (await api.delete(f"{WIDGETS}/{name}")).ok() == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {"name": name, "group": "suite.kappa.dev", "kind": "widgets", "uid": made["metadata"]["uid"]},
    }
    (await api.get(f"{WIDGETS}/{name}")).refused(404, "NotFound")


async def test_dry_run_changes_nothing(api: Api, name: str) -> None:
    body = (await api.post(WIDGETS, widget(name), dryRun="All")).ok()
    assert body["spec"]["color"] == "red"
    (await api.get(f"{WIDGETS}/{name}")).refused(404, "NotFound")
    made = (await api.post(WIDGETS, widget(name))).ok()
    assert (await api.patch(f"{WIDGETS}/{name}", {"spec": {"size": 9}}, dryRun="All")).ok()["spec"]["size"] == 9
    (await api.delete(f"{WIDGETS}/{name}", dryRun="All")).ok()
    assert (await api.get(f"{WIDGETS}/{name}")).ok() == made


async def test_secrets_fold_string_data(api: Api, name: str) -> None:
    path = "/api/v1/namespaces/{ns}/secrets"
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "data": {"a": "MQ=="},
        "stringData": {"b": "2"},
    }
    made = (await api.post(path, body)).ok()
    assert made["data"] == {"a": "MQ==", "b": "Mg=="}
    assert made["type"] == "Opaque"
    assert "stringData" not in made


async def test_an_immutable_config_map_stays(api: Api, name: str) -> None:
    await api.post(MAPS, {**config_map(name, a="1"), "immutable": True})
    message = (await api.patch(f"{MAPS}/{name}", {"data": {"a": "2"}})).refused(422, "Invalid")
    assert "field is immutable when `immutable` is set" in message


async def test_every_namespace_has_its_service_account(api: Api) -> None:
    path = "/api/v1/namespaces/{ns}/serviceaccounts"
    async with api.watch(path, fieldSelector="metadata.name=default") as watch:
        assert (await watch.next())["type"] == "ADDED"


@pytest.mark.parametrize("wrong", [{"data": {"a": 1}}, {"data": "x"}, {"metadata": {"labels": {"a": 1}}}])
async def test_a_field_of_another_type(api: Api, name: str, wrong: Obj) -> None:
    body = {**config_map(name), **{k: v for k, v in wrong.items() if k != "metadata"}}
    body["metadata"] |= wrong.get("metadata", {})
    (await api.post(MAPS, body)).refused(400, "BadRequest")
