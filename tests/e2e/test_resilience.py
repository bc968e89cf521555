"""What must go on while parts of Kappa are replaced: the operator's leader, gateways, revisions."""

import asyncio
import time

from kappa_e2e import Cluster, function, is_ready, names_of, returns

#: Load for the tests in which nothing may fail. Two cores: enough callers to be always there, not to saturate.
WORKERS = 6


async def test_new_revision_under_load(kappa: Cluster) -> None:
    """One replica, replaced while it is called: no call fails, and both revisions are seen."""
    one = {"scaling": {"minReplicas": 1, "maxReplicas": 1}, "concurrency": 4}
    await kappa.apply(function("roll", returns("old", 0.02), **one))
    await kappa.until("roll", lambda status: status.get("readyReplicas") == 1)
    async with kappa.load("roll", WORKERS, pause=0.01) as load:
        await asyncio.sleep(1)
        await kappa.apply(function("roll", returns("new", 0.02), **one))
        await kappa.until("roll", is_ready)
        await asyncio.sleep(2)
    assert load.failures == []
    assert load.bodies['"old"'] > 10
    assert load.bodies['"new"'] > 10
    assert (await kappa.call("roll")).json == "new"


async def test_broken_revision_under_load(kappa: Cluster) -> None:
    await kappa.apply(function("keep", returns("good", 0.02), scaling={"minReplicas": 1, "maxReplicas": 1}))
    await kappa.until("keep", lambda status: status.get("readyReplicas") == 1)
    async with kappa.load("keep", WORKERS, pause=0.01) as load:
        await kappa.apply(function("keep", "raise RuntimeError('no')\n", scaling={"minReplicas": 1, "maxReplicas": 1}))
        await kappa.until("keep", lambda status: bool(status.get("failedRevision")))
        await asyncio.sleep(1)
    assert load.failures == []
    assert set(load.bodies) == {'"good"'}


async def leader(kappa: Cluster) -> str:
    lease = await kappa.get("lease", "kappa-operator", namespace=kappa.system)
    found: str = lease["spec"]["holderIdentity"]
    return found


async def test_operator_leader_is_deleted(kappa: Cluster) -> None:
    """Calls go on; the other replica takes over and does what is asked of it meanwhile."""
    one = {"minReplicas": 1, "maxReplicas": 1}
    await kappa.apply(function("steady", returns("here", 0.02), concurrency=WORKERS, scaling=one))
    await kappa.until("steady", lambda status: status.get("readyReplicas", 0) >= 1)
    old = await leader(kappa)
    async with kappa.load("steady", WORKERS, pause=0.01) as load:
        await kappa.kubectl("delete", "pod", old, "--wait=false", namespace=kappa.system)
        start = time.monotonic()
        await kappa.apply(function("meanwhile", returns("made")))
        await kappa.until("meanwhile", is_ready, 45)
        took = time.monotonic() - start
        answer = await kappa.call("meanwhile")
    assert (answer.status, answer.json) == (200, "made"), answer
    assert await leader(kappa) != old
    assert load.failures == []
    assert took < 30, took
    (pod,) = await kappa.pods("steady")
    assert pod["metadata"]["labels"]["kappa.dev/state"] == "serving"


async def test_gateways_are_replaced_under_load(kappa: Cluster) -> None:
    """A rolling restart of the gateways: no call fails, over kept connections or over new ones."""
    one = {"minReplicas": 1, "maxReplicas": 1}
    await kappa.apply(function("front", returns("here", 0.02), concurrency=8, scaling=one))
    await kappa.until("front", lambda status: status.get("readyReplicas", 0) >= 1)
    select = "app.kubernetes.io/component=gateway"
    before = names_of(await kappa.get("pods", selector=select, namespace=kappa.system))
    async with kappa.load("front", WORKERS, pause=0.02) as load:
        await asyncio.sleep(1)
        await kappa.kubectl("rollout", "restart", "deployment/kappa-gateway", namespace=kappa.system)
        command = ("rollout", "status", "deployment/kappa-gateway", "--timeout=120s")
        await kappa.kubectl(*command, namespace=kappa.system)
        for name in before:  # to the end of their delay, not of the grace period
            await kappa.kubectl("wait", "--for=delete", f"pod/{name}", "--timeout=120s", namespace=kappa.system)
    assert load.failures == []
    assert load.calls > 100


async def test_instance_is_killed(kappa: Cluster) -> None:
    """A pod that vanishes is replaced."""
    await kappa.apply(function("mortal", returns("alive"), scaling={"minReplicas": 1}))
    await kappa.until("mortal", lambda status: status.get("readyReplicas", 0) >= 1)
    (pod,) = await kappa.pods("mortal")
    await kappa.kubectl("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force")
    answer = await kappa.call("mortal")
    assert (answer.status, answer.json) == (200, "alive"), answer
    assert names_of(await kappa.pods("mortal")) != [pod["metadata"]["name"]]
