"""`source.kv`: changes in a JetStream key-value bucket of the platform's servers."""

from dataclasses import dataclass
from typing import Final

from kappa_api.fields import Reader
from kappa_api.sources.stream import STARTS
from kappa_api.sources.subject import subject_fault

BUCKET: Final = r"[A-Za-z0-9_-]{1,255}"
MAX_KEYS: Final = 100


@dataclass(frozen=True, slots=True)
class Kv:
    """`keys`: only these, `*` and `>` as in subjects; empty: all. `start`: `new` changes only, or `all` that the bucket
    still has."""

    bucket: str
    keys: tuple[str, ...] = ()
    start: str = "new"


def read(reader: Reader) -> Kv:
    """Reads `spec.source.kv`."""
    found = Kv(
        bucket=reader.string("bucket", required=True, pattern=BUCKET, hint="the name of a bucket"),
        keys=reader.strings("keys", subject_fault),
        start=reader.choice("start", "new", STARTS),
    )
    if len(found.keys) > MAX_KEYS:
        reader.fault("keys", f"must have at most {MAX_KEYS} keys")
    reader.unknown()
    return found
