"""Instances follow the traffic: up in a burst, down and to zero after it, and where kubectl says."""

import asyncio

from kappa_e2e import Cluster, eventually, function, is_ready, returns


async def test_burst_up_and_to_zero(kappa: Cluster) -> None:
    scaling = {"minReplicas": 0, "maxReplicas": 4, "idleSeconds": 2}
    await kappa.apply(function("burst", returns("done", 0.3), scaling=scaling))
    await kappa.until("burst", is_ready)
    async with kappa.load("burst", 8) as load:
        await kappa.until("burst", lambda status: status.get("readyReplicas", 0) >= 3, 30)
        await asyncio.sleep(2)
    assert load.failures == []
    assert load.slowest < 10
    top = len(await kappa.pods("burst"))
    assert 3 <= top <= 5  # 4, and perhaps one that is draining

    async def at_zero() -> tuple[bool, object]:
        pods, status = await kappa.pods("burst"), await kappa.status("burst")
        return not pods and status["replicas"] == 0, status

    await eventually(at_zero, 60, "burst at zero")
    again = await kappa.call("burst")
    assert (again.status, again.json) == (200, "done"), again
    assert again.seconds < 3, again


async def test_many_first_calls_at_once(kappa: Cluster) -> None:
    """Twenty callers meet a function at zero: one start serves them all, and nobody gets an error."""
    await kappa.apply(function("flash", returns("ok"), concurrency=20, scaling={"maxReplicas": 2}))
    await kappa.until("flash", is_ready)
    replies = await asyncio.gather(*(kappa.call("flash") for _ in range(20)))
    assert {reply.status for reply in replies} == {200}
    assert max(reply.seconds for reply in replies) < 5


async def test_kubectl_scale(kappa: Cluster) -> None:
    await kappa.apply(function("manual", returns("x"), scaling={"idleSeconds": 1}))
    await kappa.until("manual", is_ready)
    await kappa.kubectl("scale", "fn/manual", "--replicas=2")
    status = await kappa.until("manual", lambda status: status.get("readyReplicas") == 2)
    assert len(await kappa.get("pods", selector=status["selector"])) == 2
    await kappa.kubectl("scale", "fn/manual", "--replicas=0")
    await kappa.until("manual", lambda status: status.get("replicas") == 0, 60)


async def test_scaling_makes_no_revision(kappa: Cluster) -> None:
    await kappa.apply(function("same", returns("x"), scaling={"minReplicas": 1}))
    before = await kappa.until("same", lambda status: status.get("readyReplicas") == 1)
    (pod,) = await kappa.pods("same")
    await kappa.apply(function("same", returns("x"), scaling={"minReplicas": 2}, http={"idempotent": True}))
    after = await kappa.until("same", lambda status: status.get("readyReplicas") == 2)
    assert after["activeRevision"] == before["activeRevision"]
    assert pod["metadata"]["name"] in [other["metadata"]["name"] for other in await kappa.pods("same")]
