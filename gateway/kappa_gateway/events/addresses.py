"""Where sources and destinations may connect to: not to this pod itself, nor to where clouds keep their credentials."""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable

from kappa_gateway.auth.fetch import address_problem
from kappa_gateway.events.source import SourceError

Check = Callable[[str, int], Awaitable[tuple[str, ...]]]


def checker(*, loopback: bool) -> Check:
    """The `check_address` of `source.Surroundings`. `loopback`: allowed, for the embedded platform and tests."""

    async def check(host: str, port: int) -> tuple[str, ...]:
        """The host's addresses, all of which may be connected to. Raises SourceError."""
        try:
            found: tuple[str, ...] = (str(ipaddress.ip_address(host.strip("[]"))),)
        except ValueError:
            try:
                infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError) as error:
                raise SourceError(f"the host {host[:200]!r} is not known: {error}") from error
            found = tuple(dict.fromkeys(str(info[4][0]) for info in infos))
        for address in found:
            if problem := address_problem(address, loopback=loopback):
                raise SourceError(f"{host[:200]} is {problem}: sources may not connect to it")
        return found

    return check
