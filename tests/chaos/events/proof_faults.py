"""What is broken while events flow: processes are killed with SIGKILL, nobody is asked. One coroutine each.

Only processes that this run has started die: pods of its embedded cluster, servers of its NATS cluster.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import chaos_pods as pods
from chaos_bed import Embedded
from kappa_nats import NatsCluster
from nats.aio.client import Client
from proof_returns import Return, stream_names, watch

from kappa_api import names

#: How long a killed NATS server is away.
NODE_AWAY, ALL_AWAY = 4.0, 2.0
GATEWAYS = 2
INSTANCE_SECONDS, GATEWAY_SECONDS = 30, 60


@dataclass(frozen=True, slots=True)
class Struck:
    """A fault that happened: seconds of the run's clock; `over`: what it had taken away was there again."""

    name: str
    begun: float
    over: float
    note: str


@dataclass
class Field:
    """What faults are done to. `client`: of NATS. `kills`: moments at which processes died that may have had events in
    hand. `returns`: when NATS was there again."""

    bed: Embedded
    nats: NatsCluster
    functions: tuple[str, ...]
    clock: Callable[[], float]
    random: random.Random
    client: Client
    kills: list[float] = field(default_factory=list)
    returns: list[Return] = field(default_factory=list)

    async def kill(self, pod: pods.Json) -> None:
        self.kills.append(self.clock())
        await self.bed.kill(pod)

    @contextlib.asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        """What is done to NATS within; ends when all streams have leaders again."""
        streams = await stream_names(self.client)
        watching = asyncio.ensure_future(watch(self.client, streams, self.clock))
        try:
            yield
            self.returns.append(await watching)
        finally:
            watching.cancel()


async def instance(field: Field) -> str:
    """An instance, with what it runs."""
    found = [pod for name in field.functions for pod in await pods.instances(field.bed.api, name)]
    if not found:
        raise RuntimeError("there is no instance to kill")
    pod = field.random.choice(found)
    await field.kill(pod)
    return pods.name_of(pod)


async def gateway(field: Field) -> str:
    """A gateway, with what it accepts, reads and delivers. Another one takes its place, at another address."""
    pod = field.random.choice(await pods.system_pods(field.bed.api, names.COMPONENT_GATEWAY))
    await field.kill(pod)
    await field.bed.replace_killed(pod)

    async def whole() -> bool:
        there = await pods.system_pods(field.bed.api, names.COMPONENT_GATEWAY)
        return len(there) >= GATEWAYS and all(pods.ready(one) for one in there)

    await pods.eventually(whole, GATEWAY_SECONDS, "two gateways")
    return pods.name_of(pod)


async def nats_node(field: Field) -> str:
    """One of three: the other two go on, after an election where it led."""
    server = field.random.choice(field.nats.servers)
    async with field.outage():
        await server.kill()
        await asyncio.sleep(NODE_AWAY)
        await server.start()
    return f"{server.name}, away {NODE_AWAY:g} s"


async def nats_all(field: Field) -> str:
    """All three at once, without a word: nothing is accepted until they are back."""
    async with field.outage():
        await field.nats.kill()
        await asyncio.sleep(ALL_AWAY)
        await field.nats.start()
    return f"all {len(field.nats.servers)}, away {ALL_AWAY:g} s"


Fault = Callable[[Field], Awaitable[str]]
#: In turn until everything is sent.
ROUND: tuple[tuple[str, Fault], ...] = (
    ("instance killed", instance),
    ("gateway killed", gateway),
    ("NATS node killed", nats_node),
    ("instance killed", instance),
    ("gateway killed", gateway),
    ("NATS killed whole", nats_all),
)


async def strike(field: Field, breath: float, note: Callable[[Struck], None]) -> None:
    """Fault after fault, `breath` seconds apart, until cancelled. A fault that could not be done is told as such."""
    number = 0
    while True:
        await asyncio.sleep(breath)
        name, fault = ROUND[number % len(ROUND)]
        begun = field.clock()
        try:
            told = await fault(field)
        except Exception as error:
            told = f"DID NOT HAPPEN: {type(error).__name__}: {error}"
        note(Struck(name, begun, field.clock(), told))
        number += 1
