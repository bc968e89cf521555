"""The source `stream`: messages of a JetStream stream, acknowledged when the platform's own stream has them.

All gateways fetch from one durable consumer of the user's stream, which JetStream shares out. A Trigger that wants
order has one reader (`nats_follow`), which goes on after the last message that it took.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from nats.errors import Error as NatsError

from kappa_api.cloudevents import CloudEvent
from kappa_api.sources.stream import Stream
from kappa_api.trigger import Trigger
from kappa_gateway.events.bus import UnavailableError
from kappa_gateway.events.source import Place, Source, SourceError, Surroundings, Trace
from kappa_gateway.events.sources.nats_follow import Course, Entry, entry_of, filters, follow, stream_info
from kappa_gateway.events.sources.nats_link import ApiError, Link, link
from kappa_gateway.events.sources.nats_messages import cloud_event, plain_event, rfc3339
from kappa_gateway.events.sources.nats_pull import Puller
from kappa_gateway.events.tenancy import name_problem

log = logging.getLogger(__name__)

Json = Any
SHAPE: Final = "sqs"
TYPE: Final = "dev.kappa.stream.message"
#: What a gateway that died had read and not handed on comes to another one after so long.
ACK_SECONDS: Final = 15
MOST_PENDING: Final = 2048
_NANO: Final = 1_000_000_000
_KEY: Final = "stream"
RETRY_SECONDS: Final = 0.2


def place(trigger: Trigger) -> Place:
    return Place.ONE if trigger.ordered else Place.EACH


def trace(trigger: Trigger, surroundings: Surroundings) -> Trace | None:
    """See `source.Source`. One that keeps order has no consumer for longer than a minute."""
    if trigger.ordered:
        return None
    spec: Stream = trigger.source
    where = f"on the servers that the Secret {spec.secret} names" if spec.secret else "on the platform's NATS"
    name = _durable(trigger)
    text = f"the consumer {name} of the stream {spec.stream} {where}: nats consumer rm {spec.stream} {name}"
    return Trace((spec.secret, spec.stream), text)


def make(trigger: Trigger, surroundings: Surroundings) -> Source:
    return StreamSource(trigger, surroundings)


class StreamSource:
    """See the module."""

    def __init__(self, trigger: Trigger, given: Surroundings) -> None:
        self._trigger, self._given = trigger, given
        self._spec: Stream = trigger.source
        self._durable = _durable(trigger)
        self._missing = f"there is no stream {self._spec.stream}: make it, or correct the name"

    async def run(self) -> None:
        """See `source.Source`."""
        spec, trigger = self._spec, self._trigger
        if not spec.secret and (problem := name_problem(trigger.namespace, spec.stream, self._given.shared)):
            raise SourceError(problem)
        async with link(self._given, spec.secret) as connection:
            if trigger.ordered:
                await self._drop_old(connection, spec.stream)
                course = Course(spec.stream, spec.subjects, spec.start, self._missing, self._events)
                await follow(connection, self._given, course)
            else:
                await self._share(connection)

    async def forget(self) -> None:
        """The durable consumer goes with its Trigger."""
        async with link(self._given, self._spec.secret) as connection:
            await self._drop(connection, self._spec.stream)

    async def where(self) -> str:
        async with link(self._given, self._spec.secret) as connection:
            try:
                info = await connection.ask(f"STREAM.INFO.{self._spec.stream}")
            except ApiError as error:
                if error.missing:
                    return f"{self._spec.stream}/"
                raise
            return f"{self._spec.stream}/{info['created']}"

    # --- the durable consumer -----------------------------------------------------------------------------------------
    async def _share(self, connection: Link) -> None:
        await stream_info(connection, self._spec.stream, self._missing)
        await self._ensure(connection)
        puller = Puller(connection, self._spec.stream, self._durable)
        await puller.open()
        self._given.sink.connected()
        try:
            while True:
                messages = await puller.next()
                await self._emit(await self._events([entry_of(message) for message in messages]))
                for message in messages:
                    await connection.nc.publish(message.reply, b"+ACK")
        finally:
            with suppress(NatsError, ConnectionError):
                for message in await puller.close():
                    await connection.nc.publish(message.reply, b"-NAK")

    async def _emit(self, events: list[CloudEvent]) -> None:
        """Until JetStream has them, for as long as they are ours."""
        for _ in range(int(ACK_SECONDS / 2 / RETRY_SECONDS)):
            try:
                await self._given.sink.emit(events)
                return
            except UnavailableError:
                await asyncio.sleep(RETRY_SECONDS)
        raise UnavailableError("the events could not be taken in time; the stream gives them again")

    async def _ensure(self, connection: Link) -> None:
        spec = self._spec
        before = await self._given.state.load(_KEY)
        if before is not None and before.decode() != spec.stream:
            await self._drop(connection, before.decode())
        wanted: dict[str, Json] = {
            "durable_name": self._durable,
            "name": self._durable,
            "description": f"Kappa: Trigger {self._trigger.key}",
            "deliver_policy": spec.start if spec.start == "all" else "new",
            "ack_policy": "explicit",
            "ack_wait": ACK_SECONDS * _NANO,
            "max_ack_pending": MOST_PENDING,
            "max_deliver": -1,
        }
        known = await self._consumer(connection)
        if known is not None:
            wanted = {k: v for k, v in known["config"].items() if k not in ("filter_subject", "filter_subjects")}
        config = {**wanted, **filters(spec.subjects)}
        if known is None or config != known["config"]:
            subject = f"CONSUMER.CREATE.{spec.stream}.{self._durable}"
            try:
                await connection.ask(subject, {"stream_name": spec.stream, "config": config})
            except ApiError as error:
                raise SourceError(f"no consumer on stream {spec.stream}: {error}") from error
        await self._given.state.save(_KEY, spec.stream.encode())

    async def _consumer(self, connection: Link) -> Json:
        try:
            return await connection.ask(f"CONSUMER.INFO.{self._spec.stream}.{self._durable}")
        except ApiError as error:
            if error.missing:
                return None
            raise

    async def _drop_old(self, connection: Link, stream: str) -> None:
        """It wants order now, and did not before."""
        before = await self._given.state.load(_KEY)
        if before is not None:
            await self._drop(connection, before.decode() or stream)

    async def _drop(self, connection: Link, stream: str) -> None:
        try:
            await connection.ask(f"CONSUMER.DELETE.{stream}.{self._durable}")
        except ApiError as error:
            if not error.missing:
                raise

    async def _events(self, entries: Sequence[Entry]) -> list[CloudEvent]:
        return [self._event(entry) for entry in entries]

    def _event(self, entry: Entry) -> CloudEvent:
        if found := cloud_event(entry.headers, entry.data):
            return found
        template = CloudEvent(
            id=entry.mark,
            source=f"/nats/streams/{self._spec.stream}",
            type=TYPE,
            subject=entry.subject,
            time=rfc3339(entry.time),
            extensions={"sequence": str(entry.seq)},
        )
        return plain_event(template, entry.headers, entry.data)


def _durable(trigger: Trigger) -> str:
    return f"kappa-{trigger.uid}"
