"""What every action works with: the way to the API server and to the pods, and what this leader knows of pods.

All of it is lost with the process, and the next leader finds out again what matters.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from kappa_operator.claiming import Reservations
from kappa_operator.clock import Clock
from kappa_operator.instance import PodClient
from kappa_operator.kube import Kube, NotFoundError, core_path
from kappa_operator.loading import Loader
from kappa_operator.observed import Pod, parse_pod
from kappa_operator.outcomes import Outcomes
from kappa_operator.settings import Settings
from kappa_operator.store import Store

Json = Any

DELETE_GRACE_SECONDS = 10


@dataclass(slots=True)
class Tools:
    """See the module. Pods are named `namespace/name`. `empty`: pods of pools that are known to hold no code; `Pools`
    asks the others. `made` holds own pods that do not serve yet, with the monotonic seconds at which they were claimed;
    `heard` those that were taken for hung, with when they have answered.
    """

    kube: Kube
    client: PodClient
    store: Store
    settings: Settings
    outcomes: Outcomes
    clock: Clock
    loader: Loader = field(init=False)
    slots: asyncio.Semaphore = field(init=False)
    busy: set[str] = field(default_factory=set)
    verified: set[str] = field(default_factory=set)
    empty: set[str] = field(default_factory=set)
    made: dict[str, float] = field(default_factory=dict)
    heard: dict[str, float] = field(default_factory=dict)
    reserved: Reservations = field(default_factory=Reservations)

    def __post_init__(self) -> None:
        self.loader = Loader(self.kube, self.client, self.store, self.settings, self.clock)
        self.slots = asyncio.Semaphore(self.settings.pod_tasks)

    def forget_gone(self) -> None:
        """Pods may go without our doing, and nobody says so then."""
        there = self.store.pods.keys()
        self.verified &= there
        self.empty &= there
        self.heard = {key: at for key, at in self.heard.items() if key in there}

    async def delete(self, pod: Pod, grace: int = DELETE_GRACE_SECONDS) -> None:
        """Deletes this very pod."""
        await self.kube.delete(core_path("pods", pod.namespace, pod.name), uid=pod.uid, grace=grace)
        self.verified.discard(pod.key)
        self.empty.discard(pod.key)
        self.made.pop(pod.key, None)
        self.outcomes.changed(self.store.mark_deleting(pod.key, pod.uid))

    async def patch(self, pod: Pod, operations: list[Json]) -> Pod:
        raw = await self.kube.patch(core_path("pods", pod.namespace, pod.name), operations)
        self.outcomes.changed(self.store.put_pod(raw))
        return parse_pod(raw)

    async def refresh(self, pod: Pod) -> None:
        """Our picture of this pod was wrong: read it again."""
        try:
            raw = await self.kube.get(core_path("pods", pod.namespace, pod.name))
        except NotFoundError:
            self.outcomes.changed(self.store.drop_pod(pod.key, pod.uid))
        else:
            self.outcomes.changed(self.store.put_pod(raw))
