"""Large bodies at `/events/` and `/hooks/`: read beside the loop, stored in the bucket, delivered whole."""

import asyncio
import hashlib
import hmac
import json
from typing import Any

import pytest
from kappa_auth_world import secret

from kappa_api.tokens import pod_token
from kappa_gateway.settings import Limits

MIB = 1024 * 1024
CE = ("ce-specversion: 1.0", "ce-id: 1", "ce-source: /cameras", "ce-type: picture")
STRUCTURED = "content-type: application/cloudevents+json"


def trigger(rig: Any, name: str, source: Any, **spec: Any) -> None:
    meta = {"namespace": "default", "name": name, "uid": f"uid-{name}", "generation": 1}
    rig.gateway.events.host.triggers.put({"metadata": meta, "spec": {"function": name, "source": source, **spec}})


def pod() -> tuple[str, str]:
    return f"Authorization: Bearer {pod_token(b'secret', 'default', 'pod-1')}", "kappa-pod: default/pod-1"


async def arrived(instance: Any) -> list[Any]:
    async with asyncio.timeout(30):
        while not instance.seen:
            instance.arrived.clear()
            await instance.arrived.wait()
    found: list[Any] = json.loads(instance.seen[0].body)
    return found


@pytest.mark.parametrize(
    ("name", "kind", "data"),
    [("bytes", "image/png", bytes(range(256)) * 4096 * 6), ("texts", "text/plain", "ä\n" * 3 * MIB)],
)
async def test_a_posted_event_of_many_mebibytes_arrives(front: Any, name: str, kind: str, data: Any) -> None:
    front.function(name, signature="asgi")
    instance = await front.instance(name)
    trigger(front, name, {"event": {"sources": [f"/{name}"]}})
    body = data if isinstance(data, bytes) else data.encode()
    lines = (f"content-type: {kind}", *CE[:2], f"ce-source: /{name}", CE[3], *pod())
    answer = await front.get("/events/default", *lines, method="POST", body=body)
    assert (answer.status, json.loads(answer.body)) == (202, {"accepted": 1, "matched": 1})
    async with asyncio.timeout(30):
        await instance.arrived.wait()
    (seen,) = instance.seen
    assert (seen.get("ce-source"), seen.get("content-type"), seen.body == body) == (f"/{name}", kind, True)
    assert front.gateway.bodies.budget.used == 0


async def test_filters_see_into_a_large_event(front: Any) -> None:
    front.function("rows")
    instance = await front.instance("rows")
    trigger(front, "rows", {"event": {"types": ["row"]}}, filter={"data": {"kind": ["wanted"]}})
    data = {"kind": "wanted", "rows": [{"n": n, "text": "x" * 100} for n in range(20_000)]}
    for id_, kind in (("1", "other"), ("2", "wanted")):
        event = {"specversion": "1.0", "id": id_, "source": "/s", "type": "row", "data": {**data, "kind": kind}}
        answer = await front.get("/events/default", STRUCTURED, *pod(), method="POST", body=json.dumps(event).encode())
        assert answer.status == 202
    (found,) = await arrived(instance)
    assert (found["id"], found["data"]) == ("2", data)


async def test_a_large_hook_arrives(front: Any) -> None:
    front.function("pushed")
    instance = await front.instance("pushed")
    trigger(front, "pushed", {"webhook": {"preset": "github", "secretRef": {"name": "hub"}}})
    front.gateway.events.host.secrets.put(secret("hub", kind="kappa.dev/source", secret="s3cret"))
    data = {"ref": "main", "blob": "z" * 3 * MIB}
    body = json.dumps(data).encode()
    digest = hmac.new(b"s3cret", body, hashlib.sha256).hexdigest()
    lines = (f"X-Hub-Signature-256: sha256={digest}", "X-GitHub-Event: push", "X-GitHub-Delivery: 1")
    refused = await front.get("/hooks/default/pushed", *lines, method="POST", body=body[:-1] + b" ")
    assert refused.status == 401
    answer = await front.get("/hooks/default/pushed", *lines, method="POST", body=body)
    assert answer.status == 200, answer.body
    (found,) = await arrived(instance)
    assert found["data"] == data
    assert len(instance.seen) == 1
    many = b"[" + b"0," * 600_000 + b"0]"
    signed = f"X-Hub-Signature-256: sha256={hmac.new(b's3cret', many, hashlib.sha256).hexdigest()}"
    answer = await front.get("/hooks/default/pushed", signed, *lines[1:], method="POST", body=many)
    assert (answer.status, "at most 500000 values" in answer.error["message"]) == (413, True)


async def test_what_is_made_of_a_body_counts_as_well(make_front: Any) -> None:
    """A body of a quarter of the budget fits, as one and its event; a larger one does not."""
    front = await make_front(limits=Limits(held_total_bytes=8 * MIB))
    front.function("budget")
    trigger(front, "budget", {"event": {"types": ["picture"]}})
    for size, status in ((2 * MIB, 202), (3 * MIB, 503), (2 * MIB, 202)):
        lines = ("content-type: image/png", *CE, *pod())
        answer = await front.get("/events/default", *lines, method="POST", body=b"x" * size)
        assert answer.status == status, answer.body
    assert front.gateway.bodies.budget.used == 0


async def test_others_are_served_while_a_large_body_is_read(front: Any) -> None:
    """It is parsed in a thread: the loop turns meanwhile."""
    front.function("busy")
    trigger(front, "busy", {"event": {"types": ["busy"]}})
    event = {"specversion": "1.0", "id": "1", "source": "/s", "type": "busy", "data": [[1, 2]] * 150_000}
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += aside.locked()

    aside = front.gateway.front._publish._aside._one
    counting = asyncio.ensure_future(count())
    try:
        body = json.dumps(event).encode()
        assert len(body) > MIB
        answer = await front.get("/events/default", STRUCTURED, *pod(), method="POST", body=body)
    finally:
        counting.cancel()
    assert answer.status == 202
    assert turns > 10
