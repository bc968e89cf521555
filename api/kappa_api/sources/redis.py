"""`source.redis`: entries of a Redis stream, read by a consumer group.

The Secret holds the server's URL (`url`, redis:// or rediss://) and, for TLS, `ca.crt`, `tls.crt` and `tls.key`.
"""

from dataclasses import dataclass
from typing import Final

from kappa_api.fields import Reader
from kappa_api.secretref import read_secret_ref

STARTS: Final = ("new", "all")


@dataclass(frozen=True, slots=True)
class Redis:
    """`start`: what a new group begins with, `new` entries only or `all` that the stream has. `group`: one that others
    made or share; empty: Kappa's own, which goes with the Trigger."""

    secret: str
    stream: str
    start: str = "new"
    group: str = ""


def read(reader: Reader) -> Redis:
    """Reads `spec.source.redis`."""
    secret = read_secret_ref(reader, required=True)
    found = Redis(
        secret=secret,
        stream=reader.string("stream", required=True, pattern=r"(?s).{1,512}", hint="the stream's key"),
        start=reader.choice("start", "new", STARTS),
        group=reader.string("group", pattern=r"(?s).{1,256}", hint="a consumer group's name"),
    )
    reader.unknown()
    return found
