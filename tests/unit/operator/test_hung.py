"""An instance that a gateway takes for hung: asked, and replaced when it is silent. Fakes and virtual time."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable

import pytest
from kappa_operator_unit import PODS, World

from kappa_api.keyring import Keyring
from kappa_api.wire import Stats
from kappa_operator import endings
from kappa_operator.autoscaler.signals import Signals
from kappa_operator.instance import HEALTH_SECONDS, PodClient
from kappa_operator.observed import Pod


@pytest.fixture
async def world() -> World:
    world = World()
    world.apply("one")
    await world.run(1)
    assert world.state() == ["pool", "serving:one"]
    return world


def serving(world: World) -> str:
    (name,) = world.pods.held
    return name


def asked(world: World) -> Callable[[], int]:
    """How often pods were asked from now on."""
    count = 0
    ask = world.pods.lives

    async def counted(pod: Pod) -> bool:
        nonlocal count
        count += 1
        return await ask(pod)

    world.pods.lives = counted  # type: ignore[method-assign]
    return lambda: count


async def test_a_silent_one_is_replaced_and_an_event_names_it(world: World) -> None:
    name = serving(world)
    graces: list[int | None] = []
    delete = world.kube.delete

    async def deleted(path: str, *, uid: str = "", grace: int | None = None) -> None:
        graces.append(grace)
        await delete(path, uid=uid, grace=grace)

    world.kube.delete = deleted  # type: ignore[method-assign]
    world.pods.silent.add(name)
    world.wants.are_hung.add(f"ns/{name}")
    posting = asyncio.create_task(world.events.run())
    await world.run(endings.QUESTIONS * HEALTH_SECONDS + 1)
    posting.cancel()
    assert f"{PODS}/{name}" not in world.kube.objects
    assert graces == [endings.HUNG_GRACE_SECONDS]
    assert world.state() == ["pool", "serving:one"]
    events = [raw for path, raw in world.kube.objects.items() if "/events/" in path]
    (event,) = (raw for raw in events if raw["reason"] == "InstanceHung")
    assert name in event["message"]
    assert world.metrics.registry.get_sample_value("kappa_operator_hung_instances_total") == 1


async def test_one_that_answers_stays_and_is_not_asked_all_the_time(world: World) -> None:
    name, count = serving(world), asked(world)
    world.wants.are_hung.add(f"ns/{name}")
    await world.run(endings.HEARD_SECONDS - 1)
    assert (serving(world), count()) == (name, 1)
    await world.run(endings.HEARD_SECONDS)
    assert (serving(world), count()) == (name, 2)


async def test_one_that_is_silent_once_stays(world: World) -> None:
    name = serving(world)
    world.pods.silent.add(name)
    world.wants.are_hung.add(f"ns/{name}")
    await world.run(HEALTH_SECONDS / 2)
    world.pods.silent.clear()
    await world.run(10)
    assert serving(world) == name
    assert world.state() == ["pool", "serving:one"]


async def test_one_that_went_meanwhile_is_not_missed(world: World) -> None:
    name = serving(world)
    world.pods.silent.add(name)
    world.wants.are_hung.add(f"ns/{name}")
    await world.run(1)
    await world.kube.delete(f"{PODS}/{name}")
    await world.run(10)
    assert world.metrics.registry.get_sample_value("kappa_operator_hung_instances_total") == 0
    assert world.state() == ["pool", "serving:one"]


def test_what_a_gateway_says_counts_while_it_is_heard() -> None:
    signals = Signals()
    signals.observe("g1", Stats("g1", "e", 1.0, hung=("ns/a",)), 1.0)
    signals.observe("g2", Stats("g2", "e", 1.0, hung=("ns/b",)), 4.0)
    assert signals.hung(5.0, 4.0) == {"ns/a", "ns/b"}
    assert signals.hung(6.0, 4.0) == {"ns/b"}
    signals.observe("g2", Stats("g2", "e", 2.0), 6.0)
    assert signals.hung(6.0, 4.0) == frozenset()


@pytest.fixture
async def mute() -> AsyncIterator[tuple[PodClient, Pod, list[bytes]]]:
    """A pod that takes connections and says nothing, with what it has got."""
    got: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await reader.read(65536))
        await reader.read()
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    client = PodClient(Keyring(b"secret"), port=server.sockets[0].getsockname()[1])
    yield client, Pod("ns", "p", "uid", 1, 0.0, ip="127.0.0.1", runtime="python"), got
    await client.close()
    server.close()


async def test_the_client_waits_for_a_runtime_and_connects_to_a_server(
    mute: tuple[PodClient, Pod, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, pod, got = mute
    monkeypatch.setattr("kappa_operator.instance.HEALTH_SECONDS", 0.05)
    assert not await client.lives(pod)
    assert got[0].startswith(b"GET /_kappa/health ")
    assert await client.lives(dataclasses.replace(pod, runtime=""))
    assert not await client.lives(dataclasses.replace(pod, runtime="", ip="127.0.0.77"))
    assert len(got) == 1 or not any(got[1:])
