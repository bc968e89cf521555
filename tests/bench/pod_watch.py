"""Every pod of one namespace, followed by a watch: what a function ever had, what it has, and how full the pool is."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from kappa_fixtures_local import Api, Obj

from kappa_api import names

PODS = "/api/v1/namespaces/{ns}/pods"


@dataclass
class PodWatch:
    """`ever`: the uids of all pods that bore a function's label, by function. Seconds are by the watcher's clock."""

    pods: dict[str, Obj] = field(default_factory=dict)
    ever: dict[str, set[str]] = field(default_factory=dict)
    start_seconds: list[float] = field(default_factory=list)
    _created: dict[str, float] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def of(self, function: str) -> list[Obj]:
        """The pods that a function has now, those that are on their way out included."""
        return [pod for pod in self.pods.values() if _labels(pod).get(names.LABEL_FUNCTION) == function]

    def started(self, function: str) -> int:
        """How many pods have ever been this function's."""
        return len(self.ever.get(function, ()))

    def warm(self) -> int:
        """Pool pods that are Ready."""
        return sum(_is_pool(pod) and _ready(pod) for pod in self.pods.values())

    async def until(self, done: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
        """Returns as soon as `done` holds; raises TimeoutError with `what`."""
        try:
            async with asyncio.timeout(seconds):
                while not done():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            there = ", ".join(sorted(_words(pod) for pod in self.pods.values()))
            raise TimeoutError(f"{what} not within {seconds:g} s; pods: {there}") from None

    def take(self, kind: str, pod: Obj) -> None:
        """One event."""
        uid, now = pod["metadata"]["uid"], time.monotonic()
        if kind == "DELETED":
            self.pods.pop(uid, None)
        else:
            self.pods[uid] = pod
            if function := _labels(pod).get(names.LABEL_FUNCTION):
                self.ever.setdefault(function, set()).add(uid)
            if kind == "ADDED":
                self._created[uid] = now
            if _ready(pod) and uid in self._created:
                self.start_seconds.append(now - self._created.pop(uid))
        self._changed.set()

    async def follow(self, api: Api) -> None:
        """Until cancelled."""
        version = ""
        while True:
            if not version:
                found = (await api.get(PODS)).ok()
                version = found["metadata"]["resourceVersion"]
                self.pods.clear()
                for pod in found["items"]:
                    self.take("LISTED", pod)
            async with api.watch(PODS, resourceVersion=version) as watch:
                with contextlib.suppress(EOFError, TimeoutError):
                    while True:
                        event = await watch.next()
                        if event["type"] == "ERROR":
                            version = ""
                            break
                        version = event["object"]["metadata"]["resourceVersion"]
                        if event["type"] != "BOOKMARK":
                            self.take(event["type"], event["object"])


@contextlib.asynccontextmanager
async def watching(api: Api) -> AsyncIterator[PodWatch]:
    """A PodWatch that follows the API client's namespace."""
    found = PodWatch()
    task = asyncio.create_task(found.follow(api))
    try:
        yield found
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _labels(pod: Obj) -> dict[str, str]:
    return pod["metadata"].get("labels") or {}


def _words(pod: Obj) -> str:
    leaving = " deleted" if pod["metadata"].get("deletionTimestamp") else ""
    return f"{pod['metadata']['name']} {_labels(pod).get(names.LABEL_STATE)} ready={_ready(pod)}{leaving}"


def _is_pool(pod: Obj) -> bool:
    return _labels(pod).get(names.LABEL_STATE) == names.STATE_POOL and not pod["metadata"].get("deletionTimestamp")


def _ready(pod: Obj) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)
