"""`source.event`: CloudEvents that are posted to `/events/<namespace>`, by functions or from outside."""

from dataclasses import dataclass
from typing import Final

from kappa_api.callers import Auth, read_auth
from kappa_api.cloudevents import CloudEvent
from kappa_api.fields import Reader
from kappa_api.limits import NO_POST_LIMITS, PostLimits, read_post_limits

MAX_PATTERNS: Final = 64
#: Longer than any type or source that somebody would write by hand.
MAX_PATTERN: Final = 256


@dataclass(frozen=True, slots=True)
class EventSource:
    """Which events. `types`, `sources`: exact values, or with `*` for any text in them; empty: all.

    `auth`: who may post them besides the pods of the namespace; None: nobody. `limits`: of all who post.
    """

    types: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    auth: Auth | None = None
    limits: PostLimits = NO_POST_LIMITS

    def matches(self, event: CloudEvent) -> bool:
        return _any(self.types, event.type) and _any(self.sources, event.source)


def read(reader: Reader) -> EventSource:
    """`spec.source.event`."""
    types = reader.strings("types", _problem)
    sources = reader.strings("sources", _problem)
    for key, found in (("types", types), ("sources", sources)):
        if len(found) > MAX_PATTERNS:
            reader.fault(key, f"has {len(found)} entries: at most {MAX_PATTERNS}")
    block = reader.child("auth")
    auth = read_auth(block) if "auth" in reader else None
    limits = read_post_limits(reader)
    reader.unknown()
    return EventSource(types, sources, auth, limits)


def _problem(pattern: str) -> str:
    if 0 < len(pattern) <= MAX_PATTERN and pattern.count("*") <= 4:
        return ""
    return f"{pattern[:80]!r} is not valid: 1 to {MAX_PATTERN} characters, with at most four *"


def _any(patterns: tuple[str, ...], value: str) -> bool:
    return not patterns or any(_fits(pattern, value) for pattern in patterns)


def _fits(pattern: str, value: str) -> bool:
    """`*` stands for any text; nothing else is special."""
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == value
    *middle, last = rest
    if not value.startswith(first) or not value.endswith(last) or len(value) < len(first) + len(last):
        return False
    at, end = len(first), len(value) - len(last)
    for piece in middle:
        at = value.find(piece, at, end)
        if at < 0:
            return False
        at += len(piece)
    return True
