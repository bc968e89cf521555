"""Who may keep a connection to the data port: a cap for all, and one for each address.

At the cap for all, connections that idle make room: first those of the address that has most of them, the longest idle
first. Only when none idles is the newcomer turned away, with a reason. An address at its own cap gets no further
connection, whatever else is free, so that one client cannot shut out the others.

Deciding is here, without I/O; `server.py` accepts, closes and answers.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final, Protocol

TOTAL: Final = "total"
ADDRESS: Final = "address"
#: How many connections are closed at a time to make room, as a part of the cap; looking for them goes through all.
BATCH: Final = 0.02
#: After a search that made no room, how long until the next: a flood must not make each newcomer cost a search.
SEARCH_SECONDS: Final = 0.1
#: A connection that idles for less may have its next request on the way.
IDLE_SECONDS: Final = 1.0


class Guest(Protocol):
    """A connection, as the door sees it."""

    @property
    def caller(self) -> bytes:
        """The key of its address."""

    @property
    def idle_since(self) -> float:
        """When it became idle; infinity while it is in use."""

    def retire(self) -> None:
        """Closes it, if it is still idle. Calls `Door.leave`."""


class Door:
    """Counts connections. `per_address` 0: no such cap."""

    def __init__(self, total: int, per_address: int, guests: Callable[[], Iterable[Guest]]) -> None:
        self.total, self.per_address = total, per_address
        self._guests = guests
        self._by_address: dict[bytes, int] = {}
        self._next_search = 0.0
        self.inside = 0
        self.turned_away: Counter[str] = Counter()
        self.evicted = 0

    def full(self, now: float) -> bool:
        """Whether nobody can be let in, whoever it is. Makes room if it can."""
        return self.inside >= self.total and not self._make_room(now)

    def enter(self, address: bytes) -> bool:
        """Whether a connection from there may stay; then `leave` must be called when it goes."""
        count = self._by_address.get(address, 0)
        if self.per_address and count >= self.per_address:
            return False
        self._by_address[address] = count + 1
        self.inside += 1
        return True

    def leave(self, address: bytes) -> None:
        self.inside -= 1
        count = self._by_address[address] - 1
        if count:
            self._by_address[address] = count
        else:
            del self._by_address[address]

    def _make_room(self, now: float) -> bool:
        if now < self._next_search:
            return False
        self._next_search = now + SEARCH_SECONDS
        before = now - IDLE_SECONDS
        idle = [guest for guest in self._guests() if guest.idle_since <= before]
        counts = self._by_address
        idle.sort(key=lambda guest: (-counts.get(guest.caller, 0), guest.idle_since))
        for guest in idle[: max(1, int(self.total * BATCH))]:
            inside = self.inside
            guest.retire()
            self.evicted += inside - self.inside
        return self.inside < self.total

    def __repr__(self) -> str:
        return f"<Door {self.inside} of {self.total} inside, {len(self._by_address)} addresses>"
