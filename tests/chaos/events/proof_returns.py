"""When NATS is there again after a fault, and how soon each source goes on from then.

It is there again when each stream has a leader: servers that run and still elect take and give nothing, and that is
NATS's time, not Kappa's.
"""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass

from nats.aio.client import Client
from nats.errors import Error as NatsError
from proof_ledger import Item

#: What the issue of events asks for.
RESUME_SECONDS = 5.0
LOOK_SECONDS, ANSWER_SECONDS, LAST_SECONDS = 0.1, 0.5, 60.0
#: An outage that nobody has seen after so long was none: no leader was on the server that died.
UNSEEN_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Return:
    """`gone`: when servers died; `back`: when all streams had leaders again. Seconds of the run's clock."""

    gone: float
    back: float


async def stream_names(client: Client) -> list[str]:
    answer = await client.jetstream().streams_info()
    return [info.config.name for info in answer if info.config.name]


async def watch(client: Client, streams: Collection[str], clock: Callable[[], float]) -> Return:
    """Begins when servers die; returns when all of these streams have leaders again."""
    gone, lacked = clock(), False
    while True:
        led = all(await asyncio.gather(*(_led(client, name) for name in streams)))
        now = clock()
        lacked = lacked or not led
        if now - gone > LAST_SECONDS or (led and (lacked or now - gone > UNSEEN_SECONDS)):
            return Return(gone, now if lacked else gone)
        await asyncio.sleep(LOOK_SECONDS)


async def _led(client: Client, stream: str) -> bool:
    """Only a stream's leader answers."""
    try:
        answer = await client.request(f"$JS.API.STREAM.INFO.{stream}", b"", timeout=ANSWER_SECONDS)
    except (NatsError, TimeoutError, ConnectionError):
        return False
    return b'"error"' not in answer.data


def resumed(items: Collection[Item], returns: Collection[Return]) -> list[float]:
    """For each return, the seconds from then until the source's first success of an event that came after the fault had
    begun; not told where there was no such event before something else was broken."""
    found = []
    for one in returns:
        later = [item for item in items if item.accepted > one.gone and item.ok and item.ok[0] >= one.back]
        if later:
            first = min(later, key=lambda item: item.ok[0])
            found.append(first.ok[0] - max(one.back, first.accepted))
    return found
