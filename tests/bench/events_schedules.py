"""How late schedules fire: from the time that a Trigger names until its handler runs (`make bench-events`).

Warm: one Function with an instance, a firing each second. From zero: a Function of its own for each firing, proven,
without an instance, with a warm pool; nothing can have learnt when it will be called. The handler tells its wall clock,
which is the one that the Trigger's time is on.
"""

import asyncio
import contextlib
import datetime
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import beds
from kappa_collector import Collector, client
from kappa_fixtures_local import Api
from pod_watch import PodWatch, watching

from kappa_api import names

POOL = 5
WARM = "warm"
#: Seconds between the last preparation and the first firing.
LEAD = 5
CODE = """

import time


async def handler(event, context):
    now = time.time()
    await tell("fired", event["detail"]["id"], repr(now))
"""
_PATH = f"/apis/{names.API_VERSION}/namespaces/{{ns}}"
TRIGGERS, FUNCTIONS = f"{_PATH}/{names.TRIGGER_PLURAL}", f"{_PATH}/{names.FUNCTION_PLURAL}"


@dataclass
class Firings:
    """`due`: by id; `late`: seconds, of the first time that each ran; `again`: how often one ran a second time."""

    due: dict[str, int] = field(default_factory=dict)
    late: dict[str, float] = field(default_factory=dict)
    again: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def hear(self, words: list[str]) -> None:
        ident, at = words[1], float(words[2])
        if ident in self.late:
            self.again += 1
        else:
            self.late[ident] = at - self.due[ident]
        self.changed.set()

    async def all(self, prefix: str, seconds: float) -> list[float]:
        """The lateness of those whose ids begin so, when all have fired or the time is up."""
        wanted = [ident for ident in self.due if ident.startswith(prefix)]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not all(ident in self.late for ident in wanted):
                    self.changed.clear()
                    await self.changed.wait()
        return [self.late[ident] for ident in wanted if ident in self.late]


@dataclass(frozen=True, slots=True)
class Lateness:
    """Seconds; `missed`: firings that did not come within a minute; `again`: that came twice."""

    warm: list[float]
    cold: list[float]
    missed: int
    again: int


async def measure(count: int, gap: int) -> Lateness:
    """So many firings each way; those from zero are `gap` seconds apart."""
    firings = Firings()
    async with (
        Collector(firings.hear) as collector,
        beds.embedded() as bed,
        watching(bed.api) as pods,
        beds.pool_of(bed.api, POOL),
    ):
        code = client(collector.port) + CODE
        await _function(bed.api, WARM, code, 1)
        await pods.until(lambda: pods.started(WARM) > 0, f"{WARM} with an instance")
        await _plan(bed.api, firings, {f"warm-{number}": WARM for number in range(count)}, 1)
        warm = await firings.all("warm-", count + LEAD + 60)
        cold = {f"cold-{number}": f"cold-{number}" for number in range(count)}
        for name in cold.values():
            await _function(bed.api, name, code, 0)
        await pods.until(lambda: _at_zero(pods, list(cold.values())), "all Functions proven and at zero", 240)
        await _plan(bed.api, firings, cold, gap)
        late = await firings.all("cold-", count * gap + LEAD + 60)
    return Lateness(warm, late, 2 * count - len(warm) - len(late), firings.again)


def _at_zero(pods: PodWatch, functions: list[str]) -> bool:
    return all(pods.started(name) and not pods.of(name) for name in functions) and pods.warm() >= POOL


async def _function(api: Api, name: str, code: str, least: int) -> None:
    scaling = {"minReplicas": least, "maxReplicas": 2, "idleSeconds": 1}
    spec = {"runtime": "python", "handler": "main.handler", "code": {"inline": code}, "scaling": scaling}
    kind = {"apiVersion": names.API_VERSION, "kind": names.FUNCTION_KIND}
    (await api.post(FUNCTIONS, kind | {"metadata": {"name": name}, "spec": spec})).ok()


async def _plan(api: Api, firings: Firings, functions: dict[str, str], gap: int) -> None:
    """A Trigger for each id, `gap` seconds apart."""
    begin = int(time.time()) + LEAD + len(functions) // 20
    for number, (ident, function) in enumerate(functions.items()):
        at = begin + number * gap
        firings.due[ident] = at
        text = datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        source = {"schedule": {"at": text, "data": {"id": ident}}}
        kind = {"apiVersion": names.API_VERSION, "kind": names.TRIGGER_KIND}
        spec = {"function": function, "source": source}
        (await api.post(TRIGGERS, kind | {"metadata": {"name": ident}, "spec": spec})).ok()
