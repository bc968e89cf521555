"""Acknowledgements that are said until JetStream has heard them.

One that is said while NATS is away, or to a leader that dies before the others know of it, is lost, and what was done
is done again after `ack_wait`. Where a record says what became of the work that costs a look at the record; for events
there is none, and they would run twice. JetStream takes an acknowledgement of an earlier delivery as well.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from kappa_gateway.events.bus import MOST_REPLIES, Bus
from kappa_gateway.events.delivery.pull import ACK

log = logging.getLogger(__name__)

#: Said again when nothing was heard for so long; looked after so often; given up after so long.
AGAIN_SECONDS: Final = 2.0
SWEEP_SECONDS: Final = 0.5
LAST_SECONDS: Final = 120.0
#: Those that need no answer are said together: one write to NATS costs as much as a third of all the rest of one.
SOON_SECONDS: Final = 0.004
SOON_MOST: Final = 64
#: More than this are not remembered: the oldest are then left to chance.
MOST: Final = 50_000


class Acks:
    """By the sequence of the work in its stream. `listen` must be called after each connect of the bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._inbox = ""
        self._client: object = None
        self._open: dict[int, tuple[str, float, float]] = {}  # seq -> (where to, first said, last said)
        self._then: dict[int, Callable[[], Awaitable[None]]] = {}
        self._doing: set[asyncio.Future[None]] = set()
        self._soon: list[str] = []
        self._soon_timer: asyncio.TimerHandle | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._sweeping: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """How many nobody has confirmed."""
        return len(self._open)

    async def listen(self) -> None:
        """Raises what nats-py raises."""
        client = self._bus.nc
        if self._client is not client:
            inbox = client.new_inbox() + "."
            await client.subscribe(inbox + "*", cb=self._heard, pending_msgs_limit=MOST_REPLIES, pending_bytes_limit=0)
            self._client, self._inbox = client, inbox
        for seq, (reply, first, _) in list(self._open.items()):
            self._open[seq] = (reply, first, 0.0)
        self._look_after()

    async def say(self, seq: int, reply: str, then: Callable[[], Awaitable[None]] | None = None) -> None:
        """Raises nothing, and does not wait. `then`: is done when JetStream has heard it, and never if it does not."""
        now = asyncio.get_running_loop().time()
        if len(self._open) >= MOST:
            self._forget(next(iter(self._open)))
        if then is not None:
            self._then[seq] = then
        self._open[seq] = (reply, now, now)
        self._look_after()
        await self._send(seq, reply)

    def soon(self, reply: str) -> None:
        """Of work whose record says that it is done: one that gets lost costs a look at the record."""
        self._soon.append(reply)
        if len(self._soon) >= SOON_MOST:
            self._say_soon()
        elif self._soon_timer is None:
            self._soon_timer = asyncio.get_running_loop().call_later(SOON_SECONDS, self._say_soon)

    def _say_soon(self) -> None:
        self._do(self.flush())

    async def flush(self) -> None:
        """Says what was to be said soon."""
        if self._soon_timer is not None:
            self._soon_timer.cancel()
            self._soon_timer = None
        replies, self._soon = self._soon, []
        for reply in replies:
            await self._bus.tell(reply, ACK)

    def again(self, seq: int, reply: str) -> bool:
        """The work was handed out once more. Whether it is done and only JetStream has not heard of it."""
        known = self._open.get(seq)
        if known is None:
            return False
        self._open[seq] = (reply, known[1], 0.0)
        self._look_after()
        return True

    async def _send(self, seq: int, reply: str) -> None:
        try:
            await self._bus.nc.publish(reply, ACK, reply=f"{self._inbox}{seq}")
        except (NatsError, ConnectionError):
            log.debug("NATS is away: %s is acknowledged later", reply)

    async def _heard(self, message: Msg) -> None:
        if message.headers and message.headers.get("Status"):
            return  # the consumer has no leader now
        then = self._forget(int(message.subject[len(self._inbox) :]))
        if then is not None:  # not here: this is the one reader of all answers
            self._do(then())

    def _do(self, work: Awaitable[None]) -> None:
        doing = asyncio.ensure_future(work)
        self._doing.add(doing)
        doing.add_done_callback(self._doing.discard)

    def _forget(self, seq: int) -> Callable[[], Awaitable[None]] | None:
        self._open.pop(seq, None)
        return self._then.pop(seq, None)

    def _look_after(self) -> None:
        if self._sweeper is None and self._open:
            self._sweeper = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        if self._sweeping is None or self._sweeping.done():
            self._sweeping = asyncio.get_running_loop().create_task(self._say_again())
        self._look_after()

    async def _say_again(self) -> None:
        now = asyncio.get_running_loop().time()
        for seq, (reply, first, last) in list(self._open.items()):
            if now - first > LAST_SECONDS:
                self._forget(seq)
            elif now - last > AGAIN_SECONDS and self._bus.up and seq in self._open:
                self._open[seq] = (reply, first, now)
                await self._send(seq, reply)
