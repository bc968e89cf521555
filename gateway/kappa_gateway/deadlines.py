"""Deadlines of invocations in flight, kept in a wheel of coarse slots.

An event loop timer costs one to two microseconds to set and cancel, and almost every invocation ends long before its
deadline; entering and leaving a set costs a tenth. Deadlines are whole seconds, so firing up to one slot late is fine.
"""

from typing import Final, Protocol

SLOT_SECONDS: Final = 0.05


class Expiring(Protocol):
    deadline: float

    def expire(self) -> None:
        """The deadline has passed. Called once, from `Deadlines.tick`."""


class Deadlines:
    """All running deadlines. `tick` must be called about once per slot while the wheel is not empty."""

    def __init__(self) -> None:
        self._slots: dict[int, set[Expiring]] = {}
        self._done = -1

    def add(self, item: Expiring) -> None:
        slot = int(item.deadline / SLOT_SECONDS) + 1
        if slot <= self._done:  # already past: the next tick fires it
            slot = self._done + 1
        found = self._slots.get(slot)
        if found is None:
            self._slots[slot] = {item}
        else:
            found.add(item)

    def discard(self, item: Expiring) -> None:
        slot = int(item.deadline / SLOT_SECONDS) + 1
        found = self._slots.get(slot)
        if found is not None and item in found:
            found.remove(item)
            return
        found = self._slots.get(self._done + 1)
        if found is not None:
            found.discard(item)

    def tick(self, now: float) -> None:
        """Fires everything whose deadline is at or before `now`."""
        last = int(now / SLOT_SECONDS)
        if last <= self._done:
            return
        due = [slot for slot in self._slots if slot <= last]
        self._done = last
        for slot in sorted(due):
            for item in self._slots.pop(slot):
                item.expire()

    def __len__(self) -> int:
        return sum(len(items) for items in self._slots.values())
