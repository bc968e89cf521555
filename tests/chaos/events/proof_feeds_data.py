"""Feeds that change something outside the platform: rows, Redis streams, devices' messages, Kubernetes objects."""

import contextlib
import json

import aiohttp
import aiomqtt
import psycopg
import redis.asyncio
import redis.exceptions
from kappa_postgres import PostgresServer
from proof_feed import Ground, Json, PlainFeed, RefusedError
from proof_servers import program, usable


class ServedFeed(PlainFeed):
    """A feed with a server of its own: what is entered into `stack` ends with the feed."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self.stack = contextlib.AsyncExitStack()
        self.url = ""

    def secrets(self) -> dict[str, dict[str, str]]:
        return {f"proof-{self.name}": {"url": self.url}}

    async def close(self) -> None:
        await self.stack.aclose()


class PostgresFeed(ServedFeed):
    """A row for each event, committed on its own. In order of the source's key."""

    name = "postgres"
    parallel = 1

    def source(self) -> Json:
        return {"postgres": {"secretRef": {"name": "proof-postgres"}, "tables": ["public.orders"]}}

    async def open(self) -> None:
        with usable():
            server = PostgresServer()
        self.stack.push_async_callback(server.remove)
        await server.start()
        self.url = server.url()
        await server.execute("CREATE TABLE orders (id text PRIMARY KEY, amount int NOT NULL)")
        self._connection = await psycopg.AsyncConnection.connect(self.url, autocommit=True)
        self.stack.push_async_callback(self._connection.close)

    async def send(self, ident: str) -> None:
        query = "INSERT INTO orders (id, amount) VALUES (%s, 7) ON CONFLICT DO NOTHING"
        await self._connection.execute(query, (ident,))


class RedisFeed(ServedFeed):
    """An entry of a stream for each event; batches with partial failure."""

    name = "redis"

    def source(self) -> Json:
        return {"redis": {"secretRef": {"name": "proof-redis"}, "stream": "orders", "start": "all"}}

    def extra(self) -> Json:
        return {"batch": {"size": 10, "windowSeconds": 1}}

    async def open(self) -> None:
        options = ("--port", "{port}", "--bind", "127.0.0.1", "--save", "", "--dir", "{folder}")
        port = await self.stack.enter_async_context(program("redis-server", self.ground.folder, *options))
        self.url = f"redis://127.0.0.1:{port}/0"
        self._client = redis.asyncio.from_url(self.url)  # type: ignore[no-untyped-call]
        self.stack.push_async_callback(self._client.aclose)

    async def send(self, ident: str) -> None:
        try:
            await self._client.xadd("orders", {"id": ident})
        except redis.exceptions.RedisError as error:
            raise RefusedError(type(error).__name__) from error


class MqttFeed(ServedFeed):
    """A device at a broker of its own, with QoS 1."""

    name = "mqtt"

    def source(self) -> Json:
        return {"mqtt": {"secretRef": {"name": "proof-mqtt"}, "topics": ["shop/+/orders"], "qos": 1}}

    async def open(self) -> None:
        config = "listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 0\n"
        started = program("mosquitto", self.ground.folder, "-c", "{folder}/config", config=config)
        port = await self.stack.enter_async_context(started)
        self.url = f"mqtt://127.0.0.1:{port}"
        device = aiomqtt.Client("127.0.0.1", port, identifier="proof-device", max_concurrent_outgoing_calls=100)
        self._device = await self.stack.enter_async_context(device)

    async def send(self, ident: str) -> None:
        try:
            await self._device.publish("shop/berlin/orders", json.dumps({"id": ident}), qos=1)
        except aiomqtt.MqttError as error:
            raise RefusedError(type(error).__name__) from error


class KubernetesFeed(PlainFeed):
    """A ConfigMap for each event, in the Trigger's namespace."""

    name = "kubernetes"

    def source(self) -> Json:
        chosen = {"labelSelector": "kappa-proof=yes", "events": ["ADDED"]}
        return {"kubernetes": {"apiVersion": "v1", "kind": "ConfigMap", **chosen}}

    async def send(self, ident: str) -> None:
        meta = {"name": ident, "labels": {"kappa-proof": "yes"}}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta}
        try:
            answer = await self.ground.api.post("/api/v1/namespaces/{ns}/configmaps", body)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise RefusedError(type(error).__name__) from error
        if answer.status not in (201, 409):
            raise RefusedError(f"{answer.status} {str(answer.body)[:150]}")
