"""Leases on real JetStream: one owner at a time, taken over from the dead and from those who leave, spread evenly."""

import asyncio
import time
from collections import Counter

import pytest
from kappa_processes import freeze, thaw
from kappa_trigger_world import TriggerGateway, TriggerWorld, trigger

from kappa_gateway.events import members as members_module
from kappa_gateway.events import owners as owners_module
from kappa_gateway.events.bus import EXPECT_LAST
from kappa_gateway.events.members import preferred
from kappa_gateway.events.streams import OWNERS

SUBJECT = f"$KV.{OWNERS}.u"


def owners(gateways: list[TriggerGateway], uid: str) -> list[str]:
    return [gateway.name for gateway in gateways if uid in gateway.host.owners.held]


async def owned(gateways: list[TriggerGateway], *uids: str, seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not all(owners(gateways, uid) for uid in uids):
        assert time.monotonic() < deadline, {uid: owners(gateways, uid) for uid in uids}
        await asyncio.sleep(0.02)


async def test_sources_are_spread_and_each_has_one_owner(world: TriggerWorld) -> None:
    gateways = [await world.gateway(f"g{number}") for number in range(3)]
    while any(len(gateway.host.members.present()) < 3 for gateway in gateways):
        await asyncio.sleep(0.05)
    uids = [f"u{number}" for number in range(30)]
    tasks = [asyncio.ensure_future(gateway.host.owners.acquire(uid)) for uid in uids for gateway in gateways]
    await owned(gateways, *uids)
    spread = Counter(name for uid in uids for name in owners(gateways, uid))
    assert sum(spread.values()) == 30
    assert min(spread[gateway.name] for gateway in gateways) >= 3, spread
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_jetstream_decides_when_all_want_the_same(world: TriggerWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners_module, "preferred", lambda uid, names: next(iter(names)))  # each prefers itself
    gateways = [await world.gateway(f"g{number}") for number in range(3)]
    uids = [f"u{number}" for number in range(20)]
    tasks = [asyncio.ensure_future(gateway.host.owners.acquire(uid)) for uid in uids for gateway in gateways]
    await owned(gateways, *uids)
    renewed = {uid: lease.revision for gateway in gateways for uid, lease in gateway.host.owners.held.items()}
    while any(
        lease.revision == renewed[uid] for gateway in gateways for uid, lease in gateway.host.owners.held.items()
    ):
        await asyncio.sleep(0.05)
    assert [owners(gateways, uid) for uid in uids if len(owners(gateways, uid)) != 1] == []
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_who_leaves_gives_its_sources_back_at_once(world: TriggerWorld) -> None:
    await world.js.create_key_value(bucket="default_b", history=2)
    source = {"kv": {"bucket": "default_b"}}
    gateways = [await world.gateway(name) for name in ("g1", "g2")]
    for gateway in gateways:
        gateway.host.triggers.put(trigger("t", source))
    await owned(gateways, "uid-t")
    (name,) = owners(gateways, "uid-t")
    owner, other = sorted(gateways, key=lambda gateway: gateway.name != name)
    await owner.until("t", connected=True)
    begun = time.monotonic()
    await owner.stop()
    await other.until("t", connected=True)
    # A lease that ran out instead would have taken ten seconds
    assert time.monotonic() - begun < 8


async def test_sources_of_a_dead_gateway_are_taken_over_and_nothing_is_lost(world: TriggerWorld) -> None:
    bucket = await world.js.create_key_value(bucket="default_b", history=64)
    source = {"kv": {"bucket": "default_b"}}
    gateways = [await world.gateway(name) for name in ("g1", "g2", "g3")]
    for gateway in gateways:
        gateway.host.triggers.put(trigger("t", source))
    await owned(gateways, "uid-t")
    (name,) = owners(gateways, "uid-t")
    owner = next(gateway for gateway in gateways if gateway.name == name)
    others = [gateway for gateway in gateways if gateway is not owner]
    await owner.until("t", connected=True)
    for number in range(20):
        await bucket.put("k", b"%d" % number)
    await owner.until("t", received=20)
    begun = time.monotonic()
    await owner.kill()
    for number in range(20, 40):
        await bucket.put("k", b"%d" % number)
    events = await world.events(40, 40)
    # A lease that ran out instead would have taken at least seven seconds, and the others their turn
    assert time.monotonic() - begun < 6
    assert [event.data["new"]["value"] for event in events] == list(range(40))
    assert [event.data["old"]["value"] for event in events[1:]] == list(range(39))
    assert len(owners(others, "uid-t")) == 1


async def test_who_is_started_again_under_its_name_has_its_sources_at_once(world: TriggerWorld) -> None:
    first = await world.gateway("g1")
    await first.host.owners.acquire("u")
    await first.kill()
    begun = time.monotonic()
    again = await world.gateway("g1")
    await again.host.owners.acquire("u")
    assert time.monotonic() - begun < 6


async def test_giving_back_late_takes_nothing_from_the_next_owner(world: TriggerWorld) -> None:
    gateways = [await world.gateway(name) for name in ("g1", "g2")]
    lease = await gateways[0].host.owners.acquire("u")
    receipt = await gateways[1].bus.publish(SUBJECT, b"g2", {EXPECT_LAST: str(lease.revision)})
    await gateways[0].host.owners.release(lease)
    found = await gateways[1].bus.newest(f"KV_{OWNERS}", last_of=SUBJECT)
    assert found is not None
    assert (found.seq, found.data) == (receipt.seq, b"g2")


async def test_an_owner_without_nats_stops_before_the_lease_is_anybodys(world: TriggerWorld) -> None:
    await world.js.create_key_value(bucket="default_b", history=2)
    gateway = await world.gateway("g1")
    gateway.host.triggers.put(trigger("t", {"kv": {"bucket": "default_b"}}))
    await gateway.until("t", connected=True)
    lease = gateway.host.owners.held["uid-t"]
    await world.server.kill()
    await asyncio.wait_for(lease.over.wait(), 12)
    assert lease.lost
    await world.server.start()
    await gateway.until("t", connected=True)
    assert gateway.host.owners.held["uid-t"] is not lease


async def test_a_server_that_hangs_does_not_make_two_owners(world: TriggerWorld) -> None:
    gateway = await world.gateway("g1")
    lease = await gateway.host.owners.acquire("u")
    freeze(world.server.pid)
    try:
        await asyncio.wait_for(lease.over.wait(), 20)
        # The server forgets a lease ten seconds after it was renewed last; a source may take two to stop
        assert time.monotonic() - lease.renewed < 9
    finally:
        thaw(world.server.pid)


async def test_a_lease_outlives_a_short_outage(world: TriggerWorld) -> None:
    gateway = await world.gateway("g1")
    lease = await gateway.host.owners.acquire("u")
    before = lease.revision
    await world.server.restart()
    while lease.revision == before:
        assert not lease.over.is_set()
        await asyncio.sleep(0.05)
    assert gateway.host.owners.held == {"u": lease}


async def test_a_new_gateway_gets_its_share(world: TriggerWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners_module, "KEEP_SECONDS", 1.0)
    monkeypatch.setattr(members_module, "SETTLED_SECONDS", 1.0)
    await world.js.create_key_value(bucket="default_b", history=2)
    names = [f"t{number}" for number in range(12)]
    gateways = [await world.gateway("g1")]
    for name in names:
        gateways[0].host.triggers.put(trigger(name, {"kv": {"bucket": "default_b"}}))
    await owned(gateways, *(f"uid-{name}" for name in names))
    gateways.append(await world.gateway("g2"))
    for name in names:
        gateways[1].host.triggers.put(trigger(name, {"kv": {"bucket": "default_b"}}))
    share = {name for name in names if preferred(f"uid-{name}", ["g1", "g2"]) == "g2"}
    assert 0 < len(share) < len(names)
    deadline = time.monotonic() + 30
    while {name for name in names if gateways[1].row(name)["connected"]} != share:
        assert time.monotonic() < deadline, gateways[1].host.owners.held.keys()
        await asyncio.sleep(0.05)
    await owned(gateways, *(f"uid-{name}" for name in names))
    assert all(len(owners(gateways, f"uid-{name}")) == 1 for name in names)
