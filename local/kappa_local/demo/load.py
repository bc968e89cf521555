"""Callers for the demo: a bounded number of requests at a time, for a bounded time, every answer counted."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

import aiohttp


@dataclass(slots=True)
class Tally:
    """What came back: statuses counted, latencies in seconds, and the first body that was not a 200."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    first_failure: str = ""

    @property
    def failed(self) -> int:
        return sum(count for status, count in self.statuses.items() if status != 200)

    def quantile(self, share: float) -> float:
        """The latency in seconds below which this share of the answers lies; 0 without answers."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class Load:
    """`callers` clients that each call `url` again and again until `stop`."""

    def __init__(self, session: aiohttp.ClientSession, url: str, callers: int) -> None:
        self.tally = Tally()
        self._session, self._url, self._callers = session, url, callers
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._call()) for _ in range(self._callers)]

    async def stop(self) -> Tally:
        """Lets the running requests finish and returns the count."""
        self._stopping = True
        await asyncio.gather(*self._tasks)
        return self.tally

    async def _call(self) -> None:
        while not self._stopping:
            begun = time.monotonic()
            try:
                async with self._session.post(self._url) as reply:
                    body, status = await reply.text(), reply.status
            except aiohttp.ClientError as error:
                body, status = repr(error), 0
            self.tally.statuses[status] += 1
            self.tally.seconds.append(time.monotonic() - begun)
            if status != 200 and not self.tally.first_failure:
                self.tally.first_failure = f"{status}: {body[:200]}"
