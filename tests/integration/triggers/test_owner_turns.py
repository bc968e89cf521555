"""Two tasks of one gateway that want the same lease: a runner, and what clears up. One has it at a time."""

import asyncio

from kappa_trigger_world import TriggerWorld


async def test_one_task_after_the_other(world: TriggerWorld) -> None:
    owners = (await world.gateway("g1")).host.owners
    order: list[int] = []

    async def turn(number: int) -> None:
        lease = await owners.acquire("u")
        assert owners.held == {"u": lease}
        order.append(number)
        await asyncio.sleep(0)
        await owners.release(lease)

    first = await owners.acquire("u")
    tasks = [asyncio.ensure_future(turn(number)) for number in range(3)]
    left = asyncio.ensure_future(owners.acquire("u"))
    await asyncio.sleep(0)
    left.cancel()
    assert order == []
    await owners.release(first)
    await asyncio.wait_for(asyncio.gather(*tasks), 30)
    assert sorted(order) == [0, 1, 2]
    assert left.cancelled()
    assert (owners.held, owners._turns) == ({}, {})
