"""Lays the ground of `make chaos-events`: NATS, the platform that uses it, servers, Functions and Triggers."""

import asyncio
import contextlib
import random
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp
from chaos_bed import BedError, Embedded, embedded
from chaos_pods import eventually, function_path, status
from kappa_nats import NatsCluster
from nats.aio.client import Client
from proof_feed import NAMESPACE, Feed, Ground, Retrying, UnusableError, trigger
from proof_feeds import FEEDS
from proof_functions import manifest
from proof_schedules import TRIGGERS

from kappa_api import names

#: One for asynchronous invocations, one for events.
FUNCTIONS = ("worker", "events")
SECRETS = "/api/v1/namespaces/{ns}/secrets"
READY_SECONDS = 60.0


@contextlib.asynccontextmanager
async def laid(draw: random.Random) -> AsyncIterator[tuple[Ground, Embedded, NatsCluster]]:
    """The platform, without any Function, and what it stands on."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kappa-proof-")))
        cluster = NatsCluster(folder / "nats")
        stack.push_async_callback(cluster.stop)
        await cluster.start()
        bed = await stack.enter_async_context(embedded(gateway_env(cluster), NAMESPACE))
        client = await stack.enter_async_context(nats_client(cluster))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        yield Ground(bed.api, http, bed.endpoints, client, folder, draw), bed, cluster


def gateway_env(cluster: NatsCluster) -> dict[str, str]:
    """Points gateways at the three servers."""
    return {
        names.ENV_NATS_URL: cluster.url,
        names.ENV_NATS_TOKEN: cluster.token,
        names.ENV_ALLOW_LOOPBACK: "true",
        "KAPPA_NATS_REPLICAS": str(len(cluster.servers)),
        "KAPPA_SOURCE_SECRET_NAMESPACES": NAMESPACE,
        "KAPPA_KUBERNETES_SOURCES": "*",
    }


@contextlib.asynccontextmanager
async def nats_client(cluster: NatsCluster) -> AsyncIterator[Client]:
    """Comes back by itself, and says nothing of what the faults do to it."""

    async def silent(error: Exception) -> None:
        return

    client = Client()
    await client.connect(
        [server.url for server in cluster.servers],
        token=cluster.token,
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.2,
        connect_timeout=2,
        pending_size=0,  # what is published while it is away is refused rather than kept
        error_cb=silent,
    )
    try:
        yield client
    finally:
        await client.close()


@contextlib.asynccontextmanager
async def opened(chosen: Sequence[str], ground: Ground) -> AsyncIterator[list[Feed]]:
    """The feeds that can be used here; the others are told. That they were wanted is a breach in the end."""
    async with contextlib.AsyncExitStack() as stack:
        feeds: list[Feed] = []
        for name in chosen:
            feed = FEEDS[name](ground)
            stack.push_async_callback(feed.close)
            try:
                await feed.open()
            except UnusableError as error:
                print(f"chaos-events: {name} is left out: {error}", flush=True)
            else:
                feeds.append(feed)
        yield feeds


async def furnish(ground: Ground, feeds: Sequence[Feed], port: int, retrying: Retrying) -> None:
    """Functions that serve and Triggers that are connected. `port`: of the collector."""
    for name in FUNCTIONS:
        (await ground.api.post(function_path(), manifest(name, port, retrying))).ok()
    with_trigger = [feed for feed in feeds if feed.source() is not None]
    for feed in with_trigger:
        for name, content in feed.secrets().items():
            secret = {"apiVersion": "v1", "kind": "Secret", "type": "kappa.dev/source", "metadata": {"name": name}}
            (await ground.api.post(SECRETS, secret | {"stringData": content})).ok()
        (await ground.api.post(TRIGGERS, trigger(feed, FUNCTIONS[1], retrying))).ok()
    for name in FUNCTIONS:

        async def serves(name: str = name) -> bool:
            return bool((await status(ground.api, name)).get("readyReplicas"))

        await eventually(serves, READY_SECONDS, f"Function {name} with an instance")
    for feed in with_trigger:
        await _connected(ground, feed.name)


async def _connected(ground: Ground, name: str) -> None:
    """The Trigger says of itself that it is Ready. Raises BedError with what it says instead."""
    told = ""

    async def look() -> bool:
        nonlocal told
        found = (await ground.api.get(f"{TRIGGERS}/{name}")).ok().get("status") or {}
        ready = [one for one in found.get("conditions") or () if one["type"] == "Ready"]
        told = f"{ready[0].get('reason')}: {ready[0].get('message')}" if ready else "nothing"
        return bool(ready) and ready[0]["status"] == "True"

    try:
        await eventually(look, READY_SECONDS, name)
    except TimeoutError:
        raise BedError(f"Trigger {name} did not become Ready; it says {told}") from None


async def whole(cluster: NatsCluster) -> None:
    """Every server runs again, also one whose restart was cut short."""
    await asyncio.gather(*(server.start(wait=False) for server in cluster.servers if not server.running))
    await asyncio.gather(*(server.ready() for server in cluster.servers))
