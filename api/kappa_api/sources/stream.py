"""`source.stream`: messages of a JetStream stream, of the platform's servers or (with `secretRef`) of others."""

from dataclasses import dataclass
from typing import Final

from kappa_api.fields import Reader
from kappa_api.secretref import read_secret_ref
from kappa_api.sources.subject import subject_fault

STARTS: Final = ("new", "all")
MAX_SUBJECTS: Final = 100
STREAM_NAME: Final = r"[^\s.*>/\\]{1,255}"


@dataclass(frozen=True, slots=True)
class Stream:
    """`subjects`: only messages with these; empty: all. `start`: `new` messages only, or `all` that the stream has.
    `secret`: of the servers; empty: the platform's."""

    stream: str
    subjects: tuple[str, ...] = ()
    start: str = "new"
    secret: str = ""


def read(reader: Reader) -> Stream:
    """Reads `spec.source.stream`."""
    found = Stream(
        stream=reader.string("stream", required=True, pattern=STREAM_NAME, hint="the name of a stream"),
        subjects=reader.strings("subjects", subject_fault),
        start=reader.choice("start", "new", STARTS),
        secret=read_secret_ref(reader, required=False),
    )
    if len(found.subjects) > MAX_SUBJECTS:
        reader.fault("subjects", f"must have at most {MAX_SUBJECTS} subjects")
    reader.unknown()
    return found
