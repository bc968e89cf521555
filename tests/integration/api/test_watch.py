"""Watches: order, versions, selections that objects enter and leave, the end."""

from __future__ import annotations

import asyncio

from kappa_fixtures_local import MERGE, TABLE, Api, Obj

MAPS = "/api/v1/namespaces/{ns}/configmaps"
WIDGETS = "/apis/suite.kappa.dev/v1/namespaces/{ns}/widgets"


def config_map(name: str, **labels: str) -> Obj:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}}


async def current(api: Api, path: str = MAPS) -> str:
    return str((await api.get(path)).ok()["metadata"]["resourceVersion"])


async def test_changes_after_a_version(api: Api, name: str) -> None:
    version = await current(api)
    made = (await api.post(MAPS, config_map(name))).ok()
    async with api.watch(MAPS, resourceVersion=version, fieldSelector=f"metadata.name={name}") as watch:
        changed = (await api.patch(f"{MAPS}/{name}", {"data": {"a": "1"}})).ok()
        await api.delete(f"{MAPS}/{name}")
        events = [await watch.next() for _ in range(3)]
    assert [event["type"] for event in events] == ["ADDED", "MODIFIED", "DELETED"]
    assert events[0]["object"] == made
    assert events[1]["object"] == changed
    assert events[2]["object"]["data"] == {"a": "1"}
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert versions == sorted(set(versions))


async def test_without_a_version_what_exists_comes_first(api: Api, name: str) -> None:
    await api.post(MAPS, config_map(name))
    async with api.watch(MAPS, fieldSelector=f"metadata.name={name}") as watch:
        event = await watch.next()
    assert event["type"] == "ADDED"
    assert event["object"]["kind"] == "ConfigMap"
    assert event["object"]["apiVersion"] == "v1"


async def test_objects_enter_and_leave_a_selection(api: Api, name: str) -> None:
    version = await current(api, WIDGETS)
    body = {
        "apiVersion": "suite.kappa.dev/v1",
        "kind": "Widget",
        "metadata": {"name": name, "labels": {"on": "no"}},
        "spec": {"size": 1},
    }
    (await api.post(WIDGETS, body)).ok()
    async with api.watch(WIDGETS, resourceVersion=version, labelSelector="on=yes") as watch:
        for step in (
            {"metadata": {"labels": {"on": "yes"}}},
            {"spec": {"size": 2}},
            {"metadata": {"labels": {"on": "no"}}},
        ):
            left = (await api.patch(f"{WIDGETS}/{name}", step)).ok()
        await api.delete(f"{WIDGETS}/{name}")
        events = [await watch.next() for _ in range(3)]
    assert [event["type"] for event in events] == ["ADDED", "MODIFIED", "DELETED"]
    assert events[2]["object"]["metadata"]["resourceVersion"] == left["metadata"]["resourceVersion"]
    assert events[2]["object"]["metadata"]["labels"] == {"on": "yes"}


async def test_one_namespace_does_not_see_another(api: Api, name: str) -> None:
    version = await current(api)
    async with api.watch(MAPS, resourceVersion=version) as watch:
        await api.post("/api/v1/namespaces/default/configmaps", config_map(name))
        await api.post(MAPS, config_map(name))
        event = await watch.next()
    await api.delete(f"/api/v1/namespaces/default/configmaps/{name}")
    assert event["object"]["metadata"]["namespace"] == api.ns


async def test_a_watch_of_one_object_by_its_path(api: Api, name: str) -> None:
    await api.post(MAPS, config_map(name))
    async with api.watch(MAPS, fieldSelector=f"metadata.name={name}") as watch:
        await watch.next()
        await api.post(MAPS, config_map(f"{name}-other"))
        await api.delete(f"{MAPS}/{name}")
        assert (await watch.next())["type"] == "DELETED"


async def test_the_timeout_ends_it(api: Api) -> None:
    async with api.watch(MAPS, resourceVersion=await current(api), timeoutSeconds=1) as watch:
        assert [event for event in await watch.rest() if event["type"] != "BOOKMARK"] == []


async def test_a_version_that_is_too_old(api: Api) -> None:
    # Of a kind that did not exist at version 1: a young server may still have the whole history of a built-in one.
    async with api.watch(WIDGETS, resourceVersion="1") as watch:
        if watch.response.status == 410:
            return
        event = await watch.next()
    assert event["type"] == "ERROR"
    assert event["object"]["code"] == 410
    assert event["object"]["reason"] in ("Expired", "Gone")


async def test_tables(api: Api, name: str) -> None:
    version = await current(api)
    await api.post(MAPS, config_map(name))
    url = api.server + MAPS.replace("{ns}", api.ns)
    query = {"watch": "1", "resourceVersion": version, "timeoutSeconds": "5"}
    async with api.session.get(url, params=query, headers={"Accept": TABLE}, ssl=api.tls) as response:
        line = await response.content.readline()
    assert b'"kind":"Table"' in line
    assert f'"{name}"'.encode() in line


async def test_many_watchers_see_the_same(api: Api, name: str) -> None:
    version = await current(api)

    async def first() -> Obj:
        async with api.watch(MAPS, resourceVersion=version, fieldSelector=f"metadata.name={name}") as watch:
            return await watch.next()

    watchers = [asyncio.create_task(first()) for _ in range(20)]
    made = (await api.call("POST", MAPS, config_map(name))).ok()
    assert [event["object"] for event in await asyncio.gather(*watchers)] == [made] * 20


async def test_a_status_write_is_a_change(api: Api, name: str) -> None:
    body = {"apiVersion": "suite.kappa.dev/v1", "kind": "Widget", "metadata": {"name": name}, "spec": {"size": 1}}
    made = (await api.post(WIDGETS, body)).ok()
    version = made["metadata"]["resourceVersion"]
    async with api.watch(WIDGETS, resourceVersion=version, fieldSelector=f"metadata.name={name}") as watch:
        await api.patch(f"{WIDGETS}/{name}/status", {"status": {"phase": "Up"}}, MERGE)
        event = await watch.next()
    assert (event["type"], event["object"]["status"]) == ("MODIFIED", {"phase": "Up"})
