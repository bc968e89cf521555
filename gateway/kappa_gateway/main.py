"""Wires the gateway and runs it until SIGTERM or SIGINT."""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import uvloop
from aiohttp import web
from kubernetes.aio.config import ConfigException

from kappa_api import names
from kappa_gateway import descriptors, logs, settings, shutdown
from kappa_gateway.admin import make_admin
from kappa_gateway.app import Gateway
from kappa_gateway.events.engine import Events
from kappa_gateway.kube import ApiError, Kube
from kappa_gateway.settings import Settings, SettingsError
from kappa_gateway.watch import Watcher, api_keys, gateways

log = logging.getLogger(__name__)

#: Requests leave almost no cycles behind; the default (700 allocations) looks for them every few dozen requests.
GC_THRESHOLD = (20_000, 20, 20)


def main() -> int:
    gc.set_threshold(*GC_THRESHOLD)
    logs.configure(os.environ.get("KAPPA_LOG_LEVEL", "INFO").upper())
    try:
        chosen = settings.load()
    except SettingsError as error:
        print(f"kappa-gateway: {error}", file=sys.stderr)
        return 2
    try:
        uvloop.run(run(replace(chosen, limits=descriptors.claim(chosen.limits))))
    except ConfigException as error:
        print(f"kappa-gateway: set KUBECONFIG, or run inside a cluster: {error}", file=sys.stderr)
        return 2
    return 0


async def run(chosen: Settings) -> None:
    """The whole life of the process."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    kube = await Kube.connect()
    gateway = Gateway(chosen, operator_finder(kube, chosen.system_namespace))
    gateway.guard.use(kube)
    events = gateway.events = Events(chosen.events, gateway) if chosen.events.urls else None
    if events is not None:
        events.host.kube = kube
    watcher = Watcher(
        kube,
        gateway.catalog,
        gateways(chosen.system_namespace, gateway.admission.peers),
        *api_keys(chosen.auth.key_namespaces, gateway.guard.keys),
        *(events.host.collections() if events is not None else ()),
    )
    tasks = [
        spawn(watcher.run()),
        spawn(gateway.tick()),
        spawn(chosen.keys.keep()),
        spawn(gateway.keep_routes()),
        spawn(gateway.demand.run()),
        spawn(announce(gateway, watcher)),
    ]
    if events is not None:
        tasks.append(spawn(events.run()))
    admin = web.AppRunner(make_admin(gateway), access_log=None)
    await admin.setup()
    await web.TCPSite(admin, chosen.bind, chosen.admin_port).start()
    listener = await loop.create_server(gateway.server, chosen.bind, chosen.data_port, backlog=1024)
    log.info("serving on %s:%s, admin on %s", chosen.bind, chosen.data_port, chosen.admin_port)
    await stop.wait()
    if events is not None:
        grace = chosen.shutdown_delay + chosen.shutdown_grace
        await asyncio.gather(shutdown.drain(gateway, listener), events.drain(grace))
    else:
        await shutdown.drain(gateway, listener)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if events is not None:
        await events.close()
    gateway.pools.close()
    await admin.cleanup()
    await gateway.guard.close()
    await kube.close()


def spawn(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A background task whose death ends the process: a gateway without its watch would serve ever older facts."""
    task = asyncio.get_running_loop().create_task(coroutine)
    task.add_done_callback(_check)
    return task


def _check(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log.critical("a background task died", exc_info=error)
        os._exit(1)


async def announce(gateway: Gateway, watcher: Watcher) -> None:
    """Ready once everything is known."""
    await watcher.wait_synced()
    gateway.catalog.rebuild_routes()
    # What is here now stays for good: collections of garbage need not look at it again
    gc.collect()
    gc.freeze()
    gateway.ready = True
    log.info("ready: %d functions", sum(1 for _ in gateway.catalog.known_functions()))


def operator_finder(kube: Kube, namespace: str) -> Any:
    """Reads where the leading operator listens from its Lease."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{names.LEASE_NAME}"

    async def find() -> str:
        try:
            lease = await kube.get(path)
        except ApiError as error:
            if error.status == 404:
                return ""
            raise
        annotations = (lease.get("metadata") or {}).get("annotations") or {}
        return str(annotations.get(names.ANNOTATION_ADDRESS, ""))

    return find
