"""Watches: turns a table's events into the stream that one client asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from kappa_local import codec
from kappa_local.errors import ApiError, expired
from kappa_local.resources import Resource
from kappa_local.selectors import Selector
from kappa_local.store import Entry, Event, Store, Watcher

BOOKMARK_SECONDS = 60.0
"""How often an idle watch that allows bookmarks learns the current version."""

Encoder = Callable[[str, Entry], bytes]


@dataclass(frozen=True)
class WatchRequest:
    """`since` None starts with the current objects as ADDED events (as does `send_initial`, which then adds a
    bookmark).
    """

    resource: Resource
    namespace: str | None
    selector: Selector
    since: int | None
    timeout: float
    bookmarks: bool = False
    send_initial: bool = False


def selected(event: Event, selector: Selector) -> tuple[str, Entry] | None:
    """What a watcher with this selector sees of an event: an object that leaves its selection is deleted, to it."""
    if not selector:
        return event.type, event.entry
    now = selector.matches(event.entry.obj)
    before = event.before is not None and selector.matches(event.before.obj)
    if event.type == "DELETED":
        return ("DELETED", event.entry) if now or before else None
    if now and before:
        return "MODIFIED", event.entry
    if now:
        return "ADDED", event.entry
    return ("DELETED", _last_seen(event)) if before else None


def _last_seen(event: Event) -> Entry:
    """The version that left the selection: the object as it was selected last, at the version of the change."""
    assert event.before is not None
    obj = event.before.obj
    moved = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(event.entry.rv)}}
    return Entry(event.entry.key, moved, event.entry.rv)


def line(kind: str, body: bytes) -> bytes:
    return b'{"type":"' + kind.encode() + b'","object":' + body + b"}\n"


def error_line(error: ApiError) -> bytes:
    return line("ERROR", codec.dumps(error.status()))


async def stream(store: Store, request: WatchRequest, encode: Encoder) -> AsyncIterator[bytes]:
    """Chunks of newline-separated events until the timeout. Ends early, with an ERROR event, when the client lags
    too far.
    """
    loop = asyncio.get_running_loop()
    awake = asyncio.Event()
    name = request.selector.exact("metadata.name")
    watcher = Watcher(request.namespace, name, awake.set)
    table = store.table(request.resource.table)
    try:
        table.watch(watcher, request.since)
        if request.since is None or request.send_initial:
            yield _initial(store, request, encode)
        deadline = loop.time() + request.timeout
        bookmark_at = loop.time() + BOOKMARK_SECONDS
        while True:
            if watcher.pending:
                chunk = _drain(watcher, request, encode)
                if chunk:
                    yield chunk
                continue
            if watcher.overrun:
                yield error_line(expired("The watch fell behind or its resource is gone"))
                return
            awake.clear()
            until = min(deadline, bookmark_at) if request.bookmarks else deadline
            try:
                async with asyncio.timeout_at(until):
                    await awake.wait()
            except TimeoutError:
                if loop.time() >= deadline:
                    return
                bookmark_at = loop.time() + BOOKMARK_SECONDS
                yield _bookmark(request.resource, store.version, encode)
    finally:
        table.unwatch(watcher)


def _initial(store: Store, request: WatchRequest, encode: Encoder) -> bytes:
    table = store.table(request.resource.table)
    entries = [entry for entry in table.entries(request.namespace) if request.selector.matches(entry.obj)]
    chunk = b"".join([line("ADDED", encode("ADDED", entry)) for entry in entries])
    if request.send_initial and request.bookmarks:
        chunk += _bookmark(request.resource, store.version, encode, {"k8s.io/initial-events-end": "true"})
    return chunk


def _drain(watcher: Watcher, request: WatchRequest, encode: Encoder) -> bytes:
    lines = []
    while watcher.pending:
        seen = selected(watcher.pending.popleft(), request.selector)
        if seen is not None:
            lines.append(line(seen[0], encode(*seen)))
    return b"".join(lines)


def _bookmark(resource: Resource, version: int, encode: Encoder, annotations: dict[str, str] | None = None) -> bytes:
    meta: dict[str, object] = {"resourceVersion": str(version), "creationTimestamp": None}
    if annotations:
        meta["annotations"] = annotations
    return line("BOOKMARK", encode("BOOKMARK", Entry(("", ""), {"metadata": meta}, version)))
