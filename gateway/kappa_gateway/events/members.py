"""Which gateways there are, and which of them a source should run on. Membership is heard over core NATS.

Each gateway says every second that it is there; who was silent for some seconds is gone. That is only advice: who runs
a source is decided by its lease (`owners.py`). The advice is rendezvous hashing, so sources are spread evenly, and a
gateway that comes or goes moves only its own share.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterable
from typing import Any, Final

from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from kappa_gateway.events.bus import Bus

ALIVE_SUBJECT: Final = "kappa.ctl.alive"
SAY_SECONDS: Final = 1.0
SILENT_SECONDS: Final = 4.0
#: A gateway that has come is trusted with work of others only after it has stayed for so long.
SETTLED_SECONDS: Final = 10.0


def preferred(uid: str, gateways: Iterable[str]) -> str:
    """The gateway of the highest rank for this source (rendezvous hashing, Thaler and Ravishankar 1998)."""
    return max(gateways, key=lambda name: (hashlib.sha256(f"{uid}/{name}".encode()).digest(), name))


class Members:
    """`clock`: the loop's."""

    def __init__(self, bus: Bus, name: str, clock: Callable[[], float]) -> None:
        self._bus, self.name, self._clock = bus, name, clock
        self._seen: dict[str, tuple[float, float]] = {}  # first and last heard of
        self._listening: Any = None  # the connection that is subscribed

    def present(self) -> list[str]:
        """Gateways that are there now, this one among them."""
        late = self._clock() - SILENT_SECONDS
        return [self.name, *(name for name, (_, last) in self._seen.items() if last > late and name != self.name)]

    def settled(self) -> list[str]:
        """Those of them that have been there for a while, and this one."""
        now = self._clock()
        return [n for n in self.present() if n == self.name or now - self._seen[n][0] > SETTLED_SECONDS]

    def heard(self, name: str, *, leaves: bool = False) -> None:
        now = self._clock()
        if leaves:
            self._seen.pop(name, None)
            return
        first, last = self._seen.get(name, (now, now))
        self._seen[name] = (now if now - last > SILENT_SECONDS else first, now)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._say("+")
            await asyncio.sleep(SAY_SECONDS)

    async def leave(self) -> None:
        """Others need not wait until it has been silent for long enough."""
        await self._say("-")

    async def _say(self, sign: str) -> None:
        if not self._bus.up:
            return
        try:
            if self._listening is not self._bus.nc:
                await self._bus.nc.subscribe(ALIVE_SUBJECT, cb=self._received)
                self._listening = self._bus.nc
            await self._bus.nc.publish(ALIVE_SUBJECT, f"{sign}{self.name}".encode())
        except (NatsError, ConnectionError):
            return  # the next second tries again

    async def _received(self, message: Msg) -> None:
        text = message.data.decode("utf-8", "replace")
        if text[1:] != self.name:
            self.heard(text[1:200], leaves=text.startswith("-"))
