"""What is done to Kappa while it is called, one coroutine each. `chaos_plan.py` has the table of all of them.

An event returns when the fault is lifted or the transition is over. It raises when what it wanted did not happen: a
rollout that silently did nothing would prove nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import chaos_pods as pods
from beds import pool_of
from chaos_bed import Bed
from chaos_client import Ask
from chaos_functions import BROKEN, FUNCTIONS, STEADY
from chaos_load import Load

from kappa_api import names

#: Seconds between two rollouts, deletions or kills in a row.
BREATH = 0.5
#: Within which a hung instance must be gone: the functions' timeout, some for the next call, and what is to be asked.
HANG_SECONDS = 50.0
STATE = names.LABEL_STATE
End = Callable[[pods.Json], Awaitable[object]]


class EventError(RuntimeError):
    """What the event wanted did not happen."""


@dataclass
class Stage:
    """What an event works on. `outage`: seconds that long outages last. `size`: share of the repetitions (0 to 1)."""

    bed: Bed
    load: Load
    outage: float = 60.0
    size: float = 1.0
    revision: int = 0
    killed_gateways: set[str] = field(default_factory=set)
    note: str = ""

    def times(self, count: int) -> int:
        return max(1, round(count * self.size))

    async def roll_out(self, function: str, code: str = "") -> None:
        """Applies a new revision and waits until it is the active one; with `code`, that it is told not to load."""
        self.revision += 1
        before = await pods.status(self.bed.api, function)
        manifest = FUNCTIONS[function].manifest(f"r{self.revision}", code)
        (await self.bed.api.patch(pods.function_path(function), {"spec": manifest["spec"]})).ok()

        async def done() -> bool:
            now = await pods.status(self.bed.api, function)
            if code:
                return bool(now.get("failedRevision"))
            moved = now.get("activeRevision") != before.get("activeRevision") or before.get("failedRevision")
            return bool(now) and bool(moved) and not now.get("failedRevision") and now.get("readyReplicas", 0) >= 2

        await pods.eventually(done, 60, f"rollout of {function}")

    async def whole(self) -> None:
        """Waits until every steady function has its instances again."""
        lacking: list[str] = []

        async def look() -> bool:
            lacking[:] = [name for name in STEADY if len(await pods.instances(self.bed.api, name)) < 2]
            return not lacking

        try:
            await pods.eventually(look, 60, "two instances of every function")
        except TimeoutError:
            there = [pods.words(pod) for pod in await pods.all_pods(self.bed.api)]
            raise EventError(f"{', '.join(lacking)} not whole within 60 s; pods: {'; '.join(there)}") from None

    async def strike(self, count: int, end: End) -> None:
        """Ends so many instances, one after the other, each time the oldest of the next function."""
        for number in range(count):
            found = await pods.instances(self.bed.api, STEADY[number % len(STEADY)])
            await end(found[0])
            await asyncio.sleep(BREATH)
            await self.whole()
        self.note = f"{count} instances"

    async def delete(self, pod: pods.Json, **query: int) -> None:
        await self.bed.api.delete(f"/api/v1/namespaces/{{ns}}/pods/{pods.name_of(pod)}", **query)

    async def force(self, pod: pods.Json) -> None:
        """As `kubectl delete pod --grace-period=0 --force`."""
        await self.delete(pod, gracePeriodSeconds=0)


# --- functions come and go --------------------------------------------------------------------------------------------
async def cycles(stage: Stage) -> None:
    """From zero to several instances and back, by traffic alone."""

    async def zero() -> bool:
        return not await pods.instances(stage.bed.api, "cycle")

    most, count = 0, stage.times(6)
    for _ in range(count):
        await pods.eventually(zero, 45, "cycle at zero")
        await stage.load.burst(60, 3.0)
        most = max(most, len(await pods.instances(stage.bed.api, "cycle")))
    await pods.eventually(zero, 45, "cycle at zero again")
    if most < 2:
        raise EventError(f"the cycles reached {most} instances only")
    stage.note = f"{count} times, up to {most} instances"


async def rollouts(stage: Stage) -> None:
    count = stage.times(20)
    for number in range(count):
        await stage.roll_out(STEADY[number % len(STEADY)])
        await asyncio.sleep(BREATH)
    stage.note = f"{count} rollouts"


async def broken_rollout(stage: Stage) -> None:
    """An import error; the last good revision keeps serving; then a good one."""
    for function in ("short", "post"):
        await stage.roll_out(function, BROKEN)
    await asyncio.sleep(2)
    for function in ("short", "post"):
        await stage.roll_out(function)


async def pool_empty(stage: Stage) -> None:
    """No warm pods: rollouts and a start from zero must do with pods of their own."""

    async def none_left() -> bool:
        return not [pod for pod in await pods.all_pods(stage.bed.api) if pods.label(pod, STATE) == names.STATE_POOL]

    async with pool_of(stage.bed.api, 0):
        await pods.eventually(none_left, 45, "an empty pool")
        await stage.load.burst(30, 3.0)
        await stage.roll_out("short")
        await stage.roll_out("asgi")


# --- instances end ----------------------------------------------------------------------------------------------------
async def delete_pods(stage: Stage) -> None:
    await stage.strike(stage.times(10), stage.delete)


async def force_delete(stage: Stage) -> None:
    await stage.strike(stage.times(10), stage.force)


async def crash(stage: Stage) -> None:
    await stage.strike(stage.times(10), stage.bed.kill)


async def hang(stage: Stage) -> None:
    """One instance of each function, all at once, does nothing any more: it is replaced soon after the first deadline
    that it has missed."""
    victims = {}
    for function in STEADY:
        victims[function] = (await pods.instances(stage.bed.api, function))[0]
    for pod in victims.values():
        await stage.bed.hang(pod)
    hung = {pods.name_of(pod) for pod in victims.values()}

    async def replaced() -> bool:
        return hung.isdisjoint(map(pods.name_of, await pods.all_pods(stage.bed.api)))

    begun = stage.load.clock()
    await pods.eventually(replaced, HANG_SECONDS, "the end of the hung instances")
    stage.note = f"{len(hung)} instances, gone after {stage.load.clock() - begun:.1f} s"
    await stage.whole()

    async def told() -> bool:
        found = (await stage.bed.api.get("/api/v1/namespaces/{ns}/events")).ok()["items"]
        said = " ".join(event["message"] for event in found if event["reason"] == "InstanceHung")
        return all(name in said for name in hung)

    await pods.eventually(told, 10, "an Event for each hung instance")


async def out_of_memory(stage: Stage) -> None:
    """A handler takes more memory than its instance may have: its own call fails and says why, no other does."""
    path = f"{stage.load.base}greedy"
    for _ in range(stage.times(3)):
        answer = await stage.load.client.call(Ask("POST", path))
        if answer.status != 502 or answer.headers.get("kappa-error-source") != "gateway":
            raise EventError(f"the greedy call got {answer.status} {answer.body[:200]!r} {answer.trouble}")
    answer = await stage.load.client.call(Ask("GET", f"{path}/ping"))
    if answer.body != b'"pong"':
        raise EventError(f"greedy did not come back: {answer.status} {answer.body[:200]!r}")
    events = (await stage.bed.api.get("/api/v1/namespaces/{ns}/events")).ok()["items"]
    if not any("OOMKilled" in event.get("message", "") for event in events):
        raise EventError("no Event of the Function says OOMKilled")


# --- the platform's own processes -------------------------------------------------------------------------------------
async def gateways_replaced(stage: Stage) -> None:
    await stage.bed.replace_gateways()


async def gateway_killed(stage: Stage) -> None:
    """One of two, without a word to anybody; the kubelet starts it again."""
    pod = (await pods.system_pods(stage.bed.api, names.COMPONENT_GATEWAY))[0]
    stage.killed_gateways.add(f"{pod['status']['podIP']}:{stage.bed.endpoints.port}")
    await stage.bed.kill(pod)

    async def back() -> bool:
        found = await pods.system_pods(stage.bed.api, names.COMPONENT_GATEWAY)
        return len(found) >= 2 and all(pods.ready(one) for one in found)

    await asyncio.sleep(BREATH)
    await pods.eventually(back, 60, "two gateways")


async def leader_change(stage: Stage) -> None:
    """The leading operator is deleted: the other one takes over and does what is asked of it."""
    old = await pods.leader(stage.bed.api)
    await stage.bed.replace_operator(old)
    await stage.roll_out("async")
    if await pods.leader(stage.bed.api) == old:
        raise EventError("the leader is still the one that was deleted")


async def operator_killed(stage: Stage) -> None:
    """The leader in the middle of a rollout."""
    name = await pods.leader(stage.bed.api)
    found = await pods.system_pods(stage.bed.api, names.COMPONENT_OPERATOR)
    rolling = asyncio.create_task(stage.roll_out("post"))
    await asyncio.sleep(0.05)
    await stage.bed.kill(next(pod for pod in found if pods.name_of(pod) == name))
    await rolling


async def operators_down(stage: Stage) -> None:
    await stage.bed.operators(0, kill=True)
    await asyncio.sleep(stage.outage)
    await stage.bed.operators(2)
    await stage.roll_out("short")


# --- the Kubernetes API -----------------------------------------------------------------------------------------------
async def api_down(stage: Stage) -> None:
    await _without_api(stage, stage.bed.api_down)


async def api_silent(stage: Stage) -> None:
    await _without_api(stage, stage.bed.api_silent)


async def _without_api(stage: Stage, begin: Callable[[], Awaitable[None]]) -> None:
    await begin()
    try:
        await asyncio.sleep(stage.outage)
    finally:
        await stage.bed.api_back()


async def after_api(stage: Stage) -> None:
    """What was put off while the API was away is done soon: a rollout goes through."""
    await stage.roll_out("short")


async def api_slow(stage: Stage) -> None:
    """Each answer a second late: rollouts take longer, calls do not."""
    await stage.bed.api_slow(1.0)
    try:
        for function in ("short", "asgi", "post")[: stage.times(3)]:
            await stage.roll_out(function)
    finally:
        await stage.bed.api_back()


async def watches_cut(stage: Stage) -> None:
    """Again and again, while revisions change: what happened in between must not be missed."""
    cut = 0
    for number in range(stage.times(10)):
        cut += await stage.bed.cut_watches()
        rolling = asyncio.create_task(stage.roll_out(STEADY[number % len(STEADY)]))
        await asyncio.sleep(0.1)
        cut += await stage.bed.cut_watches()
        await rolling
    if not cut:
        raise EventError("there was no watch to cut")
    stage.note = f"{cut} watches"


async def together(stage: Stage) -> None:
    """Much of the above at once."""
    await stage.bed.api_slow(0.3)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(stage.load.burst(40, 6.0))
            group.create_task(_some_rollouts(stage))
            group.create_task(_some_deaths(stage))
            group.create_task(stage.bed.replace_gateways())
            group.create_task(operator_killed_alone(stage))
    finally:
        await stage.bed.api_back()
    await stage.whole()


async def _some_rollouts(stage: Stage) -> None:
    for function in ("short", "post", "asgi"):
        await stage.roll_out(function)


async def _some_deaths(stage: Stage) -> None:
    for function, end in (("async", stage.bed.kill), ("long", stage.delete), ("async", stage.force)):
        found = await pods.instances(stage.bed.api, function)
        if found:
            await end(found[0])
        await asyncio.sleep(2)
        await stage.bed.cut_watches()


async def operator_killed_alone(stage: Stage) -> None:
    name = await pods.leader(stage.bed.api)
    for pod in await pods.system_pods(stage.bed.api, names.COMPONENT_OPERATOR):
        if pods.name_of(pod) == name:
            await stage.bed.kill(pod)
