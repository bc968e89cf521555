"""Following a stream in order, from a position that is kept with the Trigger (`kappa-state`): for one reader at a time.

The consumer is of no value: whoever goes on makes another one, from the position. A position belongs to the stream that
it was taken in; one that was deleted and made anew is read from its beginning, for all of it is new.
"""

import json
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from kappa_api.cloudevents import CloudEvent
from kappa_gateway.events.bus import UnavailableError
from kappa_gateway.events.source import SourceError, Surroundings
from kappa_gateway.events.sources.nats_link import ApiError, Link
from kappa_gateway.events.sources.nats_pull import Puller

log = logging.getLogger(__name__)

Json = Any
#: A consumer that nobody asks is forgotten by the server after so long.
INACTIVE_SECONDS: Final = 60
_NANO: Final = 1_000_000_000
_KEY: Final = "position"


@dataclass(frozen=True, slots=True)
class Entry:
    """A message of the stream. `time`: epoch seconds."""

    seq: int
    subject: str
    data: bytes
    headers: dict[str, str]
    time: float

    @property
    def mark(self) -> str:
        """Unlike any other's, even in a stream that was made anew."""
        return f"{self.seq}-{int(self.time * 1000)}"


@dataclass(frozen=True, slots=True)
class Course:
    """What is followed. `missing`: what to say when there is no such stream. `start`: `new` or `all`, where there is no
    position yet. `events`: coroutine that makes events of entries; without one, an entry is passed over."""

    stream: str
    subjects: tuple[str, ...]
    start: str
    missing: str
    events: Callable[[Sequence[Entry]], Awaitable[list[CloudEvent]]]


async def stream_info(link: Link, stream: str, missing: str) -> Json:
    """Raises SourceError, with `missing` when there is no such stream."""
    try:
        return await link.ask(f"STREAM.INFO.{stream}")
    except ApiError as error:
        raise SourceError(missing if error.missing else str(error)) from error


async def follow(link: Link, given: Surroundings, course: Course) -> None:
    """Until cancelled. Raises SourceError and UnavailableError; the next run goes on where this one was."""
    info = await stream_info(link, course.stream, course.missing)
    position = await _position(given, course, info)
    name = f"kappa-{os.urandom(8).hex()}"
    config = {
        "name": name,
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": position + 1,
        "ack_policy": "none",
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": INACTIVE_SECONDS * _NANO,
        **filters(course.subjects),
    }
    await link.ask(f"CONSUMER.CREATE.{course.stream}.{name}", {"stream_name": course.stream, "config": config})
    puller = Puller(link, course.stream, name)
    await puller.open()
    given.sink.connected()
    expected = 1
    try:
        while True:
            messages = await puller.next()
            entries = []
            for message in messages:
                if message.metadata.sequence.consumer != expected:
                    raise SourceError("messages were lost on the way: reading them again")
                expected += 1
                entries.append(entry_of(message))
            await given.sink.emit(await course.events(entries))
            await _save(given, info, entries[-1].seq)
    finally:
        await puller.close()
        with suppress(SourceError, UnavailableError, NatsError):
            await link.nc.publish(f"$JS.API.CONSUMER.DELETE.{course.stream}.{name}", b"")


def filters(subjects: Sequence[str]) -> dict[str, Json]:
    """A consumer's configuration for these subjects."""
    if not subjects:
        return {}
    return {"filter_subject": subjects[0]} if len(subjects) == 1 else {"filter_subjects": list(subjects)}


def entry_of(message: Msg) -> Entry:
    meta = message.metadata
    headers = {str(name): str(value) for name, value in (message.headers or {}).items()}
    return Entry(meta.sequence.stream, message.subject, message.data, headers, meta.timestamp.timestamp())


async def _position(given: Surroundings, course: Course, info: Json) -> int:
    """The sequence of what was taken last."""
    saved = await given.state.load(_KEY)
    newest = int(info["state"]["last_seq"])
    if saved is not None:
        position = json.loads(saved)
        if (position["stream"], position["created"]) == (course.stream, info["created"]):
            return min(int(position["seq"]), newest)
        if position["stream"] == course.stream:
            return 0
    first = newest if course.start == "new" else 0
    await _save(given, info, first)
    return first


async def _save(given: Surroundings, info: Json, seq: int) -> None:
    position = {"stream": info["config"]["name"], "created": info["created"], "seq": seq}
    await given.state.save(_KEY, json.dumps(position).encode())
