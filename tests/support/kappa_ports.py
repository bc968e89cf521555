"""Ports for servers that tests start.

Asking the kernel for any free port and closing it again is a race twice over: a connection that is opened in between
may get that port as its own, and so may another test that asks at the same moment. So ports are taken from below those
that the kernel gives to connections, and each one is held, for other processes, by a UDP socket at the same number.
"""

import itertools
import random
import socket
from collections import deque
from typing import Final

HOST: Final = "127.0.0.1"
#: Linux gives connections the ports from 32768 on, others those from 49152 on.
_FIRST, _LAST = 10_000, 32_000
#: So many stay held: a server listens long before as many others have been asked for.
_HELD: Final[deque[socket.socket]] = deque()
_MOST_HELD: Final = 200
_next = itertools.cycle(range(_FIRST, _LAST))
for _ in range(random.SystemRandom().randrange(_LAST - _FIRST)):
    next(_next)


def free_port() -> int:
    """A TCP port at 127.0.0.1 where nobody listens, and that no other process which asks here will get for a while."""
    for port in itertools.islice(_next, _LAST - _FIRST):
        lock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            lock.bind((HOST, port))
            with socket.socket() as probe:
                probe.bind((HOST, port))
        except OSError:
            lock.close()
            continue
        _HELD.append(lock)
        if len(_HELD) > _MOST_HELD:
            _HELD.popleft().close()
        return port
    raise OSError("no port is free at 127.0.0.1")
