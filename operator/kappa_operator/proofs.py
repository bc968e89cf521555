"""A pod comes to serve: its code is loaded and the revision thereby proven, or it is found to hold it already."""

import logging

from kappa_api.wire import RUNTIME_LOADING
from kappa_operator import pods, states
from kappa_operator.claiming import Claiming
from kappa_operator.instance import (
    LoadFailedError,
    PodError,
    PodTimeoutError,
    PodUnreachableError,
    WrongRevisionError,
)
from kappa_operator.kube import ConflictError, NotFoundError
from kappa_operator.observed import FunctionRecord, Pod
from kappa_operator.sources import Content, SourceError
from kappa_operator.start_times import Start
from kappa_operator.tools import Tools

logger = logging.getLogger(__name__)

VERIFY_AGAIN_SECONDS = 5.0


class Proofs:
    """See the module."""

    def __init__(self, tools: Tools) -> None:
        self._tools, self._outcomes, self._clock = tools, tools.outcomes, tools.clock

    async def load(
        self,
        record: FunctionRecord,
        pod: Pod,
        revision: str,
        *,
        prove: bool,
        content: Content | None = None,
        claiming: Claiming | None = None,
    ) -> bool:
        """Takes a starting pod to serving, or deletes it and says why. False: a claim may try another."""
        begun = self._clock.monotonic()
        try:
            if content is None:
                content = await self._outcomes.content(record.key, revision)
            await self._tools.loader.specialize(record, pod, revision, content)
            # Kept before it can become the active revision: from then on it must survive the spec and this process.
            await self._outcomes.keep(record.key, revision, content)
            await self._tools.patch(pod, pods.move_patch(pod, states.LOADED))
        except SourceError as error:
            self._outcomes.source_failed(record.key, revision, error)
            await self._tools.delete(pod)
        except LoadFailedError as error:
            self._outcomes.load_failed(record.key, revision, error.error, proving=prove)
            await self._tools.delete(pod)
        except PodTimeoutError:
            limit = self._tools.settings.load_seconds
            self._outcomes.trouble(
                record.key, "LoadTimeout", f"revision {revision} did not load within {limit:g} s", revision
            )
            await self._tools.delete(pod)
        except (PodError, WrongRevisionError) as error:
            if claiming is not None and isinstance(error, PodUnreachableError | WrongRevisionError):
                logger.warning("%s: %s cannot be used: %s", record.key, pod.name, error)
                claiming.failed()
                await self._tools.delete(pod)
                return False
            reason, message = await self._tools.loader.why(pod, error)
            self._outcomes.trouble(record.key, reason, f"revision {revision} did not load: {message}", revision)
            await self._tools.delete(pod)
        except (ConflictError, NotFoundError):
            await self._tools.refresh(pod)
        else:
            self._tools.verified.add(pod.key)
            self._outcomes.specialized(self._clock.monotonic() - begun, pooled=pod.ready)
            self._served(record, pod, content.spec.runtime, claiming)
            if prove:
                self._outcomes.proven(record.key, revision)
        return True

    def _served(self, record: FunctionRecord, pod: Pod, image: str, claiming: Claiming | None) -> None:
        """An instance has come to serve: one whose start this process has seen from the beginning is measured."""
        made, now = self._tools.made.pop(pod.key, None), self._clock.monotonic()
        if made is not None:
            self._outcomes.served(Start(record.key, image, False), now - made, usual=True)
        elif claiming is not None:
            self._outcomes.served(Start(record.key, image, True), now - claiming.begun, usual=pod.ready)

    async def verify(self, record: FunctionRecord, pod: Pod, revision: str) -> None:
        """A pod labelled serving by an earlier leader: does it hold its revision? An empty one gets it now."""
        try:
            health = await self._tools.client.health(pod)
            if health.function != record.key or health.revision != revision or health.state == RUNTIME_LOADING:
                await self._tools.loader.specialize(
                    record, pod, revision, await self._outcomes.content(record.key, revision)
                )
            self._tools.verified.add(pod.key)
        except (WrongRevisionError, LoadFailedError) as error:
            logger.warning("%s: %s does not hold revision %s: %s", record.key, pod.name, revision, error)
            await self._tools.delete(pod)
        except (PodError, SourceError) as error:
            # It may serve well and only be out of our reach: the kubelet's probe decides, not this.
            logger.warning("%s: %s cannot be verified: %s", record.key, pod.name, error)
            await self._clock.sleep(VERIFY_AGAIN_SECONDS)

    async def promote(self, record: FunctionRecord, pod: Pod, revision: str) -> None:
        try:
            await self._outcomes.keep(record.key, revision, await self._outcomes.content(record.key, revision))
            await self._tools.patch(pod, pods.move_patch(pod, states.LOADED))
        except SourceError as error:
            self._outcomes.source_failed(record.key, revision, error)
        except (ConflictError, NotFoundError):
            await self._tools.refresh(pod)
        else:
            self._served(record, pod, pod.image, None)
            self._outcomes.proven(record.key, revision)
