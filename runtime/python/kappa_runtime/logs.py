"""Everything the process says, as JSON lines on file descriptor 1, each with the id of the invocation it belongs to.

`print`, `sys.stderr`, `logging`, `warnings` and uncaught exceptions of threads all come through here. Which
invocation a line belongs to follows from a context variable; a thread that the function started itself has none, and
its lines go to the running invocation when there is exactly one. What a subprocess writes goes to the descriptor as
it is.

Nobody reading the log must not stop the function: a line that the pipe does not take within `PATIENCE` is dropped, the
following ones at once, and their number is reported when the pipe takes lines again.
"""

import io
import json
import logging
import os
import select
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TextIO

#: A longer line is cut, and says so.
MAX_LINE = 256 << 10
#: Seconds to wait for a full pipe, once.
PATIENCE = 0.1

_encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), default=repr).encode


class Scope:
    """The invocation that lines belong to, and its unfinished lines."""

    __slots__ = ("buffers", "request_id")

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.buffers: dict[str, tuple[str, int]] = {}


current: ContextVar[Scope | None] = ContextVar("kappa_scope", default=None)


class Sink:
    """Writes JSON lines to `descriptor`. `clock` gives epoch seconds. Safe to use from any thread."""

    def __init__(self, descriptor: int, clock: Callable[[], float] = time.time, patience: float = PATIENCE) -> None:
        self.function = ""
        self.running: set[Scope] = set()
        self._clock, self._descriptor, self._patience = clock, descriptor, patience
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._lock = threading.RLock()
        self._second, self._stamp = -1, ""
        self._dropped, self._torn = 0, False
        self._no_scope = Scope("")

    def scope(self) -> Scope:
        """The scope of the calling code."""
        scope = current.get()
        if scope is None or scope not in self.running:
            running = self.running
            if len(running) == 1:
                for scope in tuple(running)[:1]:
                    return scope
            return scope or self._no_scope
        return scope

    def begin(self, scope: Scope) -> None:
        self.running.add(scope)

    def end(self, scope: Scope) -> None:
        """The invocation is over: writes its unfinished lines."""
        self.running.discard(scope)
        if scope.buffers:
            self._flush(scope)

    def flush(self) -> None:
        self._flush(self._no_scope)

    def text(self, stream: str, text: str) -> None:
        """What the function wrote to `stdout` or `stderr`: whole lines go out, the rest waits for its end."""
        scope = self.scope()
        with self._lock:
            held, lost = scope.buffers.pop(stream, ("", 0))
            *lines, rest = text.split("\n")
            for line in lines:
                self._line(stream, scope, held + line, lost)
                held, lost = "", 0
            rest = held + rest
            if len(rest) > MAX_LINE:
                lost += len(rest) - MAX_LINE
                rest = rest[:MAX_LINE]
            if rest:
                scope.buffers[stream] = (rest, lost)

    def record(self, level: str, message: str, request_id: str | None = None, **fields: Any) -> None:
        """One line. Fields that are None are left out; values that JSON does not know are written as `repr`."""
        now = self._clock()
        second = int(now)
        if second != self._second:
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second
        line: dict[str, Any] = {"time": f"{self._stamp}.{int((now - second) * 1000):03d}Z", "level": level}
        if request_id is None:
            request_id = self.scope().request_id
        if request_id:
            line["requestId"] = request_id
        if self.function:
            line["function"] = self.function
        line["message"] = message if len(message) <= MAX_LINE + 64 else _cut(message, 0)
        line.update((key, value) for key, value in fields.items() if value is not None)
        try:
            encoded = _encode(line)
        except (ValueError, TypeError, RecursionError):
            encoded = _encode({key: str(value) for key, value in line.items()})
        self._write(encoded.encode() + b"\n")

    def _flush(self, scope: Scope) -> None:
        with self._lock:
            buffers, scope.buffers = scope.buffers, {}
            for stream, (text, lost) in buffers.items():
                self._line(stream, scope, text, lost)

    def _line(self, stream: str, scope: Scope, text: str, lost: int) -> None:
        text = _cut(text, lost) if lost or len(text) > MAX_LINE else text
        self.record("ERROR" if stream == "stderr" else "INFO", text, scope.request_id, stream=stream)

    def _write(self, line: bytes) -> None:
        with self._lock:
            if self._dropped and self._ready(0):
                dropped, self._dropped = self._dropped, 0
                self.record("WARNING", f"{dropped} log lines were lost: nobody read the log fast enough", "")
            if self._torn:
                line = b"\n" + line
            done = 0
            # A pipe that polls writable takes PIPE_BUF bytes without blocking (POSIX pipe(7)), not more.
            while done < len(line):
                if not self._ready(0 if self._dropped else self._patience):
                    self._dropped += 1
                    self._torn = self._torn or done > 0
                    return
                try:
                    done += os.write(self._descriptor, line[done : done + select.PIPE_BUF])
                except OSError:
                    return  # nobody will ever read it
            self._torn = False

    def _ready(self, seconds: float) -> bool:
        return bool(self._poll.poll(seconds * 1000))


class LineStream(io.TextIOBase):
    """Stands in for `sys.stdout` and `sys.stderr`."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, sink: Sink, stream: str, descriptor: int) -> None:
        self._sink, self._stream, self._descriptor = sink, stream, descriptor
        self.buffer = ByteStream(self)

    @property
    def name(self) -> str:
        return f"<{self._stream}>"

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._sink.text(self._stream, text)
        return len(text)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def reconfigure(self, **options: Any) -> None:
        """Accepted and ignored: lines are always UTF-8 JSON."""

    def close(self) -> None:
        """Ignored: the log stays open."""


class ByteStream(io.BufferedIOBase):
    """`sys.stdout.buffer`: bytes that are not UTF-8 are written as escapes."""

    def __init__(self, text: LineStream) -> None:
        self._text = text

    def write(self, data: Any) -> int:
        raw = bytes(data)
        self._text.write(raw.decode("utf-8", "backslashreplace"))
        return len(raw)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._text.fileno()

    def close(self) -> None:
        """Ignored: the log stays open."""


class LogHandler(logging.Handler):
    """Sends `logging` records to the sink, with level, logger and exception as fields."""

    def __init__(self, sink: Sink) -> None:
        super().__init__()
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception as error:
            message = f"{record.msg!r} {record.args!r} (cannot be formatted: {error})"
        exception = None
        if record.exc_info and record.exc_info[1]:
            exception = "".join(traceback.format_exception(record.exc_info[1]))
        self._sink.record(record.levelname, message, logger=record.name, exception=exception)


def install(sink: Sink) -> None:
    """Makes the sink the place where this process's output goes."""
    out: TextIO = LineStream(sink, "stdout", 1)  # type: ignore[assignment]
    err: TextIO = LineStream(sink, "stderr", 2)  # type: ignore[assignment]
    sys.stdout, sys.stderr = out, err
    sys.__stdout__, sys.__stderr__ = out, err  # type: ignore[assignment, misc]
    root = logging.getLogger()
    root.handlers[:] = [LogHandler(sink)]
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    logging.lastResort = None

    def uncaught(args: threading.ExceptHookArgs) -> None:
        text = "".join(traceback.format_exception(args.exc_type, args.exc_value, args.exc_traceback))
        name = args.thread.name if args.thread else "?"
        sink.record("ERROR", f"uncaught exception in thread {name}", exception=text)

    threading.excepthook = uncaught


def _cut(text: str, lost: int) -> str:
    return f"{text[:MAX_LINE]} ...[{lost + max(0, len(text) - MAX_LINE)} more characters cut]"
