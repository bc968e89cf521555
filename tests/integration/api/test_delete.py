"""Deletion: finalizers, preconditions, collections, owners, namespaces."""

from __future__ import annotations

import json

import pytest
from kappa_fixtures_local import Api, Obj

MAPS = "/api/v1/namespaces/{ns}/configmaps"
WIDGETS = "/apis/suite.kappa.dev/v1/namespaces/{ns}/widgets"


def config_map(name: str, **meta: object) -> Obj:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **meta}}


def widget(name: str, **meta: object) -> Obj:
    return {
        "apiVersion": "suite.kappa.dev/v1",
        "kind": "Widget",
        "metadata": {"name": name, **meta},
        "spec": {"size": 3},
    }


def owned_by(owner: Obj, *, block: bool = False) -> list[Obj]:
    ref = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
    }
    return [{**ref, "blockOwnerDeletion": True} if block else ref]


async def test_a_finalizer_holds_the_object(api: Api, name: str) -> None:
    path = f"{WIDGETS}/{name}"
    made = (await api.post(WIDGETS, widget(name, finalizers=["example.com/hold"]))).ok()
    body = (await api.delete(path)).ok()
    assert body["kind"] == "Widget"
    assert body["metadata"]["deletionTimestamp"]
    assert body["metadata"]["deletionGracePeriodSeconds"] == 0
    assert body["metadata"]["generation"] == made["metadata"]["generation"] + 1
    again = (await api.delete(path)).ok()
    assert again["metadata"]["deletionTimestamp"] == body["metadata"]["deletionTimestamp"]
    message = (await api.patch(path, {"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}})).refused(
        422, "Invalid"
    )
    assert "no new finalizers can be added if the object is being deleted" in message
    (await api.patch(path, {"metadata": {"finalizers": None}})).ok()
    (await api.get(path)).refused(404, "NotFound")


async def test_the_last_finalizer_makes_a_deleted_event(api: Api, name: str) -> None:
    path = f"{MAPS}/{name}"
    made = (await api.post(MAPS, config_map(name, finalizers=["example.com/hold"]))).ok()
    version = made["metadata"]["resourceVersion"]
    async with api.watch(MAPS, resourceVersion=version, fieldSelector=f"metadata.name={name}") as watch:
        await api.delete(path)
        await api.patch(path, {"metadata": {"finalizers": []}})
        types = [(await watch.next())["type"], (await watch.next())["type"]]
    assert types == ["MODIFIED", "DELETED"]


@pytest.mark.parametrize("which", ["uid", "resourceVersion"])
async def test_preconditions(api: Api, name: str, which: str) -> None:
    path = f"{MAPS}/{name}"
    made = (await api.post(MAPS, config_map(name))).ok()
    wrong = {"uid": "00000000-0000-0000-0000-000000000000", "resourceVersion": "1"}[which]
    options = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {which: wrong}}
    message = (await api.delete(path, options)).refused(409, "Conflict")
    assert f'Operation cannot be fulfilled on ConfigMap "{name}": the ' in message
    (await api.delete(path, {**options, "preconditions": {which: made["metadata"][which]}})).ok()


async def test_a_collection(api: Api, name: str) -> None:
    for suffix in "abc":
        await api.post(
            MAPS, config_map(f"{name}-{suffix}", labels={"test": name, "keep": "yes" if suffix == "c" else "no"})
        )
    (await api.delete(MAPS, labelSelector=f"test={name},keep=no")).ok()
    left = (await api.get(MAPS, labelSelector=f"test={name}")).ok()["items"]
    assert [item["metadata"]["name"] for item in left] == [f"{name}-c"]


async def test_dependents_go_with_their_owner(api: Api, name: str) -> None:
    owner = (await api.post(WIDGETS, widget(name))).ok()
    (await api.post(MAPS, config_map(name, ownerReferences=owned_by(owner)))).ok()
    (await api.delete(f"{WIDGETS}/{name}")).ok()
    await api.until_gone(f"{MAPS}/{name}")


async def test_orphans_stay(api: Api, name: str) -> None:
    owner = (await api.post(WIDGETS, widget(name))).ok()
    (await api.post(MAPS, config_map(name, ownerReferences=owned_by(owner)))).ok()
    (await api.delete(f"{WIDGETS}/{name}", propagationPolicy="Orphan")).ok()
    await api.until_gone(f"{WIDGETS}/{name}")
    assert "ownerReferences" not in (await api.get(f"{MAPS}/{name}")).ok()["metadata"]


async def test_foreground_waits_for_dependents(api: Api, name: str) -> None:
    owner = (await api.post(WIDGETS, widget(name))).ok()
    body = config_map(name, ownerReferences=owned_by(owner, block=True), finalizers=["example.com/hold"])
    held = (await api.post(MAPS, body)).ok()
    deleted = (await api.delete(f"{WIDGETS}/{name}", {"propagationPolicy": "Foreground"})).ok()
    assert deleted["metadata"]["finalizers"] == ["foregroundDeletion"]
    version = held["metadata"]["resourceVersion"]
    async with api.watch(MAPS, resourceVersion=version, fieldSelector=f"metadata.name={name}") as watch:
        event = await watch.until(lambda event: event["object"]["metadata"].get("deletionTimestamp"))
    assert event["type"] == "MODIFIED"
    (await api.get(f"{WIDGETS}/{name}")).ok()
    (await api.patch(f"{MAPS}/{name}", {"metadata": {"finalizers": None}})).ok()
    await api.until_gone(f"{WIDGETS}/{name}")
    (await api.get(f"{MAPS}/{name}")).refused(404, "NotFound")


async def test_two_owners(api: Api, name: str) -> None:
    first = (await api.post(WIDGETS, widget(f"{name}-1"))).ok()
    second = (await api.post(WIDGETS, widget(f"{name}-2"))).ok()
    made = (await api.post(MAPS, config_map(name, ownerReferences=owned_by(first) + owned_by(second)))).ok()
    version = made["metadata"]["resourceVersion"]
    async with api.watch(MAPS, resourceVersion=version, fieldSelector=f"metadata.name={name}") as watch:
        await api.delete(f"{WIDGETS}/{name}-1")
        event = await watch.next()
        assert event["type"] == "MODIFIED"
        assert [ref["name"] for ref in event["object"]["metadata"]["ownerReferences"]] == [f"{name}-2"]
        await api.delete(f"{WIDGETS}/{name}-2")
        assert (await watch.next())["type"] == "DELETED"


async def test_an_owner_that_never_was(api: Api, name: str) -> None:
    ghost = {"apiVersion": "v1", "kind": "ConfigMap", "name": "ghost", "uid": "00000000-0000-0000-0000-000000000000"}
    (await api.post(MAPS, config_map(name, ownerReferences=[ghost]))).ok()
    await api.until_gone(f"{MAPS}/{name}")


async def test_an_owner_reference_without_a_uid(api: Api, name: str) -> None:
    ref = {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": ""}
    message = (await api.post(MAPS, config_map(name, ownerReferences=[ref]))).refused(422, "Invalid")
    assert "metadata.ownerReferences.uid: Invalid value" in message


async def test_a_namespace_takes_its_content_along(api: Api, name: str) -> None:
    space = f"suite-{name}"
    api.kubectl(
        "create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space}})
    )
    maps = f"/api/v1/namespaces/{space}/configmaps"
    (await api.post(maps, config_map("held", finalizers=["example.com/hold"]))).ok()
    body = (await api.delete(f"/api/v1/namespaces/{space}")).ok()
    assert body["status"]["phase"] == "Terminating"
    reply = await api.post(maps, config_map("late"))
    assert "because it is being terminated" in reply.refused(403, "Forbidden")
    assert reply.body["details"]["causes"][0]["reason"] == "NamespaceTerminating"
    async with api.watch(maps) as watch:
        await watch.until(lambda event: event["object"]["metadata"].get("deletionTimestamp"))
    (await api.patch(f"{maps}/held", {"metadata": {"finalizers": None}})).ok()
    await api.until_gone(f"/api/v1/namespaces/{space}")
    (await api.get(f"{maps}/held")).refused(404, "NotFound")
