"""`source.schedule`: fires by the clock: a cron expression in a time zone, or once at a time.

Cron has the five fields of Vixie cron (minute, hour, day of month, month, day of week), or a name such as @daily. The
gateway counts with the library cronsim; what is read here is a part of what that understands.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Final
from zoneinfo import ZoneInfo

from kappa_api.fields import Reader

Json = Any
MISSED: Final = ("skip", "last", "all")
NAMES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
ZONE: Final = r"[A-Za-z0-9_+/-]{1,64}"
_MONTHS: Final = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS: Final = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
#: (name, lowest, highest, names that stand for numbers from the lowest on)
_FIELDS: Final[tuple[tuple[str, int, int, tuple[str, ...]], ...]] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 7, _DAYS),
)
_PART: Final = re.compile(r"(\*|[0-9A-Z]+(?:-[0-9A-Z]+)?)(?:/([0-9]{1,2}))?")
#: Days that a month may have.
_LENGTHS: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Exactly one of `cron` (five fields, names resolved) and `at` (as written: RFC 3339, or local time in the zone).

    `missed`: what happens to firings that nobody could do for more than a minute: `last` fires the newest of them.
    `data`: handed to the function with each firing.
    """

    cron: str = ""
    at: str = ""
    zone: str = "UTC"
    missed: str = "last"
    data: Mapping[str, Json] | None = None


def read(reader: Reader) -> Schedule:
    """Reads `spec.source.schedule`."""
    cron, at = reader.string("cron"), reader.string("at")
    zone = reader.string("timeZone", "UTC", pattern=ZONE, hint="a name such as Europe/Berlin")
    if ("cron" in reader) == ("at" in reader):
        reader.fault("", "must have exactly one of cron and at")
    if "cron" in reader and (fault := cron_fault(cron)):
        reader.fault("cron", fault)
    if "at" in reader and (fault := _at_fault(at)):
        reader.fault("at", fault)
    if not _known(zone):
        reader.fault("timeZone", f"{zone!r} is not known: use a name of the IANA database such as Europe/Berlin")
    found = Schedule(
        cron=NAMES.get(cron.strip().lower(), " ".join(cron.split())),
        at=at,
        zone=zone,
        missed=reader.choice("missed", "last", MISSED),
        data=reader.mapping("data") if "data" in reader else None,
    )
    reader.mapping("data")
    reader.unknown()
    return found


def cron_fault(text: str) -> str:
    """What is wrong with a cron expression, or an empty string."""
    text = text.strip()
    if text.startswith("@"):
        return "" if text.lower() in NAMES else f"{text[:20]!r} is none of {', '.join(NAMES)}"
    fields = text.upper().split()
    if len(fields) != len(_FIELDS):
        return "must have five fields (minute, hour, day of month, month, day of week) or be a name such as @daily"
    values = []
    for field, (name, low, high, words) in zip(fields, _FIELDS, strict=True):
        found: set[int] = set()
        for part in field.split(","):
            try:
                found |= _values(part, low, high, words)
            except ValueError as error:
                return f"{name}: {part[:20]!r} {error}"
        values.append(found)
    _, _, days, months, _ = values
    if fields[4].startswith("*") and min(days) > max(_LENGTHS[month - 1] for month in months):
        return "never fires: no such month has such a day"
    return ""


def _values(part: str, low: int, high: int, words: tuple[str, ...]) -> set[int]:
    match = _PART.fullmatch(part)
    if match is None:
        raise ValueError("is not understood: write *, 5, 1-5, */10, 10-20/2 or a list of these")
    span, step_text = match.groups()
    step = int(step_text) if step_text is not None else 1
    if span == "*":
        first, last = low, high
    elif "-" in span:
        first, last = (_value(text, low, high, words) for text in span.split("-"))
    else:
        first = _value(span, low, high, words)
        last = high if step_text is not None else first
    if last < first:
        raise ValueError("ends before it begins")
    if "-" in span and last == first and step_text is not None:
        raise ValueError("is a step in a range of one: leave the step out")  # crons differ on what it means
    if not 1 <= step <= high:
        raise ValueError(f"has a step that is not from 1 to {high}")
    return set(range(first, last + 1, step))


def _value(text: str, low: int, high: int, words: tuple[str, ...]) -> int:
    if text in words:
        return words.index(text) + low
    if not text.isdigit() or len(text) > 2 or not low <= int(text) <= high:
        raise ValueError(f"is not from {low} to {high}")
    return int(text)


def _at_fault(text: str) -> str:
    try:
        if len(text) < len("2026-01-01T00:00") or text[10] not in "Tt ":
            raise ValueError
        datetime.fromisoformat(text)
    except ValueError:
        return f"{text[:40]!r} is not a time such as 2026-01-31T08:00:00Z"
    return ""


@cache
def _known(zone: str) -> bool:
    """Whether there is such a zone. Yes, where there is no database to look it up in: the gateway has one."""
    try:
        ZoneInfo(zone)
        return True
    except (ValueError, OSError, KeyError):
        if zone == "Europe/Berlin":
            return True
    try:
        ZoneInfo("Europe/Berlin")
        return False
    except (ValueError, OSError, KeyError):
        return True
