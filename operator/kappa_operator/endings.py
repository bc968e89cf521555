"""The end of an instance: it is drained and then deleted; deleted with its last words kept, when it has failed; or
deleted at once, when it is hung.

Hung is what is silent to a gateway, after it was late there, and to us as well, or what serves nobody, is not Ready and
silent to us. Who is only slow answers: the runtime's own loop does that, and no code of a function runs there. The
kubelet could not decide this (a liveness probe would kill what holds the interpreter for long, within its deadline),
nor could a gateway alone: the way from it to the instance may be what is broken.
"""

import logging

from kappa_api import names
from kappa_operator import pods, states
from kappa_operator.instance import PodError
from kappa_operator.kube import ApiError, ConflictError, NotFoundError, core_path
from kappa_operator.observed import FunctionRecord, Pod, rfc3339
from kappa_operator.tools import DELETE_GRACE_SECONDS, Tools

logger = logging.getLogger(__name__)

#: So often must a pod be silent, each time for as long as the client waits, before it counts as hung.
QUESTIONS = 2
#: One that has answered is not asked again for so long.
HEARD_SECONDS = 10.0
#: It does nothing any more, so it does not need time to end either; 0 would only take it off the books.
HUNG_GRACE_SECONDS = 1


class Endings:
    """See the module."""

    def __init__(self, tools: Tools) -> None:
        self._tools, self._outcomes, self._clock = tools, tools.outcomes, tools.clock

    async def drain(self, record: FunctionRecord, pod: Pod) -> None:
        timeout = record.function.spec.timeout_seconds if record.function else 30
        if pod.state != states.POD.next(pod.state, states.DRAINED):
            since = {names.ANNOTATION_DRAIN_SINCE: rfc3339(self._clock.wall())}
            try:
                pod = await self._tools.patch(pod, pods.move_patch(pod, states.DRAINED, since))
            except (ConflictError, NotFoundError):
                await self._tools.refresh(pod)
                return
        since_at = pod.drain_since or self._clock.wall()
        left = max(1.0, since_at + timeout + self._tools.settings.drain_grace_seconds - self._clock.wall())
        grace = DELETE_GRACE_SECONDS
        if pod.runtime:
            try:
                await self._tools.client.drain(pod, left)
            except PodError as error:
                logger.info("%s: %s did not drain: %s", record.key, pod.name, error)
                grace = max(grace, int(since_at + timeout - self._clock.wall()))
        else:
            deadline = self._clock.monotonic() + left
            while not self._outcomes.drained(pod) and self._clock.monotonic() < deadline:
                await self._clock.sleep(0.5)
        await self._tools.delete(pod, grace)

    async def bury(self, record: FunctionRecord, pod: Pod, trouble: tuple[str, str]) -> None:
        """Deletes an instance that has failed; its last words go into the status."""
        if trouble[0]:
            words = await self._last_words(pod)
            message = trouble[1] + (f"; last output: {words}" if words else "")
            self._outcomes.trouble(record.key, trouble[0], message, pod.revision)
        await self._tools.delete(pod)

    def heard_lately(self, pod: Pod) -> bool:
        at = self._tools.heard.get(pod.key)
        return at is not None and self._clock.monotonic() - at < HEARD_SECONDS

    async def question(self, record: FunctionRecord, pod: Pod) -> None:
        """Asks an instance that seems to be hung whether it lives, and deletes it when it does not answer."""
        for _ in range(QUESTIONS):
            if await self._tools.client.lives(pod):
                self._tools.heard[pod.key] = self._clock.monotonic()
                logger.info("%s: %s was taken for hung, and answers", record.key, pod.name)
                return
        now = self._tools.store.pods.get(pod.key)
        if now is not None and now.uid == pod.uid and now.live:
            self._outcomes.hung(record.key, pod)
            await self._tools.delete(pod, HUNG_GRACE_SECONDS)

    async def _last_words(self, pod: Pod) -> str:
        path = core_path("pods", pod.namespace, f"{pod.name}/log")
        try:
            text = await self._tools.kube.text(
                path, {"tailLines": "5", "limitBytes": "2000", "container": names.CONTAINER_NAME}
            )
        except ApiError:
            return ""
        return " | ".join(line.strip() for line in text.splitlines() if line.strip())[:500]
