"""`/events/` and `/hooks/`: who may post what, and that it arrives at the Trigger's function."""

import asyncio
import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from kappa_auth_world import hashed, secret

from kappa_api.limits import Rate
from kappa_api.tokens import pod_token
from kappa_gateway.settings import Limits

KEYS = {"type": "apiKey", "apiKey": {"secrets": [{"name": "robots"}]}}
EVENT = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "order.created", "data": {"total": 7}}
STRUCTURED = "content-type: application/cloudevents+json"
BATCHED = "content-type: application/cloudevents-batch+json"


def trigger(rig: Any, name: str, function: str, source: Any, **spec: Any) -> None:
    meta = {"namespace": "default", "name": name, "uid": f"uid-{name}", "generation": 1}
    spec = {"function": function, "source": source, **spec}
    rig.gateway.events.host.triggers.put({"metadata": meta, "spec": spec})


def pod(namespace: str = "default", name: str = "pod-1", key: bytes = b"secret") -> tuple[str, str]:
    return f"Authorization: Bearer {pod_token(key, namespace, name)}", f"kappa-pod: {namespace}/{name}"


async def post(rig: Any, *lines: str, event: Any = EVENT, kind: str = STRUCTURED, namespace: str = "default") -> Any:
    return await rig.get(f"/events/{namespace}", kind, *lines, method="POST", body=json.dumps(event).encode())


async def arrived(instance: Any, count: int) -> list[Any]:
    """The data of the first events that an instance got, in order of their ids."""
    async with asyncio.timeout(20):
        while len(instance.seen) < count:
            instance.arrived.clear()
            await instance.arrived.wait()
    found = [event for seen in instance.seen for event in json.loads(seen.body)]
    return sorted(found, key=lambda event: event["id"])


async def test_the_three_modes(front: Any) -> None:
    front.function("modes")
    instance = await front.instance("modes", concurrency=10)
    trigger(front, "modes", "modes", {"event": {"types": ["order.*"]}})
    answer = await post(front, *pod())
    assert (answer.status, json.loads(answer.body)) == (202, {"accepted": 1, "matched": 1})
    ce = ("ce-specversion: 1.0", "ce-id: 2", "ce-source: /shop", "ce-type: order.paid", "ce-subject: Z%C3%BCrich")
    lines = ("content-type: application/json", *ce, *pod())
    answer = await front.get("/events/default", *lines, method="POST", body=b'{"total": 8}')
    assert answer.status == 202
    others = [{**EVENT, "id": "3"}, {**EVENT, "id": "4", "type": "weather"}, {**EVENT, "id": "5"}]
    answer = await post(front, *pod(), event=others, kind=BATCHED)
    assert json.loads(answer.body) == {"accepted": 3, "matched": 2}
    found = await arrived(instance, 4)
    assert [event["id"] for event in found] == ["1", "2", "3", "5"]
    assert found[0] == EVENT
    assert (found[1]["data"], found[1]["subject"]) == ({"total": 8}, "Zürich")
    assert instance.seen[0].get("kappa-event-shape").startswith("cloudevent")


async def test_what_is_repeated_is_delivered_once(front: Any) -> None:
    front.function("repeated")
    instance = await front.instance("repeated")
    trigger(front, "repeated", "repeated", {"event": {"types": ["repeated"]}})
    for id_ in ("a", "a", "a", "b"):
        assert (await post(front, *pod(), event={**EVENT, "id": id_, "type": "repeated"})).status == 202
    assert [event["id"] for event in await arrived(instance, 2)] == ["a", "b"]
    counts = front.gateway.events.host.triggers.counts("default/repeated")
    assert (counts.received, counts.duplicates) == (2, 2)


async def test_only_pods_of_the_namespace(front: Any) -> None:
    front.function("inside")
    trigger(front, "inside", "inside", {"event": {"types": ["inside"]}})
    strangers: list[tuple[str, ...]] = [
        (),
        pod(key=b"other"),
        pod(namespace="other"),
        (pod(namespace="other")[0], "kappa-pod: default/pod-1"),
        ("kappa-pod: default/pod-1",),
        (pod()[0],),
        (pod()[0], "kappa_pod: default/pod-1"),
        (pod()[0], "kappa-pod: default/"),
        (*pod(), "Authorization: Bearer x"),
    ]
    for lines in strangers:
        answer = await post(front, *lines, event={**EVENT, "type": "inside"})
        assert (answer.status, answer.error["code"]) == (401, "unauthorized"), lines
        assert "www-authenticate" in answer.headers
    # Whether there are Triggers does not show
    assert (await post(front, namespace="nobody")).status == 401
    answer = await post(front, *pod("nobody"), namespace="nobody")
    assert (answer.status, json.loads(answer.body)) == (202, {"accepted": 1, "matched": 0})
    assert front.gateway.events.host.triggers.counts("default/inside").received == 0


async def test_a_strangers_body_is_not_read(front: Any) -> None:
    caller = await front.caller()
    caller.send("POST /events/default HTTP/1.1\r\nhost: gw\r\ncontent-length: 100000\r\nexpect: 100-continue\r\n\r\n")
    status, headers = await caller.head()  # not 100
    assert (status, headers["connection"]) == (401, "close")


async def test_a_triggers_auth_lets_others_in_to_it_alone(front: Any) -> None:
    front.gateway.guard.keys.put(secret("robots", r2d2=hashed("beep")))
    for name, auth in (("keyed", {"auth": KEYS}), ("open", {"auth": {"type": "none"}}), ("closed", {})):
        trigger(front, name, name, {"event": {"types": ["from-outside"], **auth}})

    names = ("keyed", "open", "closed")

    async def received(id_: str, *lines: str) -> dict[str, int]:
        before = {name: front.gateway.events.host.triggers.counts(f"default/{name}").received for name in names}
        answer = await post(front, *lines, event={**EVENT, "id": id_, "type": "from-outside"})
        assert answer.status == 202
        return {
            name: front.gateway.events.host.triggers.counts(f"default/{name}").received - count
            for name, count in before.items()
        }

    assert await received("o1") == {"keyed": 0, "open": 1, "closed": 0}
    assert await received("o2", "x-api-key: wrong") == {"keyed": 0, "open": 1, "closed": 0}
    assert await received("o3", "x-api-key: beep") == {"keyed": 1, "open": 1, "closed": 0}
    assert await received("o4", *pod()) == {"keyed": 1, "open": 1, "closed": 1}


async def test_rbac_is_asked_about_the_trigger(front: Any) -> None:
    asked: list[Any] = []

    class Reviews:
        async def post(self, path: str, body: Any) -> Any:
            asked.append(body["spec"])
            known = "good" in body["spec"].get("token", "good")
            allowed = body["spec"].get("resourceAttributes", {}).get("name") == "granted"
            return {"status": {"authenticated": known, "user": {"username": "sa"}, "allowed": allowed}}

    front.gateway.guard.use(Reviews())
    for name in ("granted", "denied"):
        trigger(front, name, name, {"event": {"types": ["rbac"], "auth": {"type": "kubernetes"}}})
    event = {**EVENT, "type": "rbac"}
    assert (await post(front, "Authorization: Bearer bad", event=event)).status == 401
    assert (await post(front, "Authorization: Bearer good", event=event)).status == 202
    counts = front.gateway.events.host.triggers.counts
    assert (counts("default/granted").received, counts("default/denied").received) == (1, 0)
    attributes = next(spec["resourceAttributes"] for spec in asked if "resourceAttributes" in spec)
    assert attributes == {
        "namespace": "default",
        "verb": "invoke",
        "group": "kappa.dev",
        "version": "v1",
        "resource": "triggers",
        "name": "granted",
    }


async def test_failed_credentials_are_limited(make_front: Any) -> None:
    front = await make_front(limits=Limits(auth_failures=Rate(1, 600, 3)))
    statuses = [(await post(front, *pod(key=b"guess"))).status for _ in range(5)]
    assert statuses[0] == 401
    assert statuses[-1] == 429


@pytest.mark.parametrize(
    ("kind", "body", "status", "says"),
    [
        (STRUCTURED, b"{}", 400, "specversion"),
        (BATCHED, json.dumps([EVENT, {**EVENT, "id": ""}]).encode(), 400, "event 1: id"),
        ("content-type: application/json", b"{}", 400, "no CloudEvent"),
        ("content-type: application/cloudevents+avro", b"", 415, "JSON format"),
        (STRUCTURED, json.dumps({**EVENT, "subject": "x" * 1_100_000}).encode(), 413, "no message of this size"),
        (STRUCTURED, json.dumps({**EVENT, "data": [0] * 500_001}).encode(), 413, "at most 500000 values"),
        (STRUCTURED, b"{" * 1_100_000, 413, "at most 500000 values"),
        (STRUCTURED, b'{"data": "' + b"x" * 1_100_000, 400, "not JSON"),
        (STRUCTURED, b" " * (33 * 1024 * 1024), 413, "larger than"),
    ],
)
async def test_bad_events_refuse_the_whole(front: Any, kind: str, body: bytes, status: int, says: str) -> None:
    front.function("bad")
    trigger(front, "bad", "bad", {"event": {}})
    binary = ("ce-specversion: 1.0", "ce-id: 1", "ce-source: s", "ce-type: t") if "text/" in kind else ()
    answer = await front.get("/events/default", kind, *binary, *pod(), method="POST", body=body)
    assert answer.status == status
    assert says in answer.error["message"]
    assert front.gateway.events.host.triggers.counts("default/bad").received == 0
    assert front.gateway.bodies.budget.used == 0


async def test_paths_and_methods(front: Any) -> None:
    assert (await front.get("/events/default")).headers["allow"] == "POST"
    for path in ("/events/", "/events/a/b", "/events/A", "/events/a.b"):
        assert (await front.get(path, *pod(), method="POST")).status == 404, path


# --- hooks ------------------------------------------------------------------------------------------------------------
HOOK = {"webhook": {"preset": "github", "secretRef": {"name": "hub"}}}


def source_secret(rig: Any, name: str, **values: str) -> None:
    rig.gateway.events.host.secrets.put(secret(name, kind="kappa.dev/source", **values))


def signed(body: bytes, key: bytes = b"s3cret") -> tuple[str, ...]:
    digest = hmac.new(key, body, hashlib.sha256).hexdigest()
    return f"X-Hub-Signature-256: sha256={digest}", "X-GitHub-Event: push", f"X-GitHub-Delivery: {digest[:8]}"


async def test_a_signed_hook_arrives(front: Any) -> None:
    front.function("hooked")
    instance = await front.instance("hooked")
    trigger(front, "hooked", "hooked", HOOK)
    source_secret(front, "hub", secret="s3cret")
    body = json.dumps({"ref": "main"}).encode()
    answer = await front.get("/hooks/default/hooked", *signed(body), method="POST", body=body)
    assert 200 <= answer.status < 300, answer.body
    (event,) = await arrived(instance, 1)
    assert "push" in event["type"]
    refused = await front.get("/hooks/default/hooked/x?y=1", *signed(body, b"wrong"), method="POST", body=body)
    assert refused.status == 401
    assert len(instance.seen) == 1


async def test_hooks_that_are_none(front: Any) -> None:
    trigger(front, "posted", "posted", {"event": {}})
    trigger(front, "big", "big", HOOK)
    for path in ("/hooks/", "/hooks/default", "/hooks/default/", "/hooks/default/nobody", "/hooks/default/posted"):
        assert (await front.get(path, method="POST")).status == 404, path
    answer = await front.get("/hooks/default/big", method="POST", body=b"x" * (32 * 1024 * 1024 + 1))
    assert answer.error["code"] == "body_too_large"
    assert front.gateway.bodies.budget.used == 0


async def test_sns_is_challenged_and_its_subscription_told_of(front: Any) -> None:
    trigger(front, "topic", "topic", {"s3": {"secretRef": {"name": "store"}}})
    source_secret(front, "store", token="t")
    url = "https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&Token=1"
    arn = "arn:aws:sns:eu-central-1:123456789012:photos"
    asked = {"Type": "SubscriptionConfirmation", "TopicArn": arn, "Message": "You have", "SubscribeURL": url}
    kind = "x-amz-sns-message-type: SubscriptionConfirmation"

    async def say(message: Any, *lines: str) -> Any:
        return await front.get("/hooks/default/topic", kind, *lines, method="POST", body=json.dumps(message).encode())

    answer = await say(asked)
    assert (answer.status, answer.headers["www-authenticate"]) == (401, 'Basic realm="kappa"')
    counts = front.gateway.events.host.triggers.counts("default/topic")
    assert counts.message == ""
    basic = f"Authorization: Basic {base64.b64encode(b'kappa:t').decode()}"
    assert (await say(asked, basic)).status == 200
    assert counts.message == f"the SNS topic {arn} waits for its subscription to be confirmed: open {url}"
    test_message = json.dumps({"Event": "s3:TestEvent"})
    assert (await say({"Type": "Notification", "TopicArn": arn, "Message": test_message}, basic)).status == 200
    assert counts.message == ""
