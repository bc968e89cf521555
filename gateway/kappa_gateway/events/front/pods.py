"""Whether the pod that a request names is still there. Its token is derived from its name, so nobody can take it back:
it would be good for as long as the platform secret.

Pods of Functions that serve or drain are known from the gateway's watch, which costs nothing. One that is not among
them may just be too new for the watch, or still prove its code: the API server is asked. When that does not answer, the
token alone counts; events of a pod that runs are not refused because something else is away.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import aiohttp

from kappa_gateway.kube import ApiError

log = logging.getLogger(__name__)

#: A pod that was deleted by force may run on for a while: its grace period, or until its node is back.
LATE_SECONDS: Final = 120.0
#: How long an answer of the API server holds, and how long that there was none.
ANSWER_SECONDS: Final = 30.0
SILENCE_SECONDS: Final = 5.0
ASK_SECONDS: Final = 2.0
MOST_REMEMBERED: Final = 10_000


class Pods:
    """`known`: whether the watch has the pod `namespace/name`; `kube`: the API server, if there is one."""

    def __init__(self, known: Callable[[str], bool], kube: Callable[[], Any], clock: Callable[[], float]) -> None:
        self._known, self._kube, self._clock = known, kube, clock
        self._until: OrderedDict[str, float] = OrderedDict()  # may send events until then, though the watch has it not
        self._gone: OrderedDict[str, float] = OrderedDict()  # may not, until it is asked for again

    async def there(self, key: str) -> bool:
        """Of a pod whose token is good."""
        now = self._clock()
        if self._known(key):
            _remember(self._until, key, now + LATE_SECONDS)
            return True
        if self._until.get(key, 0.0) > now:
            return True
        if self._gone.get(key, 0.0) > now:
            return False
        found = await self._ask(key)
        if found is False:
            _remember(self._gone, key, now + ANSWER_SECONDS)
            log.info("events are not taken from the pod %s any more: it is gone", key)
            return False
        _remember(self._until, key, now + (ANSWER_SECONDS if found else SILENCE_SECONDS))
        return True

    async def _ask(self, key: str) -> bool | None:
        """None: nobody says."""
        kube = self._kube()
        if kube is None:
            return None
        namespace, _, name = key.partition("/")
        try:
            async with asyncio.timeout(ASK_SECONDS):
                path, query = f"/api/v1/namespaces/{namespace}/pods", {"fieldSelector": f"metadata.name={name}"}
                found = [item async for items, _ in kube.pages(path, query) for item in items]
        except (ApiError, aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            log.debug("the API server does not say whether the pod %s is there: %r", key, error)
            return None
        return any((pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed") for pod in found)


def _remember(memory: OrderedDict[str, float], key: str, until: float) -> None:
    memory[key] = until
    memory.move_to_end(key)
    if len(memory) > MOST_REMEMBERED:
        memory.popitem(last=False)
