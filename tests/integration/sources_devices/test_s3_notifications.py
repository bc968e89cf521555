"""Bucket notifications of a real S3 server (juicefs gateway: its S3 side is MinIO's), posted to the real `receive`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import time

from aiohttp import web
from kappa_juicefs import s3_server
from kappa_ports import free_port
from kappa_source_world import a_trigger

from kappa_api.cloudevents import CloudEvent
from kappa_api.sources.s3 import S3
from kappa_gateway.events.source import Inbound
from kappa_gateway.events.sources import s3

TOKEN = "token-for-tests"


class Hook:
    """`/hooks/default/photos` as the front serves it. While `away` it answers 503, as it does without JetStream."""

    def __init__(self, spec: S3) -> None:
        self.trigger = a_trigger("s3", spec, "photos")
        self.events: list[CloudEvent] = []
        self.statuses: list[int] = []
        self.away = False
        self._changed = asyncio.Condition()

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        inbound = Inbound(request.method, "", request.query_string, headers, await request.read(), time())
        reply = s3.receive(self.trigger, inbound, lambda name: {"token": TOKEN.encode()} if name == "store" else None)
        status = 503 if self.away and reply.events else reply.status
        if status == 200:
            self.events += reply.events
        self.statuses.append(status)
        async with self._changed:
            self._changed.notify_all()
        return web.Response(status=status, body=reply.body, content_type=reply.content_type)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(60), self._changed:
            await self._changed.wait_for(lambda: len(self.events) >= count)

    async def until_refused(self) -> None:
        async with asyncio.timeout(60), self._changed:
            await self._changed.wait_for(lambda: 503 in self.statuses)


@asynccontextmanager
async def serving(hook: Hook) -> AsyncIterator[str]:
    port = free_port()
    runner = web.ServerRunner(web.Server(hook.serve))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}/hooks/default/photos"
    finally:
        await runner.cleanup()


async def test_objects_that_come_and_go_are_events() -> None:
    hook = Hook(S3("store", buckets=("photos",), events=("s3:ObjectCreated:*", "s3:ObjectRemoved:Delete")))
    async with serving(hook) as endpoint, s3_server(endpoint, TOKEN) as store:
        await store.notify("photos", "s3:ObjectCreated:*", "s3:ObjectRemoved:*", "s3:ObjectAccessed:*")
        await store.notify("other", "s3:ObjectCreated:*")
        await store.client.request("PUT", "/other/x", body=b"another bucket")
        await store.client.request("PUT", "/photos/a b/ü+1.txt", body=b"hello")
        await store.client.request("GET", "/photos/a b/ü+1.txt")
        await store.client.request("DELETE", "/photos/a b/ü+1.txt")
        await hook.until(2)
    created, removed = sorted(hook.events, key=lambda event: event.time)
    assert created.type == "com.amazonaws.s3.ObjectCreated:Put"
    assert removed.type == "com.amazonaws.s3.ObjectRemoved:Delete"
    assert {created.subject, removed.subject} == {"a b/ü+1.txt"}
    assert {created.source, removed.source} == {"minio:s3.photos"}
    assert created.id != removed.id
    assert isinstance(created.data, dict)
    assert created.data["s3"]["object"]["size"] == 5
    assert created.data["s3"]["object"]["key"] == "a+b%2F%C3%BC%2B1.txt"
    assert 401 not in hook.statuses


async def test_what_was_not_taken_is_posted_again_with_the_same_id() -> None:
    hook = Hook(S3("store"))
    async with serving(hook) as endpoint, s3_server(endpoint, f"Bearer {TOKEN}") as store:
        await store.notify("photos", "s3:ObjectCreated:*")
        hook.away = True
        await store.client.request("PUT", "/photos/1", body=b"x")
        await hook.until_refused()
        hook.away = False
        await store.client.request("PUT", "/photos/2", body=b"x")
        await hook.until(2)
    assert {event.subject for event in hook.events} == {"1", "2"}


async def test_another_token_opens_nothing() -> None:
    hook = Hook(S3("store"))
    async with serving(hook) as endpoint, s3_server(endpoint, "wrong") as store:
        await store.notify("photos", "s3:ObjectCreated:*")
        await store.client.request("PUT", "/photos/1", body=b"x")
        async with asyncio.timeout(60):
            while 401 not in hook.statuses:
                await asyncio.sleep(0.05)
    assert not hook.events
