"""MQTT topics, their NATS subjects, and what was published to them as CloudEvents. Pure.

How nats-server writes topics as subjects: levels become tokens, a dot in a level two slashes, an empty level one slash
("MQTT" in its documentation, and `mqtt.go`). Spaces and NATS's own wildcards cannot be written, so such topics are not
taken. What it has accepted with QoS 1 or 2 it keeps under `$MQTT.msgs.<subject>`.
"""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from kappa_api.cloudevents import CloudEvent
from kappa_gateway.events import json_text

Json = Any
TYPE: Final = "dev.kappa.mqtt.message"
_FORBIDDEN: Final = (" ", "*", ">", "\t", "\r", "\n", "\f")


def subjects_of(topic: str) -> tuple[str, ...]:
    """The subjects that stand for a topic filter: two where it ends in `#`, which is the level above as well (MQTT
    3.1.1, 4.7.1.2). Raises ValueError."""
    if any(character in topic for character in _FORBIDDEN):
        raise ValueError(f"{topic[:80]!r}: NATS has no spaces, * and > in topics")
    tokens = [{"+": "*", "#": ">", "": "/"}.get(level, level.replace(".", "//")) for level in topic.split("/")]
    whole = ".".join(tokens)
    return (whole, ".".join(tokens[:-1])) if tokens[-1] == ">" and len(tokens) > 1 else (whole,)


def topic_of(subject: str) -> str:
    """The topic that nats-server has written as this subject."""
    return "/".join("" if token == "/" else token.replace("//", ".") for token in subject.split("."))


def groups(subjects: Iterable[str]) -> list[list[str]]:
    """The subjects, sorted into groups within which none overlaps another: a JetStream consumer takes only such. One
    that another covers is left out."""
    ordered = sorted(dict.fromkeys(subjects))
    needed = [s for s in ordered if not any(other != s and _covers(other, s) for other in ordered)]
    found: list[list[str]] = []
    for subject in needed:
        room = (group for group in found if not any(overlap(subject, other) for other in group))
        group = next(room, None)
        if group is None:
            found.append([subject])
        else:
            group.append(subject)
    return found


def overlap(one: str, other: str) -> bool:
    """Whether some subject matches both."""
    first, second = one.split("."), other.split(".")
    for a, b in zip(first, second, strict=False):
        if ">" in (a, b):
            return True
        if a != b and "*" not in (a, b):
            return False
    return len(first) == len(second)


def _covers(wide: str, narrow: str) -> bool:
    """Whether whatever matches `narrow` matches `wide` too."""
    first, second = wide.split("."), narrow.split(".")
    for index, token in enumerate(first):
        if token == ">":
            return len(second) > index
        if index >= len(second) or second[index] == ">" or (token not in ("*", second[index])):
            return False
    return len(first) == len(second)


def event(origin: str, identity: str, topic: str, payload: bytes, *, qos: int, now: float) -> CloudEvent:
    """What was published. `origin`: the broker; `identity`: the event's id; `now`: epoch seconds."""
    data, content_type = data_of(payload)
    return CloudEvent(
        id=identity,
        source=origin,
        type=TYPE,
        subject=topic,
        time=datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        datacontenttype=content_type,
        data=data,
        extensions={"mqttqos": str(qos)},
    )


def data_of(payload: bytes) -> tuple[Json | bytes, str]:
    """A payload as data, with its content type. MQTT 3.1.1 has none, so what looks like a JSON object or list is one.
    A number stays the text that the device sent: 21.50 is not 21.5 to everybody."""
    if not payload:
        return None, ""
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return payload, "application/octet-stream"
    if text.lstrip()[:1] in ("{", "["):
        try:
            found = json_text.loads(text)
            if not json_text.deep(found):
                json.dumps(found, ensure_ascii=False).encode()  # half a surrogate pair could never be sent on
                return found, "application/json"
        except (ValueError, RecursionError, json_text.TooManyError):
            pass
    return text, "text/plain"
