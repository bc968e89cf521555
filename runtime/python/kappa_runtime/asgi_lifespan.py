"""The ASGI lifespan protocol (ASGI 3, lifespan 2.0): one long call of the app, told of start-up and shutdown.

An app that does not know the protocol raises or returns at once: it is then served without. An app that says
`lifespan.startup.failed` does not load.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from kappa_api.wire import LoadError

_log = logging.getLogger("kappa.runtime")


class Lifespan:
    """Runs on the function's loop. `state` is what the app put into `scope["state"]`: each request gets a copy."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self._app = app
        self.state: dict[str, Any] = {}
        self._inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._started, self._stopped = asyncio.Event(), asyncio.Event()
        self._failure: LoadError | None = None
        self._supported = False
        self._task: asyncio.Task[None] | None = None

    async def startup(self) -> LoadError | None:
        """Lets the app start; returns why it could not."""
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._inbox.put_nowait({"type": "lifespan.startup"})
        await self._started.wait()
        return self._failure

    async def shutdown(self) -> None:
        """Lets the app end what it started."""
        if not self._supported or self._stopped.is_set():
            return
        self._inbox.put_nowait({"type": "lifespan.shutdown"})
        await self._stopped.wait()

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self._app(scope, self._inbox.get, self._send)
        except BaseException as error:
            if self._supported:
                _log.error("the app's lifespan ended with an exception", exc_info=error)
            elif self._failure is None:
                # The ASGI specification: an exception before startup means that the app has no lifespan.
                _log.info("the app has no lifespan: %s: %s", type(error).__name__, error)
        finally:
            self._started.set()
            self._stopped.set()

    async def _send(self, message: dict[str, Any]) -> None:
        kind = message.get("type")
        if kind == "lifespan.startup.complete":
            self._supported = True
            self._started.set()
        elif kind == "lifespan.startup.failed":
            text = str(message.get("message", ""))
            lines = text.strip().splitlines()
            self._failure = LoadError("StartupFailed", lines[-1] if lines else "the app's start-up failed", text)
            self._started.set()
        elif kind == "lifespan.shutdown.complete":
            self._stopped.set()
        elif kind == "lifespan.shutdown.failed":
            _log.error("the app's shutdown failed: %s", message.get("message", ""))
            self._stopped.set()
        else:
            raise RuntimeError(f"not a lifespan message: {kind!r}")
