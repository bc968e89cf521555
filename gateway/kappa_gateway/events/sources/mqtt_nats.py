"""MQTT on the platform's own listener: nats-server speaks MQTT, and the gateway reads its streams.

What devices publish with QoS 1 or 2, nats-server stores in its stream `$MQTT_msgs` before it acknowledges. The stream
keeps a message for as long as a consumer wants it, so a durable consumer of the Trigger's own makes every such message
wait until JetStream has its event, however long no gateway runs. What is published with QoS 0 (and by NATS clients) is
stored nowhere: a plain subscription hears it, or nobody does. Each message carries its QoS in a header, by which the
subscription tells what the consumer will bring.

Ids are the message's number in that stream and its time, so whatever is read twice is one event. QoS 0 has neither
numbers nor repetitions: those ids are new ones.
"""

import asyncio
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from kappa_api.cloudevents import CloudEvent
from kappa_api.sources.mqtt import Mqtt
from kappa_api.trigger import Trigger
from kappa_gateway.events import tenancy
from kappa_gateway.events.bus import RefusedError, UnavailableError
from kappa_gateway.events.source import SourceError, Surroundings
from kappa_gateway.events.sources import mqtt_topics as topics
from kappa_gateway.events.sources.emitting import emit
from kappa_gateway.events.sources.nats_link import Link, link
from kappa_gateway.events.sources.nats_pull import Puller

log = logging.getLogger(__name__)

Json = Any
STREAM: Final = "$MQTT_msgs"
PREFIX: Final = "$MQTT.msgs."
ORIGIN: Final = "/mqtt"
QOS: Final = "Nmqtt-Pub"
CHUNK: Final = 100
ACK_SECONDS: Final = 30
#: A consumer that nobody has asked anything for so long is forgotten by the server, with what waits for it: a Trigger
#: that was deleted while no gateway ran must not fill the disk for ever.
FORGOTTEN_SECONDS: Final = 7 * 86_400
MOST_PENDING: Final = 1000
#: What of QoS 0 may wait here for JetStream, in bytes; further messages are dropped, as QoS 0 allows.
MOST_WAITING: Final = 16 * 1024 * 1024
#: Counted for each message besides its content.
OVERHEAD: Final = 512
_SECOND: Final = 1_000_000_000
_MAX_CONSUMERS: Final = 20


class Listener:
    """The Trigger's topics, read from NATS."""

    def __init__(self, trigger: Trigger, surroundings: Surroundings) -> None:
        self._trigger, self._around = trigger, surroundings
        self._spec: Mqtt = trigger.source
        self._heard: asyncio.Queue[Msg] = asyncio.Queue()
        self._waiting = 0  # bytes
        self._dropped = 0

    async def run(self) -> None:
        try:
            subjects = self._subjects()
            names = await self._prepare(topics.groups(PREFIX + subject for subject in subjects))
            async with link(self._around, "") as connection:
                await self._read(connection, subjects, names)
        except (NatsError, UnavailableError, ConnectionError) as error:
            raise SourceError(f"NATS: {error or type(error).__name__}") from error

    async def forget(self) -> None:
        """The Trigger is gone: its consumers would keep messages that nobody reads."""
        await self._remove(0)

    def _subjects(self) -> list[str]:
        """Raises SourceError."""
        shared = self._around.shared
        found: list[str] = []
        for topic in self._spec.topics:
            if problem := tenancy.topic_problem(self._trigger.namespace, topic, shared):
                raise SourceError(problem)
            try:
                found += topics.subjects_of(topic)
            except ValueError as error:
                raise SourceError(str(error)) from error
        return found

    # --- consumers ----------------------------------------------------------------------------------------------------
    def _name(self, index: int) -> str:
        return f"kappa-{self._trigger.uid}-{index}"

    async def _prepare(self, groups: Sequence[Sequence[str]]) -> list[str]:
        """Names of the consumers, which are there and read these subjects, and no others are."""
        wanted = groups if self._spec.qos else ()
        if wanted:
            await self._ensure_stream()
        for index, filters in enumerate(wanted):
            await self._ensure_consumer(self._name(index), list(filters))
        await self._remove(len(wanted))
        return [self._name(index) for index in range(len(wanted))]

    async def _ensure_stream(self) -> None:
        """nats-server makes it when the first device connects. Until then nothing would be kept, so it is made here, as
        the server would make it."""
        bus = self._around.bus
        try:
            await bus.api(f"STREAM.INFO.{STREAM}")
        except RefusedError as error:
            if not error.missing:
                raise
            config: Json = {"name": STREAM, "subjects": [PREFIX + ">"], "storage": "file", "retention": "interest"}
            await bus.api(f"STREAM.CREATE.{STREAM}", config | {"num_replicas": bus.settings.replicas})

    async def _ensure_consumer(self, name: str, filters: list[str]) -> None:
        config = {
            "durable_name": name,
            "ack_policy": "explicit",
            "deliver_policy": "all",
            "ack_wait": ACK_SECONDS * _SECOND,
            "max_ack_pending": MOST_PENDING,
            "max_deliver": -1,
            "inactive_threshold": FORGOTTEN_SECONDS * _SECOND,
            "filter_subjects": filters,
        }
        request = {"stream_name": STREAM, "config": config}
        await self._around.bus.api(f"CONSUMER.DURABLE.CREATE.{STREAM}.{name}", request)

    async def _remove(self, first: int) -> None:
        for index in range(first, 2 * _MAX_CONSUMERS):
            try:
                await self._around.bus.api(f"CONSUMER.DELETE.{STREAM}.{self._name(index)}")
            except RefusedError as error:
                if not error.missing:
                    raise
                return

    # --- reading ------------------------------------------------------------------------------------------------------
    async def _read(self, connection: Link, subjects: Sequence[str], names: Sequence[str]) -> None:
        client, listening = connection.nc, []
        # With QoS 1 nothing may begin before the consumers are there: then a message is theirs, or is heard.
        for subject in [subject for group in topics.groups(subjects) for subject in group]:
            listening.append(await client.subscribe(subject, queue=f"kappa.{self._trigger.uid}", cb=self._hear))
        try:
            await client.flush()
            self._around.sink.connected()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pass_on())
                for name in names:
                    tasks.create_task(self._pull(connection, name))
        except* (NatsError, UnavailableError, ConnectionError, SourceError) as errors:
            raise errors.exceptions[0] from None
        finally:
            for one in listening:
                with suppress(NatsError, ConnectionError):
                    await one.unsubscribe()

    async def _pull(self, connection: Link, name: str) -> None:
        puller = Puller(connection, STREAM, name, CHUNK)
        await puller.open()
        try:
            while True:
                messages = await puller.next()
                await emit(self._around.sink, [_stored(message) for message in messages])
                for message in messages:
                    await message.ack()
        finally:
            with suppress(NatsError, ConnectionError):
                for message in await puller.close():
                    await message.nak()

    async def _hear(self, message: Msg) -> None:
        if self._spec.qos and _qos(message):
            return  # the consumer has it
        if self._waiting > MOST_WAITING:
            if self._dropped % 10_000 == 0:
                told = "QoS 0 messages are dropped: they come faster than JetStream takes them"
                log.warning("Trigger %s: %s", self._trigger.key, told)
            self._dropped += 1
            return
        self._waiting += len(message.data) + OVERHEAD
        self._heard.put_nowait(message)

    async def _pass_on(self) -> None:
        while True:
            messages = [await self._heard.get()]
            while len(messages) < CHUNK and not self._heard.empty():
                messages.append(self._heard.get_nowait())
            self._waiting -= sum(len(message.data) + OVERHEAD for message in messages)
            now = self._around.wall()
            made = (
                topics.event(ORIGIN, os.urandom(16).hex(), topics.topic_of(m.subject), m.data, qos=_qos(m), now=now)
                for m in messages
            )
            await emit(self._around.sink, list(made))


def _stored(message: Msg) -> CloudEvent:
    """A message of the stream."""
    about = message.metadata
    moment = about.timestamp.timestamp()
    return topics.event(
        ORIGIN,
        f"{about.sequence.stream}-{round(moment * 1000)}",
        topics.topic_of(message.subject.removeprefix(PREFIX)),
        message.data,
        qos=_qos(message),
        now=moment,
    )


def _qos(message: Msg) -> int:
    """With which QoS the device published; 0 also for what a NATS client did."""
    text = (message.headers or {}).get(QOS, "0")
    return int(text) if text in ("1", "2") else 0
