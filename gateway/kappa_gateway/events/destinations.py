"""Destinations: where the outcome of work goes, as a record in the form that Lambda's destinations have.

The record travels as a CloudEvent: to a Function as new asynchronous work, to a subject through JetStream, to a URL by
POST. Its id is derived from the work's, so one that is sent twice can be told.
"""

import base64
import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver

from kappa_api.cloudevents import MEDIA_TYPE, CloudEvent
from kappa_api.delivery import Destination
from kappa_gateway.auth.fetch import GuardedResolver, host_problem
from kappa_gateway.events.bus import Bus, TooLargeError, UnavailableError
from kappa_gateway.events.delivery.verdict import Outcome
from kappa_gateway.events.records import error_of, result_of
from kappa_gateway.events.tenancy import subject_problem
from kappa_gateway.events.work import ASYNC, EVENT_CALL, Lane, Work

log = logging.getLogger(__name__)

Json = Any
URL_SECONDS: Final = 10.0
#: How often a URL is tried; whoever is away for longer has lost the record, and the log says so.
URL_TRIES: Final = 3
TYPE: Final = "dev.kappa.invocation."
#: Of what the work brought, in a record; what is longer is left out.
MOST_PAYLOAD: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Ended:
    """`condition`: Success, RetriesExhausted or EventAgeExceeded. `attempts`: all that were made. `outcome`: of the
    last one; None: there was none just now."""

    condition: str
    attempts: int
    outcome: Outcome | None = None


class Destinations:
    """`poke`: see `Submit`. `shared`, `loopback`: see `EventSettings`. `failed` counts what could not be delivered, by
    kind."""

    def __init__(
        self,
        bus: Bus,
        poke: Callable[[Lane], None],
        *,
        shared: tuple[str, ...] = (),
        loopback: bool = False,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._bus, self._poke, self._shared, self._loopback, self._wall = bus, poke, shared, loopback, wall
        self._session: aiohttp.ClientSession | None = None
        self.failed: dict[str, int] = {}

    def message(self, lane: Lane, work: Work, key: str, function: str, ended: Ended) -> CloudEvent:
        """The record of an outcome."""
        now = datetime.fromtimestamp(self._wall(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        response: dict[str, Json] = {}
        payload: Json = None
        if ended.outcome is not None:
            outcome = ended.outcome
            response = {"statusCode": outcome.status, "executedVersion": "$LATEST"}
            if outcome.reason:
                response["functionError"] = outcome.reason
            payload = _payload(outcome.body) if not outcome.code else error_of(outcome)
            if outcome.status and not outcome.code:
                response["headers"] = result_of(outcome)["headers"]
        data = {
            "version": "1.0",
            "timestamp": now,
            "requestContext": {
                "requestId": work.id,
                "functionArn": f"kappa:function:{function.replace('/', ':')}",
                "condition": ended.condition,
                "approximateInvokeCount": ended.attempts,
            },
            "requestPayload": _payload(work.body),
            "responseContext": response,
            "responsePayload": payload,
        }
        return CloudEvent(
            id=f"{key}/{ended.condition}",
            source=f"/kappa/functions/{function}",
            type=TYPE + ("succeeded" if ended.condition == "Success" else "failed"),
            subject=lane.key,
            time=now,
            datacontenttype="application/json",
            data=data,
        )

    async def send(self, namespace: str, destination: Destination, event: CloudEvent) -> None:
        """Returns when it is there, or never will be. Raises UnavailableError while JetStream is away."""
        body = json.dumps(event.to_json()).encode()
        try:
            if destination.function:
                await self._to_function(Lane(ASYNC, namespace, destination.function), event, body)
            elif destination.subject:
                await self._to_subject(namespace, destination.subject, event, body)
            else:
                await self._to_url(destination.url, body)
        except TooLargeError as error:
            self._fail("size", f"{destination}: {error}")

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _to_function(self, lane: Lane, event: CloudEvent, body: bytes) -> None:
        work = Work(_work_id(event.id), int(self._wall() * 1000), body, EVENT_CALL)
        await self._bus.publish(lane.subject, work.body, work.headers(), msg_id=work.id)
        self._poke(lane)

    async def _to_subject(self, namespace: str, subject: str, event: CloudEvent, body: bytes) -> None:
        if problem := subject_problem(namespace, subject, self._shared):
            self._fail("subject", problem)
            return
        headers = {"content-type": MEDIA_TYPE}
        try:
            await self._bus.publish(subject, body, headers, msg_id=event.id)
        except UnavailableError:
            # Without a stream there is nobody who would answer: what is told to subscribers is all there can be
            if not self._bus.up:
                raise
            self._fail("subject", f"no stream takes {subject}: make one that listens to it")

    async def _to_url(self, url: str, body: bytes) -> None:
        if self._session is None:
            resolver: AbstractResolver = GuardedResolver(loopback=self._loopback)
            connector = aiohttp.TCPConnector(resolver=resolver, limit=64, force_close=True)
            timeout = aiohttp.ClientTimeout(total=URL_SECONDS)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False)
        problem = host_problem(url, loopback=self._loopback)
        for _ in range(0 if problem else URL_TRIES):
            try:
                headers = {"content-type": MEDIA_TYPE}
                async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as reply:
                    if reply.status < 300:
                        return
                    problem = f"it answered {reply.status}"
                    if reply.status < 500 and reply.status not in (408, 429):
                        break
            except Exception as error:
                problem = repr(error)[:200]
        self._fail("url", f"{url[:200]}: {problem}")

    def _fail(self, kind: str, problem: str) -> None:
        self.failed[kind] = self.failed.get(kind, 0) + 1
        log.warning("an outcome could not be delivered to its destination: %s", problem)


def _payload(body: bytes) -> Json:
    if len(body) > MOST_PAYLOAD:
        return None
    try:
        return json.loads(body) if body else None
    except ValueError:
        pass
    try:
        return body.decode()
    except UnicodeDecodeError:
        return base64.b64encode(body).decode()


def _work_id(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
