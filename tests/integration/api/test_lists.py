"""Lists: shape, selectors, paging, tables."""

from __future__ import annotations

import pytest
from kappa_fixtures_local import TABLE, Api, Obj

MAPS = "/api/v1/namespaces/{ns}/configmaps"
WIDGETS = "/apis/suite.kappa.dev/v1/namespaces/{ns}/widgets"


def widget(name: str, **labels: str) -> Obj:
    meta = {"name": name, "labels": labels}
    return {"apiVersion": "suite.kappa.dev/v1", "kind": "Widget", "metadata": meta, "spec": {"size": 3}}


@pytest.fixture
async def three(api: Api, name: str) -> dict[str, str]:
    """Three widgets with labels tier=a|b|none and a common label of the test's own."""
    names = {tier: f"{name}-{tier}" for tier in ("a", "b", "c")}
    for tier, full in names.items():
        labels = {"test": name} | ({"tier": tier} if tier != "c" else {})
        (await api.post(WIDGETS, widget(full, **labels))).ok()
    return names


async def test_the_shape_of_a_list(api: Api, three: dict[str, str], name: str) -> None:
    body = (await api.get(WIDGETS, labelSelector=f"test={name}")).ok()
    assert (body["kind"], body["apiVersion"]) == ("WidgetList", "suite.kappa.dev/v1")
    assert body["metadata"]["resourceVersion"].isdecimal()
    assert [item["metadata"]["name"] for item in body["items"]] == sorted(three.values())
    assert {item["kind"] for item in body["items"]} == {"Widget"}


async def test_items_of_built_in_lists_have_no_kind(api: Api, name: str) -> None:
    await api.post(MAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
    body = (await api.get(MAPS, fieldSelector=f"metadata.name={name}")).ok()
    assert (body["kind"], body["apiVersion"]) == ("ConfigMapList", "v1")
    assert "kind" not in body["items"][0]


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("tier=a", "a"),
        ("tier==a", "a"),
        ("tier!=a", "bc"),
        ("tier in (a,b)", "ab"),
        ("tier notin (a)", "bc"),
        ("tier", "ab"),
        ("!tier", "c"),
        ("tier,tier!=b", "a"),
        ("tier=none", ""),
    ],
)
async def test_label_selectors(api: Api, three: dict[str, str], name: str, selector: str, found: str) -> None:
    body = (await api.get(WIDGETS, labelSelector=f"test={name},{selector}")).ok()
    assert [item["metadata"]["name"] for item in body["items"]] == [three[tier] for tier in found]


async def test_a_selector_that_cannot_be_read(api: Api) -> None:
    (await api.get(WIDGETS, labelSelector="a in b")).refused(400, "BadRequest")
    (await api.get(WIDGETS, fieldSelector="spec.size=3")).refused(400, "BadRequest")


async def test_field_selectors(api: Api, three: dict[str, str]) -> None:
    body = (await api.get(WIDGETS, fieldSelector=f"metadata.name={three['b']}")).ok()
    assert [item["metadata"]["name"] for item in body["items"]] == [three["b"]]
    everywhere = "/apis/suite.kappa.dev/v1/widgets"
    body = (await api.get(everywhere, fieldSelector=f"metadata.namespace={api.ns},metadata.name!={three['b']}")).ok()
    names = [item["metadata"]["name"] for item in body["items"]]
    assert three["a"] in names
    assert three["b"] not in names


async def test_paging(api: Api, three: dict[str, str], name: str) -> None:
    first = (await api.get(WIDGETS, labelSelector=f"test={name}", limit=2)).ok()
    assert len(first["items"]) == 2
    second = (
        await api.get(WIDGETS, labelSelector=f"test={name}", limit=2, **{"continue": first["metadata"]["continue"]})
    ).ok()
    assert not second["metadata"].get("continue")
    names = [item["metadata"]["name"] for item in first["items"] + second["items"]]
    assert names == sorted(three.values())


async def test_a_page_token_that_is_nonsense(api: Api) -> None:
    (await api.get(WIDGETS, limit=1, **{"continue": "nonsense"})).refused(400, "BadRequest")


async def test_versions_served_side_by_side(api: Api, three: dict[str, str]) -> None:
    path = WIDGETS.replace("/v1/", "/v1beta1/")
    assert (await api.get(f"{path}/{three['a']}")).ok()["apiVersion"] == "suite.kappa.dev/v1beta1"
    assert {item["apiVersion"] for item in (await api.get(path)).ok()["items"]} == {"suite.kappa.dev/v1beta1"}


async def test_a_table(api: Api, three: dict[str, str], name: str) -> None:
    body = (await api.get(WIDGETS, accept=TABLE, labelSelector=f"test={name}")).ok()
    assert (body["kind"], body["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    columns = [(c["name"], c["type"], c["priority"]) for c in body["columnDefinitions"]]
    assert columns == [
        ("Name", "string", 0),
        ("Size", "integer", 0),
        ("Phase", "string", 0),
        ("Deep", "string", 1),
        ("Age", "date", 0),
    ]
    assert [row["cells"][:4] for row in body["rows"]] == [[full, 3, None, "yes"] for full in sorted(three.values())]
    assert body["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    assert body["rows"][0]["object"]["metadata"]["name"] == three["a"]


async def test_metadata_only(api: Api, three: dict[str, str], name: str) -> None:
    accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    body = (await api.get(WIDGETS, accept=accept, labelSelector=f"test={name}")).ok()
    assert body["kind"] == "PartialObjectMetadataList"
    assert "spec" not in body["items"][0]
    assert body["items"][0]["metadata"]["name"] == three["a"]


async def test_a_version_from_the_future(api: Api) -> None:
    current = int((await api.get(MAPS)).ok()["metadata"]["resourceVersion"])
    message = (await api.get(MAPS, resourceVersion=current + 1_000_000)).refused(504, "Timeout")
    assert "Too large resource version" in message
