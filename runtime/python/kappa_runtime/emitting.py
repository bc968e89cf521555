"""Emitting events: `context.emit(...)`, and `kappa_runtime.emit(...)` where there is no context at hand.

    context.emit("com.example.order.paid", {"order": 7})              # a plain handler: returns when it is accepted
    await context.emit("com.example.order.paid", {"order": 7})        # async code

Both return the event's id once the gateway has it for every Trigger that wants it, and raise EmitError otherwise.
In async code sending begins with the call; who does not await it learns nothing of its failure, but the log does.

A handler that is run again emits its events again. Their ids are therefore derived from the work that is repeated and
from what they say, so that the stream can drop what it has: the same event, from the same work, is one event.
"""

import asyncio
import base64
import hashlib
import json
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

from kappa_api.names import HEADER_HOPS
from kappa_runtime.posting import EmitError, Post

__all__ = ["EmitError", "Emitter", "Origin", "current", "emit", "install"]

Json = Any

#: The longest that emitting waits for the gateway; the invocation's deadline may be nearer.
PATIENCE_SECONDS: Final = 10.0
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class Origin:
    """The invocation that emits. `deadline`: epoch seconds. `work`: what stays the same when it is run again; empty: it
    is not run again, or nobody knows. `hops`: of what it emits, see `names.HEADER_HOPS`."""

    __slots__ = ("_seen", "deadline", "hops", "request_id", "work")

    def __init__(self, request_id: str, deadline: float, work: str = "", hops: int = 1) -> None:
        self.request_id, self.deadline, self.work, self.hops = request_id, deadline, work, hops
        self._seen: Counter[str] | None = None

    def event_id(self, content: str) -> str:
        """An id for an event of this content; the second one of the same content gets another."""
        if not self.work:
            return str(uuid.uuid4())
        digest = hashlib.sha256(f"{self.work}\n{content}".encode(errors="surrogatepass")).hexdigest()[:32]
        self._seen = self._seen or Counter()
        self._seen[digest] += 1
        return digest if self._seen[digest] == 1 else f"{digest}-{self._seen[digest]}"


current: ContextVar[Origin | None] = ContextVar("kappa_origin", default=None)
NOBODY: Final = Origin("", 0.0)


def onward_headers(request_id: str, hops: int) -> dict[str, str]:
    """What goes on with everything that an invocation causes."""
    found = {HEADER_HOPS: str(hops)}
    if request_id:
        found["X-Request-Id"] = request_id
    return found


@dataclass(frozen=True, slots=True)
class Emitter:
    """Makes CloudEvents of `source` (a URI reference) and hands them to `post`."""

    source: str
    post: Post

    def emit(self, type: str, data: Json, subject: str, source: str, id: str) -> Any:
        """See `emit`."""
        origin = current.get() or NOBODY
        now = time.time()
        event = make_event(type, data, subject, source or self.source)
        event["id"] = id or origin.event_id(_text(event))
        event["time"] = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1000):03d}Z"
        body, headers = _text(event).encode("utf-8"), onward_headers(origin.request_id, origin.hops)
        left = PATIENCE_SECONDS
        if origin.deadline:
            left = min(left, origin.deadline - now)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.post(body, headers, left)
            return event["id"]
        task = loop.create_task(self._post_later(body, headers, left, str(event["id"])))
        _under_way.add(task)
        task.add_done_callback(_under_way.discard)
        return task

    async def _post_later(self, body: bytes, headers: Mapping[str, str], left: float, id: str) -> str:
        await asyncio.to_thread(self.post, body, headers, left)
        return id


#: asyncio itself holds tasks only weakly.
_under_way: set[asyncio.Task[str]] = set()
#: The process belongs to one function for ever, so this is set once, before its code is imported.
_emitters: list[Emitter] = []


def install(emitter: Emitter) -> None:
    """From now on `emit` uses this one."""
    _emitters[:] = [emitter]


def emit(type: str, data: Json = None, *, subject: str = "", source: str = "", id: str = "") -> Any:
    """Emits one CloudEvent to this namespace's Triggers of `source: {event: ...}`.

    `data`: any JSON value, or bytes. `source`: by default `/fn/<namespace>/<function>`. `id`: what makes it the same
    event when it is emitted again; drawn if not given. Returns the id; in async code, something to await for it.
    Raises EmitError when the gateway has not accepted it, ValueError for what is no event.
    """
    if not _emitters:
        raise EmitError("events can be emitted only inside an instance of Kappa")
    return _emitters[0].emit(type, data, subject, source, id)


def make_event(type: str, data: Json, subject: str, source: str) -> dict[str, Json]:
    """The JSON format of an event without id and time. Raises ValueError."""
    for name, value in (("type", type), ("subject", subject), ("source", source)):
        if not isinstance(value, str):
            raise ValueError(f"{name} must be a string, not {value!r:.80}")
    if not type:
        raise ValueError("type must not be empty: give it a name such as com.example.order.paid")
    event: dict[str, Json] = {"specversion": "1.0", "type": type, "source": source}
    if subject:
        event["subject"] = subject
    if isinstance(data, bytes | bytearray | memoryview):
        return event | {
            "datacontenttype": "application/octet-stream",
            "data_base64": base64.b64encode(data).decode(),
        }
    return event if data is None else event | {"datacontenttype": "application/json", "data": data}


def _text(event: dict[str, Json]) -> str:
    try:
        text = _encode(event)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the data cannot be written as JSON: {error}") from error
    return text
