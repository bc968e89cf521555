"""The pool in the embedded cluster: it grows with the claims, and a changed Runtime never leaves it empty."""

from typing import Any

from kappa_operator_world import MERGE, World, inline

Json = Any

HELLO = "def handler(event, context):\n    return 'hello'\n"
SCALED = {"scaling": {"minReplicas": 5}}
RUNTIME = "/apis/kappa.dev/v1/runtimes/python"


def ready(pod: Json) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


async def pool(world: World) -> list[Json]:
    return [pod for pod in await world.pods("kappa.dev/state=pool") if ready(pod)]


async def test_a_changed_runtime_replaces_the_pool_without_emptying_it(world: World) -> None:
    await world.call("PATCH", RUNTIME, {"spec": {"pool": {"min": 2, "max": 2}}}, MERGE)
    await world.apply("fn", inline(HELLO))
    await world.ready("fn")
    before = await world.until(lambda: pool(world), lambda pods: len(pods) == 2)
    old = {pod["metadata"]["name"] for pod in before}
    resources = {"limits": {"memory": "300Mi"}}
    await world.call("PATCH", RUNTIME, {"spec": {"resources": resources}}, MERGE)
    least = 2

    async def look() -> list[Json]:
        nonlocal least
        found = await pool(world)
        least = min(least, len(found))
        return found

    after = await world.until(look, lambda pods: len(pods) == 2 and not old & {p["metadata"]["name"] for p in pods})
    assert least == 2
    assert [pod["spec"]["containers"][0]["resources"]["limits"] for pod in after] == [resources["limits"]] * 2


async def test_the_pool_grows_with_the_claims(gateway: World) -> None:
    world = gateway
    await world.apply("fn", inline(HELLO))
    await world.ready("fn")
    await world.until(lambda: pool(world), lambda pods: len(pods) == 1)
    await world.call("PATCH", "/apis/kappa.dev/v1/namespaces/default/functions/fn", {"spec": SCALED}, MERGE)
    await world.until(lambda: world.serving("fn"), lambda pods: len(pods) == 5)
    await world.until(lambda: pool(world), lambda pods: len(pods) == 3)
