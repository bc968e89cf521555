"""Discovery documents, health, reviews."""

from __future__ import annotations

from typing import Any

import pytest
from kappa_fixtures_local import Api


async def resources(api: Api, path: str) -> dict[str, Any]:
    return {entry["name"]: entry for entry in (await api.get(path)).ok()["resources"]}


async def test_health(api: Api) -> None:
    for path in ("/healthz", "/readyz", "/livez"):
        assert (await api.get(path)).body == "ok"


async def test_version(api: Api) -> None:
    body = (await api.get("/version")).ok()
    assert body["major"] == "1"
    assert body["gitVersion"].startswith("v1.")


async def test_the_core_group(api: Api) -> None:
    assert (await api.get("/api")).ok()["versions"] == ["v1"]
    found = await resources(api, "/api/v1")
    assert found["pods"]["namespaced"] is True
    assert found["pods"]["shortNames"] == ["po"]
    assert found["namespaces"]["namespaced"] is False
    assert {
        "pods/status",
        "pods/log",
        "pods/eviction",
        "configmaps",
        "secrets",
        "events",
        "services",
        "nodes",
    } <= found.keys()
    assert {"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"} == set(
        found["configmaps"]["verbs"]
    )


@pytest.mark.parametrize(
    ("group", "plural"),
    [
        ("apps", "deployments"),
        ("coordination.k8s.io", "leases"),
        ("rbac.authorization.k8s.io", "clusterroles"),
        ("networking.k8s.io", "networkpolicies"),
        ("apiextensions.k8s.io", "customresourcedefinitions"),
    ],
)
async def test_groups(api: Api, group: str, plural: str) -> None:
    groups = {entry["name"]: entry for entry in (await api.get("/apis")).ok()["groups"]}
    assert f"{group}/v1" in [version["groupVersion"] for version in groups[group]["versions"]]
    assert plural in await resources(api, f"/apis/{group}/v1")
    assert (await api.get(f"/apis/{group}")).ok()["kind"] == "APIGroup"


async def test_a_custom_group(api: Api) -> None:
    body = (await api.get("/apis/suite.kappa.dev")).ok()
    assert [version["version"] for version in body["versions"]] == ["v1", "v1beta1"]
    assert body["preferredVersion"] == {"groupVersion": "suite.kappa.dev/v1", "version": "v1"}
    found = await resources(api, "/apis/suite.kappa.dev/v1")
    assert found["widgets"] == found["widgets"] | {
        "singularName": "widget",
        "kind": "Widget",
        "namespaced": True,
        "shortNames": ["wd"],
    }
    assert found["widgets/status"]["verbs"] == ["get", "patch", "update"]
    assert found["widgets/scale"]["kind"] == "Scale"
    assert found["widgets/scale"]["group"] == "autoscaling"


async def test_what_may_i_do(api: Api) -> None:
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": "list", "resource": "pods", "namespace": api.ns}},
    }
    reply = await api.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body)
    assert reply.status == 201
    assert reply.body["status"]["allowed"] is True


async def test_leases(api: Api, name: str) -> None:
    path = "/apis/coordination.k8s.io/v1/namespaces/{ns}/leases"
    spec = {"holderIdentity": "me", "leaseDurationSeconds": 15, "renewTime": "2024-01-01T00:00:00.000000Z"}
    made = (
        await api.post(
            path, {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}, "spec": spec}
        )
    ).ok()
    assert made["spec"] == spec
    changed = (await api.put(f"{path}/{name}", {**made, "spec": {**spec, "holderIdentity": "you"}})).ok()
    assert changed["spec"]["holderIdentity"] == "you"
    (await api.put(f"{path}/{name}", made)).refused(409, "Conflict")


async def test_events_of_both_apis_are_the_same(api: Api, name: str) -> None:
    core, other = "/api/v1/namespaces/{ns}/events", "/apis/events.k8s.io/v1/namespaces/{ns}/events"
    about = {"kind": "Pod", "namespace": api.ns, "name": name, "uid": "u", "apiVersion": "v1"}
    body = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name},
        "involvedObject": about,
        "reason": "Tested",
        "message": "all well",
        "type": "Normal",
        "source": {"component": "suite"},
        "firstTimestamp": "2024-01-01T00:00:00Z",
        "lastTimestamp": "2024-01-01T00:00:00Z",
        "count": 1,
    }
    (await api.post(core, body)).ok()
    found = (await api.get(core, fieldSelector=f"involvedObject.name={name},involvedObject.kind=Pod")).ok()
    assert [item["message"] for item in found["items"]] == ["all well"]
    converted = (await api.get(f"{other}/{name}")).ok()
    assert (converted["note"], converted["regarding"]["name"], converted["deprecatedCount"]) == ("all well", name, 1)
