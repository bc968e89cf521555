"""What a source leaves in its database goes with the Trigger, also when that goes while no gateway runs.

A real PostgreSQL, Redis and NATS; Triggers and Secrets in the embedded API, which the gateways watch.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio
import yaml
from kappa_fixtures_local import Api, Backend, connect, embedded
from kappa_nats import NatsServer
from kappa_postgres import PostgresServer
from kappa_redis import RedisServer
from kappa_trigger_world import TriggerGateway, TriggerWorld, trigger_world
from kubernetes.aio import client as kubernetes_client
from kubernetes.aio import config as kubernetes_config

from kappa_gateway.catalog import Catalog
from kappa_gateway.events import clearing
from kappa_gateway.events.sources import postgres_setup
from kappa_gateway.kube import Kube
from kappa_gateway.watch import Watcher

pytestmark = pytest.mark.asyncio(loop_scope="module")
CRDS = Path(__file__).resolve().parents[3] / "charts" / "kappa" / "crds"
TRIGGERS = "/apis/kappa.dev/v1/namespaces/default/triggers"
SECRETS = "/api/v1/namespaces/default/secrets"
SECONDS = 60.0
SLOTS = "SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE 'kappa_%' ORDER BY 1"
PUBLICATIONS = "SELECT pubname FROM pg_publication WHERE pubname LIKE 'kappa_%'"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    with embedded(tmp_path_factory.mktemp("api")) as found:
        yield found


class Cluster:
    """The API with Kappa's resources, NATS, and gateways that watch."""

    def __init__(self, api: Api, kube: Kube, world: TriggerWorld) -> None:
        self.api, self.kube, self.world = api, kube, world
        self._watches: dict[str, asyncio.Task[None]] = {}

    async def gateway(self, name: str = "g1") -> TriggerGateway:
        gateway = await self.world.gateway(name)
        gateway.host.kube = self.kube
        loop = asyncio.get_running_loop()
        catalog = Catalog(loop.time, routes_stale=lambda: None, instance_gone=lambda key: None)
        watcher = Watcher(self.kube, catalog, *gateway.host.collections())
        self._watches[name] = loop.create_task(watcher.run())
        await asyncio.wait_for(watcher.wait_synced(), SECONDS)
        return gateway

    async def end(self, gateway: TriggerGateway) -> None:
        """In order. From here on nobody looks."""
        await self.deafen(gateway)
        await gateway.stop()
        self.world.gateways.remove(gateway)

    async def deafen(self, gateway: TriggerGateway) -> None:
        """Its watch brings nothing any more."""
        task = self._watches.pop(gateway.name)
        task.cancel()
        await asyncio.wait([task])

    async def make(self, name: str, source: dict[str, Any]) -> str:
        """A Trigger. Returns its uid."""
        meta = {"name": name, "namespace": "default"}
        body = {"apiVersion": "kappa.dev/v1", "kind": "Trigger", "metadata": meta}
        made = (await self.api.post(TRIGGERS, {**body, "spec": {"function": "f", "source": source}})).ok()
        return str(made["metadata"]["uid"])

    async def remove(self, name: str) -> None:
        (await self.api.delete(f"{TRIGGERS}/{name}")).ok()

    async def change(self, name: str, source: dict[str, Any]) -> None:
        (await self.api.patch(f"{TRIGGERS}/{name}", {"spec": {"source": source}})).ok()

    async def secret(self, name: str, url: str) -> None:
        body = {"metadata": {"name": name, "namespace": "default"}, "type": "kappa.dev/source"}
        (await self.api.post(SECRETS, {**body, "apiVersion": "v1", "kind": "Secret", "stringData": {"url": url}})).ok()

    async def close(self) -> None:
        for task in self._watches.values():
            task.cancel()
        await asyncio.gather(*self._watches.values(), return_exceptions=True)
        for path in (TRIGGERS, SECRETS):
            for item in (await self.api.get(path)).ok()["items"]:
                await self.api.delete(f"{path}/{item['metadata']['name']}")


@pytest_asyncio.fixture(loop_scope="module")
async def cluster(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: PostgresServer
) -> AsyncIterator[Cluster]:
    monkeypatch.setattr(clearing, "FIRST_SECONDS", 0.1)
    monkeypatch.setattr(clearing, "LOOK_SECONDS", 0.1)
    configuration = kubernetes_client.Configuration()
    await kubernetes_config.load_kube_config(str(backend.kubeconfig), client_configuration=configuration)
    kube = Kube(kubernetes_client.ApiClient(configuration))
    async with (
        closing(kube),
        connect(backend, "default") as api,
        trigger_world(NatsServer(tmp_path / "nats")) as world,
    ):
        for file in sorted(CRDS.glob("*.yaml")):
            await api.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", yaml.safe_load(file.read_text()))
        await until(lambda: there(api))
        made = Cluster(api, kube, world)
        try:
            await database.execute("CREATE TABLE IF NOT EXISTS orders (id int PRIMARY KEY)")
            await made.secret("shop", database.url())
            yield made
        finally:
            await made.close()
            await asyncio.gather(*(gateway.stop() for gateway in world.gateways))
            for slot in await slots(database):
                await database.execute(f"SELECT pg_drop_replication_slot('{slot}')")
            for (publication,) in await database.execute(PUBLICATIONS):
                await database.execute(f"DROP PUBLICATION {publication}")


@contextlib.asynccontextmanager
async def closing(kube: Kube) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await kube.close()


async def there(api: Api) -> bool:
    return (await api.get(TRIGGERS)).status == 200


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(SECONDS):
        while not await holds():
            await asyncio.sleep(0.02)


def rows(secret: str = "shop") -> dict[str, Any]:
    return {"postgres": {"secretRef": {"name": secret}, "tables": ["orders"]}}


async def slots(database: PostgresServer) -> list[str]:
    return [slot for (slot,) in await database.execute(SLOTS)]


async def test_a_slot_goes_with_a_trigger_that_went_unseen(cluster: Cluster, database: PostgresServer) -> None:
    """And the one of the Trigger that was made anew under the name stays, with all that it has not read yet."""
    await cluster.make("t", rows())
    gateway = await cluster.gateway()
    await gateway.until("t", connected=True)
    (old,) = await slots(database)
    await cluster.end(gateway)
    await cluster.remove("t")
    await cluster.make("t", rows())
    first, second = await cluster.gateway("g2"), await cluster.gateway("g3")

    async def done() -> bool:
        return len(await slots(database)) == 1 and old not in await slots(database)

    await until(done)
    while not (first.row("t")["connected"] or second.row("t")["connected"]):
        await asyncio.sleep(0.02)
    await database.execute("INSERT INTO orders VALUES (1)")
    await cluster.world.events(1)
    (new,) = await slots(database)
    assert new != old
    assert [name for (name,) in await database.execute(PUBLICATIONS)] == [new]
    state = await cluster.world.js.stream_info("KV_kappa-state", subjects_filter=">")
    assert len({subject.split(".")[2] for subject in state.state.subjects}) == 1


async def test_a_consumer_and_a_group_go_too(cluster: Cluster, store: RedisServer) -> None:
    await cluster.secret("redis", store.url)
    await cluster.world.js.add_stream(name="default_orders", subjects=["default.orders.>"])
    await cluster.make("r", {"redis": {"secretRef": {"name": "redis"}, "stream": "left"}})
    await cluster.make("s", {"stream": {"stream": "default_orders"}})
    await cluster.make("stays", {"stream": {"stream": "default_orders"}})
    gateway = await cluster.gateway()
    for name in ("r", "s", "stays"):
        await gateway.until(name, connected=True)
    await cluster.end(gateway)
    for name in ("r", "s"):
        await cluster.remove(name)
    await cluster.gateway("g2")

    async def done() -> bool:
        consumers = await cluster.world.js.consumers_info("default_orders")
        async with store.client() as client:
            return len(consumers) == 1 and not await client.xinfo_groups("left")

    await until(done)
    (consumer,) = await cluster.world.js.consumers_info("default_orders")
    assert consumer.config.description == "Kappa: Trigger default/stays"


async def second_database(database: PostgresServer) -> str:
    """On the same server. Returns its URL."""
    if not await database.execute("SELECT 1 FROM pg_database WHERE datname = 'second'"):
        admin = database.admin_url.replace("/shop", "/postgres")
        await database.execute("CREATE DATABASE second OWNER kappa", url=admin)
    return database.url(database="second")


async def test_a_slot_of_another_database_is_not_taken_for_the_old_one(database: PostgresServer) -> None:
    """Names of slots are the server's: what has the Trigger's may be what it reads now."""
    second = await second_database(database)
    names = postgres_setup.Names("kappa_here", "kappa_here", "kappa_here")
    for url, left in ((second, ["kappa_here"]), (database.url(), [])):
        await database.execute(f"SELECT pg_create_logical_replication_slot('{names.own}', 'pgoutput')", url=url)
        async with await psycopg.AsyncConnection.connect(database.url(), autocommit=True) as connection:
            await postgres_setup.forget(connection, names)
        assert await slots(database) == left
        for slot in left:
            await database.execute(f"SELECT pg_drop_replication_slot('{slot}')", url=second)


async def test_what_is_left_in_another_database_goes(cluster: Cluster, database: PostgresServer) -> None:
    """The Trigger was given another database while no gateway ran."""
    second = await second_database(database)
    await database.execute("CREATE TABLE IF NOT EXISTS orders (id int PRIMARY KEY)", url=second)
    await cluster.secret("other", second)
    await cluster.make("t", rows())
    gateway = await cluster.gateway()
    await gateway.until("t", connected=True)
    await cluster.end(gateway)
    await cluster.change("t", rows("other"))
    gateway = await cluster.gateway("g2")
    # A server has one slot of a name: until the old one is gone, the new one cannot be made
    await gateway.until("t", connected=True, seconds=SECONDS)

    async def done() -> bool:
        return await database.execute(PUBLICATIONS) == [] and len(await left_of(cluster)) == 1

    await until(done)
    assert await database.execute("SELECT database FROM pg_replication_slots") == [("second",)]
    await database.execute("INSERT INTO orders VALUES (8)", url=second)
    assert (await cluster.world.events(1))[0].data["new"] == {"id": 8}


async def test_another_name_of_the_same_database_changes_nothing(cluster: Cluster, database: PostgresServer) -> None:
    """What the slot still has for the Trigger is not lost."""
    await cluster.secret("alias", database.url().replace("127.0.0.1", "localhost"))
    await cluster.make("t", rows())
    gateway = await cluster.gateway()
    await gateway.until("t", connected=True)
    before = await slots(database)
    await cluster.end(gateway)
    await database.execute("DELETE FROM orders", "INSERT INTO orders VALUES (7)")
    await cluster.change("t", rows("alias"))
    gateway = await cluster.gateway("g2")
    events = await cluster.world.events(1)
    assert events[-1].data["new"] == {"id": 7}

    async def known() -> bool:
        return len(await left_of(cluster)) == 1

    await until(known)
    assert await slots(database) == before


async def left_of(cluster: Cluster) -> list[str]:
    """What stands in the book."""
    state = await cluster.world.js.stream_info("KV_kappa-state", subjects_filter="$KV.kappa-state.*._left.*")
    return list(state.state.subjects or ())


async def test_a_gateway_that_is_behind_drops_nothing(cluster: Cluster, database: PostgresServer) -> None:
    """It has heard nothing of the Trigger, but the API server has."""
    late = await cluster.gateway("late")
    await cluster.deafen(late)
    await cluster.make("t", rows())
    gateway = await cluster.gateway("g1")
    await gateway.until("t", connected=True)
    before = await slots(database)
    await cluster.end(gateway)
    assert late.host.triggers.synced
    assert list(late.host.triggers.known()) == []
    assert await late.host.clearing.look()
    assert await slots(database) == before
    await cluster.remove("t")
    assert await late.host.clearing.look()
    assert (await slots(database), await left_of(cluster)) == ([], [])


async def test_without_its_secret_a_slot_waits(
    cluster: Cluster, database: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    await cluster.make("t", rows())
    gateway = await cluster.gateway()
    await gateway.until("t", connected=True)
    (slot,) = await slots(database)
    await cluster.end(gateway)
    await cluster.remove("t")
    (await cluster.api.delete(f"{SECRETS}/shop")).ok()
    gateway = await cluster.gateway("g2")

    async def waits() -> bool:
        return gateway.host.clearing.waiting == ["default/t"]

    await until(waits)
    said = [record.getMessage() for record in caplog.records if record.name.endswith("clearing")]
    assert len(said) == 1, said
    assert f"SELECT pg_drop_replication_slot('{slot}')" in said[0]
    assert "the Secret shop of type kappa.dev/source does not exist" in said[0]
    assert "pw-for-tests" not in said[0]
    await cluster.secret("shop", database.url())

    async def done() -> bool:
        return not await slots(database) and not gateway.host.clearing.waiting

    await until(done)
