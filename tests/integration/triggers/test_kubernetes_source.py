"""The source `kubernetes` on the embedded API: changes, selectors, resume, a version that is too old, refusals."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from kappa_fixtures_local import Api, Backend, connect, embedded
from kappa_trigger_world import TriggerGateway, TriggerWorld, trigger
from kubernetes.aio import client as kubernetes_client
from kubernetes.aio import config as kubernetes_config

from kappa_gateway.kube import ApiError, Kube

MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    with embedded(tmp_path_factory.mktemp("api")) as found:
        yield found


@pytest.fixture
async def api(backend: Backend) -> AsyncIterator[Api]:
    async with connect(backend, "default") as found:
        for item in (await found.get(MAPS)).ok()["items"]:
            await found.delete(f"{MAPS}/{item['metadata']['name']}")
        yield found


@pytest.fixture
async def kube(backend: Backend) -> AsyncIterator[Kube]:
    configuration = kubernetes_client.Configuration()
    await kubernetes_config.load_kube_config(str(backend.kubeconfig), client_configuration=configuration)
    found = Kube(kubernetes_client.ApiClient(configuration))
    yield found
    await found.close()


async def started(world: TriggerWorld, kube: Any, name: str = "g1", **spec: Any) -> TriggerGateway:
    gateway = await world.gateway(name)
    gateway.host.kube = kube
    source = {"kubernetes": {"apiVersion": "v1", "kind": "ConfigMap", **spec}}
    gateway.host.triggers.put(trigger("t", source))
    return gateway


def config_map(name: str, value: str, **labels: str) -> dict[str, Any]:
    meta = {"name": name, "namespace": "default", "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"value": value}}


def told(events: list[Any]) -> list[tuple[str, str, str]]:
    return [(e.type.rpartition(".")[2], e.subject, e.data["object"].get("data", {}).get("value", "")) for e in events]


async def test_changes_are_told(world: TriggerWorld, api: Api, kube: Kube) -> None:
    (await api.post(MAPS, config_map("old", "0", app="shop"))).ok()
    gateway = await started(world, kube, labelSelector="app=shop")
    await gateway.until("t", connected=True)
    (await api.post(MAPS, config_map("a", "1", app="shop"))).ok()
    (await api.post(MAPS, config_map("b", "1", app="other"))).ok()
    (await api.patch(f"{MAPS}/a", {"data": {"value": "2"}})).ok()
    await api.delete(f"{MAPS}/a")
    assert told(await world.events(3)) == [("added", "a", "1"), ("modified", "a", "2"), ("deleted", "a", "2")]


async def test_what_is_there_comes_first_with_start_all(world: TriggerWorld, api: Api, kube: Kube) -> None:
    (await api.post(MAPS, config_map("old", "0"))).ok()
    gateway = await started(world, kube, start="all", fieldSelector="metadata.name=old")
    await gateway.until("t", received=1)
    assert told(await world.events(1)) == [("added", "old", "0")]


async def test_it_goes_on_after_a_restart(world: TriggerWorld, api: Api, kube: Kube) -> None:
    first = await started(world, kube, events=["ADDED", "DELETED"])
    await first.until("t", connected=True)
    (await api.post(MAPS, config_map("a", "1"))).ok()
    await first.until("t", received=1)
    await first.stop()
    (await api.post(MAPS, config_map("b", "1"))).ok()
    (await api.patch(f"{MAPS}/b", {"data": {"value": "2"}})).ok()
    await api.delete(f"{MAPS}/a")
    await started(world, kube, "g2", events=["ADDED", "DELETED"])
    assert told(await world.events(3)) == [("added", "a", "1"), ("added", "b", "1"), ("deleted", "a", "1")]


class Forgetful:
    """An API server that has forgotten every version it is asked to watch from, once."""

    def __init__(self, kube: Kube) -> None:
        self._kube, self.forgets = kube, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kube, name)

    async def watch(self, path: str, query: Any, seconds: int) -> AsyncIterator[tuple[str, Any]]:
        if self.forgets:
            self.forgets = False
            raise ApiError(410, "too old")
        async for change in self._kube.watch(path, query, seconds):
            yield change


async def test_after_a_gap_the_difference_is_told(world: TriggerWorld, api: Api, kube: Kube) -> None:
    flaky = Forgetful(kube)
    first = await started(world, flaky)
    await first.until("t", connected=True)
    for name in ("a", "b"):
        (await api.post(MAPS, config_map(name, "1"))).ok()
    await first.until("t", received=2)
    await first.stop()
    (await api.patch(f"{MAPS}/a", {"data": {"value": "2"}})).ok()
    await api.delete(f"{MAPS}/b")
    (await api.post(MAPS, config_map("c", "1"))).ok()
    flaky.forgets = True
    await started(world, flaky, "g2")
    found = told((await world.events(5))[2:])
    assert sorted(found) == [("added", "c", "1"), ("deleted", "b", ""), ("modified", "a", "2")]


async def test_a_gap_while_it_runs(world: TriggerWorld, api: Api, kube: Kube) -> None:
    (await api.post(MAPS, config_map("a", "1"))).ok()
    (await api.post(MAPS, config_map("b", "1"))).ok()
    gate = Gap(kube)
    gateway = await started(world, gate)
    await gateway.until("t", connected=True)
    gate.closed.set()
    await gate.waiting.wait()
    (await api.patch(f"{MAPS}/a", {"data": {"value": "2"}})).ok()
    await api.delete(f"{MAPS}/b")
    (await api.post(MAPS, config_map("c", "1"))).ok()
    gate.opened.set()
    assert sorted(told(await world.events(3))) == [("added", "c", "1"), ("deleted", "b", ""), ("modified", "a", "2")]


class Gap(Forgetful):
    """A watch that ends when it is told to, and is too old when it may go on."""

    def __init__(self, kube: Kube) -> None:
        super().__init__(kube)
        self.closed, self.waiting, self.opened = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def watch(self, path: str, query: Any, seconds: int) -> AsyncIterator[tuple[str, Any]]:
        if self.opened.is_set():
            async for change in self._kube.watch(path, query, seconds):
                yield change
        await self.closed.wait()
        self.waiting.set()
        await self.opened.wait()
        raise ApiError(410, "too old")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "Secret"}, "secrets are not for Triggers"),
        ({"kind": "Pod"}, "pods are not for Triggers"),
        ({"kind": "Namespace"}, "is not in namespaces"),
        ({"kind": "Nothing"}, "has no kind Nothing"),
        ({"apiVersion": "nobody.example/v1"}, "has no apiVersion nobody.example/v1"),
    ],
)
async def test_what_cannot_be_watched_is_said(world: TriggerWorld, kube: Kube, spec: Any, message: str) -> None:
    gateway = await started(world, kube, **spec)
    async with asyncio.timeout(20):
        while message not in gateway.row("t")["message"]:
            await asyncio.sleep(0.01)


class Refusing(Forgetful):
    def pages(self, path: str, query: Any) -> Any:
        raise ApiError(403, "forbidden")


async def test_a_refusal_names_the_remedy(world: TriggerWorld, kube: Kube) -> None:
    gateway = await started(world, Refusing(kube))
    async with asyncio.timeout(20):
        while "gateway.events.kubernetes.rules" not in gateway.row("t")["message"]:
            await asyncio.sleep(0.01)
