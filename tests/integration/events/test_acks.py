"""What is done while NATS is away is not done again: its acknowledgement is said until it is heard."""

import asyncio

from kappa_events_rig import EventsRig, MakeEvents, answers
from kappa_gateway_rig import Seen, reply
from kappa_nats import NatsServer


async def _held(make: MakeEvents) -> tuple[EventsRig, list[str], asyncio.Event, asyncio.Event]:
    """A call that runs until the last event is set; without a record of its success."""
    gateway = await make()
    gateway.rig.function("hello", **{"async": {"resultSeconds": 0}})
    seen: list[str] = []
    begun, release = asyncio.Event(), asyncio.Event()

    async def run(request: Seen) -> bytes:
        seen.append(request.get("kappa-request-id"))
        begun.set()
        await release.wait()
        return reply()

    await gateway.rig.instance("hello", answers(run))
    await gateway.accept("hello")
    await asyncio.wait_for(begun.wait(), 10)
    return gateway, seen, begun, release


async def test_done_while_nats_was_away(make: MakeEvents, nats: NatsServer) -> None:
    gateway, seen, _, release = await _held(make)
    await nats.kill()
    await gateway.until(lambda: not gateway.events.bus.up)
    release.set()
    await gateway.until(lambda: len(gateway.events._acks) == 1)
    await nats.start()
    await gateway.emptied()
    assert len(seen) == 1, "it was handed out again, and run"
    await gateway.until(lambda: len(gateway.events._acks) == 0)


async def test_an_acknowledgement_that_got_lost(make: MakeEvents) -> None:
    """The connection takes it, and JetStream never hears of it: as with a leader that dies."""
    gateway, seen, _, release = await _held(make)
    real, lost = gateway.events.bus.nc.publish, []

    async def forgetful(subject: str, payload: bytes = b"", **more: str) -> None:
        if payload == b"+ACK" and not lost:
            lost.append(subject)
            return
        await real(subject, payload, **more)

    gateway.events.bus.nc.publish = forgetful  # type: ignore[assignment]
    release.set()
    await gateway.emptied()
    assert (len(lost), len(seen)) == (1, 1)
