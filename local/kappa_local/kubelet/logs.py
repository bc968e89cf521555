"""Container logs: what a process prints, line by line with its time, in one file per container; read back and
followed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

CHUNK = 65_536
MAX_LINE = 65_536
"""A longer line is cut into several, so that a process that prints no newline cannot fill memory."""


@dataclass(frozen=True)
class LogOptions:
    """`since`: only lines from this time (UTC) on. `limit`: bytes."""

    follow: bool = False
    tail: int | None = None
    since: datetime | None = None
    timestamps: bool = False
    limit: int | None = None


class LogFile:
    """Collects from a pipe into a file. `closed` is set once the pipe is at its end or was given up."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.closed = asyncio.Event()
        self._changed = asyncio.Event()
        self._file: BinaryIO = path.open("ab", buffering=0)
        self._rest = b""
        self._fd: int | None = None

    def pipe(self) -> int:
        """The write end for a process to print to. The caller closes it after starting the process."""
        reader, writer = os.pipe2(os.O_CLOEXEC) if hasattr(os, "pipe2") else os.pipe()
        os.set_blocking(reader, False)
        self._fd = reader
        asyncio.get_running_loop().add_reader(reader, self._read)
        return writer

    def _read(self) -> None:
        assert self._fd is not None
        try:
            data = os.read(self._fd, CHUNK)
        except BlockingIOError:
            return
        if data:
            self._write(data)
        else:
            self.close()

    def _write(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE:
            lines.append(self._rest)
            self._rest = b""
        if lines:
            stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f").encode() + b"000Z "
            self._file.write(b"".join([stamp + line + b"\n" for line in lines]))
            self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def drain_and_close(self) -> None:
        """Takes what is in the pipe now and stops: for when the process is gone and only stray children hold the
        pipe.
        """
        while self._fd is not None:
            before = self._fd
            try:
                data = os.read(before, CHUNK)
            except BlockingIOError:
                break
            if not data:
                break
            self._write(data)
        self.close()

    def close(self) -> None:
        if self._fd is not None:
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = None
        if not self.closed.is_set():
            if self._rest:
                self._write(b"\n")
            self._file.close()
            self.closed.set()
            self._wake()

    async def wait(self) -> None:
        """Until there is more to read, or the log is closed."""
        if not self.closed.is_set():
            await self._changed.wait()


def _shape(line: bytes, options: LogOptions) -> bytes | None:
    stamp, _, text = line.partition(b" ")
    if options.since is not None:
        written = datetime.fromisoformat(stamp[:26].decode()).replace(tzinfo=UTC)
        if written < options.since:
            return None
    return line if options.timestamps else text


def shaped(data: bytes, options: LogOptions) -> list[bytes]:
    """The lines of a stretch of log file as the reader wants them, each with its newline."""
    lines = [_shape(line, options) for line in data.splitlines(keepends=True)]
    return [line for line in lines if line is not None]


async def read(path: Path, live: Callable[[], LogFile | None], options: LogOptions) -> AsyncIterator[bytes]:
    """The log so far, then, with `follow`, what is added until the log closes. `live` is the log being written, if
    any.
    """
    left = options.limit
    with path.open("rb") as file:
        lines = shaped(file.read(), options)
        if options.tail is not None:
            lines = lines[len(lines) - options.tail :] if options.tail else []
        out = b"".join(lines)
        while True:
            if left is not None:
                out = out[:left]
                left -= len(out)
            if out:
                yield out
            log = live()
            if left == 0 or not options.follow:
                return
            more = file.read()
            if more:
                out = b"".join(shaped(more, options))
                continue
            if log is None or log.closed.is_set():
                return
            out = b""
            await log.wait()
            out = b"".join(shaped(file.read(), options))
