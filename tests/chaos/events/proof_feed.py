"""What hands events in: one `Feed` per source, each sending until somebody who is entitled to has said "I have it".

Who that is differs: the database at commit, the broker with its acknowledgement, the gateway with 202. Only from then
on Kappa answers for the event; until then the sender repeats, as real ones do.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import aiohttp
from chaos_pods import Endpoints
from kappa_fixtures_local import Api
from nats.aio.client import Client
from proof_ledger import Ledger, identity

from kappa_api import names

Json = dict[str, Any]
#: Of Functions and Triggers. Names that begin with `kappa-` are the platform's, for streams and buckets.
NAMESPACE = "chaos"
PAUSE_SECONDS = 0.25
ATTEMPT_SECONDS = 10.0


class RefusedError(Exception):
    """It was not taken; the message says why. It is handed in again."""


class UnusableError(Exception):
    """This source cannot be part of the run here; the message says what is missing."""


@dataclass(slots=True)
class Ground:
    """What feeds stand on. `nats`: a client of the platform's NATS with all rights, which comes back by itself."""

    api: Api
    http: aiohttp.ClientSession
    endpoints: Endpoints
    nats: Client
    folder: Path
    random: random.Random

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
        """To any gateway that is Ready. Raises RefusedError for all but a 2xx."""
        there = self.endpoints()
        if not there:
            raise RefusedError("no gateway is Ready")
        url = f"http://{self.random.choice(there)}{path}"
        try:
            timeout = aiohttp.ClientTimeout(total=ATTEMPT_SECONDS)
            async with self.http.post(url, data=body, headers=headers, timeout=timeout) as answer:
                text = await answer.read()
                if answer.status >= 300:
                    raise RefusedError(f"{answer.status} {_code(text)}")
                return text
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise RefusedError(type(error).__name__) from error


def _code(body: bytes) -> str:
    """Of Kappa's errors; of other answers the beginning."""
    try:
        return str(json.loads(body)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return body[:100].decode(errors="replace")


class Feed(Protocol):
    """One source. `name` is that of the Trigger, too. `parallel`: how many are handed in at a time."""

    name: str
    parallel: int

    def source(self) -> Json | None:
        """`spec.source` of the Trigger; None: it has none (asynchronous invocations)."""

    def extra(self) -> Json:
        """More of the Trigger's spec."""

    def secrets(self) -> dict[str, dict[str, str]]:
        """Secrets of sources that the Trigger needs: name -> data."""

    async def open(self) -> None:
        """Starts what it needs. Raises UnusableError."""

    async def send(self, ident: str) -> None:
        """Returns when it is taken. Raises RefusedError."""

    async def close(self) -> None: ...


class PlainFeed:
    """What most feeds have in common."""

    name = ""
    parallel = 8

    def __init__(self, ground: Ground) -> None:
        self.ground = ground

    def source(self) -> Json | None:
        return None

    def extra(self) -> Json:
        return {}

    def secrets(self) -> dict[str, dict[str, str]]:
        return {}

    async def open(self) -> None:
        return

    async def close(self) -> None:
        return


@dataclass(frozen=True, slots=True)
class Retrying:
    """How often and how soon what failed is attempted again; of the Function and of all Triggers."""

    retries: int = 2
    seconds: int = 1

    def spec(self) -> Json:
        return {"retries": self.retries, "backoff": {"seconds": self.seconds, "factor": 1, "jitterPercent": 0}}


def trigger(feed: Feed, function: str, retrying: Retrying) -> Json:
    """The Trigger of a feed that has one."""
    spec = {"function": function, "source": feed.source(), **retrying.spec(), **feed.extra()}
    kind = {"apiVersion": names.API_VERSION, "kind": names.TRIGGER_KIND}
    return kind | {"metadata": {"name": feed.name}, "spec": spec}


@dataclass
class Driver:
    """Hands `count` events to a feed within `seconds`, at an even pace, each until it is taken or `end` has come."""

    feed: Feed
    ledger: Ledger
    clock: Callable[[], float]
    end: float
    refusals: Counter[str] = field(default_factory=Counter)

    async def run(self, count: int, seconds: float) -> None:
        begun, room = self.clock(), asyncio.Semaphore(self.feed.parallel)
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                await asyncio.sleep(max(0.0, begun + number * seconds / count - self.clock()))
                await room.acquire()
                task = group.create_task(self._one(identity(self.feed.name, number)))
                task.add_done_callback(lambda _: room.release())

    async def _one(self, ident: str) -> None:
        while self.clock() < self.end:
            self.ledger.send(ident, self.clock())
            try:
                async with asyncio.timeout(ATTEMPT_SECONDS):
                    await self.feed.send(ident)
            except (RefusedError, TimeoutError) as error:
                self.refusals[str(error) or "no answer"] += 1
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                self.ledger.accept(ident, self.clock())
                return
