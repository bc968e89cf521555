"""Tells the operator at once that invocations wait: `POST /v1/demand` (design section 6).

One report is on its way at a time and holds every function that waits, so a burst costs one request; the first of a
burst leaves without delay. While anybody waits it is repeated. The operator's address is what its Lease says; it is
read again whenever the operator could not be reached or says that it does not lead.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import aiohttp

from kappa_api import names
from kappa_api.keyring import Keyring
from kappa_api.wire import Demand

log = logging.getLogger(__name__)

REPEAT_SECONDS: Final = 1.0
GATHER_SECONDS: Final = 0.005
RETRY_SECONDS: Final = 0.2
_TIMEOUT: Final = aiohttp.ClientTimeout(total=5, connect=1)

#: Reads `host:port` of the leading operator; empty when there is none.
FindOperator = Callable[[], Awaitable[str]]
#: What is in service of a function, and what waits: (waiting, in service).
Look = Callable[[str], tuple[int, int]]


class DemandReporter:
    """`want` is called for each invocation that begins to wait; `run` is the task that reports."""

    def __init__(self, gateway: str, keys: Keyring, find_operator: FindOperator, look: Look) -> None:
        self._gateway, self._find_operator, self._look = gateway, find_operator, look
        self._keys = keys
        self._wanted: set[str] = set()
        self._news = asyncio.Event()
        self._address = ""
        self._silent_since = False
        self.sent = 0

    def want(self, key: str) -> None:
        self._wanted.add(key)
        self._news.set()

    async def run(self) -> None:
        """Reports until cancelled."""
        async with aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=False) as session:
            while True:
                await self._news.wait()
                self._news.clear()
                if report := self._report():
                    sent = await self._post(session, report)
                    self.sent += sent
                    await self._pause(GATHER_SECONDS if sent else RETRY_SECONDS, REPEAT_SECONDS if sent else 0)

    async def _pause(self, least: float, most: float) -> None:
        """Waits for news, at least `least`; without news, until the report is due again."""
        await asyncio.sleep(least)
        if most and not self._news.is_set():
            try:
                async with asyncio.timeout(most):
                    await self._news.wait()
            except TimeoutError:
                pass
        self._news.set()

    def _report(self) -> Demand | None:
        counts = {key: self._look(key) for key in self._wanted}
        counts = {key: count for key, count in counts.items() if count[0]}
        self._wanted = set(counts)
        return Demand(self._gateway, counts) if counts else None

    async def _post(self, session: aiohttp.ClientSession, report: Demand) -> bool:
        for fresh in (False, True):
            if fresh or not self._address:
                try:
                    self._address = await self._find_operator()
                except Exception as error:
                    self._complain(f"cannot read the operator's Lease: {error!r}")
                    return False
            if not self._address:
                self._complain("no operator leads")
                return False
            problem = await self._send(session, report)
            if not problem:
                self._silent_since = False
                return True
            if fresh:
                self._complain(problem)
        self._address = ""
        return False

    async def _send(self, session: aiohttp.ClientSession, report: Demand) -> str:
        """What went wrong, or an empty string. Of the platform's secrets the operator may not know the newest yet."""
        url, problem = f"http://{self._address}{names.PATH_DEMAND}", ""
        try:
            for token in self._keys.internal():
                headers = {"authorization": f"Bearer {token}"}
                async with session.post(url, json=report.to_json(), headers=headers) as reply:
                    if reply.status < 300:
                        return ""
                    problem = f"the operator at {self._address} answered {reply.status}"
                    if reply.status != 401:
                        break
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return f"the operator at {self._address} could not be reached: {error!r}"
        return problem

    def _complain(self, problem: str) -> None:
        """Once per outage: this runs several times per second while it lasts."""
        if not self._silent_since:
            log.warning("%s", problem)
            self._silent_since = True
