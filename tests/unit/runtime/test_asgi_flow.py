"""What an ASGI invocation holds on to."""

import asyncio
import weakref
from types import SimpleNamespace
from typing import Any

from kappa_runtime.asgi_flow import AsgiFlow
from kappa_runtime.invoke import Call


async def test_nothing_of_an_invocation_is_kept_after_its_end() -> None:
    """The client has left, and the app is given time to end. It ends at once: the timer must not keep all of it."""
    loop = asyncio.get_running_loop()
    nothing: Any = lambda *_: None  # noqa: E731
    sink, settings = SimpleNamespace(end=nothing), SimpleNamespace(leave_seconds=1e6)
    floor: Any = SimpleNamespace(loop=loop, settings=settings, sink=sink, replied=nothing, finished=nothing)
    function: Any = SimpleNamespace(loop=SimpleNamespace(loop=loop))
    exchange: Any = None
    flow = AsgiFlow(floor, function, exchange, Call("id", 0.0, 0.0))
    flow.look_after()
    flow.finished()
    kept = weakref.ref(flow)
    del flow
    assert kept() is None
