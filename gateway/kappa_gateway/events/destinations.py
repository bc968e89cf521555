"""Destinations: where the outcome of work goes, as a record in the form that Lambda's destinations have.

The record travels as a CloudEvent: to a Function as new asynchronous work, to a subject through JetStream, to a URL by
POST. Its id is derived from the work's, so one that is sent twice can be told. What needs a receiver outside is kept
first and sent afterwards (`outcomes/`): the work that it is about need not wait.
"""

import base64
import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from kappa_api.cloudevents import MEDIA_TYPE, CloudEvent
from kappa_api.delivery import Destination
from kappa_gateway import hops
from kappa_gateway.events.bus import Bus, RefusedError, TooLargeError, UnavailableError
from kappa_gateway.events.delivery.verdict import Outcome
from kappa_gateway.events.outcomes.address import Address, kind_of, shown
from kappa_gateway.events.outcomes.outbox import Outbox
from kappa_gateway.events.outcomes.post import Poster
from kappa_gateway.events.outcomes.rules import SENT, Answer, Verdict, unanswered
from kappa_gateway.events.records import error_of, result_of
from kappa_gateway.events.tenancy import subject_problem
from kappa_gateway.events.work import ASYNC, EVENT_CALL, Lane, Work

log = logging.getLogger(__name__)

Json = Any
TYPE: Final = "dev.kappa.invocation."
SUCCEEDED, FAILED = "succeeded", "failed"
#: Of what the work brought, in a record; what is longer is left out.
MOST_PAYLOAD: Final = 256 * 1024
#: Subjects that are remembered as some stream's.
MOST_SUBJECTS: Final = 1000


@dataclass(frozen=True, slots=True)
class Ended:
    """`condition`: Success, RetriesExhausted, EventAgeExceeded or LoopDetected. `attempts`: all that were made.
    `outcome`: of the last one; None: there was none just now."""

    condition: str
    attempts: int
    outcome: Outcome | None = None


class Destinations:
    """`poke`: see `Submit`. `poster` makes the requests, `outbox` keeps what is to be sent. `shared`: see
    `EventSettings`. `failed` counts outcomes that no destination took, by its kind."""

    def __init__(
        self,
        bus: Bus,
        outbox: Outbox,
        poke: Callable[[Lane], None],
        poster: Poster,
        *,
        shared: tuple[str, ...] = (),
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._bus, self._outbox, self._poke, self.poster = bus, outbox, poke, poster
        self._shared, self._wall = shared, wall
        self._taken: dict[str, None] = {}  # subjects that a stream took something under; the oldest first
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
            "requestPayload": _payload(b"" if work.stored else work.body),
            "responseContext": response,
            "responsePayload": payload,
        }
        return CloudEvent(
            id=f"{key}/{ended.condition}",
            source=f"/kappa/functions/{function}",
            type=TYPE + (SUCCEEDED if ended.condition == "Success" else FAILED),
            subject=lane.key,
            time=now,
            datacontenttype="application/json",
            data=data,
            extensions=hops.caused(work.hops),
        )

    async def send(self, lane: Lane, destination: Destination, event: CloudEvent) -> None:
        """Returns when it is there, or kept. `lane`: of the work that it is about. Raises UnavailableError while
        JetStream is away."""
        try:
            await self._send(lane, destination, event)
        except TooLargeError:
            data = {**event.data, "requestPayload": None, "responsePayload": None}  # type: ignore[dict-item]
            try:
                await self._send(lane, destination, replace(event, data=data))
            except TooLargeError as error:
                self.lost("size", f"{shown(destination)}: {error}")

    async def hand_over(self, namespace: str, destination: Destination, work: Work) -> Answer:
        """One attempt with the event that `work` holds. Whoever posts holds `poster.gate`. Raises UnavailableError."""
        try:
            if destination.function:
                # Not `work.hops`: that would stop what goes to receivers outside, which is never a round more
                count = hops.of_event(CloudEvent.from_json(json.loads(work.body)))
                await self._to_function(Lane(ASYNC, namespace, destination.function), work.id, work.body, count)
                return SENT
            if destination.subject:
                return await self._to_subject(namespace, destination.subject, work.id, work.body)
        except TooLargeError as error:
            return unanswered("too_large", str(error))
        return await self.poster.post(destination.url, work.body)

    def lost(self, kind: str, problem: str) -> None:
        """It is a dead letter, or worse."""
        self.failed[kind] = self.failed.get(kind, 0) + 1
        log.warning("an outcome could not be delivered to its destination: %s", problem)

    async def close(self) -> None:
        await self.poster.close()

    async def _send(self, lane: Lane, destination: Destination, event: CloudEvent) -> None:
        body = json.dumps(event.to_json()).encode()
        if destination.function:
            chosen = Lane(ASYNC, lane.namespace, destination.function)
            try:
                await self._to_function(chosen, event.id, body, hops.of_event(event))
                return
            except RefusedError as error:
                if not error.full:  # see `Outbox`
                    raise
        if destination.subject:
            answer = await self._to_subject(lane.namespace, destination.subject, event.id, body)
            if answer.verdict is Verdict.SENT:
                return
        address = Address(destination, lane.kind, success=event.type == TYPE + SUCCEEDED)
        await self._outbox.keep(lane, address, event.id, body, self._at_once)

    async def _at_once(self, namespace: str, destination: Destination, work: Work) -> Answer:
        async with self.poster.gate:
            try:
                answer = await self.hand_over(namespace, destination, work)
            except RefusedError as error:
                if not error.full:
                    raise
                answer = unanswered("no_room", f"{shown(destination)} cannot be told before there is room")
        if answer.verdict is not Verdict.SENT:
            self.lost(kind_of(destination), answer.message)
        return answer

    async def _to_function(self, lane: Lane, key: str, body: bytes, count: int) -> None:
        work = Work(_work_id(key), int(self._wall() * 1000), body, EVENT_CALL, hops=count)
        await self._bus.publish(lane.subject, work.body, work.headers(), msg_id=work.id)
        self._poke(lane)

    async def _to_subject(self, namespace: str, subject: str, key: str, body: bytes) -> Answer:
        if problem := subject_problem(namespace, subject, self._shared):
            return unanswered("forbidden_subject", problem)
        if not await self._streamed(subject):
            return unanswered("no_stream", f"no stream takes {subject[:200]}: make one that listens to it")
        try:
            await self._bus.publish(subject, body, {"content-type": MEDIA_TYPE}, msg_id=key)
        except UnavailableError as error:
            self._taken.pop(subject, None)
            if not self._bus.up:
                raise
            return unanswered("no_stream", f"{subject[:200]}: {error}")
        self._taken[subject] = None
        if len(self._taken) > MOST_SUBJECTS:
            del self._taken[next(iter(self._taken))]
        return SENT

    async def _streamed(self, subject: str) -> bool:
        """Whether a stream listens to it. Where none does but plain subscribers do, JetStream would answer nothing, and
        whoever publishes would take it for dead."""
        if subject in self._taken:
            return True
        return bool((await self._bus.api("STREAM.NAMES", {"subject": subject})).get("streams"))


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
