"""`source.mqtt`: what devices publish, to the platform's own MQTT listener or (with `secretRef`) to another broker."""

from dataclasses import dataclass
from typing import Final

from kappa_api.fields import Reader
from kappa_api.secretref import read_secret_ref

MAX_TOPICS: Final = 20
MAX_TOPIC_CHARACTERS: Final = 256


@dataclass(frozen=True, slots=True)
class Mqtt:
    """`topics`: MQTT topic filters. `qos`: 1: what devices publish with QoS 1 or 2 waits until it is taken; 0: what is
    published while nobody reads is gone. `secret`: of the broker; empty: the platform's listener."""

    topics: tuple[str, ...]
    qos: int = 1
    secret: str = ""


def read(reader: Reader) -> Mqtt:
    topics = reader.strings("topics", topic_fault)
    if not 1 <= len(topics) <= MAX_TOPICS:
        reader.fault("topics", f"must have 1 to {MAX_TOPICS} topics, such as shop/+/temperature")
    found = Mqtt(topics=topics, qos=reader.integer("qos", 1, 0, 1), secret=read_secret_ref(reader, required=False))
    reader.unknown()
    return found


def topic_fault(text: str) -> str:
    """What is wrong with a topic filter (MQTT 3.1.1, 4.7), or an empty string."""
    if not 0 < len(text) <= MAX_TOPIC_CHARACTERS or "\0" in text:
        return f"must be a topic of 1 to {MAX_TOPIC_CHARACTERS} characters"
    levels = text.split("/")
    if any("#" in level for level in levels[:-1]) or ("#" in levels[-1] and levels[-1] != "#"):
        return f"{text[:80]!r}: # stands for all further levels, alone and at the end"
    if any("+" in level and level != "+" for level in levels):
        return f"{text[:80]!r}: + stands for one whole level"
    return ""
