"""The embedded platform's NATS: who comes without credentials may publish and listen, but not act as Kappa itself."""

import aiomqtt
import nats
import pytest
from kappa_platform import System
from nats.aio.client import Client
from nats.js.api import StreamConfig

pytestmark = pytest.mark.asyncio(loop_scope="session")

FORGED = "kappa.work.async.default.forged"


async def settings(system: System) -> dict[str, str]:
    """Of the gateway's pod, where a developer finds them too."""
    pods = ["-n", "kappa-system", "get", "pod", "gateway", "nats", "-o"]
    path = "jsonpath={range .items[*].spec.containers[0].env[*]}{.name}={.value}{'\\n'}{end}"
    found = dict(line.split("=", 1) for line in (await system.kubectl.run([*pods, path])).out.splitlines() if line)
    ports = "jsonpath={range .items[*].spec.containers[0].ports[*]}{.name}={.containerPort}{'\\n'}{end}"
    return found | dict(line.split("=", 1) for line in (await system.kubectl.run([*pods, ports])).out.splitlines())


async def kappa(env: dict[str, str]) -> Client:
    return await nats.connect(env["KAPPA_NATS_URL"], user=env["KAPPA_NATS_USER"], password=env["KAPPA_NATS_TOKEN"])


async def test_guests_publish_by_nats_and_by_mqtt(system: System) -> None:
    env = await settings(system)
    own = await kappa(env)
    js = own.jetstream()
    await js.add_stream(StreamConfig(name="default-seen", subjects=["default.guests.>"]))
    guest = await nats.connect(env["KAPPA_NATS_URL"])
    await guest.publish("default.guests.a", b"by nats")
    await guest.flush()
    async with aiomqtt.Client("127.0.0.1", int(env["mqtt"]), identifier="device") as device:
        await device.publish("default/guests/b", b"by mqtt", qos=1)
    seen = [(await js.get_msg("default-seen", number)).data for number in (1, 2)]
    assert seen == [b"by nats", b"by mqtt"]
    await js.delete_stream("default-seen")
    await guest.close()
    await own.close()


async def test_guests_cannot_forge_work(system: System) -> None:
    env = await settings(system)
    own = await kappa(env)
    js = own.jetstream()
    guest = await nats.connect(env["KAPPA_NATS_URL"], error_cb=_nothing)
    await guest.publish(FORGED, b"by nats")
    await guest.publish("$JS.API.STREAM.DELETE.KAPPA_WORK", b"")
    await guest.flush()
    async with aiomqtt.Client("127.0.0.1", int(env["mqtt"]), identifier="device") as device:
        await device.publish(FORGED.replace(".", "/"), b"by mqtt", qos=1)
    await own.flush()
    info = await js.stream_info("KAPPA_WORK", subjects_filter=FORGED)
    assert not info.state.subjects
    await guest.close()
    await own.close()


async def _nothing(error: Exception) -> None:
    """The server says what it refused; that is not news here."""
