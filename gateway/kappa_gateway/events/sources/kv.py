"""The source `kv`: changes in a JetStream key-value bucket, told as changes of a table's rows, old and new.

The old value is what the bucket still has: with a history of two or more it is exact. A bucket that keeps no history
(the default of NATS) has forgotten it: then `old` is null and every put is an `update`. Source of the layout: NATS
ADR-8.
"""

import asyncio
import base64
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kappa_api.cloudevents import CloudEvent
from kappa_api.sources.kv import Kv
from kappa_api.trigger import Trigger
from kappa_gateway import hops
from kappa_gateway.events.source import Place, Source, SourceError, Surroundings
from kappa_gateway.events.sources.nats_follow import Course, Entry, follow, stream_info
from kappa_gateway.events.sources.nats_link import ApiError, Link, link
from kappa_gateway.events.sources.nats_messages import content, rfc3339
from kappa_gateway.events.tenancy import name_problem

Json = Any
PLACE: Final = Place.ONE
SHAPE: Final = "dynamodb"
PUT: Final = "dev.kappa.kv.put"
DELETED: Final = "dev.kappa.kv.deleted"
_OPERATION: Final = "KV-Operation"
_MARKER: Final = "Nats-Marker-Reason"
#: Values that are remembered, so that the old one need not be asked for: by number and by size together.
MOST_REMEMBERED: Final = 10_000
MOST_BYTES: Final = 8 * 1024 * 1024
#: Old values that are asked for at a time.
LOOKS: Final = 32


@dataclass(frozen=True, slots=True)
class Before:
    """What a key was before a change. `value` None: it was not there; `known` False: nobody knows any more."""

    value: bytes | None
    known: bool = True


UNKNOWN: Final = Before(None, known=False)


class Memory:
    """The newest values that were seen, the oldest of them forgotten first."""

    def __init__(self) -> None:
        self._values: OrderedDict[str, bytes | None] = OrderedDict()
        self._bytes = 0

    def before(self, key: str) -> Before | None:
        """None: it has not been seen, or was forgotten."""
        return Before(self._values[key]) if key in self._values else None

    def put(self, key: str, value: bytes | None) -> None:
        self._bytes += len(value or b"") - len(self._values.pop(key, None) or b"")
        self._values[key] = value
        while len(self._values) > MOST_REMEMBERED or self._bytes > MOST_BYTES:
            _, dropped = self._values.popitem(last=False)
            self._bytes -= len(dropped or b"")


def make(trigger: Trigger, surroundings: Surroundings) -> Source:
    return KvSource(trigger, surroundings)


class KvSource:
    """See the module."""

    def __init__(self, trigger: Trigger, given: Surroundings) -> None:
        self._trigger, self._given = trigger, given
        self._spec: Kv = trigger.source
        self._prefix = f"$KV.{self._spec.bucket}."
        self._stream = f"KV_{self._spec.bucket}"
        self._memory = Memory()
        self._history = 1
        self._link: Link | None = None

    async def run(self) -> None:
        """See `source.Source`."""
        bucket = self._spec.bucket
        if problem := name_problem(self._trigger.namespace, bucket, self._given.shared):
            raise SourceError(problem)
        missing = f"there is no bucket {bucket}: make it, for example with `nats kv add {bucket} --history 2`"
        subjects = tuple(self._prefix + key for key in self._spec.keys or (">",))
        course = Course(self._stream, subjects, self._spec.start, missing, self._events)
        async with link(self._given, "") as self._link:
            info = await stream_info(self._link, self._stream, missing)
            self._history = int(info["config"].get("max_msgs_per_subject", 1))
            self._memory = Memory()
            await follow(self._link, self._given, course)

    async def _events(self, entries: Sequence[Entry]) -> list[CloudEvent]:
        looked = await self._look_all(entries)
        found = []
        for entry in entries:
            key = entry.subject.removeprefix(self._prefix)
            before = await self._before(key, entry, looked)
            gone = entry.headers.get(_OPERATION) in ("DEL", "PURGE") or _MARKER in entry.headers
            self._memory.put(key, None if gone else entry.data)
            if gone and before.known and before.value is None:
                continue  # it was not there: nothing has changed
            found.append(event_of(self._spec.bucket, key, entry, before, gone=gone))
        return found

    async def _before(self, key: str, entry: Entry, looked: Mapping[int, Before]) -> Before:
        if self._history < 2:
            return UNKNOWN
        return self._memory.before(key) or looked.get(entry.seq) or await self._look(entry)

    async def _look_all(self, entries: Sequence[Entry]) -> dict[int, Before]:
        """What was before those of them that are the first of a key that is not remembered, by their sequence; several
        at a time, for each costs the bucket's leader two answers."""
        if self._history < 2:
            return {}
        first: dict[str, Entry] = {}
        for entry in entries:
            first.setdefault(entry.subject, entry)
        wanted = [e for e in first.values() if self._memory.before(e.subject.removeprefix(self._prefix)) is None]
        found: dict[int, Before] = {}
        for start in range(0, len(wanted), LOOKS):
            some = wanted[start : start + LOOKS]
            befores = await asyncio.gather(*(self._look(entry) for entry in some))
            found |= {entry.seq: before for entry, before in zip(some, befores, strict=True)}
        return found

    async def _look(self, entry: Entry) -> Before:
        """In what the bucket still has of the key."""
        assert self._link is not None
        seq, last, later = 1, None, 0
        while later <= self._history:
            try:
                asked = {"seq": seq, "next_by_subj": entry.subject}
                message = (await self._link.ask(f"STREAM.MSG.GET.{self._stream}", asked))["message"]
            except ApiError as error:
                if error.missing:
                    break
                raise
            seq = int(message["seq"]) + 1
            if message["seq"] < entry.seq:
                last = message
            else:
                later += 1
        if last is not None:
            headers = base64.b64decode(last.get("hdrs", ""))
            value = None if b"KV-Operation" in headers or _MARKER.encode() in headers else last.get("data", "")
            return Before(None if value is None else base64.b64decode(value))
        # With room for more, there never was anything before; a purge takes what was before with it
        purged = entry.headers.get(_OPERATION) == "PURGE"
        return UNKNOWN if later >= self._history or purged else Before(None)


def event_of(bucket: str, key: str, entry: Entry, before: Before, *, gone: bool) -> CloudEvent:
    """The event of one change. Its data: {operation, schema, table, key, old, new, sequence, committedAt}."""
    operation = "delete" if gone else "insert" if before.known and before.value is None else "update"
    time = rfc3339(entry.time)
    data = {
        "operation": operation,
        "schema": "kv",
        "table": bucket,
        "key": {"key": key},
        "old": None if before.value is None else row(key, before.value),
        "new": None if gone else row(key, entry.data),
        "sequence": str(entry.seq),
        "committedAt": time,
    }
    return CloudEvent(
        id=entry.mark,
        source=f"/nats/kv/{bucket}",
        type=DELETED if gone else PUT,
        subject=key,
        time=time,
        datacontenttype="application/json",
        data=data,
        extensions={"sequence": str(entry.seq), **hops.of_message(entry.headers)},
    )


def row(key: str, value: bytes) -> dict[str, Json]:
    """A key and its value as a row: JSON or text as `value`, anything else as `base64`."""
    found, _ = content(value)
    if isinstance(found, bytes):
        return {"key": key, "base64": base64.b64encode(found).decode()}
    return {"key": key, "value": found}
