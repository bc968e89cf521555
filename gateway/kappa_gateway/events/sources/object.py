"""The source `object`: objects that are put into a JetStream object bucket or deleted from it, as S3 records.

A bucket keeps the newest state of each object: what is put twice before anybody has looked is one event. Source of the
layout: NATS ADR-20; of the record: "Event message structure" in the Amazon S3 user guide.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote_plus

from kappa_api.cloudevents import CloudEvent
from kappa_api.sources.object import Object
from kappa_api.trigger import Trigger
from kappa_gateway.events.source import Place, Source, SourceError, Surroundings
from kappa_gateway.events.sources.nats_follow import Course, Entry, follow
from kappa_gateway.events.sources.nats_link import link
from kappa_gateway.events.sources.nats_messages import rfc3339
from kappa_gateway.events.tenancy import name_problem

log = logging.getLogger(__name__)

Json = Any
PLACE: Final = Place.ONE
SHAPE: Final = "s3"
PUT: Final = "dev.kappa.object.put"
DELETED: Final = "dev.kappa.object.deleted"


def make(trigger: Trigger, surroundings: Surroundings) -> Source:
    return ObjectSource(trigger, surroundings)


class ObjectSource:
    """See the module."""

    def __init__(self, trigger: Trigger, given: Surroundings) -> None:
        self._trigger, self._given = trigger, given
        self._spec: Object = trigger.source

    async def run(self) -> None:
        """See `source.Source`."""
        bucket = self._spec.bucket
        if problem := name_problem(self._trigger.namespace, bucket, self._given.shared):
            raise SourceError(problem)
        course = Course(
            stream=f"OBJ_{bucket}",
            subjects=(f"$O.{bucket}.M.>",),
            start=self._spec.start,
            missing=f"there is no object bucket {bucket}: make it, for example with `nats object add {bucket}`",
            events=self._events,
        )
        async with link(self._given, "") as connection:
            await follow(connection, self._given, course)

    async def _events(self, entries: Sequence[Entry]) -> list[CloudEvent]:
        found = []
        for entry in entries:
            try:
                info = json.loads(entry.data)
                found.append(event_of(self._trigger, self._spec.bucket, entry, info))
            except (ValueError, KeyError, TypeError, AttributeError):
                log.warning("Trigger %s: entry %d is no object's", self._trigger.key, entry.seq)
        return found


def event_of(trigger: Trigger, bucket: str, entry: Entry, info: Mapping[str, Json]) -> CloudEvent:
    """The event of one object's entry in the bucket. Its data is an S3 record."""
    name, deleted = str(info["name"]), bool(info.get("deleted"))
    thing: dict[str, Json] = {"key": quote_plus(name, safe="/"), "sequencer": f"{entry.seq:016X}"}
    if not deleted:
        thing |= {"size": int(info.get("size", 0)), "eTag": str(info.get("digest", "")).removeprefix("SHA-256=")}
    time = rfc3339(entry.time)
    record = {
        "eventVersion": "2.1",
        "eventSource": "kappa:object",
        "awsRegion": "",
        "eventTime": time,
        "eventName": "ObjectRemoved:Delete" if deleted else "ObjectCreated:Put",
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": trigger.name,
            "bucket": {"name": bucket, "arn": f"arn:aws:s3:::{bucket}"},
            "object": thing,
        },
    }
    return CloudEvent(
        id=entry.mark,
        source=f"/nats/objects/{bucket}",
        type=DELETED if deleted else PUT,
        subject=name,
        time=time,
        datacontenttype="application/json",
        data=record,
    )
