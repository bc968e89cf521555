"""Which gateways there are, and which of them a source should run on. Membership is heard over core NATS.

Each gateway says every second that it is there; who was silent for some seconds is gone. Who was silent for a little is
asked: NATS says at once when nobody listens there, which is what a killed process leaves behind. All of that is only
advice: who runs a source is decided by its lease (`owners.py`). The advice is rendezvous hashing, so sources are spread
evenly, and a gateway that comes or goes moves only its own share.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterable
from typing import Any, Final

from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError

from kappa_gateway.events.bus import Bus

ALIVE_SUBJECT: Final = "kappa.ctl.alive"
#: Of each gateway, with its name as a token behind it: whoever asks there gets an answer.
HERE_PREFIX: Final = "kappa.ctl.here."
SAY_SECONDS: Final = 1.0
SILENT_SECONDS: Final = 4.0
#: After so long it is asked, this often, and is dead when nobody listened so many times in turn: a connection that was
#: lost is made again before that.
SUSPECT_SECONDS: Final = 1.5
ASK_SECONDS: Final = 0.4
DEAD_ANSWERS: Final = 3
#: The dead are remembered until all their leases have run out.
DEAD_SECONDS: Final = 15.0
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
        self._back = -SILENT_SECONDS  # when this gateway's own connection was there again: others need a moment, too
        self._unheard: dict[str, int] = {}  # how often nobody listened
        self._dead: dict[str, float] = {}  # since when
        #: Called when a gateway is found dead.
        self.died: Callable[[], None] = lambda: None
        bus.heard.append(self._reconnected)

    def present(self) -> list[str]:
        """Gateways that are there now, this one among them."""
        late = self._clock() - SILENT_SECONDS
        return [
            self.name,
            *(n for n, (_, last) in self._seen.items() if last > late and n != self.name and n not in self._dead),
        ]

    def dead(self) -> set[str]:
        """Gateways that nobody need wait for: their connection ended without a word, not long ago."""
        late = self._clock() - DEAD_SECONDS
        for name in [name for name, since in self._dead.items() if since < late]:
            del self._dead[name]
        return set(self._dead)

    def settled(self) -> list[str]:
        """Those of them that have been there for a while, and this one."""
        now = self._clock()
        return [n for n in self.present() if n == self.name or now - self._seen[n][0] > SETTLED_SECONDS]

    def heard(self, name: str, *, leaves: bool = False) -> None:
        now = self._clock()
        self._dead.pop(name, None)
        self._unheard.pop(name, None)
        if leaves:
            self._seen.pop(name, None)
            return
        first, last = self._seen.get(name, (now, now))
        self._seen[name] = (now if now - last > SILENT_SECONDS else first, now)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_saying())
            group.create_task(self._keep_asking())

    async def _keep_saying(self) -> None:
        while True:
            await self._say("+")
            await asyncio.sleep(SAY_SECONDS)

    async def _keep_asking(self) -> None:
        while True:
            await asyncio.sleep(ASK_SECONDS)
            if self._bus.up:
                await asyncio.gather(*(self._ask(name) for name in self.suspects()))

    def suspects(self) -> list[str]:
        """Who was silent for a little, and is not known to be dead."""
        now = self._clock()
        gone = [name for name, (_, last) in self._seen.items() if now - max(last, self._back) > DEAD_SECONDS]
        for name in gone:
            del self._seen[name]
            self._unheard.pop(name, None)
        late = now - SUSPECT_SECONDS
        return [n for n, (_, last) in self._seen.items() if max(last, self._back) < late and n not in self._dead]

    def unheard(self, name: str) -> None:
        """Nobody listened where this gateway would."""
        count = self._unheard[name] = self._unheard.get(name, 0) + 1
        if count >= DEAD_ANSWERS:
            self._dead[name] = self._clock()
            self.died()

    async def _ask(self, name: str) -> None:
        try:
            await self._bus.nc.request(HERE_PREFIX + _token(name), b"", timeout=ASK_SECONDS)
        except NoRespondersError:
            if name in self._seen and self._bus.up:
                self.unheard(name)
            return
        except (NatsError, TimeoutError, ConnectionError):
            pass  # nothing is known of it: it may be busy, or stopped for a moment
        self._unheard.pop(name, None)

    def _reconnected(self) -> None:
        self._back = self._clock()
        self._unheard.clear()

    async def leave(self) -> None:
        """Others need not wait until it has been silent for long enough."""
        await self._say("-")

    async def _say(self, sign: str) -> None:
        if not self._bus.up:
            return
        try:
            if self._listening is not self._bus.nc:
                await self._bus.nc.subscribe(HERE_PREFIX + _token(self.name), cb=self._asked)
                await self._bus.nc.subscribe(ALIVE_SUBJECT, cb=self._received)
                self._listening = self._bus.nc
            await self._bus.nc.publish(ALIVE_SUBJECT, f"{sign}{self.name}".encode())
        except (NatsError, ConnectionError):
            return  # the next second tries again

    async def _asked(self, message: Msg) -> None:
        await self._bus.tell(message.reply, self.name.encode())

    async def _received(self, message: Msg) -> None:
        text = message.data.decode("utf-8", "replace")
        if text[1:] != self.name:
            self.heard(text[1:200], leaves=text.startswith("-"))


def _token(name: str) -> str:
    """As one token of a subject."""
    return hashlib.sha256(name.encode()).hexdigest()[:16]
