"""Putting events away for good, however long that takes: for sources that hold back their acknowledgement meanwhile."""

import asyncio
from collections.abc import Sequence
from typing import Final

from kappa_api.cloudevents import CloudEvent
from kappa_gateway.events.bus import UnavailableError
from kappa_gateway.events.source import Sink

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 2.0


async def emit(sink: Sink, events: Sequence[CloudEvent]) -> None:
    """Returns when JetStream has them. While it is away they are offered again and again; repeated ids are dropped."""
    pause = FIRST_PAUSE
    while events:
        try:
            return await sink.emit(events)
        except UnavailableError:
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
    return None
