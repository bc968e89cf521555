"""What the operator's integration tests work with: the embedded cluster's API and operators as processes."""

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from kappa_ports import free_port

from kappa_api.names import INSTANCE_PORT
from kappa_api.tokens import internal_token

Json = Any

SECRET = "integration-secret"
API = "/apis/kappa.dev/v1/namespaces/default/functions"
MERGE = {"Content-Type": "application/merge-patch+json"}


@dataclass
class Operator:
    """One operator process."""

    process: asyncio.subprocess.Process
    port: int
    log: Path

    async def stop(self, *, kill: bool = False) -> int:
        if self.process.returncode is None:
            self.process.kill() if kill else self.process.terminate()
        return await asyncio.wait_for(self.process.wait(), 15)


@dataclass
class World:
    """What a test works with."""

    url: str
    kubeconfig: Path
    http: aiohttp.ClientSession
    state: Path
    env: dict[str, str] = field(default_factory=dict)
    operators: list[Operator] = field(default_factory=list)

    async def call(self, method: str, path: str, body: Json = None, headers: dict[str, str] | None = None) -> Json:
        async with self.http.request(method, self.url + path, json=body, headers=headers) as answer:
            text = await answer.text()
            if answer.status == 404 and method in ("GET", "DELETE"):
                return None
            assert answer.status < 300, f"{method} {path}: {answer.status} {text}"
            return json.loads(text)

    async def operator(self, **env: str) -> Operator:
        port = free_port()
        log = self.state / f"operator-{len(self.operators)}.log"
        with log.open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "kappa_operator",
                stderr=out,
                env={
                    **os.environ,
                    "KUBECONFIG": str(self.kubeconfig),
                    "KAPPA_PLATFORM_SECRET": SECRET,
                    "KAPPA_BIND": "127.0.0.1",
                    "KAPPA_ADMIN_PORT": str(port),
                    "POD_NAME": f"operator-{len(self.operators)}",
                    "POD_IP": "127.0.0.1",
                    "KAPPA_LEASE_SECONDS": "3",
                    "KAPPA_RENEW_SECONDS": "1",
                    "KAPPA_SCRAPE_SECONDS": "0.2",
                    "KAPPA_DOWN_WINDOW_SECONDS": "1",
                    **self.env,
                    **env,
                },
            )
        found = Operator(process, port, log)
        self.operators.append(found)
        return found

    async def apply(self, name: str, spec: Json) -> Json:
        """Creates or updates a Function; a spec without `code` gets nothing added."""
        body = {"apiVersion": "kappa.dev/v1", "kind": "Function", "metadata": {"name": name}, "spec": spec}
        if await self.call("GET", f"{API}/{name}") is None:
            return await self.call("POST", API, body)
        return await self.call("PATCH", f"{API}/{name}", {"spec": spec}, MERGE)

    async def function(self, name: str) -> Json:
        return await self.call("GET", f"{API}/{name}") or {}

    async def pods(self, selector: str = "", namespace: str = "default") -> list[Json]:
        path = f"/api/v1/namespaces/{namespace}/pods?labelSelector={selector}"
        return [pod for pod in (await self.call("GET", path))["items"] if not pod["metadata"].get("deletionTimestamp")]

    async def serving(self, name: str) -> list[Json]:
        return await self.pods(f"kappa.dev/function={name},kappa.dev/state=serving")

    async def until(self, what: Callable[[], Any], done: Callable[[Any], bool], seconds: float = 15.0) -> Any:
        """Asks until `done` holds for the answer; returns that. Fails with the last answer."""
        deadline = time.monotonic() + seconds
        while True:
            found = await what()
            if done(found):
                return found
            if time.monotonic() > deadline:
                raise AssertionError(f"after {seconds} s: {json.dumps(found, indent=1)[:3000]}\n{self.logs()}")
            await asyncio.sleep(0.05)

    async def status(self, name: str, done: Callable[[Json], bool], seconds: float = 15.0) -> Json:
        async def ask() -> Json:
            return (await self.function(name)).get("status") or {}

        return await self.until(ask, done, seconds)

    async def ready(self, name: str, revision_after: str = "") -> Json:
        return await self.status(
            name,
            lambda s: condition(s, "Ready").get("status") == "True" and s["activeRevision"] != revision_after,
        )

    async def invoke(self, pod: Json) -> tuple[int, bytes]:
        async with self.http.get(f"http://{pod['status']['podIP']}:{INSTANCE_PORT}/") as answer:
            return answer.status, await answer.read()

    async def demand_of(self, operator: Operator, name: str, waiting: int = 1, in_service: int = 0) -> int:
        """The status with which this operator answers a demand; 0 when it does not."""
        body = {
            "gateway": "gateway-0",
            "functions": {f"default/{name}": {"waiting": waiting, "inService": in_service}},
        }
        headers = {"Authorization": f"Bearer {internal_token(SECRET.encode())}"}
        url = f"http://127.0.0.1:{operator.port}/v1/demand"
        try:
            async with self.http.post(url, json=body, headers=headers) as answer:
                return answer.status
        except aiohttp.ClientError:
            return 0

    async def demand(self, name: str, waiting: int, in_service: int = 0) -> int:
        """Tells every operator that runs; the answer of the one that leads, if any does."""
        running = [operator for operator in self.operators if operator.process.returncode is None]
        statuses = [await self.demand_of(operator, name, waiting, in_service) for operator in running]
        return 204 if 204 in statuses else max(statuses, default=0)

    async def gateway_says(self, functions: Json, draining: Json | None = None) -> None:
        pod = (await self.pods("app.kubernetes.io/component=gateway", "kappa-system"))[0]
        body = {"functions": functions, "draining": draining or {}}
        async with self.http.post(f"http://{pod['status']['podIP']}:8081/set", json=body) as answer:
            assert answer.status == 200

    def logs(self) -> str:
        return "\n".join(f"--- {o.log.name}\n{o.log.read_text()[-6000:]}" for o in self.operators)


def condition(status: Json, kind: str) -> Json:
    found: Json = next((c for c in status.get("conditions", ()) if c["type"] == kind), {})
    return found


def traffic(**counters: float) -> Json:
    """One function's statistics as a gateway reports them; what is not named is 0."""
    base = dict.fromkeys(
        ("invocations", "errors", "arrivals", "coldStarts", "serviceSeconds", "waitingSeconds", "inService", "waiting"),
        0,
    )
    return {**base, **counters}


def inline(code: str, **spec: object) -> Json:
    return {"runtime": "python", "handler": "main.handler", "code": {"inline": code}, **spec}
