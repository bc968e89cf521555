"""Loopback addresses for pods: 127.<net>.y.z, one network per kappa_local, so that several run side by side.

The network is held by a bound UDP socket on its first address (also the node's), which the kernel frees when the
process ends. macOS has only 127.0.0.1 until `ifconfig lo0 alias` adds more; there every pod needs a port of its own.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

LOCK_PORT = 10250
FIRST, LAST = 20, 250
INDEXES = 65_500


class NoNetworkError(Exception):
    """Every network is taken."""


@dataclass
class Network:
    """One /16. Addresses are handed out in turn: one that was just freed comes back last, so that a client which
    still holds a connection to a dead pod does not reach the next one.
    """

    number: int
    lock: socket.socket | None = None
    next: int = 2
    _used: set[int] = field(default_factory=set)

    @property
    def node(self) -> str:
        return f"127.{self.number}.0.1"

    def take(self) -> str:
        for _ in range(INDEXES):
            index = self.next
            self.next = 2 if index >= INDEXES else index + 1
            if index not in self._used and index & 0xFF not in (0, 255):
                self._used.add(index)
                return f"127.{self.number}.{index >> 8}.{index & 0xFF}"
        raise NoNetworkError("no pod address is free")

    def free(self, address: str) -> None:
        _, _, high, low = address.split(".")
        self._used.discard(int(high) << 8 | int(low))

    def close(self) -> None:
        if self.lock is not None:
            self.lock.close()


def claim(preferred: int = FIRST, moment: float = 0.0) -> Network:
    """The first free network from `preferred` on. `moment` (seconds) moves the first address: where a pod of a cluster
    that ran a minute ago listened, the kernel may still refuse a listener without SO_REUSEADDR."""
    span = LAST - FIRST + 1
    for offset in range(span):
        number = FIRST + (preferred - FIRST + offset) % span
        lock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            lock.bind((f"127.{number}.0.1", LOCK_PORT))
        except OSError:
            lock.close()
            continue
        return Network(number, lock, next=2 + int(moment * 100) % (INDEXES - 2))
    raise NoNetworkError(f"networks 127.{FIRST}.0.0 to 127.{LAST}.0.0 are all taken")
