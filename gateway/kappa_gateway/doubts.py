"""Whether an instance that was late still lives: asked beside its calls, and again and again until that is known.

A call that is not answered by its deadline may be slow code, a slow caller, or a process that does nothing any more
(stopped, swapped out, its interpreter held for ever by C code, its node lost). The runtime answers its health on the
loop that also admits invocations, and never runs a function's code there: a slow handler does not hinder it. So who
is silent there is hung, whatever the reason, and whatever is sent there waits until its deadline.

Nobody is killed here. What is hung is told with the stats; the operator asks for itself, and replaces it.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Final

from kappa_api import names
from kappa_gateway.dispatch import Instance, Queue
from kappa_gateway.pool import Pool, Pools
from kappa_gateway.states import DOUBTED, HUNG
from kappa_gateway.upstream import UpstreamError

log = logging.getLogger(__name__)

#: How long an instance may take to say that it lives. Longer than a loop is held up by collections and slow disks;
#: while it is awaited, the instance gets nothing.
ASK_SECONDS: Final = 1.0
#: Pause between two questions to one that is hung.
AGAIN_SECONDS: Final = 1.0
_QUESTION: Final = f"GET {names.PATH_HEALTH} HTTP/1.1\r\nhost: kappa\r\nconnection: close\r\n\r\n".encode()


class Doubts:
    """Asks the instances that are doubted. `ask` is what a `Queue` calls. `heard`, `silent`: answers, and questions
    without one."""

    def __init__(self, pools: Pools, clock: Callable[[], float]) -> None:
        self._pools, self._clock = pools, clock
        self._tasks: dict[Instance, asyncio.Task[None]] = {}
        self._hung: dict[Instance, str] = {}  # and its function
        self.heard = self.silent = 0

    def ask(self, queue: Queue, instance: Instance) -> None:
        """Returns at once."""
        if instance not in self._tasks:
            self._tasks[instance] = asyncio.get_running_loop().create_task(self._settle(queue, instance))

    def hung(self) -> Iterator[tuple[str, str]]:
        """(instance, its function) of all that are hung."""
        return ((instance.key, function) for instance, function in self._hung.items() if instance.state is HUNG)

    async def _settle(self, queue: Queue, instance: Instance) -> None:
        """Until it is known to live, or is given up."""
        pool = self._pools.of(instance.key, instance.address)
        try:
            while instance.state in (DOUBTED, HUNG):
                if await self._lives(pool, instance):
                    self.heard += 1
                    queue.heard(instance, self._clock())
                    return
                self.silent += 1
                queue.silent(instance)
                if instance.state is HUNG and instance not in self._hung:
                    self._hung[instance] = queue.key
                    text = "%s of %s was late and is silent when asked whether it lives: it gets no more invocations"
                    log.warning(text, instance.key, queue.key)
                await asyncio.sleep(AGAIN_SECONDS)
        finally:
            # Here and not when the task is done: it may be doubted again before anybody hears of that.
            self._tasks.pop(instance, None)
            if self._hung.pop(instance, None) is not None:
                self._end(pool, instance)

    def _end(self, pool: Pool, instance: Instance) -> None:
        """One that was hung is so no more."""
        if instance.draining or instance.gone:
            # Its pod is being deleted. Where its node is lost too, nobody else would end what still waits for it.
            pool.abort()
        else:
            log.info("%s answers again", instance.key)

    @staticmethod
    async def _lives(pool: Pool, instance: Instance) -> bool:
        """A server that is not ours need only take the connection: what its paths mean is not known."""
        connection = None
        try:
            async with asyncio.timeout(ASK_SECONDS):
                connection = await pool.connect(ASK_SECONDS)
                if instance.admits:
                    connection.send(_QUESTION)
                    await connection.head()
        except (TimeoutError, UpstreamError):
            return False
        finally:
            if connection is not None:
                connection.abort()
        return True

    def __repr__(self) -> str:
        return f"<Doubts {len(self._tasks)} asked, {len(self._hung)} hung>"
