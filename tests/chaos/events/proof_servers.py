"""The servers that some sources read from: real ones, on loopback, gone afterwards; none of the faults touches them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from kappa_ports import free_port
from kappa_servers import server
from proof_feed import UnusableError

START_SECONDS = 20.0


@contextlib.contextmanager
def usable():  # type: ignore[no-untyped-def]  # a context manager of two lines
    """Helpers of the tests skip the test where a server cannot be had: here the source is left out, and it is told."""
    try:
        yield
    except (pytest.skip.Exception, pytest.fail.Exception) as error:
        raise UnusableError(str(error)) from error


@contextlib.asynccontextmanager
async def program(name: str, folder: Path, *arguments: str, config: str = "") -> AsyncIterator[int]:
    """`name` (a Debian package, too) until it takes connections on a port of 127.0.0.1. `{port}` and `{folder}` stand
    for theirs in `arguments`, and in `config`, whose file is `{folder}/config`."""
    with usable():
        found = server(name, name)
    port, place = free_port(), folder / name
    place.mkdir()
    (place / "config").write_text(config.format(port=port, folder=place))
    filled = [argument.format(port=port, folder=place) for argument in arguments]
    with (place / "log").open("wb") as log:
        child = await asyncio.create_subprocess_exec(
            str(found.program), *filled, stdout=log, stderr=log, env=found.env(), cwd=place
        )
    try:
        async with asyncio.timeout(START_SECONDS):
            while not await _listens(port):
                if child.returncode is not None:
                    raise UnusableError(f"{name} ended: {(place / 'log').read_text()[-500:]}")
                await asyncio.sleep(0.05)
        yield port
    finally:
        if child.returncode is None:
            child.terminate()
        await child.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
