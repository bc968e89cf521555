"""Feeds that put something into the platform's NATS: subjects, streams, key-value and object buckets."""

import json
from collections.abc import Awaitable
from typing import Any

from nats.errors import Error as NatsError
from nats.js.api import KeyValueConfig, ObjectStoreConfig, StreamConfig
from proof_feed import NAMESPACE, Json, PlainFeed, RefusedError

REPLICAS = 3
ANSWER_SECONDS = 5.0


async def taken(what: Awaitable[Any]) -> Any:
    """Its result; a server that is away is a RefusedError."""
    try:
        return await what
    except (NatsError, TimeoutError, OSError) as error:
        raise RefusedError(f"NATS: {type(error).__name__}") from error


class SubjectFeed(PlainFeed):
    """Core NATS keeps nothing: a publisher who must know asks for an answer, and gets it when the event is kept."""

    name = "subject"

    def source(self) -> Json:
        return {"subject": {"subject": f"{NAMESPACE}.proof.subject"}}

    async def send(self, ident: str) -> None:
        body = json.dumps({"id": ident}).encode()
        request = self.ground.nats.request(
            f"{NAMESPACE}.proof.subject", body, timeout=ANSWER_SECONDS, headers={"Nats-Msg-Id": ident}
        )
        await taken(request)


class StreamFeed(PlainFeed):
    """A stream of the user's own; batches with partial failure."""

    name = "stream"
    stream = f"{NAMESPACE}_proof"

    def source(self) -> Json:
        return {"stream": {"stream": self.stream, "start": "all"}}

    def extra(self) -> Json:
        return {"batch": {"size": 10, "windowSeconds": 1}}

    async def open(self) -> None:
        subjects = [f"{NAMESPACE}.proof.stream.>"]
        await self.ground.nats.jetstream().add_stream(
            StreamConfig(name=self.stream, subjects=subjects, num_replicas=REPLICAS, duplicate_window=120)
        )

    async def send(self, ident: str) -> None:
        js = self.ground.nats.jetstream(timeout=ANSWER_SECONDS)
        body = json.dumps({"id": ident}).encode()
        await taken(js.publish(f"{NAMESPACE}.proof.stream.in", body, headers={"Nats-Msg-Id": ident}))


class KvFeed(PlainFeed):
    """A new key of a bucket for each event."""

    name = "kv"
    bucket = f"{NAMESPACE}_kv"

    def source(self) -> Json:
        return {"kv": {"bucket": self.bucket}}

    async def open(self) -> None:
        js = self.ground.nats.jetstream(timeout=ANSWER_SECONDS)
        self._kv = await js.create_key_value(KeyValueConfig(bucket=self.bucket, history=2, replicas=REPLICAS))

    async def send(self, ident: str) -> None:
        await taken(self._kv.put(ident, json.dumps({"id": ident}).encode()))


class ObjectFeed(PlainFeed):
    """A new object of a bucket for each event."""

    name = "object"
    bucket = f"{NAMESPACE}_objects"

    def source(self) -> Json:
        return {"object": {"bucket": self.bucket}}

    async def open(self) -> None:
        js = self.ground.nats.jetstream(timeout=ANSWER_SECONDS)
        self._store = await js.create_object_store(self.bucket, ObjectStoreConfig(replicas=REPLICAS))

    async def send(self, ident: str) -> None:
        await taken(self._store.put(ident, b"content of " + ident.encode()))
