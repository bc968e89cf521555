"""From an applied Function to an instance that answers, up with demand, down to zero when idle."""

import time

from kappa_operator_world import World, condition, inline, traffic

HELLO = "def handler(event, context):\n    return {'hello': 'world'}\n"


async def test_a_function_is_proven_serves_scales_and_idles(gateway: World) -> None:
    world = gateway
    await world.apply("hello", inline(HELLO, scaling={"idleSeconds": 2}))

    status = await world.ready("hello")
    assert status["url"] == "http://gateway.kappa-system/fn/default/hello"
    assert status["observedGeneration"] == 1
    (pod,) = await world.serving("hello")
    assert pod["metadata"]["labels"]["kappa.dev/revision"] == status["activeRevision"]
    assert (await world.invoke(pod))[0] == 200

    assert await world.demand("hello", waiting=30) == 204
    await world.until(lambda: world.serving("hello"), lambda pods: len(pods) >= 2)

    await world.gateway_says({"default/hello": traffic(arrivals=30, invocations=30)})
    await world.until(lambda: world.pods("kappa.dev/function=hello"), lambda pods: not pods, 15)
    status = await world.status("hello", lambda s: s["replicas"] == 0)
    assert condition(status, "Ready")["reason"] == "ScaledToZero"

    await world.until(
        lambda: world.pods("kappa.dev/state=pool"),
        lambda pods: any(
            c["status"] == "True" for p in pods for c in p["status"]["conditions"] if c["type"] == "Ready"
        ),
    )
    begun = time.monotonic()
    await world.demand("hello", waiting=1)
    await world.until(lambda: world.serving("hello"), lambda pods: len(pods) == 1)
    assert time.monotonic() - begun < 2
