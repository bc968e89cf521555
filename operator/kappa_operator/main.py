"""The process: admin port, then the Lease, then (leading) everything else; and an orderly end.

SIGTERM stops the work, hands the Lease back and exits 0. A lost Lease exits at once with a code other than 0: nothing
may be written any more, and the kubelet starts a fresh standby.
"""

import asyncio
import logging
import os
import signal
import sys

from aiohttp import web

from kappa_operator.admin import Admin
from kappa_operator.election import Election, LeaseLostError, Terms
from kappa_operator.kube import Kube, load_configuration
from kappa_operator.leader import Leader
from kappa_operator.metrics import Metrics
from kappa_operator.settings import Settings, SettingsError

logger = logging.getLogger(__name__)

EXIT_LOST = 75
EXIT_FAILED = 70


async def serve(settings: Settings) -> int:
    """Runs one replica until it is told to end; returns the exit code."""
    stop = asyncio.Event()
    metrics = Metrics()
    admin = Admin(settings.keys, metrics)
    runner = web.AppRunner(admin.app(), access_log=None, handle_signals=False)
    await runner.setup()
    await web.TCPSite(runner, settings.bind, settings.admin_port).start()
    kube = Kube(await load_configuration())
    terms = Terms(
        namespace=settings.system_namespace,
        identity=settings.identity,
        address=_address(settings),
        duration=settings.lease_seconds,
        renew=settings.renew_seconds,
        retry=min(1.0, settings.renew_seconds),
    )
    election = Election(kube, terms)
    admin.ready = True
    _on_signals(stop)
    stopping = asyncio.create_task(stop.wait(), name="stop")
    keeping = asyncio.create_task(settings.keys.keep(), name="secrets")
    try:
        if not await _unless(stopping, election.acquire()):
            return 0
        logger.info("leading as %s", settings.identity)
        return await _lead(kube, settings, metrics, admin, election, stopping, stop)
    finally:
        admin.leader = None
        keeping.cancel()
        await election.release()
        await kube.close()
        await runner.cleanup()


async def _lead(
    kube: Kube,
    settings: Settings,
    metrics: Metrics,
    admin: Admin,
    election: Election,
    stopping: "asyncio.Task[bool]",
    stop: asyncio.Event,
) -> int:
    # Tasks made before kopf's are left alone by kopf when it ends.
    holding = asyncio.create_task(election.hold(), name="lease")
    leader = Leader(kube, settings, metrics, lambda: _on_signals(stop))
    synced = asyncio.Event()
    leading = asyncio.create_task(leader.run(synced), name="leader")
    announcing = asyncio.create_task(_announce(synced, admin, leader, metrics), name="announce")
    await asyncio.wait({holding, leading, stopping}, return_when=asyncio.FIRST_COMPLETED)
    admin.leader = None
    if holding.done() and isinstance(holding.exception(), LeaseLostError):
        # Waiting for tasks to end would let them write; a process that is gone writes nothing.
        logger.error("%s", holding.exception())
        _flush()
        os._exit(EXIT_LOST)
    code = 0
    if leading.done():
        code = EXIT_FAILED
        logger.error("the leader's work failed", exc_info=leading.exception() if not leading.cancelled() else None)
    for task in (announcing, leading, holding):
        task.cancel()
    await asyncio.wait({announcing, leading}, timeout=10)
    return code


async def _announce(synced: asyncio.Event, admin: Admin, leader: Leader, metrics: Metrics) -> None:
    await synced.wait()
    admin.leader = leader
    metrics.leader.set(1)


async def _unless(stopping: "asyncio.Task[bool]", work: object) -> bool:
    """Waits for the work; False when told to end before it is done."""
    task = asyncio.ensure_future(work)  # type: ignore[call-overload]
    await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not task.done():
        task.cancel()
        return False
    task.result()
    return True


def _on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


def _address(settings: Settings) -> str:
    host = f"[{settings.address}]" if ":" in settings.address else settings.address
    return f"{host}:{settings.admin_port}"


def _flush() -> None:
    for handler in logging.getLogger().handlers:
        handler.flush()
    sys.stderr.flush()


def main() -> int:
    """Entry point of `python -m kappa_operator`."""
    logging.basicConfig(
        level=os.environ.get("KAPPA_LOG_LEVEL", "INFO").upper(),
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        stream=sys.stderr,
    )
    try:
        settings = Settings.from_env()
    except SettingsError as error:
        logger.error("%s", error)
        return 2
    return asyncio.run(serve(settings))
