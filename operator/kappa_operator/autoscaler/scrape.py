"""Reads the gateways' counters over HTTP into `Signals`."""

import logging

import aiohttp

from kappa_api import names
from kappa_api.wire import Stats, WireError
from kappa_operator.autoscaler.signals import Signals
from kappa_operator.clock import Clock
from kappa_operator.metrics import Metrics
from kappa_operator.observed import Pod
from kappa_operator.settings import Settings
from kappa_operator.store import Keys

logger = logging.getLogger(__name__)

SCRAPE_TIMEOUT = 2.0


class Scraper:
    """One HTTP session to all gateways, opened with the first reading."""

    def __init__(self, signals: Signals, settings: Settings, metrics: Metrics, clock: Clock) -> None:
        self._signals, self._settings, self._metrics, self._clock = signals, settings, metrics, clock
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def read(self, pod: Pod) -> Keys:
        """Reads one gateway; returns the functions that had traffic, none when it does not answer."""
        if self._session is None:
            timeout = aiohttp.ClientTimeout(SCRAPE_TIMEOUT)
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout)
        host = f"[{pod.ip}]" if ":" in pod.ip else pod.ip
        epoch, since = self._signals.last(pod.name, self._clock.monotonic())
        url = f"http://{host}:{pod.admin_port}{names.PATH_STATS}?epoch={epoch}&since={since!r}"
        try:
            stats = await self._stats(self._session, url)
        except (aiohttp.ClientError, OSError, TimeoutError, WireError, ValueError) as error:
            self._metrics.scrapes.labels("failed").inc()
            logger.info("gateway %s not read: %s", pod.name, error or type(error).__name__)
            return frozenset()
        self._metrics.scrapes.labels("read").inc()
        return self._signals.observe(pod.name, stats, self._clock.monotonic())

    async def _stats(self, session: aiohttp.ClientSession, url: str) -> Stats:
        """What one gateway says. Of the platform's secrets it may not know the newest yet."""
        *others, last = self._settings.keys.internal()
        for token in (*others, last):
            async with session.get(url, headers={"Authorization": f"Bearer {token}"}) as answer:
                if answer.status == 401 and token != last:
                    continue
                answer.raise_for_status()
                return Stats.from_json(await answer.json())
        raise AssertionError("a keyring is never empty")
