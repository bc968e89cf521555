"""What users see when there is no room: quotas of namespaces, ResourceQuotas, a full node; and what they are told."""

from typing import Any

from kappa_operator_world import MERGE, World, condition, inline

Json = Any

HELLO = "def handler(event, context):\n    return 'hello'\n"
NODE = "/api/v1/nodes/kappa-local"


async def events(world: World, name: str, reason: str) -> list[Json]:
    found = await world.call("GET", "/api/v1/namespaces/default/events")
    return [e for e in found["items"] if e["involvedObject"]["name"] == name and e["reason"] == reason]


async def told(world: World, name: str, reason: str) -> tuple[str, str]:
    """The function's condition once it gives this reason, and the Event that says it; both as text."""
    status = await world.status(name, lambda s: condition(s, "Capacity").get("reason") == reason)
    assert condition(status, "Ready")["status"] == "True"
    assert condition(status, "Capacity")["status"] == "False"
    found = await world.until(lambda: events(world, name, reason), bool)
    assert [event["type"] for event in found] == ["Warning"]
    return condition(status, "Capacity")["message"], found[0]["message"]


async def over(world: World, name: str) -> None:
    status = await world.status(name, lambda s: condition(s, "Capacity").get("status") == "True", 40)
    assert condition(status, "Capacity")["reason"] == "EnoughInstances"
    found = await world.until(lambda: events(world, name, "EnoughInstances"), bool)
    assert found[0]["type"] == "Normal"


async def applied(world: World, *names: str, **scaling: int) -> None:
    for name in names:
        await world.apply(name, inline(HELLO, scaling={"idleSeconds": 300, **scaling}))
    for name in names:
        await world.ready(name)


async def busy(world: World, **calls: tuple[int, int]) -> None:
    """Lets the gateway say, over and over, what waits and what is in service: (waiting, in service) by function."""
    functions = {}
    for name, (waiting, in_service) in calls.items():
        functions[f"default/{name}"] = {
            **dict.fromkeys(("invocations", "errors", "coldStarts", "serviceSeconds", "waitingSeconds"), 0),
            "arrivals": waiting + in_service,
            "inService": in_service,
            "waiting": waiting,
        }
    await world.gateway_says(functions)
    for name, (waiting, in_service) in calls.items():
        if waiting:
            assert await world.demand(name, waiting, in_service) == 204


async def test_a_namespace_may_have_so_many_instances_and_shares_them(gateway: World) -> None:
    world = gateway
    await applied(world, "a", "b")
    annotate = {"metadata": {"annotations": {"kappa.dev/max-instances": "3"}}}
    await world.call("PATCH", "/api/v1/namespaces/default", annotate, MERGE)
    await world.until(lambda: world.serving("a"), lambda pods: len(pods) == 1)
    await busy(world, a=(20, 1))
    await world.until(lambda: world.serving("a"), lambda pods: len(pods) >= 2)
    await busy(world, a=(20, 2), b=(1, 0))
    await world.until(lambda: world.serving("a"), lambda pods: len(pods) == 2)
    await world.until(lambda: world.serving("b"), lambda pods: len(pods) == 1)
    message, event = await told(world, "a", "NamespaceQuota")
    assert "the quota of namespace default is 3 instances, " in message
    assert message == event
    annotate = {"metadata": {"annotations": {"kappa.dev/max-instances": None}}}
    await world.call("PATCH", "/api/v1/namespaces/default", annotate, MERGE)
    await world.until(lambda: world.serving("a"), lambda pods: len(pods) > 2)
    await over(world, "a")


async def test_a_used_up_resource_quota_is_explained_and_does_not_stop_the_function(gateway: World) -> None:
    world = gateway
    await applied(world, "a")
    pods = len(await world.pods())
    quota = {"metadata": {"name": "team"}, "spec": {"hard": {"pods": str(pods)}}}
    await world.call("POST", "/api/v1/namespaces/default/resourcequotas", {"kind": "ResourceQuota", **quota})
    await applied(world, "a", minReplicas=5)
    message, event = await told(world, "a", "QuotaExceeded")
    assert "ResourceQuota team is used up: one more instance needs pods=1" in message
    assert message == event
    assert await world.invoke((await world.serving("a"))[0]) == (200, b'"hello"')
    await world.call("DELETE", "/api/v1/namespaces/default/resourcequotas/team")
    await world.until(lambda: world.serving("a"), lambda found: len(found) == 5, 70)
    await over(world, "a")


async def test_in_a_full_cluster_a_hog_gives_way_to_who_has_nothing(gateway: World) -> None:
    world = gateway
    await applied(world, "hog", "small", minReplicas=0)
    for name in ("hog", "small"):
        await world.until(lambda n=name: world.serving(n), lambda pods: len(pods) == 1)
    count = len(await world.pods()) + len(await world.pods(namespace="kappa-system"))
    await world.call("PATCH", f"{NODE}/status", {"status": {"allocatable": {"pods": str(count + 1)}}}, MERGE)
    await busy(world, hog=(40, 1), small=(0, 1))
    message, event = await told(world, "hog", "Unschedulable")
    assert "0/1 nodes are available: 1 Too many pods." in message
    assert message == event
    # The small one loses its instance, and asks for another.
    (pod,) = await world.serving("small")
    await world.call("DELETE", f"/api/v1/namespaces/default/pods/{pod['metadata']['name']}")
    await busy(world, hog=(40, 4), small=(1, 0))
    await world.until(
        lambda: world.serving("small"),
        lambda pods: [p["metadata"]["name"] for p in pods] not in ([], [pod["metadata"]["name"]]),
        40,
    )
    assert len(await world.serving("hog")) >= 1
