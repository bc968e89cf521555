"""Reads `GET /v1/triggers` of the gateways."""

import logging

import aiohttp

from kappa_api import names
from kappa_api.keyring import Keyring
from kappa_api.trigger_report import GatewayReport
from kappa_api.wire import WireError
from kappa_operator.observed import Pod

logger = logging.getLogger(__name__)

SCRAPE_SECONDS = 4.0


class ReportReader:
    """One HTTP session to all gateways, opened with the first reading."""

    def __init__(self, keys: Keyring) -> None:
        self._keys = keys
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def read(self, pod: Pod) -> GatewayReport | None:
        """What one gateway says; None when it does not answer, or knows nothing of Triggers."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(SCRAPE_SECONDS))
        host = f"[{pod.ip}]" if ":" in pod.ip else pod.ip
        url = f"http://{host}:{pod.admin_port}{names.PATH_TRIGGERS}"
        try:
            return await self._report(self._session, url)
        except (aiohttp.ClientError, OSError, TimeoutError, WireError, ValueError) as error:
            logger.info("gateway %s: Triggers not read: %s", pod.name, error or type(error).__name__)
            return None

    async def _report(self, session: aiohttp.ClientSession, url: str) -> GatewayReport | None:
        """Of the platform's secrets the gateway may not know the newest yet."""
        *others, last = self._keys.internal()
        for token in (*others, last):
            async with session.get(url, headers={"Authorization": f"Bearer {token}"}) as answer:
                if answer.status == 401 and token != last:
                    continue
                if answer.status == 404:
                    return None
                answer.raise_for_status()
                return GatewayReport.from_json(await answer.json())
        raise AssertionError("a keyring is never empty")
