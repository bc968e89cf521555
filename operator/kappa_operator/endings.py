"""The end of an instance: it is drained and then deleted, or, when it has failed, deleted with its last words kept."""

import logging

from kappa_api import names
from kappa_operator import pods, states
from kappa_operator.instance import PodError
from kappa_operator.kube import ApiError, ConflictError, NotFoundError, core_path
from kappa_operator.observed import FunctionRecord, Pod, rfc3339
from kappa_operator.tools import DELETE_GRACE_SECONDS, Tools

logger = logging.getLogger(__name__)


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

    async def _last_words(self, pod: Pod) -> str:
        path = core_path("pods", pod.namespace, f"{pod.name}/log")
        try:
            text = await self._tools.kube.text(
                path, {"tailLines": "5", "limitBytes": "2000", "container": names.CONTAINER_NAME}
            )
        except ApiError:
            return ""
        return " | ".join(line.strip() for line in text.splitlines() if line.strip())[:500]
