"""Wires the runtime together: settings, log, loop, server."""

import asyncio
import atexit
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable

from kappa_runtime import logs
from kappa_runtime.server import Server
from kappa_runtime.settings import from_environment

new_event_loop: Callable[[], asyncio.AbstractEventLoop]
try:
    from uvloop import new_event_loop
except ImportError:  # the runtime works without, somewhat slower
    new_event_loop = asyncio.new_event_loop

ATEXIT_SECONDS = 2.0
#: A thread that computes gives way to the others after this: the server's answer waits no longer for it.
SWITCH_SECONDS = 0.001


def main() -> None:
    """Runs the server and ends the process."""
    started = time.perf_counter()
    sys.dont_write_bytecode = True
    sys.setswitchinterval(SWITCH_SECONDS)
    sink = logs.Sink(1)
    logs.install(sink)
    faulthandler.enable(2)
    try:
        settings = from_environment(os.environ)
    except ValueError as error:
        sink.record("ERROR", f"the environment is not usable: {error}")
        os._exit(2)

    def ready() -> None:
        milliseconds = round((time.perf_counter() - started) * 1000, 1)
        sink.record("INFO", f"listening on {settings.host}:{settings.port}", milliseconds=milliseconds)

    async def serve() -> int:
        return await Server(settings, sink, asyncio.get_running_loop()).run(ready)

    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            code = runner.run(serve())
    except OSError as error:
        sink.record("ERROR", f"cannot listen on {settings.host}:{settings.port}: {error}")
        os._exit(2)
    sink.flush()
    _run_exit_handlers()
    # Not sys.exit: it would wait for threads that the function started, or that are stuck.
    os._exit(code)


def _run_exit_handlers() -> None:
    """What the function registered with atexit, with a limit on its time."""
    thread = threading.Thread(target=atexit._run_exitfuncs, daemon=True)
    thread.start()
    thread.join(ATEXIT_SECONDS)
