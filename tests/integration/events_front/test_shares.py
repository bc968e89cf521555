"""One namespace floods the work stream of a real NATS server; what others bring is taken as ever."""

from typing import Any

import pytest
from kappa_auth_world import secret

from kappa_api.cloudevents import CloudEvent
from kappa_api.tokens import pod_token
from kappa_gateway.events.bus import UnavailableError
from kappa_gateway.events.dead import Death
from kappa_gateway.events.work import Lane

#: A stream that a few requests fill, and bodies that fill it.
MOST = 4 * 1024**2
BODY = b"x" * 100_000


def function(rig: Any, namespace: str, name: str) -> None:
    meta = {"namespace": namespace, "name": name, "creationTimestamp": "2024-01-01T00:00:00Z"}
    spec = {"runtime": "python", "handler": "main.handler", "code": {"inline": "x = 1"}}
    rig.gateway.catalog.put_function({"metadata": meta, "spec": spec})


def trigger(rig: Any, namespace: str, name: str, source: Any) -> None:
    meta = {"namespace": namespace, "name": name, "uid": f"uid-{namespace}-{name}", "generation": 1}
    rig.gateway.events.host.triggers.put({"metadata": meta, "spec": {"function": name, "source": source}})


async def later(rig: Any, key: str) -> Any:
    return await rig.get(f"/async/{key}", method="POST", body=BODY)


async def post(rig: Any, namespace: str, id_: str) -> Any:
    token = pod_token(b"secret", namespace, "pod-1")
    lines = (f"Authorization: Bearer {token}", f"kappa-pod: {namespace}/pod-1", "content-type: text/plain")
    names = ("ce-specversion: 1.0", f"ce-id: {id_}", "ce-source: s", "ce-type: t")
    return await rig.get(f"/events/{namespace}", *lines, *names, method="POST", body=BODY)


@pytest.fixture
async def small(make_front: Any) -> Any:
    rig = await make_front(events={"work_bytes": MOST})
    await rig.until(lambda: rig.gateway.events.shares.most > 0)
    assert rig.gateway.events.shares.most == MOST
    return rig


async def test_a_flood_refuses_its_own_namespace_alone(small: Any) -> None:
    events = small.gateway.events
    for namespace in ("noisy", "quiet"):
        function(small, namespace, "f")
        function(small, namespace, "g")
        trigger(small, namespace, "f", {"event": {}})
        trigger(small, namespace, "hook", {"webhook": {"preset": "token", "secretRef": {"name": "s"}}})
        events.host.secrets.put(secret("s", namespace=namespace, kind="kappa.dev/source", token="t"))

    accepted = 0
    while (answer := await later(small, "noisy/f")).status == 202:
        accepted += 1
    assert (answer.status, answer.error["code"], answer.headers["retry-after"]) == (429, "queue_full", "5")
    assert answer.error["message"] == "too much work waits already for noisy/f"
    assert MOST * 0.35 < accepted * len(BODY) < MOST * 0.5
    counters = small.gateway.catalog.functions["noisy/f"].counters
    assert counters.rejected == {"queue_full": 1}
    # Others of the namespace have what is left of its share
    while (answer := await later(small, "noisy/g")).status == 202:
        accepted += 1
    number = 0
    while (answer := await post(small, "noisy", str(number))).status == 202:
        number += 1
    assert (answer.status, answer.error["code"]) == (429, "queue_full")
    assert events.host.triggers.counts("noisy/f").rejected == {"queue_full": 1}
    assert (accepted + number) * len(BODY) < MOST * 0.56
    # What is refused is not read
    caller = await small.caller()
    caller.send("POST /async/noisy/f HTTP/1.1\r\nhost: gw\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n")
    assert (await caller.head())[0] == 429

    # The others do not notice
    assert (await later(small, "quiet/f")).status == 202
    assert (await post(small, "quiet", "1")).status == 202
    hooked = await small.get("/hooks/quiet/hook", "authorization: t", method="POST", body=b"{}")
    assert hooked.status == 200, hooked.body

    # A source of it waits, one of another namespace does not
    for namespace, waits in (("noisy", True), ("quiet", False)):
        known = events.host.triggers.find(f"{namespace}/f").trigger
        sink = events.host._surround(known, lambda: None).sink
        event = CloudEvent("source-1", "s", "t", data="x")
        if waits:
            with pytest.raises(UnavailableError, match="too much work"):
                await sink.emit([event])
        else:
            await sink.emit([event])

    # Its work ends, and it is taken again
    for subject in ("kappa.work.async.noisy.>", "kappa.work.trigger.noisy.>"):
        await events.bus.api("STREAM.PURGE.KAPPA_WORK", {"filter": subject})
    await small.until(lambda: "noisy" not in events.shares.namespaces)
    assert (await later(small, "noisy/f")).status == 202


async def test_another_gateway_reckons_alike(small: Any, make_front: Any) -> None:
    """It has published nothing, and sees messages of two sizes."""
    for name in ("big", "little"):
        function(small, name, "f")
    for _ in range(8):
        assert (await later(small, "big/f")).status == 202
        assert (await small.get("/async/little/f", method="POST", body=b"x" * 100)).status == 202
    other = await make_front(events={"work_bytes": MOST})
    shares = other.gateway.events.shares
    # First each message counts alike, then as the oldest of its lane measures
    await other.until(lambda: shares.namespaces.get("big", 0) > 100 * shares.namespaces.get("little", MOST))
    info = await other.gateway.events.bus.api("STREAM.INFO.KAPPA_WORK")
    assert sum(shares.namespaces.values()) == pytest.approx(info["state"]["bytes"])


async def test_what_metrics_say(small: Any) -> None:
    from kappa_gateway.events.metrics import EventsCollector

    function(small, "told", "f")
    trigger(small, "told", "t", {"event": {"limits": {"rate": {"requests": 1, "perSeconds": 3600}}}})
    assert [(await post(small, "told", str(number))).status for number in range(2)] == [202, 429]
    found = {
        sample.name: sample
        for family in EventsCollector(small.gateway.events).collect()
        for sample in family.samples
        if sample.labels.get("namespace", "told") == "told"
    }
    assert found["kappa_work_bytes_limit"].value == MOST
    assert found["kappa_work_namespace_bytes"].value > len(BODY)
    labels = {"namespace": "told", "trigger": "t", "reason": "trigger_rate"}
    assert (found["kappa_trigger_rejected_total"].labels, found["kappa_trigger_rejected_total"].value) == (labels, 1)


async def test_dead_letters_of_one_namespace_leave_room_for_those_of_others(small: Any) -> None:
    dead = small.gateway.events.dead
    await dead.counts()
    assert dead.shares.most == MOST // 4
    death = Death("retries_exhausted", 1, {"type": "test"})

    async def die(namespace: str, number: int) -> None:
        await dead.put(Lane("async", namespace, "f"), {}, BODY, death, msg_id=f"{namespace}/{number}")

    number = 0
    while not dead.shares.crowded("async", "noisy/f"):
        await die("noisy", number)
        number += 1
    assert MOST / 4 * 0.35 < number * len(BODY) < MOST / 4 * 0.6
    await die("quiet", 0)
    assert await dead.counts() == {("async", "noisy/f"): number, ("async", "quiet/f"): 1}
    with pytest.raises(UnavailableError, match="given up"):
        await die("noisy", number)
    assert await dead.purge("async", "noisy") == number
    await dead.counts()
    await die("noisy", number)
