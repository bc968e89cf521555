"""Which subjects a stream has something under, and how much under each."""

from dataclasses import dataclass
from typing import Any, Final

from kappa_gateway.events.bus import PUBLISH_SECONDS, Bus

Json = Any
_INFO: Final = "STREAM.INFO."


@dataclass(frozen=True, slots=True)
class Listing:
    """`counts`: messages by subject; `held`: bytes of the whole stream, of `most` that it takes."""

    counts: dict[str, int]
    held: int
    most: int


async def listing(bus: Bus, stream: str, pattern: str, seconds: float = PUBLISH_SECONDS) -> Listing:
    """Of the subjects that match `pattern`. JetStream tells them in pages, each within `seconds`. Raises
    UnavailableError."""
    found: dict[str, int] = {}
    seen = 0
    while True:
        info: Json = await bus.api(_INFO + stream, {"subjects_filter": pattern, "offset": seen}, seconds)
        page = info["state"].get("subjects") or {}
        found |= page
        seen += len(page)
        if not page or seen >= info.get("total", 0):
            return Listing(found, info["state"].get("bytes", 0), info.get("config", {}).get("max_bytes", 0))
