"""The platform's and the functions' pods as a caller's load balancer and a kubectl user see them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import aiohttp
from kappa_fixtures_local import Api

from kappa_api import names

Json = dict[str, Any]
SYSTEM_PODS = f"/api/v1/namespaces/{names.SYSTEM_NAMESPACE}/pods"
POLL_SECONDS = 0.1


def ready(pod: Json) -> bool:
    """Ready and not on its way out: what an endpoint must be."""
    conditions = pod.get("status", {}).get("conditions") or ()
    is_ready = any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)
    return is_ready and not pod["metadata"].get("deletionTimestamp")


def label(pod: Json, name: str) -> str:
    return str((pod["metadata"].get("labels") or {}).get(name, ""))


def name_of(pod: Json) -> str:
    return str(pod["metadata"]["name"])


@dataclass
class Endpoints:
    """Addresses of the gateways that are ready, kept by a watch as kube-proxy keeps a Service's."""

    api: Api
    port: int
    pods: dict[str, Json] = field(default_factory=dict)

    def __call__(self) -> list[str]:
        return [f"{pod['status']['podIP']}:{self.port}" for pod in self.pods.values() if ready(pod)]

    async def follow(self) -> None:
        """Until cancelled. An API server that is away leaves the addresses as they were last."""
        selector = f"{names.LABEL_COMPONENT}={names.COMPONENT_GATEWAY}"
        while True:
            with contextlib.suppress(aiohttp.ClientError, OSError, EOFError, TimeoutError, AssertionError):
                found = (await self.api.get(SYSTEM_PODS, labelSelector=selector)).ok()
                self.pods = {pod["metadata"]["uid"]: pod for pod in found["items"]}
                version = found["metadata"]["resourceVersion"]
                async with self.api.watch(SYSTEM_PODS, labelSelector=selector, resourceVersion=version) as watch:
                    while (event := await watch.next(90))["type"] != "ERROR":
                        if event["type"] in ("ADDED", "MODIFIED"):
                            self.pods[event["object"]["metadata"]["uid"]] = event["object"]
                        elif event["type"] == "DELETED":
                            self.pods.pop(event["object"]["metadata"]["uid"], None)
            await asyncio.sleep(POLL_SECONDS)


class Follower(Protocol):
    """Keeps itself up to date until it is cancelled."""

    async def follow(self) -> None: ...


F = TypeVar("F", bound=Follower)


@contextlib.asynccontextmanager
async def following(follower: F) -> AsyncIterator[F]:
    """The follower, followed."""
    task = asyncio.create_task(follower.follow())
    try:
        yield follower
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def eventually(look: Callable[[], Awaitable[bool]], seconds: float, what: str) -> None:
    """Asks until the answer is yes. Raises TimeoutError."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while not await look():
        if loop.time() > end:
            raise TimeoutError(f"{what} not within {seconds:g} s")
        await asyncio.sleep(POLL_SECONDS)


async def system_pods(api: Api, component: str) -> list[Json]:
    selector = f"{names.LABEL_COMPONENT}={component}"
    found: list[Json] = (await api.get(SYSTEM_PODS, labelSelector=selector)).ok()["items"]
    return found


async def instances(api: Api, function: str, state: str = names.STATE_SERVING) -> list[Json]:
    """A function's instances in this state that are not being deleted, oldest first."""
    selector = f"{names.LABEL_FUNCTION}={function},{names.LABEL_STATE}={state}"
    found = (await api.get("/api/v1/namespaces/{ns}/pods", labelSelector=selector)).ok()["items"]
    return sorted((pod for pod in found if ready(pod)), key=lambda pod: pod["metadata"]["creationTimestamp"])


async def all_pods(api: Api) -> list[Json]:
    """Every pod of the functions' namespace."""
    found: list[Json] = (await api.get("/api/v1/namespaces/{ns}/pods")).ok()["items"]
    return found


def words(pod: Json) -> str:
    """A pod for people: name, function, state, phase, and what is odd about it."""
    leaving = " deleted" if pod["metadata"].get("deletionTimestamp") else ""
    of = f"{label(pod, names.LABEL_FUNCTION)} {label(pod, names.LABEL_REVISION)}"
    phase = pod.get("status", {}).get("phase")
    return f"{name_of(pod)} {of} {label(pod, names.LABEL_STATE)} {phase} ready={ready(pod)}{leaving}"


async def status(api: Api, function: str) -> Json:
    """The Function's status, empty when it is not about the newest spec yet."""
    found = (await api.get(function_path(function))).ok()
    current: Json = found.get("status") or {}
    return current if current.get("observedGeneration") == found["metadata"]["generation"] else {}


def function_path(name: str = "") -> str:
    path = f"/apis/{names.API_VERSION}/namespaces/{{ns}}/{names.FUNCTION_PLURAL}"
    return f"{path}/{name}" if name else path


async def leader(api: Api) -> str:
    """Name of the operator pod that holds the Lease; empty when nobody does."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/{names.SYSTEM_NAMESPACE}/leases/{names.LEASE_NAME}"
    found = await api.get(path)
    return str(found.ok()["spec"].get("holderIdentity") or "") if found.status == 200 else ""
