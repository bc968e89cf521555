"""Leadership by Lease (coordination.k8s.io/v1): one replica acts, the other waits.

The rules of client-go: a lease is judged by when *we* last saw it change, never by comparing clocks of two machines;
every write carries the resource version that was read, so that of two who try one succeeds. A leader that cannot
renew in time stops before the lease runs out for others.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from kappa_api import names
from kappa_operator.kube import ApiError, ConflictError, Kube, NotFoundError, lease_path
from kappa_operator.observed import rfc3339_micro

Json = Any
logger = logging.getLogger(__name__)

#: After a renewal that failed: there is little time left, and one lost packet must not cost the leadership.
RETRY_RENEWAL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Terms:
    """`address` is what the gateways read to send demand to the leader. The leader gives up after `deadline` seconds
    without a renewal, which must be less than `duration`; a standby looks every `retry` seconds."""

    namespace: str
    identity: str
    address: str
    duration: int = 6
    renew: float = 2.0
    retry: float = 1.0

    @property
    def deadline(self) -> float:
        return self.duration * 2 / 3


class LeaseLostError(Exception):
    """Somebody else may lead from now on."""


class Election:
    """`acquire`, then `hold` until LeaseLostError, or `release`."""

    def __init__(
        self,
        kube: Kube,
        terms: Terms,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._kube, self.terms = kube, terms
        self._clock, self._wall, self._sleep = clock, wall, sleep
        self._seen = ""
        self._seen_at = 0.0
        self._lease: Json = None
        self.leading = False

    async def acquire(self) -> None:
        """Returns when this replica leads."""
        while True:
            try:
                if await self._try():
                    self.leading = True
                    return
            except ApiError as error:
                logger.warning("lease: %s", error)
            await self._sleep(self.terms.retry)

    async def hold(self) -> None:
        """Renews until it fails; then raises LeaseLostError. Call it only when leading."""
        renewed = self._clock()
        pause = self.terms.renew
        while True:
            await self._sleep(pause)
            try:
                begun = self._clock()
                left = self.terms.deadline - (begun - renewed)
                if left <= 0 or not await asyncio.wait_for(self._try(), left):
                    break
                # Counted from when it was sent: others have seen it no earlier. A slow answer shortens the next pause.
                renewed, pause = begun, max(0.0, self.terms.renew - (self._clock() - begun))
            except (ApiError, TimeoutError) as error:
                logger.warning("lease not renewed: %s", error or type(error).__name__)
                pause = min(RETRY_RENEWAL_SECONDS, self.terms.renew)
                if self._clock() - renewed >= self.terms.deadline:
                    break
        self.leading = False
        raise LeaseLostError(f"the lease is not ours any more (last renewed {self._clock() - renewed:.1f} s ago)")

    async def release(self) -> None:
        """Hands the lease back, so that the standby need not wait for it to run out."""
        if not self.leading or self._lease is None:
            return
        self.leading = False
        try:
            try:
                await self._kube.replace(self._path(), self._nobodys(self._lease))
            except ConflictError:  # a renewal of ours was under way, or somebody else has it
                lease = await self._kube.get(self._path())
                if lease["spec"].get("holderIdentity") == self.terms.identity:
                    await self._kube.replace(self._path(), self._nobodys(lease))
        except ApiError as error:
            logger.warning("lease not released: %s", error)

    def _nobodys(self, lease: Json) -> Json:
        spec = {
            **lease["spec"],
            "holderIdentity": "",
            "leaseDurationSeconds": 1,
            "renewTime": rfc3339_micro(self._wall()),
        }
        return {**lease, "spec": spec}

    def _path(self) -> str:
        return lease_path(self.terms.namespace, names.LEASE_NAME)

    async def _try(self) -> bool:
        """One attempt to take or renew the lease."""
        now = rfc3339_micro(self._wall())
        if self.leading and self._lease is not None:
            # One request, as nobody but us should have written since. It counts when the API server is slow: two that
            # take a second each, after a pause of two, would be all the time that a leader has.
            try:
                self._lease = await self._kube.replace(self._path(), self._ours(self._lease, now))
            except (ConflictError, NotFoundError):
                pass  # perhaps by ourselves, in a request whose answer did not come in time: look
            else:
                return True
        try:
            lease = await self._kube.get(self._path())
        except NotFoundError:
            fresh = self._new(now)
            try:
                self._lease = await self._kube.create(lease_path(self.terms.namespace), fresh)
            except ConflictError:
                return False
            return True
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if holder != self.terms.identity and holder and not self._expired(lease):
            return False
        if self.leading and holder != self.terms.identity:
            return False  # somebody took it from us: never take it back while our tasks still run
        try:
            self._lease = await self._kube.replace(self._path(), self._ours(lease, now))
        except ConflictError:
            return False
        return True

    def _ours(self, lease: Json, now: str) -> Json:
        """This lease, held by us from now on."""
        meta, spec = lease["metadata"], lease.get("spec") or {}
        mine = spec.get("holderIdentity") == self.terms.identity
        annotations = {**(meta.get("annotations") or {}), names.ANNOTATION_ADDRESS: self.terms.address}
        return {
            **lease,
            "metadata": {**meta, "annotations": annotations},
            "spec": {
                **spec,
                "holderIdentity": self.terms.identity,
                "leaseDurationSeconds": self.terms.duration,
                "acquireTime": spec.get("acquireTime") if mine else now,
                "renewTime": now,
                "leaseTransitions": int(spec.get("leaseTransitions") or 0) + (0 if mine else 1),
            },
        }

    def _expired(self, lease: Json) -> bool:
        version = str(lease["metadata"].get("resourceVersion"))
        if version != self._seen:
            self._seen, self._seen_at = version, self._clock()
            return False
        duration = int((lease.get("spec") or {}).get("leaseDurationSeconds") or self.terms.duration)
        return self._clock() - self._seen_at > duration

    def _new(self, now: str) -> Json:
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": names.LEASE_NAME,
                "namespace": self.terms.namespace,
                "labels": {names.LABEL_PART_OF: "kappa", names.LABEL_MANAGED_BY: names.MANAGER},
                "annotations": {names.ANNOTATION_ADDRESS: self.terms.address},
            },
            "spec": {
                "holderIdentity": self.terms.identity,
                "leaseDurationSeconds": self.terms.duration,
                "acquireTime": now,
                "renewTime": now,
                "leaseTransitions": 0,
            },
        }
