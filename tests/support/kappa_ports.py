"""Ports for servers that tests start.

Asking the kernel for any free port and closing it again is a race twice over: a connection that is opened in between
may get that port as its own, and so may another test that asks at the same moment. So ports are taken from below those
that the kernel gives to connections, each process that runs tests beside others has a range of its own, and it goes
through that in turn: a server listens long before its port's turn comes again.
"""

import itertools
import os
import random
import socket
from typing import Final

HOST: Final = "127.0.0.1"
#: Linux gives connections the ports from 32768 on, others those from 49152 on.
_FIRST, _LAST = 10_000, 32_000
_RANGES: Final = 8


def _range() -> range:
    size = (_LAST - _FIRST) // _RANGES
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _RANGES
    return range(_FIRST + worker * size, _FIRST + (worker + 1) * size)


_ports: Final = _range()
#: Where it begins is drawn: somebody may run other tests on this machine.
_turn: Final = itertools.count(random.SystemRandom().randrange(len(_ports)))


def free_port() -> int:
    """A TCP port at 127.0.0.1 where nobody listens, and that no other process of these tests will get."""
    for number in itertools.islice(_turn, len(_ports)):
        port = _ports[number % len(_ports)]
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        return port
    raise OSError("no port is free at 127.0.0.1")
