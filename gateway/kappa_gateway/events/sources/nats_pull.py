"""Reading from a JetStream consumer by pull requests, several messages at a time, each as soon as it comes.

nats-py's `fetch` waits for a whole batch where this hands out what is there. Source: NATS ADR-13 (pull requests).
"""

import asyncio
import json
from typing import Any, Final

from nats.aio.msg import Msg

from kappa_gateway.events.bus import UnavailableError
from kappa_gateway.events.source import SourceError
from kappa_gateway.events.sources.nats_link import Link

BATCH: Final = 256
EXPIRES_SECONDS: Final = 30
HEARTBEAT_SECONDS: Final = 1.5
#: Two heartbeats that did not come: the consumer, its leader or the connection is gone.
SILENT_SECONDS: Final = 3.5
REFUSED_SECONDS: Final = 0.1
_NANO: Final = 1_000_000_000
#: The request is over: timed out, nothing there, limits; or its leader is another one now.
_OVER: Final = ("404", "408", "409")
_GONE: Final = ("consumer deleted", "consumer is push based")


class Puller:
    """One consumer of one stream; `open` before, `close` after."""

    def __init__(self, link: Link, stream: str, consumer: str, batch: int = BATCH) -> None:
        self._link, self._batch = link, batch
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._queue: asyncio.Queue[Msg | None] = asyncio.Queue()  # None: the connection was lost
        self._outstanding, self._refused = 0, False
        self._broken: Exception | None = None
        self._subscription: Any = None
        self._inbox = ""

    async def open(self) -> None:
        self._link.lost.append(self._lost)
        self._inbox = self._link.nc.new_inbox()
        self._subscription = await self._link.nc.subscribe(self._inbox, cb=self._queue.put)

    async def next(self) -> list[Msg]:
        """At least one message. Raises SourceError when the consumer is gone or silent: look again at what there is.
        Where it is the platform's own servers that are, UnavailableError."""
        found: list[Msg] = []
        while not found:
            if self._broken is not None:
                raise self._broken
            if self._outstanding <= 0:
                if self._refused:
                    await asyncio.sleep(REFUSED_SECONDS)
                await self._request()
            try:
                first = await asyncio.wait_for(self._queue.get(), SILENT_SECONDS)
            except TimeoutError:
                raise self._problem("NATS is silent") from None
            for message in [first, *(self._queue.get_nowait() for _ in range(self._queue.qsize()))]:
                if message is None:
                    self._broken = self._problem("the connection to NATS was lost")
                elif self._is_data(message):
                    self._outstanding -= 1
                    found.append(message)
            if self._broken is not None and not found:  # what came before that is handed out first
                raise self._broken
        return found

    async def close(self) -> list[Msg]:
        """Ends it. Returns messages that came and were not handed out."""
        if self._lost in self._link.lost:
            self._link.lost.remove(self._lost)
        if self._subscription is not None and not self._link.nc.is_closed:
            await self._subscription.unsubscribe()
        waiting = [self._queue.get_nowait() for _ in range(self._queue.qsize())]
        return [message for message in waiting if message is not None and not _status(message)]

    def _problem(self, text: str) -> Exception:
        return UnavailableError(text) if self._link.own else SourceError(text)

    def _lost(self) -> None:
        self._queue.put_nowait(None)

    async def _request(self) -> None:
        asked = {
            "batch": self._batch,
            "expires": EXPIRES_SECONDS * _NANO,
            "idle_heartbeat": int(HEARTBEAT_SECONDS * _NANO),
        }
        await self._link.nc.publish(self._subject, json.dumps(asked).encode(), reply=self._inbox)
        self._outstanding, self._refused = self._batch, False

    def _is_data(self, message: Msg) -> bool:
        status = _status(message)
        if not status:
            return True
        said = (message.headers or {}).get("Description", "").lower()
        if status == "503" or said in _GONE:
            self._broken = self._problem(f"the consumer is gone ({said or 'nobody answers'})")
        elif status in _OVER:
            self._outstanding, self._refused = 0, status != "408"
        elif status != "100":
            self._broken = SourceError(f"NATS refuses to deliver: {status} {said}")
        return False


def _status(message: Msg) -> str:
    return (message.headers or {}).get("Status", "") if not message.data else ""
