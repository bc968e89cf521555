"""Events for people: what `kubectl describe fn` and `describe trig` show. Posted in the background, never in the way of
the work.

The same event within ten minutes is posted once; each object may post a few at a time and then one every half minute.
What is routine (a busy function changes its number of instances all the time) has a share of its own: it must not use
up that of bad news.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from kappa_api import names
from kappa_operator.kube import ApiError, Kube, core_path
from kappa_operator.observed import rfc3339

Json = Any
logger = logging.getLogger(__name__)

REPEAT_SECONDS = 600.0
BURST = 10
REFILL_SECONDS = 30.0
REMEMBERED = 4096
MAX_MESSAGE = 1000
ROUTINE = frozenset({"ScaledUp", "ScaledDown"})


class About(Protocol):
    """What an Event is about: a record of a Function or of a Trigger."""

    @property
    def kind(self) -> str: ...
    @property
    def namespace(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def uid(self) -> str: ...
    @property
    def key(self) -> str: ...


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Limiter:
    """Decides which events are posted. Pure but for its memory; `now` is any time in seconds."""

    def __init__(self) -> None:
        self._posted: OrderedDict[tuple[str, str, str], float] = OrderedDict()
        self._buckets: OrderedDict[tuple[str, bool], _Bucket] = OrderedDict()

    def allows(self, uid: str, reason: str, message: str, now: float) -> bool:
        what = (uid, reason, message)
        if now - self._posted.get(what, -REPEAT_SECONDS) < REPEAT_SECONDS:
            return False
        share = (uid, reason in ROUTINE)
        bucket = self._buckets.setdefault(share, _Bucket(BURST, now))
        bucket.tokens = min(BURST, bucket.tokens + (now - bucket.at) / REFILL_SECONDS)
        bucket.at = now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        self._posted[what] = now
        self._posted.move_to_end(what)
        self._buckets.move_to_end(share)
        while len(self._posted) > REMEMBERED:
            self._posted.popitem(last=False)
        while len(self._buckets) > REMEMBERED:
            self._buckets.popitem(last=False)
        return True


class Recorder:
    """Posts Events. `run` does the posting; what comes while the queue is full is dropped."""

    def __init__(
        self, kube: Kube, identity: str, *, suffix: Callable[[], str], wall: Callable[[], float], size: int = 500
    ) -> None:
        self._kube, self._identity, self._suffix, self._wall = kube, identity, suffix, wall
        self._limiter = Limiter()
        self._queue: asyncio.Queue[Json] = asyncio.Queue(size)

    def normal(self, about: About, reason: str, message: str) -> None:
        self._record(about, "Normal", reason, message)

    def warning(self, about: About, reason: str, message: str) -> None:
        self._record(about, "Warning", reason, message)

    def _record(self, about: About, kind: str, reason: str, message: str) -> None:
        now = self._wall()
        if not self._limiter.allows(about.uid, reason, message, now):
            return
        try:
            self._queue.put_nowait(event(about, kind, reason, message, now, self._identity, self._suffix()))
        except asyncio.QueueFull:
            logger.warning("%s: event dropped: %s: %s", about.key, reason, message)

    async def run(self) -> None:
        """Posts until cancelled."""
        while True:
            body = await self._queue.get()
            try:
                await self._kube.create(core_path("events", body["metadata"]["namespace"]), body)
            except ApiError as error:
                logger.info("event not posted: %s", error)


def event(about: About, kind: str, reason: str, message: str, now: float, host: str, suffix: str) -> Json:
    """A core/v1 Event about one of our objects."""
    time = rfc3339(now)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{about.name}.{int(now * 1000):x}{suffix}", "namespace": about.namespace},
        "involvedObject": {
            "apiVersion": names.API_VERSION,
            "kind": about.kind,
            "namespace": about.namespace,
            "name": about.name,
            "uid": about.uid,
        },
        "type": kind,
        "reason": reason,
        "message": message[:MAX_MESSAGE],
        "source": {"component": names.MANAGER, "host": host},
        "reportingComponent": names.MANAGER,
        "reportingInstance": host,
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    }
