"""MQTT 3.1.1 on an external broker, in a session that the broker keeps while nobody is connected.

A message of QoS 1 is acknowledged when JetStream has its event; a broker repeats what was not. MQTT gives messages no
numbers that outlive the exchange, so an id is new for each message, and only a repetition (DUP) that this process has
seen already keeps its id. What another gateway had taken and not acknowledged when it died comes twice: at most as many
messages as the broker lets be on their way (mosquitto: 20).
"""

import asyncio
import contextlib
import hashlib
import itertools
import json
import logging
import os
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import aiomqtt
import paho.mqtt.client as paho

from kappa_api.cloudevents import CloudEvent
from kappa_api.sources.mqtt import Mqtt
from kappa_api.trigger import Trigger
from kappa_gateway.events.source import SourceError, Surroundings
from kappa_gateway.events.sources import mqtt_topics as topics
from kappa_gateway.events.sources.emitting import emit
from kappa_gateway.events.sources.mqtt_address import Address, read_secret
from kappa_gateway.events.sources.mqtt_nats import Listener

log = logging.getLogger(__name__)

CHUNK: Final = 100
KEEPALIVE_SECONDS: Final = 20
TIMEOUT_SECONDS: Final = 10
#: What may wait here for JetStream, in bytes. Further messages of QoS 0 are dropped, as QoS 0 allows. QoS 1 is bounded
#: by the broker, which waits for acknowledgements; one that does not is left.
MOST_WAITING: Final = 16 * 1024 * 1024
MOST_UNACKNOWLEDGED: Final = 4 * MOST_WAITING
#: Counted for each message besides its content.
OVERHEAD: Final = 512
#: MQTT allows 256 MB, for which paho would make room at once: the broker is a tenant's, the memory is everybody's.
MOST_BYTES: Final = 32 * 1024 * 1024
_REFUSED: Final = 0x80  # SUBACK's code for a topic that may not be read
_SUBSCRIBED: Final = "topics"


class Broker:
    """The Trigger's topics on the broker that its Secret names."""

    def __init__(self, trigger: Trigger, surroundings: Surroundings) -> None:
        self._trigger, self._around = trigger, surroundings
        self._spec: Mqtt = trigger.source
        self._ids = Identities()

    async def run(self) -> None:
        address = self._address()
        await Listener(self._trigger, self._around).forget()  # where it may have read before it was given a broker
        async with self._connected(address, clean=False) as (client, inbox):
            await self._subscribe(client)
            self._around.sink.connected()
            while True:
                messages = await inbox.take(client)
                now = self._around.wall()
                await emit(self._around.sink, [self._event(address, one, now) for one in messages])
                for one in messages:
                    if one.qos:
                        inbox.acknowledge(one)

    async def forget(self) -> None:
        """The Trigger is gone: a clean session in place of the old one makes the broker drop what it keeps."""
        async with self._connected(self._address(), clean=True):
            pass

    @property
    def identifier(self) -> str:
        return session_of(self._trigger)

    def _address(self) -> Address:
        return read_secret(self._around.secret(self._spec.secret), self._spec.secret)

    def _event(self, address: Address, message: paho.MQTTMessage, now: float) -> CloudEvent:
        identity = self._ids.of(message)
        payload = bytes(message.payload)
        return topics.event(address.origin, identity, message.topic, payload, qos=message.qos, now=now)

    @asynccontextmanager
    async def _connected(self, address: Address, *, clean: bool) -> AsyncIterator[tuple[aiomqtt.Client, "Inbox"]]:
        """Raises SourceError, also for what goes wrong in the block."""
        addresses = await self._around.check_address(address.host, address.port)
        client = aiomqtt.Client(
            addresses[0],
            address.port,
            username=address.username,
            password=address.password,
            identifier=self.identifier,
            protocol=aiomqtt.ProtocolVersion.V311,
            clean_session=clean,
            keepalive=KEEPALIVE_SECONDS,
            timeout=TIMEOUT_SECONDS,
            tls_context=address.tls,
            logger=log.getChild("client"),
        )
        inbox = Inbox(client, self._trigger.key)
        try:
            async with client:
                yield client, inbox
        except aiomqtt.MqttError as error:
            raise SourceError(f"{address.origin}: {' '.join(str(error).split())[:300] or 'no answer'}") from error
        finally:
            inbox.close()

    async def _subscribe(self, client: aiomqtt.Client) -> None:
        """The session keeps the topics of the Trigger's last spec, too: those that are no more are given up."""
        wanted = list(self._spec.topics)
        before = json.loads(await self._around.state.load(_SUBSCRIBED) or b"[]")
        if before != wanted:
            # What is going to be subscribed is written down first, or a crash in between would forget it.
            await self._around.state.save(_SUBSCRIBED, json.dumps(sorted({*before, *wanted})).encode())
        if gone := [topic for topic in before if topic not in wanted]:
            await client.unsubscribe(gone)
        answers: Any = await client.subscribe([(topic, self._spec.qos) for topic in wanted])
        for topic, answer in zip(wanted, answers, strict=False):
            code = answer if isinstance(answer, int) else answer.value
            if code >= _REFUSED:
                raise SourceError(f"the broker does not let {topic[:80]!r} be read")
        if before != wanted:
            await self._around.state.save(_SUBSCRIBED, json.dumps(wanted).encode())


def session_of(trigger: Trigger) -> str:
    """The client id: always the same, and of the 23 letters and digits that every broker takes (3.1.3.1)."""
    return "kappa" + hashlib.sha256(trigger.uid.encode()).hexdigest()[:18]


class Inbox:
    """What has come and was not taken yet. aiomqtt has no door for acknowledging by hand, nor tells repetitions, so the
    paho client below it is asked."""

    def __init__(self, client: aiomqtt.Client, key: str) -> None:
        self._paho = client._client
        self._paho.manual_ack_set(True)
        self._paho.on_message = self._came
        self._receive = self._paho._sock_recv
        setattr(self._paho, "_sock_recv", self._received)  # noqa: B010 - a method, to mypy
        self._key = key
        self._messages: deque[paho.MQTTMessage] = deque()
        self._some = asyncio.Event()
        self._waiting = 0  # bytes
        self._dropped = 0

    def _received(self, size: int) -> bytes:
        if size > MOST_BYTES:
            raise aiomqtt.MqttError(f"a message of {size} bytes is more than Kappa takes ({MOST_BYTES})")
        return self._receive(size)

    def _came(self, client: paho.Client, userdata: object, message: paho.MQTTMessage) -> None:
        # In the event loop's thread: aiomqtt reads there.
        if message.qos == 0 and self._waiting > MOST_WAITING:
            if self._dropped % 10_000 == 0:
                log.warning("Trigger %s: QoS 0 messages are dropped: they come too fast", self._key)
            self._dropped += 1
            return
        if self._waiting > MOST_UNACKNOWLEDGED:
            raise aiomqtt.MqttError("the broker sends on and on without waiting for acknowledgements")
        self._waiting += len(message.payload) + OVERHEAD
        self._messages.append(message)
        self._some.set()

    async def take(self, client: aiomqtt.Client) -> list[paho.MQTTMessage]:
        """At least one. Raises MqttError when the connection has ended."""
        if not self._messages:
            self._some.clear()
            waiting = asyncio.ensure_future(self._some.wait())
            try:
                await asyncio.wait((waiting, client._disconnected), return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiting.cancel()
            if not self._messages:
                problem = client._disconnected.exception() if client._disconnected.done() else None
                raise aiomqtt.MqttError(f"the connection has ended: {problem or 'by the broker'}") from problem
        found = [self._messages.popleft() for _ in range(min(CHUNK, len(self._messages)))]
        self._waiting -= sum(len(one.payload) + OVERHEAD for one in found)
        return found

    def close(self) -> None:
        """aiomqtt leaves the socket open, and its task running, when the broker does not answer."""
        self._paho._sock_close()

    def acknowledge(self, message: paho.MQTTMessage) -> None:
        with contextlib.suppress(ValueError):
            self._paho.ack(message.mid, message.qos)


class Identities:
    """Ids of messages. Packet ids are used again as soon as a message is acknowledged, and the same content is sent
    again and again by some devices: only a packet that says it is a repetition can be one."""

    def __init__(self) -> None:
        self._salt = os.urandom(8).hex()
        self._count = itertools.count(1)
        self._last: dict[int, tuple[bytes, str]] = {}  # by packet id; there are 65,535

    def of(self, message: paho.MQTTMessage) -> str:
        if not message.qos:
            return self._new()
        digest = hashlib.sha256(message.topic.encode() + b"\0" + message.payload).digest()[:16]
        known = self._last.get(message.mid)
        if message.dup and known is not None and known[0] == digest:
            return known[1]
        found = self._new()
        self._last[message.mid] = (digest, found)
        return found

    def _new(self) -> str:
        return f"{self._salt}-{next(self._count)}"
