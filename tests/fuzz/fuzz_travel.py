"""What must hold of every event that a source makes, whatever it was made from: it can be written into the stream, read
again there, and sent on in the headers of a request."""

import json

from kappa_api.cloudevents import CloudEvent
from kappa_api.names import HEADER_ATTEMPT
from kappa_gateway.events.delivery.target import Target as Wanted
from kappa_gateway.events.delivery.wire import of_events
from kappa_gateway.events.sink import encoded
from kappa_gateway.events.work import Work

#: Whoever writes the event stands deeper in calls than whoever has read it.
FRAMES = 60
PLAIN = Wanted("default/f")


def check_travels(event: CloudEvent) -> None:
    body = _deeper(FRAMES, event)
    again = CloudEvent.from_json(json.loads(body, parse_constant=_no_json))
    assert again.to_json() == event.to_json(), "it does not come back as it was"
    outgoing = of_events([Work("id", 0, body)], PLAIN, 0)
    *lines, last = outgoing.lines.split(b"\r\n")
    assert last == b""
    # Nothing but the event's own, so that no attribute has become a header of another name
    known = {*(f"ce-{name}".encode() for name in event.attributes()), b"content-type", HEADER_ATTEMPT.encode()}
    names = [line.partition(b": ")[0] for line in lines]
    assert {*names} <= known, names
    assert len({*names}) == len(names), names
    for line in lines:
        assert not any(byte in line for byte in b"\r\n\0"), line


def _deeper(frames: int, event: CloudEvent) -> bytes:
    return _deeper(frames - 1, event) if frames else encoded(event)


def _no_json(text: str) -> None:
    raise AssertionError(f"{text} is written, which no JSON reader but Python's takes")
