"""An operator that can be stopped at each single step: before and after every write to the API server and every
specialize. Killed, it does nothing more; paused, what was under way goes on when another already leads."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from kappa_operator_fakes import FakeKube
from kappa_operator_unit import PODS, Pods, World

from kappa_api import names
from kappa_api.wire import Specialize
from kappa_operator.observed import Pod

Json = Any
NEVER = 1 << 30


class KilledError(BaseException):
    """The process is no more."""


class Steps:
    """Counts what one leader does. From step `last` on it is dead, or waits for `resume`."""

    def __init__(self, last: int) -> None:
        self.last, self.count = last, 0
        self.resume: asyncio.Event | None = None

    async def step(self) -> None:
        self.count += 1
        if self.count >= self.last:
            if self.resume is None:
                raise KilledError
            await self.resume.wait()

    def stop_after(self, more: int, resume: asyncio.Event) -> None:
        """Lets it wait at the step that is this many ahead."""
        self.last, self.resume = self.count + more, resume

    def go_on(self) -> None:
        if self.resume is not None:
            self.resume.set()

    @property
    def stopped(self) -> bool:
        return self.count >= self.last


class SteppedKube(FakeKube):
    """One leader's way to an API server that all of them share; keeps the most instances that there ever were."""

    def __init__(self, before: "SteppedKube | None", steps: Steps) -> None:
        super().__init__()
        self.steps = steps
        self.slow: Callable[[], Awaitable[None]] = lambda: asyncio.sleep(0)
        self.seen: dict[str, int] = {"version": 100, "most": 0}
        if before is not None:
            self.objects, self.seen = before.objects, before.seen

    def put(self, path: str, body: Json) -> Json:
        self._version = self.seen["version"] = self.seen["version"] + 1
        found = super().put(path, body)
        self.seen["most"] = max(self.seen["most"], instances(self.objects))
        return found

    async def create(self, path: str, body: Json) -> Json:
        await self.steps.step()
        found = await super().create(path, body)
        await self.steps.step()
        return found

    async def merge(self, path: str, body: Json) -> Json:
        await self.steps.step()
        found = await super().merge(path, body)
        await self.steps.step()
        return found

    async def patch(self, path: str, operations: list[Json]) -> Json:
        await self.steps.step()
        await self.slow()
        found = await super().patch(path, operations)
        await self.steps.step()
        return found

    async def delete(self, path: str, *, uid: str = "", grace: int | None = None) -> None:
        await self.steps.step()
        await super().delete(path, uid=uid, grace=grace)
        await self.steps.step()


def instances(objects: dict[str, Json]) -> int:
    """How many pods belong to the function and have not ended."""
    return sum(
        1
        for path, raw in objects.items()
        if path.startswith(PODS)
        and names.LABEL_FUNCTION in raw["metadata"]["labels"]
        and raw["metadata"]["labels"][names.LABEL_STATE] in (names.STATE_STARTING, names.STATE_SERVING)
        and (raw.get("status") or {}).get("phase") not in ("Failed", "Succeeded")
    )


class SteppedPods(Pods):
    """One leader's way to the pods that all of them share."""

    def __init__(self, before: Pods, steps: Steps) -> None:
        self.__dict__.update(before.__dict__)
        self.steps = steps

    async def specialize(self, pod: Pod, message: Specialize, timeout: float) -> None:
        await self.steps.step()
        await super().specialize(pod, message, timeout)
        await self.steps.step()


class SteppedWorld(World):
    """A world whose first leader is stopped at step `last`; the next ones are not."""

    def __init__(self, pool: int, last: int = NEVER, most: int = 0) -> None:
        self.steps = Steps(last)
        self._looks: dict[str, asyncio.Task[None]] = {}
        self._first = True
        super().__init__(pool, SteppedKube(None, self.steps), most)

    def start(self) -> None:
        if not self._first:
            self.steps = Steps(NEVER)
        self._first, self._looks = False, {}
        assert isinstance(self.kube, SteppedKube)
        self.kube = SteppedKube(self.kube, self.steps)
        self.pods = SteppedPods(self.pods, self.steps)
        super().start()

    async def look(self, key: str) -> None:
        """Like the real queue: a look that waits holds up no other key, and no key is looked at twice at a time."""
        if key in self._looks and not self._looks[key].done():
            return
        task = self._looks[key] = asyncio.create_task(super().look(key))
        for _ in range(20):
            if task.done():
                break
            await asyncio.sleep(0)
        if task.done() and (error := task.exception()) is not None and not isinstance(error, KilledError):
            raise error

    async def die(self) -> None:
        for task in self._looks.values():
            task.cancel()
        await super().die()

    def slow_down(self, seconds: float) -> None:
        """Lets every patch take this long: the queue is worked on meanwhile."""
        assert isinstance(self.kube, SteppedKube)
        self.kube.slow = lambda: self.time.sleep(seconds)

    def most(self) -> int:
        """The most instances that the function ever had at a time."""
        assert isinstance(self.kube, SteppedKube)
        return self.kube.seen["most"]

    def forget_most(self) -> None:
        assert isinstance(self.kube, SteppedKube)
        self.kube.seen["most"] = instances(self.kube.objects)
