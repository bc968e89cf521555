"""Follows the logs of the platform's pods while they live: what a process said must not be lost with its pod."""

import asyncio
import contextlib
import re
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from chaos_pods import SYSTEM_PODS, name_of, system_pods
from kappa_fixtures_local import Api

from kappa_api import names

_REQUEST_ID = re.compile(rb'"requestId": "([^"]+)"')
LOOK_SECONDS = 0.5
CATCH_UP_SECONDS = 0.5


@dataclass
class Logs:
    """`ids`: request ids that gateways named in a line of their log. `folder`: where the logs are kept, if anywhere."""

    api: Api
    folder: Path | None = None
    ids: set[str] = field(default_factory=set)
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    async def follow(self) -> None:
        """Until cancelled."""
        try:
            while True:
                with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError, AssertionError):
                    for component in (names.COMPONENT_GATEWAY, names.COMPONENT_OPERATOR):
                        for pod in await system_pods(self.api, component):
                            self._begin(name_of(pod), component)
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def caught_up(self) -> None:
        """Gives lines that were just written the time to arrive."""
        await asyncio.sleep(CATCH_UP_SECONDS)

    def _begin(self, name: str, component: str) -> None:
        task = self._tasks.get(name)
        if task is None or task.done():
            self._tasks[name] = asyncio.create_task(self._read(name, component == names.COMPONENT_GATEWAY))

    async def _read(self, name: str, gateway: bool) -> None:
        """One container's life."""
        url = f"{self.api.server}{SYSTEM_PODS}/{name}/log"
        timeout = aiohttp.ClientTimeout(total=None)
        with contextlib.suppress(aiohttp.ClientError, OSError):
            async with self.api.session.get(
                url, params={"follow": "true"}, ssl=self.api.tls, timeout=timeout
            ) as answer:
                if answer.status != 200:
                    return
                async for line in answer.content:
                    if gateway:
                        self.ids |= {found.decode() for found in _REQUEST_ID.findall(line)}
                    if self.folder is not None:
                        with (self.folder / f"{name}.log").open("ab") as file:
                            file.write(line)
