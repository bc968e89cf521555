"""CloudEvents 1.0 (the CNCF's specification): the one form in which every event travels inside Kappa.

Attributes are strings, as their canonical forms are. `data` is any JSON value, or bytes with their `datacontenttype`.
"""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Json = Any
ATTRIBUTE = re.compile(r"[a-z0-9]{1,40}")
REQUIRED = ("id", "source", "type")
KNOWN = ("id", "source", "type", "subject", "time", "datacontenttype", "dataschema")
MEDIA_TYPE = "application/cloudevents+json"
BATCH_MEDIA_TYPE = "application/cloudevents-batch+json"


class CloudEventError(ValueError):
    """Not a CloudEvent; the message names the attribute."""


@dataclass(frozen=True, slots=True)
class CloudEvent:
    """One event. `time` is RFC 3339 or empty; `extensions` holds further attributes; `data` None: there is none."""

    id: str
    source: str
    type: str
    subject: str = ""
    time: str = ""
    datacontenttype: str = ""
    dataschema: str = ""
    data: Json | bytes = None
    extensions: Mapping[str, str] = field(default_factory=dict)

    def attributes(self) -> dict[str, str]:
        """All context attributes that are set, with specversion."""
        found = {"specversion": "1.0"}
        found |= {name: value for name in KNOWN if (value := getattr(self, name))}
        return found | dict(self.extensions)

    def to_json(self) -> dict[str, Json]:
        """The JSON event format (CloudEvents JSON format 1.0.2)."""
        found: dict[str, Json] = dict(self.attributes())
        if isinstance(self.data, bytes):
            found["data_base64"] = base64.b64encode(self.data).decode()
        elif self.data is not None:
            found["data"] = self.data
        return found

    @classmethod
    def from_json(cls, value: Json) -> "CloudEvent":
        """Reads the JSON event format. Raises CloudEventError."""
        if not isinstance(value, Mapping):
            raise CloudEventError("an event must be a JSON object")
        attributes = {name: content for name, content in value.items() if name not in ("data", "data_base64")}
        if "data" in value and "data_base64" in value:
            raise CloudEventError("data and data_base64: an event has only one of them")
        data: Json | bytes = value.get("data")
        if "data_base64" in value:
            try:
                data = base64.b64decode(value["data_base64"], validate=True)
            except (ValueError, TypeError) as error:
                raise CloudEventError("data_base64: not base64") from error
        return cls.of({name: _text(name, content) for name, content in attributes.items() if content is not None}, data)

    @classmethod
    def of(cls, attributes: Mapping[str, str], data: Json | bytes = None) -> "CloudEvent":
        """From context attributes by name, specversion among them. Raises CloudEventError."""
        if attributes.get("specversion") != "1.0":
            raise CloudEventError(f"specversion: must be 1.0, not {attributes.get('specversion', 'absent')[:20]}")
        for name in REQUIRED:
            if not attributes.get(name):
                raise CloudEventError(f"{name}: is required and must not be empty")
        for name in attributes:
            if not ATTRIBUTE.fullmatch(name):
                raise CloudEventError(f"{name[:40]}: attribute names are at most 40 of a-z and 0-9")
        known = {name: attributes[name] for name in KNOWN if name in attributes}
        others = {name: value for name, value in attributes.items() if name not in KNOWN and name != "specversion"}
        return cls(**known, data=data, extensions=others)


def _text(name: str, content: Json) -> str:
    if isinstance(content, bool):
        return "true" if content else "false"
    if isinstance(content, str | int):
        return str(content)
    raise CloudEventError(f"{name[:40]}: must be a string, a number or a boolean")
