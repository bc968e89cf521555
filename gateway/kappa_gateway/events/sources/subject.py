"""The source `subject`: messages of core NATS. The gateways are one queue group, so each message comes to one of them.

Core NATS keeps nothing: what is published while no gateway listens is gone, and so is what a gateway has in memory when
it is killed. Who wants to know that a message was taken sends it as a request: it is answered once JetStream has it.
"""

import asyncio
import json
import logging
import uuid
from typing import Final

from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from kappa_api.cloudevents import CloudEvent
from kappa_api.sources.subject import Subject
from kappa_api.trigger import Trigger
from kappa_gateway.events.bus import MSG_ID, UnavailableError
from kappa_gateway.events.source import Place, Source, SourceError, Surroundings
from kappa_gateway.events.sources.nats_link import Link, link
from kappa_gateway.events.sources.nats_messages import cloud_event, plain_event, rfc3339
from kappa_gateway.events.tenancy import subject_problem

log = logging.getLogger(__name__)

PLACE: Final = Place.EACH
SHAPE: Final = "sqs"
TYPE: Final = "dev.kappa.subject.message"
#: Messages that wait in memory for JetStream; beyond, NATS is told that this client is slow, and drops.
MOST_WAITING: Final = 65_536
MOST_WAITING_BYTES: Final = 64 * 1024 * 1024
BATCH: Final = 256
RETRY_SECONDS: Final = 0.2
LOOK_SECONDS: Final = 1.0
#: A source that stops gets so long to hand over what has come already.
LAST_SECONDS: Final = 1.5


def make(trigger: Trigger, surroundings: Surroundings) -> Source:
    return SubjectSource(trigger, surroundings)


class SubjectSource:
    """See the module."""

    def __init__(self, trigger: Trigger, given: Surroundings) -> None:
        self._trigger, self._given = trigger, given
        self._spec: Subject = trigger.source
        self._queue: asyncio.Queue[Msg] = asyncio.Queue(BATCH)

    async def run(self) -> None:
        """See `source.Source`."""
        spec, trigger = self._spec, self._trigger
        if not spec.secret and (problem := subject_problem(trigger.namespace, spec.subject, self._given.shared)):
            raise SourceError(problem)
        async with link(self._given, spec.secret) as connection:
            subscription = await connection.nc.subscribe(
                spec.subject,
                queue=f"kappa-{trigger.uid}",
                cb=self._queue.put,
                pending_msgs_limit=MOST_WAITING,
                pending_bytes_limit=MOST_WAITING_BYTES,
            )
            await connection.nc.flush()
            self._given.sink.connected()
            try:
                while True:
                    await self._take(connection)
            finally:
                await asyncio.shield(self._finish(connection, subscription))

    async def _take(self, connection: Link) -> None:
        try:
            first = await asyncio.wait_for(self._queue.get(), LOOK_SECONDS)
        except TimeoutError:
            if connection.closed.is_set() or (connection.own and connection.nc is not self._given.bus.nc):
                raise SourceError("the connection was lost") from None
            return
        await self._deliver([first, *self._waiting()], connection)

    def _waiting(self) -> list[Msg]:
        return [self._queue.get_nowait() for _ in range(min(self._queue.qsize(), BATCH - 1))]

    async def _deliver(self, messages: list[Msg], connection: Link) -> None:
        """Tries until JetStream has them: nobody else could say them again."""
        events = [self._event(message) for message in messages]
        while True:
            try:
                await self._given.sink.emit(events)
                break
            except UnavailableError:
                await asyncio.sleep(RETRY_SECONDS)
        for message, event in zip(messages, events, strict=True):
            if message.reply:
                try:
                    await connection.nc.publish(message.reply, json.dumps({"accepted": event.id}).encode())
                except (NatsError, ConnectionError):
                    log.debug("nobody can be told that %s was taken", event.id)

    async def _finish(self, connection: Link, subscription: object) -> None:
        """What came before the end is not lost, if JetStream takes it soon."""
        try:
            async with asyncio.timeout(LAST_SECONDS):
                drain = asyncio.ensure_future(subscription.drain())  # type: ignore[attr-defined]
                drain.add_done_callback(lambda done: done.cancelled() or done.exception())  # NATS may be away
                while not drain.done() or not self._queue.empty():
                    if self._queue.empty():
                        getting = asyncio.ensure_future(self._queue.get())
                        await asyncio.wait([drain, getting], return_when=asyncio.FIRST_COMPLETED)
                        if getting.done():
                            await self._deliver([getting.result(), *self._waiting()], connection)
                        else:
                            getting.cancel()
                    else:
                        await self._deliver(self._waiting(), connection)
        except (TimeoutError, NatsError, ConnectionError):
            log.debug("Trigger %s: its subscription could not be drained", self._trigger.key)

    def _event(self, message: Msg) -> CloudEvent:
        headers = message.headers or {}
        if found := cloud_event(headers, message.data):
            return found
        template = CloudEvent(
            id=headers.get(MSG_ID) or uuid.uuid4().hex,
            source=f"/nats/{message.subject}",
            type=TYPE,
            subject=message.subject,
            time=rfc3339(self._given.wall()),
        )
        return plain_event(template, headers, message.data)
