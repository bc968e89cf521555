"""`source.s3`: an object store posts its bucket notifications to `/hooks/<namespace>/<trigger>`."""

import re
from dataclasses import dataclass
from typing import Final

from kappa_api.fields import Reader
from kappa_api.limits import NO_POST_LIMITS, PostLimits, read_post_limits
from kappa_api.secretref import read_secret_ref

MAX_ITEMS: Final = 100
_EVENT: Final = re.compile(r"s3:(\*|[A-Za-z]+(:(\*|[A-Za-z]+))?)")
_BUCKET: Final = re.compile(r"[A-Za-z0-9*]([-A-Za-z0-9._*]{0,253}[A-Za-z0-9*])?")


@dataclass(frozen=True, slots=True)
class S3:
    """`secret`: each of its values is a token that opens. `buckets`, `events`: what to take, `*` standing for any
    characters; empty: everything. `limits`: of all who post; each record counts."""

    secret: str
    buckets: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    limits: PostLimits = NO_POST_LIMITS


def read(reader: Reader) -> S3:
    found = S3(
        secret=read_secret_ref(reader, required=True),
        buckets=reader.strings("buckets", _bucket_fault),
        events=reader.strings("events", _event_fault),
        limits=read_post_limits(reader),
    )
    for field, items in (("buckets", found.buckets), ("events", found.events)):
        if len(items) > MAX_ITEMS:
            reader.fault(field, f"must have at most {MAX_ITEMS} items")
    reader.unknown()
    return found


def _bucket_fault(text: str) -> str:
    return "" if _BUCKET.fullmatch(text) else f"{text[:80]!r} is no bucket's name; * stands for any characters"


def _event_fault(text: str) -> str:
    return "" if _EVENT.fullmatch(text) else f"{text[:80]!r} is not an event such as s3:ObjectCreated:* or s3:*"
