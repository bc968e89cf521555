"""What an operator has learnt of idle times is there for the next one."""

import asyncio
import base64

from kappa_operator_world import World, inline

from kappa_operator.autoscaler.idle_times import KEY
from kappa_operator.autoscaler.remembered import decode

HELLO = "def handler(event, context):\n    return 'hello'\n"
CONFIGS = "/api/v1/namespaces/kappa-system/configmaps?labelSelector=app.kubernetes.io/component=idle-times"


async def kept(world: World) -> set[str]:
    """The functions whose idle times are kept."""
    items = (await world.call("GET", CONFIGS))["items"]
    return {key for item in items for key in decode(base64.b64decode(item["binaryData"][KEY]))}


async def test_idle_times_are_written_at_the_end_and_read_by_the_next_leader(gateway: World) -> None:
    world = gateway
    # Idle times of less than five seconds teach nothing: the instance goes after six, then the next call comes.
    await world.apply("fn", inline(HELLO, scaling={"idleSeconds": 6}))
    await world.ready("fn")
    await world.until(lambda: world.serving("fn"), lambda pods: not pods, 30)
    assert await world.demand("fn", 1) == 204
    await world.until(lambda: world.serving("fn"), bool)
    assert await world.operators[0].stop() == 0
    assert await kept(world) == {"default/fn"}

    second = await world.operator()
    await world.until(lambda: asyncio.to_thread(second.log.read_text), lambda text: "taken over" in text)
    assert "idle times of 1 functions taken over" in second.log.read_text()
    await world.until(lambda: world.demand("fn", 1), lambda status: status == 204)
    await world.call("DELETE", "/apis/kappa.dev/v1/namespaces/default/functions/fn")
    await world.until(lambda: world.pods("kappa.dev/function=fn"), lambda pods: not pods)
    assert await second.stop() == 0
    # Should the second one have had no time to notice, the third one finds that there is no such function.
    third = await world.operator()
    await world.until(lambda: world.demand("fn", 1), lambda status: status == 204)
    assert await third.stop() == 0
    assert await kept(world) == set()
