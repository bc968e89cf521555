"""The function in this process: its thread, from loading the code to running it.

loading --(load)--> ready(Function) --> invocations
        \\--(any failure, or too late)--> failed(LoadError), and the process is spent
"""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass

from kappa_api.wire import ByteCode, LoadError, Specialize
from kappa_runtime.asgi_lifespan import Lifespan
from kappa_runtime.context import FunctionInfo
from kappa_runtime.executor import EventLoopPolicy, Executor, Post, UserLoop, Workers, raise_in_thread
from kappa_runtime.loader import Loaded, LoadFailedError, load
from kappa_runtime.tracebacks import Report, stack_of


@dataclass(frozen=True, slots=True)
class Function:
    """A loaded function: what to call and where it runs. `lifespan` and `loop` only with an event loop of its own."""

    info: FunctionInfo
    loaded: Loaded
    executor: Executor
    loop: UserLoop | None = None
    lifespan: Lifespan | None = None


@dataclass(frozen=True, slots=True)
class LoadResult:
    """Called on the server's loop, one of them, once."""

    ready: Callable[[Function, ByteCode | None], None]
    failed: Callable[[LoadError], None]


class FunctionThread:
    """Loads a function and then serves it. `post` calls a function on the server's loop from any thread."""

    def __init__(self, spec: Specialize, info: FunctionInfo, code_dir: str, post: Post, result: LoadResult) -> None:
        self._specs, self._info, self._code_dir = [spec], info, code_dir
        self._post, self._result = post, result
        self._thread = threading.Thread(target=self._run, daemon=True, name="kappa-function")

    def start(self) -> None:
        self._thread.start()

    def too_late(self, seconds: float) -> LoadError:
        """Gives up on a load that takes too long: says where it hangs, and tries to stop it."""
        stack = stack_of(self._thread.ident, self._code_dir)
        if self._thread.ident is not None and self._thread.is_alive():
            raise_in_thread(self._thread.ident)
        return LoadError("Timeout", f"the code did not finish loading within {seconds:g} seconds", stack)

    def _run(self) -> None:
        try:
            # Taken out: this frame lives as long as the function, the files need not.
            function, byte_code = self._load(self._specs.pop())
        except LoadFailedError as failure:
            self._post(self._result.failed, failure.error)
            return
        except BaseException as error:
            report = Report(error, self._code_dir)
            self._post(self._result.failed, LoadError(report.type, report.message, report.text))
            return
        self._post(self._result.ready, function, byte_code)
        del byte_code
        if function.loop is not None:
            function.loop.serve()
        elif isinstance(function.executor, Workers):
            function.executor.adopt()

    def _load(self, spec: Specialize) -> tuple[Function, ByteCode | None]:
        asyncio.set_event_loop_policy(EventLoopPolicy())
        loaded, byte_code = load(spec, self._code_dir)
        if loaded.kind == "sync":
            return Function(self._info, loaded, Workers(self._post)), byte_code
        loop = asyncio.get_event_loop()
        user_loop = UserLoop(self._post, loop)
        lifespan = None
        if loaded.kind == "asgi":
            lifespan = Lifespan(loaded.handler)
            error = loop.run_until_complete(lifespan.startup())
            if error is not None:
                raise LoadFailedError(error)
        return Function(self._info, loaded, user_loop, user_loop, lifespan), byte_code
