"""The source `redis`: entries of a stream, read by a consumer group in which every gateway is a consumer.

Redis shares the entries out, and keeps each as pending until it is acknowledged, which is done after JetStream has the
event. What a consumer that died leaves pending is claimed by the others. An entry's id is the event's id.
"""

import asyncio
import base64
import datetime
import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import quote

import redis.asyncio
from redis.exceptions import ResponseError

from kappa_api.cloudevents import CloudEvent
from kappa_api.sources.redis import Redis
from kappa_api.trigger import Trigger
from kappa_gateway.events.source import Place, Source, SourceError, Surroundings, Trace
from kappa_gateway.events.sources.emitting import emit
from kappa_gateway.events.sources.redis_connect import Server, connect, read_secret
from kappa_gateway.events.sources.sizes import shrink

SHAPE: Final = "sqs"
TYPE: Final = "dev.kappa.redis.entry"

#: Entries that are read at a time, at first and at most; fewer where they are large: so many bytes, or one entry.
FIRST_CHUNK: Final = 16
CHUNK: Final = 500
CHUNK_BYTES: Final = 4 * 1024 * 1024
BLOCK_MS: Final = 2000
#: Entries that a consumer holds for so long without acknowledging them are taken over.
CLAIM_IDLE_MS: Final = 15_000
CLAIM_SECONDS: Final = 5.0
#: Consumers that have nothing pending and have not asked for so long belong to gateways that are gone.
GONE_MS: Final = 3_600_000

Entry = tuple[bytes, Mapping[bytes, bytes] | None]


def place(trigger: Trigger) -> Place:
    """Several readers of one stream keep no order among themselves."""
    return Place.ONE if trigger.ordered else Place.EACH


def trace(trigger: Trigger, surroundings: Surroundings) -> Trace | None:
    """See `source.Source`."""
    source: Redis = trigger.source
    if source.group and source.group != _own_group(trigger):
        return None
    try:
        server = read_secret(surroundings.secret(source.secret), source.secret).source
    except SourceError:
        server = ""
    group, where = _own_group(trigger), server or f"the server that the Secret {source.secret} names"
    text = (
        f"the consumer group {group} of the stream {source.stream} in {where}: XGROUP DESTROY {source.stream} {group}"
    )
    return Trace((source.secret, source.stream), text, server)


def make(trigger: Trigger, surroundings: Surroundings) -> Source:
    """The Trigger's source."""
    return Entries(trigger, surroundings)


class Entries:
    """Entries of the Trigger's stream."""

    def __init__(self, trigger: Trigger, surroundings: Surroundings) -> None:
        self._around = surroundings
        self._consumer = f"kappa-{surroundings.gateway}"
        self._source: Redis = trigger.source
        self._own = _own_group(trigger)
        self._group = self._source.group or self._own
        self._last = b""  # id of the newest entry that was seen, or that the group had given out at the start
        self._claim_at = 0.0
        self._chunk = FIRST_CHUNK

    async def run(self) -> None:
        async with self._client() as (client, server):
            await self._ensure_group(client)
            self._around.sink.connected()
            await self._finish_own(client, server)
            while True:
                _end_if_cancelled()
                try:
                    await self._claim(client, server)
                    await self._keep(client, server, await self._read(client, ">"))
                except ResponseError as error:
                    # The stream was deleted, before the read or while it waited.
                    if not str(error).startswith(("NOGROUP", "UNBLOCKED")):
                        raise
                    await self._ensure_group(client)

    async def forget(self) -> None:
        """The Trigger is gone, and so is the group, if it was Kappa's own."""
        if self._group != self._own:
            return
        async with self._client() as (client, _):
            if await client.exists(self._source.stream):
                await client.xgroup_destroy(self._source.stream, self._group)

    async def where(self) -> str:
        async with self._client() as (client, server):
            found: Any = await client.info("replication")  # the same for a primary and its copies
            return f"{found['master_replid']}/{server.database}/{self._source.stream}"

    async def _ensure_group(self, client: redis.asyncio.Redis) -> None:
        """Makes stream and group if they are missing. A group that had been there goes on where it was: entries of a
        stream that was made anew have newer ids, unless they were chosen by hand; then it begins at the beginning."""
        start: str | bytes = "$" if self._source.start == "new" else "0"
        if self._last:
            start = self._last
            if not await client.exists(self._source.stream) or await self._newest(client) < _order(self._last):
                start = "0"
        try:
            await client.xgroup_create(self._source.stream, self._group, id=start, mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
        for group in await client.xinfo_groups(self._source.stream):
            if group["name"] == self._group.encode():
                self._last = group["last-delivered-id"]

    async def _newest(self, client: redis.asyncio.Redis) -> tuple[int, int]:
        return _order((await client.xinfo_stream(self._source.stream))["last-generated-id"])

    async def _finish_own(self, client: redis.asyncio.Redis, server: Server) -> None:
        """What this gateway read and did not acknowledge before its source failed, or its process ended."""
        while entries := await self._read(client, "0"):
            _end_if_cancelled()
            await self._keep(client, server, entries)

    async def _read(self, client: redis.asyncio.Redis, after: str) -> list[Entry]:
        # Of our own pending entries nothing has to be waited for.
        block = BLOCK_MS if after == ">" else None
        streams: Any = {self._source.stream: after}
        answer: Any = await client.xreadgroup(self._group, self._consumer, streams, count=self._chunk, block=block)
        return self._sized([entry for _, entries in answer for entry in entries])

    def _sized(self, entries: list[Entry]) -> list[Entry]:
        """The same; how many are read next follows from how large they are."""
        if entries:
            size = sum(len(name) + len(value) for _, fields in entries for name, value in (fields or {}).items())
            self._chunk = max(1, min(CHUNK, 2 * self._chunk, CHUNK_BYTES * len(entries) // max(size, 1)))
        return entries

    async def _claim(self, client: redis.asyncio.Redis, server: Server) -> None:
        """Takes over what consumers hold that died, now and then, and removes them."""
        now = asyncio.get_running_loop().time()
        if now < self._claim_at:
            return
        self._claim_at = now + CLAIM_SECONDS
        stream, group, cursor = self._source.stream, self._group, b"0-0"
        while True:
            answer: Any = await client.xautoclaim(
                stream, group, self._consumer, min_idle_time=CLAIM_IDLE_MS, start_id=cursor, count=self._chunk
            )
            await self._keep(client, server, [entry for entry in answer[1] if entry[0] is not None])
            cursor = answer[0]
            if cursor == b"0-0":
                break
        if self._source.group:
            return  # others may use it in other ways
        for consumer in await client.xinfo_consumers(stream, group):
            if not consumer["pending"] and consumer["idle"] > GONE_MS and consumer["name"] != self._consumer.encode():
                await client.xgroup_delconsumer(stream, group, consumer["name"])

    async def _keep(self, client: redis.asyncio.Redis, server: Server, entries: Iterable[Entry]) -> None:
        """Events out of entries, into JetStream, and then acknowledged."""
        entries = list(entries)
        if not entries:
            return
        # An entry that was deleted or trimmed away while it was pending has no fields any more.
        await emit(self._around.sink, [self._event(name, fields, server) for name, fields in entries if fields])
        await client.xack(self._source.stream, self._group, *[name for name, _ in entries])
        self._last = max((self._last, *(name for name, _ in entries)), key=_order)

    def _event(self, name: bytes, fields: Mapping[bytes, bytes], server: Server) -> CloudEvent:
        data = dict(_field(key, value) for key, value in fields.items())
        stream = quote(self._source.stream, safe=":")
        omitted = shrink([data])
        return CloudEvent(
            id=name.decode(),
            source=f"{server.source}/{stream}",
            type=TYPE,
            subject=self._source.stream,
            time=_time(name),
            datacontenttype="application/json",
            data=data,
            extensions={"omitted": ",".join(omitted)} if omitted else {},
        )

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[tuple[redis.asyncio.Redis, Server]]:
        server = read_secret(self._around.secret(self._source.secret), self._source.secret)
        client: redis.asyncio.Redis | None = None
        try:
            client = await connect(server, self._around.check_address)
            yield client, server
        except (redis.RedisError, OSError) as error:
            raise SourceError(self._problem(error, server)) from error
        finally:
            if client is not None:
                await client.aclose()

    def _problem(self, error: Exception, server: Server) -> str:
        text = " ".join(str(error).split())[:300] or type(error).__name__
        if "WRONGTYPE" in text:
            return f"{self._source.stream} in {server.source} is not a stream"
        if "unknown command" in text:
            return f"{server.source} is too old: Redis 6.2 or newer is needed ({text})"
        if "NOPERM" in text or "permission" in text:
            return f"the user of {server.source} lacks a right: {text}; docs/events-data.md names the commands"
        return f"{server.source}: {text}"


def _own_group(trigger: Trigger) -> str:
    mark = hashlib.sha256((trigger.uid or trigger.key).encode()).hexdigest()[:12]
    return f"kappa-{trigger.namespace}-{trigger.name}-{mark}"


def _end_if_cancelled() -> None:
    """The client writes within `asyncio.wait_for`, which before Python 3.12 loses a cancellation that comes when the
    write has just been done; then only the task's count tells of it."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _order(name: bytes | str) -> tuple[int, int]:
    """Ids are two numbers; the last one may be missing."""
    first, _, second = (name.decode() if isinstance(name, bytes) else name).partition("-")
    return int(first or 0), int(second or 0)


def _field(key: bytes, value: bytes) -> tuple[str, str]:
    """Bytes that are no text become base64, under a name that says so (as in CloudEvents' `data_base64`)."""
    name = key.decode("utf-8", "backslashreplace")
    try:
        return name, value.decode()
    except UnicodeDecodeError:
        return f"{name}_base64", base64.b64encode(value).decode()


def _time(name: bytes) -> str:
    """The milliseconds in an id that Redis chose; ids chosen by hand may mean anything."""
    try:
        moment = datetime.datetime.fromtimestamp(_order(name)[0] / 1000, datetime.UTC)
    except (OverflowError, ValueError, OSError):
        return ""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z") if moment.year >= 2010 else ""
