"""What the gateway delivers to an event handler: CloudEvents, as `context.cloud_event` offers them.

The body of such an invocation is the batched mode of CloudEvents over HTTP: a JSON list of events. The header
`kappa-event-shape` says in which shape the handler wants them: a name of `names.SHAPES`, and `; batch` behind it when
its Trigger may deliver several at a time.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kappa_api.cloudevents import CloudEvent, CloudEventError

Json = Any


@dataclass(frozen=True, slots=True)
class Event(CloudEvent):
    """A CloudEvent that can also be asked like a dict: `event["type"]`, `event["data"]`, `event["myextension"]`."""

    def __getitem__(self, name: str) -> Json:
        if name == "data":
            return self.data
        found = self.attributes()
        if name not in found:
            raise KeyError(name)
        return found[name]

    def get(self, name: str, default: Json = None) -> Json:
        """The attribute, or the data, or `default`."""
        try:
            found = self[name]
        except KeyError:
            return default
        return default if found is None else found

    def keys(self) -> list[str]:
        return [*self.attributes(), *(["data"] if self.data is not None else [])]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One invocation's worth of events. `batch`: there may be several, and the handler must be ready for a list.

    `attempt`: how often it was attempted before and failed. `now`: epoch seconds of its arrival.
    """

    shape: str
    events: tuple[Event, ...]
    namespace: str = ""
    batch: bool = False
    attempt: int = 0
    now: float = 0.0


def read_shape(value: str) -> tuple[str, bool]:
    """The shape and whether it is a batch, from the header's value."""
    shape, _, rest = value.partition(";")
    return shape.strip(), rest.strip() == "batch"


def read_events(body: bytes) -> tuple[Event, ...]:
    """The events of a body, at least one. Raises CloudEventError, which names the event and the attribute."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise CloudEventError(f"the body is not JSON: {error}") from error
    if isinstance(found, Mapping):
        found = [found]
    if not isinstance(found, list) or not found:
        raise CloudEventError("the body must be a list of CloudEvents")
    events: list[Event] = []
    for number, value in enumerate(found):
        try:
            event = Event.from_json(value)
        except CloudEventError as error:
            raise CloudEventError(f"event {number}: {error}") from error
        assert isinstance(event, Event)
        events.append(event)
    return tuple(events)
