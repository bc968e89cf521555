"""Where a kept outcome goes, as it stands in the message's header.

What is told of a URL is its host alone: the path of a webhook is often its password.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Final

from kappa_api.delivery import Destination
from kappa_gateway.events.work import ASYNC, TRIGGER

Json = Any
_OWNERS: Final = (ASYNC, TRIGGER)
_KINDS: Final = ("function", "subject", "url")
#: Not `urlsplit`, which refuses some of what a specification may have.
_PLACE: Final = re.compile(r"https?://([^\s/?#@]*)")


@dataclass(frozen=True, slots=True)
class Address:
    """`destination`: where it was to go when the invocation ended. `owner`: kind of lane (work.ASYNC, work.TRIGGER) of
    what it is the outcome of; `success`: whether it goes where successes go."""

    destination: Destination
    owner: str
    success: bool

    def to_text(self) -> str:
        """ASCII, whatever the URL holds."""
        kind = kind_of(self.destination)
        return json.dumps({kind: getattr(self.destination, kind), "of": self.owner, "success": self.success})

    @classmethod
    def read(cls, text: str) -> "Address":
        """Raises ValueError for what Kappa did not write."""
        try:
            found: dict[str, Json] = json.loads(text)
            (kind,) = set(found) & set(_KINDS)
            owner, success, value = found["of"], found["success"], found[kind]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"an outcome without an address: {error!r}") from error
        if owner not in _OWNERS or not isinstance(success, bool) or not isinstance(value, str) or not value:
            raise ValueError("an outcome whose address is not Kappa's")
        return cls(Destination(**{kind: value}), owner, success)


def kind_of(destination: Destination) -> str:
    """Which of its fields is set."""
    return next(kind for kind in _KINDS if getattr(destination, kind))


def shown(destination: Destination) -> str:
    """As it may be told to whoever reads logs and dead letters."""
    if destination.url:
        return place_of(destination.url)
    return (destination.function or destination.subject)[:200]


def place_of(url: str) -> str:
    """Host and port."""
    found = _PLACE.match(url)
    return found[1][:200] if found else ""


def shown_text(text: str) -> str:
    """As `shown`, of a header; empty for what is none."""
    try:
        return shown(Address.read(text).destination)
    except ValueError:
        return ""
