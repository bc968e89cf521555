"""A whole platform (embedded cluster, operator, gateway) on free ports, for tests of what users do."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from kappa_ports import free_port

from kappa_local.platform.kubectl import Answer, Kubectl
from kappa_local.platform.settings import REPOSITORY, Place

Json = dict[str, Any]

EXAMPLES = REPOSITORY / "examples"
POLL_SECONDS = 0.1


def free_place(state: Path) -> Place:
    """A place whose ports nobody else has."""
    return Place(state, *(free_port() for _ in range(6)))


@dataclass(frozen=True, slots=True)
class System:
    """The platform as a user has it: kubectl and the gateway's URL."""

    kubectl: Kubectl
    http: aiohttp.ClientSession
    url: str

    async def apply(self, text: str) -> Answer:
        """`kubectl apply -f -`; the caller looks at `ok`."""
        return await self.kubectl.run(["apply", "-f", "-"], text)

    async def function(self, name: str) -> Json:
        answer = await self.kubectl.run(["get", "fn", name, "-o", "json"])
        assert answer.ok, answer.text
        found: Json = json.loads(answer.out)
        return found

    async def until(self, name: str, done: Callable[[Json], bool], seconds: float = 20.0) -> Json:
        """The Function's status as soon as `done` holds for it; fails with the last status after `seconds`."""
        deadline = time.monotonic() + seconds
        while True:
            status: Json = (await self.function(name)).get("status", {})
            if done(status):
                return status
            assert time.monotonic() < deadline, f"status of {name} after {seconds} s: {json.dumps(status, indent=1)}"
            await asyncio.sleep(POLL_SECONDS)

    async def ready(self, name: str, revision_after: str = "") -> Json:
        """The status once the Function is Ready, with another active revision than `revision_after`."""
        return await self.until(
            name, lambda s: condition(s, "Ready").get("status") == "True" and s["activeRevision"] != revision_after
        )


def condition(status: Json, kind: str) -> Json:
    """The condition of this type, or an empty object."""
    found: Json = next((c for c in status.get("conditions", ()) if c["type"] == kind), {})
    return found


def function(name: str, code: str, **spec: object) -> str:
    """A Function as JSON text for `kubectl apply`, with its code inline; `spec` adds or replaces fields."""
    base: Json = {"runtime": "python", "handler": "main.handler", "code": {"inline": code}}
    resource = {"apiVersion": "kappa.dev/v1", "kind": "Function", "metadata": {"name": name}, "spec": base | spec}
    return json.dumps(resource)
