"""What operator and gateway ask of the Kubernetes API, against what the chart lets them ask: in both directions."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from kappa_ports import free_port
from kappa_rbac import Right, granted, right_of
from kappa_security_world import CHART, FUNCTIONS, Platform, platform

from kappa_api import names

Json = Any

#: Rights of the chart that this run does not use, each with the reason why it is there all the same.
NOT_USED_HERE = {
    "operator": {
        "get pods": "a pod whose patch was refused, or that stopped answering, is read again: only in races",
    },
    "gateway": {},
}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Platform]:
    async with platform(tmp_path, free_port) as found:
        yield found


def inline(code: str, **spec: Json) -> Json:
    return {"runtime": "python", "handler": "main.handler", "code": {"inline": code}, **spec}


GOOD = "def handler(event, context):\n    return {}\n"
CRASH = "import os, sys\n\ndef handler(event, context):\n    print('last words', file=sys.stderr)\n    os._exit(3)\n"


async def everything(world: Platform) -> None:
    """All that the two do with the API in their lives, as far as a user can make them."""
    await world.apply("fn", inline(GOOD, scaling={"idleSeconds": 1}))
    await world.ready("fn")
    assert (await world.call("fn"))[0] == 200
    await world.apply("fn", inline(GOOD + "# changed\n"))
    await world.ready("fn")  # a second revision replaces the snapshot of the first
    await world.apply("fn", inline("import nothing_of_this_name"))
    await world.ready("fn", "LoadFailed")  # Events; and the last good one needs its snapshot for the next instance
    for pod in await world.pods("kappa.dev/function=fn"):
        await world.api("DELETE", f"/api/v1/namespaces/default/pods/{pod['metadata']['name']}")
    assert (await world.call("fn"))[0] == 200

    # whose token it is and what its owner may: asked for anybody who calls such a function
    await world.apply("asks", inline(GOOD, http={"auth": {"type": "kubernetes"}}))
    await world.ready("asks")
    token = await world.api("POST", "/api/v1/namespaces/default/serviceaccounts/default/token", {"spec": {}})
    assert (await world.call("asks", token=token["status"]["token"]))[0] == 403

    spec = {"function": "fn", "source": {"event": {}}}
    trigger = {"apiVersion": names.API_VERSION, "kind": names.TRIGGER_KIND, "metadata": {"name": "t"}, "spec": spec}
    await world.api("POST", TRIGGERS, trigger)

    async def told() -> bool:
        return bool((await world.api("GET", f"{TRIGGERS}/t")).get("status"))

    await world.until(told, "the status of a Trigger")

    code = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "code"}, "data": {"main.py": GOOD}}
    await world.api("POST", "/api/v1/namespaces/default/configmaps", code)
    await world.apply("mapped", {**inline(""), "code": {"configMap": {"name": "code"}}})
    await world.ready("mapped")

    await world.apply("crash", inline(CRASH, scaling={"minReplicas": 1}))
    await world.ready("crash")
    assert (await world.call("crash", "POST"))[0] == 502

    async def last_words() -> bool:
        return any(right.resource == "pods/log" for right in world.proxies["operator"].rights)

    await world.until(last_words, "the operator to read the log of an instance that died")

    async def drained() -> bool:
        return not await world.pods("kappa.dev/function=fn")

    await world.api("PATCH", f"{FUNCTIONS}/fn", {"spec": {"code": {"inline": GOOD}}}, MERGE)
    await world.until(drained, "fn to go to zero")
    assert (await world.call("fn"))[0] == 200  # the gateway looks up who leads, and tells it of the demand
    await world.api("DELETE", f"{FUNCTIONS}/mapped")
    # The operator gives its Lease back when it ends.
    await world.api("DELETE", f"/api/v1/namespaces/{names.SYSTEM_NAMESPACE}/pods/operator")

    async def released() -> bool:
        lease = await world.api("GET", LEASE)
        return not lease["spec"].get("holderIdentity")

    await world.until(released, "the Lease to be free")


TRIGGERS = f"/apis/{names.API_VERSION}/namespaces/default/{names.TRIGGER_PLURAL}"
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{names.SYSTEM_NAMESPACE}/leases/{names.LEASE_NAME}"
MERGE = {"Content-Type": "application/merge-patch+json"}


async def test_the_chart_grants_what_is_used_and_nothing_else(world: Platform) -> None:
    await everything(world)
    missing: dict[str, list[str]] = {}
    unused: dict[str, list[str]] = {}
    for component, recorder in world.proxies.items():
        rights = granted(CHART, f"kappa-{component}", names.SYSTEM_NAMESPACE)
        missing[component] = sorted(str(r) for r in recorder.rights if not any(g.covers(r) for g in rights))
        unused[component] = sorted(
            str(g)
            for g in rights
            if not any(g.covers(r) for r in recorder.rights) and str(g) not in NOT_USED_HERE[component]
        )
    assert missing == {"operator": [], "gateway": []}, "calls that the chart's RBAC would refuse"
    assert unused == {"operator": [], "gateway": []}, (
        "grants that nothing uses: take them out, or say why in NOT_USED_HERE"
    )


def test_nobody_may_touch_what_the_platform_has_no_business_with() -> None:
    """No exec, no roles, no wildcard; no Secrets but where Functions have API keys; the gateway writes only reviews."""
    for component in ("operator", "gateway"):
        for right in granted(CHART, f"kappa-{component}", names.SYSTEM_NAMESPACE):
            assert "*" not in (right.verb, right.resource, right.group), right
            assert right.resource != "secrets" or (component, right.namespace) == ("gateway", "default"), right
            assert right.resource not in ("pods/exec", "pods/attach", "pods/portforward", "pods/ephemeralcontainers")
            assert right.group not in ("rbac.authorization.k8s.io", "admissionregistration.k8s.io"), right
            assert right.verb not in ("impersonate", "escalate", "bind", "deletecollection"), right
    writes = {r.resource for r in granted(CHART, "kappa-gateway", "s") if r.verb not in ("get", "list", "watch")}
    assert writes <= {"tokenreviews", "subjectaccessreviews"}


@pytest.mark.parametrize(
    ("method", "path", "right"),
    [
        ("GET", "/api/v1/pods", Right("list", "pods")),
        ("GET", "/api/v1/pods?watch=1", Right("watch", "pods")),
        ("GET", "/api/v1/namespaces/a/pods/b", Right("get", "pods", "", "a", "b")),
        ("GET", "/api/v1/namespaces/a/pods/b/log", Right("get", "pods/log", "", "a", "b")),
        ("GET", "/api/v1/namespaces/a", Right("get", "namespaces", "", "", "a")),
        ("POST", "/api/v1/namespaces/a/events", Right("create", "events", "", "a")),
        ("DELETE", "/api/v1/namespaces/a/pods", Right("deletecollection", "pods", "", "a")),
        ("PATCH", "/apis/g/v1/namespaces/a/fns/b/status", Right("patch", "fns/status", "g", "a", "b")),
        ("PUT", "/apis/g/v1/fns/b", Right("update", "fns", "g", "", "b")),
        ("GET", "/apis/g/v1", None),
        ("GET", "/version", None),
    ],
)
def test_requests_as_rights(method: str, path: str, right: Right | None) -> None:
    path, _, query = path.partition("?")
    assert right_of(method, path, dict(pair.split("=") for pair in query.split("&") if pair)) == right
