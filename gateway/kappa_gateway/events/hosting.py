"""Triggers as a whole: what watches them, what runs their sources, and what the rest of the gateway asks of them.

`Events` makes one `TriggerHost`, gives its `collections()` to the Watcher and its `run()` a task.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import aiohttp

from kappa_api import names
from kappa_api.trigger import SOURCE_SECRET_TYPE, Trigger
from kappa_gateway.auth.settings import ALL
from kappa_gateway.events.addresses import checker
from kappa_gateway.events.bodies import StoredBodies
from kappa_gateway.events.bus import Bus
from kappa_gateway.events.clearing import Clearing, Tools
from kappa_gateway.events.kinds import load_kind
from kappa_gateway.events.large import LargeEvents
from kappa_gateway.events.ledger import Ledger
from kappa_gateway.events.members import Members
from kappa_gateway.events.owners import Owners
from kappa_gateway.events.runners import Runners, Yard
from kappa_gateway.events.secrets import SourceSecrets
from kappa_gateway.events.settings import EventSettings
from kappa_gateway.events.shares import PatientSink, Shares
from kappa_gateway.events.sink import Outlet, TriggerSink
from kappa_gateway.events.source import Surroundings
from kappa_gateway.events.state import KvState
from kappa_gateway.events.triggers import Triggers
from kappa_gateway.events.work import Lane
from kappa_gateway.kube import ApiError
from kappa_gateway.watch import Collection

log = logging.getLogger(__name__)

TRIGGERS_PATH: Final = f"/apis/{names.API_VERSION}/{names.TRIGGER_PLURAL}"


class TriggerHost:
    """`triggers` is the registry. `kube` is set before `run`: the API server, for sources of the kind `kubernetes`;
    likewise `shares`: how much of the work stream each namespace has.
    `name`: this gateway's. `poke(lane)`: something was put into the lane."""

    def __init__(
        self,
        settings: EventSettings,
        bus: Bus,
        poke: Callable[[Lane], None],
        name: str,
        ledger: Ledger | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._settings, self._bus, self._name, self._wall = settings, bus, name, wall
        self.kube: Any = None
        self.shares = Shares(100)
        self.triggers = Triggers(ledger, wall)
        self.secrets = SourceSecrets()
        self._check = checker(loopback=settings.allow_loopback)
        large = LargeEvents(bus, StoredBodies(bus), settings.stored_bytes)
        self._outlet = Outlet(bus, self.triggers, poke, wall, large)
        clock = time.monotonic
        self.members = Members(bus, name, clock)
        self.owners = Owners(bus, self.members, clock)
        tools = Tools(bus, self.triggers, self.owners, self.members, self._surround_late, self._live, wall=wall)
        self.clearing = Clearing(tools)
        self.runners = Runners(Yard(bus, self.triggers, self.owners, self._surround, self.clearing))
        self.secrets.changed += [self.runners.secret_changed, self.clearing.secret_changed]

    def collections(self) -> list[Collection]:
        """What the Watcher must watch for it. An API server without the CRD, or that refuses, hurts nobody."""
        triggers = self.triggers
        watched = Collection(TRIGGERS_PATH, {}, triggers.put, triggers.remove, triggers.known)
        watched.heard, watched.optional = triggers.heard, True
        return [watched, *(self._secrets(namespace) for namespace in self._settings.secret_namespaces)]

    def _secrets(self, namespace: str) -> Collection:
        store = self.secrets
        path = "/api/v1/secrets" if namespace == ALL else f"/api/v1/namespaces/{namespace}/secrets"
        query = {"fieldSelector": f"type={SOURCE_SECRET_TYPE}"}
        found = Collection(path, query, store.put, store.remove, lambda: store.known(namespace))
        found.heard = lambda refused: store.heard(namespace, refused)
        return found

    async def run(self) -> None:
        """Until cancelled; then the sources stop, and other gateways may take them over at once."""
        members, owners = asyncio.ensure_future(self.members.run()), asyncio.ensure_future(self.owners.run())
        runners, clearing = asyncio.ensure_future(self.runners.run()), asyncio.ensure_future(self.clearing.run())
        try:
            await asyncio.gather(members, owners, runners, clearing)
        finally:
            for task in (clearing, runners, members, owners):  # leases are given back before nobody renews them
                task.cancel()
                await asyncio.wait([task])
            await self.members.leave()

    def sink(self, key: str, hops: int = 0) -> TriggerSink:
        """Where events go for the Trigger `namespace/name` of a kind that is called over HTTP. `hops`: of the
        request."""
        return TriggerSink(self._outlet, key, strict=True, hops=hops)

    def module(self, kind: str) -> Any:
        """The kind's module, with `SHAPE` and, for those called over HTTP, `receive`."""
        return load_kind(kind)

    def secret(self, trigger: Trigger) -> Callable[[str], Mapping[str, bytes] | None]:
        """What `receive` is given: Secrets by name, of the Trigger's namespace."""
        return lambda name: self.secrets.get(f"{trigger.namespace}/{name}")

    async def _live(self) -> Mapping[str, int] | None:
        """Uid and generation of every Trigger, as the API server has them now; None: it does not say."""
        found: dict[str, int] = {}
        if self.kube is None:
            return None
        try:
            async for items, _ in self.kube.pages(TRIGGERS_PATH, {}):
                for item in items:
                    found[str(item["metadata"]["uid"])] = int(item["metadata"].get("generation") or 0)
        except (ApiError, aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError) as error:
            log.debug("the API server does not say which Triggers there are: %r", error)
            return None
        return found

    def _surround_late(self, trigger: Trigger) -> Surroundings:
        """For clearing up: with Secrets that have just gone, too."""

        def secret(name: str) -> Mapping[str, bytes] | None:
            return self.secrets.late(f"{trigger.namespace}/{name}")

        return replace(self._surround(trigger, lambda: None), secret=secret)

    def _surround(self, trigger: Trigger, connected: Callable[[], None]) -> Surroundings:
        def secret(name: str) -> Mapping[str, bytes] | None:
            key = f"{trigger.namespace}/{name}"
            self.runners.asked(trigger.uid, key)
            return self.secrets.get(key)

        return Surroundings(
            sink=PatientSink(TriggerSink(self._outlet, trigger.key, connected), self.shares, trigger.key),
            state=KvState(self._bus, trigger.uid, trigger.kind),
            secret=secret,
            bus=self._bus,
            kube=self.kube,
            check_address=self._check,
            wall=self._wall,
            gateway=self._name,
            shared=self._settings.shared_subjects,
            resources=self._settings.resources,
        )
