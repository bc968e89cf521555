"""What a pool pod does while it has no code: it imports what functions commonly import, so that they need not wait.

One module at a time on the server's loop, and none while anybody is connected: a specialize waits for one module at
most. It ends when the pod gets its code. A function's own module of the same name still wins for the function's code
(see shadow.py).

The list is chosen by measurement (docs/performance.md): standard modules that many functions or the libraries they
bring import, with at least 3 ms saved per MiB of memory. Each module stands behind those that it imports itself, so
that a step is short. Not here: `sqlite3` (2.0 ms per MiB), `html` (2.3), `unittest`, `multiprocessing`, `ctypes`.
"""

import asyncio
import gc
import importlib
import sys
import time
from collections.abc import Callable, Iterable, Mapping

MODULES = (
    "datetime", "_strptime", "numbers", "_decimal", "decimal", "fnmatch", "pathlib", "_csv", "csv", "bisect",
    "random", "secrets", "fractions", "statistics", "calendar", "email.utils", "email.charset", "email.header",
    "email._policybase", "email.feedparser", "email.parser", "quopri", "email.message", "email.mime.multipart",
    "email.mime.text", "email.policy", "http", "http.client", "http.cookies", "bz2", "lzma", "shutil", "tempfile",
    "urllib.response", "urllib.error", "urllib.request", "mimetypes", "glob", "gzip", "pprint",
    "zoneinfo", "stringprep", "encodings.idna", "xml.etree.ElementPath", "pyexpat", "xml.etree.ElementTree",
    "pickle", "configparser", "logging.handlers", "zipfile", "importlib.metadata",
)  # fmt: skip

#: How long it waits when somebody is connected.
PAUSE_SECONDS = 0.01


class Preload:
    """Imports `modules` on `loop`, then calls `done` with their number and the seconds they took. `may` says whether
    it shall go on at all, `quiet` whether this is a good moment."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        may: Callable[[], bool],
        quiet: Callable[[], bool],
        done: Callable[[int, float], None],
        modules: Iterable[str] = MODULES,
    ) -> None:
        self._loop, self._may, self._quiet, self._done = loop, may, quiet, done
        self._left = iter(tuple(modules))
        self._count, self._seconds = 0, 0.0

    def step(self) -> None:
        """Imports one module and comes back for the next."""
        if not self._may():
            return
        if not self._quiet():
            self._loop.call_later(PAUSE_SECONDS, self.step)
            return
        name = next(self._left, None)
        if name is None:
            self._done(self._count, self._seconds)
            return
        started = time.perf_counter()
        try:
            importlib.import_module(name)
        except ImportError:  # this Python was built without it
            pass
        else:
            self._count += 1
        # The collection after a load then looks at the function's objects only, not at all of these.
        gc.freeze()
        self._seconds += time.perf_counter() - started
        self._loop.call_soon(self.step)


def follow_environment(changed: Mapping[str, str]) -> None:
    """Tells modules that have read the environment when they were imported that these variables are new."""
    if "TZ" in changed:
        time.tzset()
    if "PYTHONTZPATH" in changed and "zoneinfo" in sys.modules:
        sys.modules["zoneinfo"].reset_tzpath()
