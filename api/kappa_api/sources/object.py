"""`source.object`: changes in a JetStream object bucket of the platform's servers."""

from dataclasses import dataclass

from kappa_api.fields import Reader
from kappa_api.sources.kv import BUCKET
from kappa_api.sources.stream import STARTS


@dataclass(frozen=True, slots=True)
class Object:
    """`start`: `new` changes only, or `all` objects that the bucket has."""

    bucket: str
    start: str = "new"


def read(reader: Reader) -> Object:
    """Reads `spec.source.object`."""
    found = Object(
        bucket=reader.string("bucket", required=True, pattern=BUCKET, hint="the name of a bucket"),
        start=reader.choice("start", "new", STARTS),
    )
    reader.unknown()
    return found
