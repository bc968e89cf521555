"""How much may be posted to `/events/` and `/hooks/`: rates of Triggers, callers and batches, how deep JSON is."""

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
BATCHED = "content-type: application/cloudevents-batch+json"
STRUCTURED = "content-type: application/cloudevents+json"
DEPTH = 100_000


def trigger(rig: Any, name: str, source: Any, **spec: Any) -> None:
    meta = {"namespace": "default", "name": name, "uid": f"uid-{name}", "generation": 1}
    spec = {"function": name, "source": source, **spec}
    rig.gateway.events.host.triggers.put({"metadata": meta, "spec": spec})


def limited(types: str, requests: int, key: str = "rate", **source: Any) -> dict[str, Any]:
    """So slow that nothing comes back while a test runs."""
    return {"event": {"types": [types], "limits": {key: {"requests": requests, "perSeconds": 3600}}, **source}}


def pod(name: str = "pod-1") -> tuple[str, str]:
    return f"Authorization: Bearer {pod_token(b'secret', 'default', name)}", f"kappa-pod: default/{name}"


def event(id_: int | str, type_: str) -> dict[str, Any]:
    return {"specversion": "1.0", "id": str(id_), "source": "/shop", "type": type_}


async def post(rig: Any, *events: dict[str, Any], lines: tuple[str, ...] = pod()) -> Any:
    body = json.dumps(list(events)).encode()
    return await rig.get("/events/default", BATCHED, *lines, method="POST", body=body)


def received(rig: Any, *names: str) -> list[int]:
    return [rig.gateway.events.host.triggers.counts(f"default/{name}").received for name in names]


def rejected(rig: Any, name: str) -> dict[str, int]:
    found: dict[str, int] = rig.gateway.events.host.triggers.counts(f"default/{name}").rejected
    return found


# --- events -----------------------------------------------------------------------------------------------------------
async def test_a_rate_refuses_the_whole(front: Any) -> None:
    trigger(front, "slow", limited("whole.*", 3))
    trigger(front, "free", {"event": {"types": ["whole.*", "other"]}})
    for id_ in range(3):
        assert (await post(front, event(id_, "whole.a"))).status == 202
    answer = await post(front, event(3, "whole.a"), event(4, "other"))
    assert (answer.status, answer.error["code"]) == (429, "rate_limited")
    assert answer.error["message"] == "the Trigger default/slow takes 3 in 3600 s from all callers together"
    assert 1000 < int(answer.headers["retry-after"]) <= 1200
    assert answer.headers["ratelimit-policy"] == '"trigger";q=3;w=3600'
    assert received(front, "slow", "free") == [3, 3]  # no half acceptance
    assert rejected(front, "slow") == {"trigger_rate": 1}
    # What the limited one does not want is not held up by it
    assert (await post(front, event(4, "other"))).status == 202
    assert received(front, "slow", "free") == [3, 4]


async def test_events_of_a_batch_count(front: Any) -> None:
    trigger(front, "batch", limited("batch", 5))
    many = [event(id_, "batch") for id_ in range(12)]
    assert (await post(front, *many[:4])).status == 202
    assert (await post(front, *many[4:6])).status == 429
    assert received(front, "batch") == [4]
    assert (await post(front, many[4])).status == 202  # what is refused costs nothing
    assert (await post(front, many[5])).status == 429
    # More than a burst is taken from a full bucket, and owed
    trigger(front, "large", limited("large", 5))
    assert (await post(front, *(event(id_, "large") for id_ in range(12)))).status == 202
    answer = await post(front, event(13, "large"))
    assert answer.status == 429
    assert 7 * 720 < int(answer.headers["retry-after"]) <= 8 * 720
    assert received(front, "large") == [12]


async def test_only_what_the_filter_lets_pass_counts(front: Any) -> None:
    trigger(front, "sieve", limited("sieve", 2), filter={"subject": ["x"]})
    for id_ in range(10):
        assert (await post(front, event(id_, "sieve"))).status == 202
    assert [(await post(front, {**event(id_, "sieve"), "subject": "x"})).status for id_ in (20, 21, 22)] == [
        202,
        202,
        429,
    ]


async def test_each_caller_has_an_account(front: Any) -> None:
    front.gateway.guard.keys.put(secret("robots", r2d2=hashed("beep"), c3po=hashed("oh")))
    trigger(front, "each", limited("each", 2, "callerRate", auth=KEYS))
    ids = iter(range(100))

    async def statuses(*lines: str) -> list[int]:
        return [(await post(front, event(next(ids), "each"), lines=lines)).status for _ in range(3)]

    for lines in (("x-api-key: beep",), ("x-api-key: oh",), pod("pod-a"), pod("pod-b")):
        assert await statuses(*lines) == [202, 202, 429], lines
    assert rejected(front, "each") == {"caller_rate": 4}


async def test_it_is_refused_before_the_body(front: Any) -> None:
    trigger(front, "early", limited("early", 1))
    trigger(front, "later", {"event": {"types": ["later"]}})
    assert (await post(front, event(1, "early"))).status == 202
    names = ["ce-specversion: 1.0", "ce-id: 1", "ce-source: s", "content-length: 10", "expect: 100-continue"]
    for type_, status in (("early", 429), ("later", 100)):
        head = "\r\n".join(["POST /events/default HTTP/1.1", "host: gw", *pod(), *names, f"ce-type: {type_}"])
        caller = await front.caller()
        caller.send(head + "\r\n\r\n")
        assert (await caller.head())[0] == status, type_


async def test_the_gateways_own_rates(make_front: Any) -> None:
    front = await make_front(limits=Limits(event_rate=Rate(2, 3600), event_caller_rate=Rate(1, 3600)))
    trigger(front, "plain", {"event": {"types": ["plain"]}})
    found = [(await post(front, event(id_, "plain"), lines=pod(f"pod-{id_}"))).status for id_ in range(3)]
    assert found == [202, 202, 429]
    trigger(front, "own", limited("own", 50))
    assert (await post(front, event(1, "own"))).status == 202
    answer = await post(front, event(2, "own"))
    assert (answer.status, answer.headers["ratelimit-policy"]) == (429, '"caller";q=1;w=3600')


# --- hooks ------------------------------------------------------------------------------------------------------------
def hook(preset: str = "github", **limits: Any) -> dict[str, Any]:
    return {"webhook": {"preset": preset, "secretRef": {"name": "hub"}, "limits": limits}}


def signed(body: bytes, number: int, key: bytes = b"s3cret") -> tuple[str, ...]:
    digest = hmac.new(key, body, hashlib.sha256).hexdigest()
    return f"X-Hub-Signature-256: sha256={digest}", "X-GitHub-Event: push", f"X-GitHub-Delivery: {number}"


@pytest.fixture
def hooked(front: Any) -> Any:
    front.gateway.events.host.secrets.put(secret("hub", kind="kappa.dev/source", secret="s3cret"))
    return front


async def push(rig: Any, name: str, number: int, key: bytes = b"s3cret", body: bytes = b"{}") -> Any:
    return await rig.get(f"/hooks/default/{name}", *signed(body, number, key), method="POST", body=body)


async def test_a_hooks_rate(hooked: Any) -> None:
    trigger(hooked, "pushes", hook(rate={"requests": 2, "perSeconds": 3600}))
    for number in range(20):  # strangers do not use it up
        assert (await push(hooked, "pushes", number, b"guess")).status == 401
    assert [(await push(hooked, "pushes", number)).status // 100 for number in range(2)] == [2, 2]
    answer = await push(hooked, "pushes", 3)
    assert (answer.status, answer.error["code"]) == (429, "rate_limited")
    assert 1500 < int(answer.headers["retry-after"]) <= 1800
    assert received(hooked, "pushes") == [2]
    caller = await hooked.caller()  # and now it is not even read
    caller.send("POST /hooks/default/pushes HTTP/1.1\r\nhost: gw\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n")
    assert (await caller.head())[0] == 429


async def test_an_address_that_proves_nothing_is_limited(hooked: Any) -> None:
    trigger(hooked, "guessed", hook(callerRate={"requests": 3, "perSeconds": 3600}))
    found = [(await push(hooked, "guessed", number, b"guess")).status for number in range(5)]
    assert found == [401, 401, 401, 429, 429]
    assert rejected(hooked, "guessed") == {"caller_rate": 2}


async def test_records_of_a_bucket_count(hooked: Any) -> None:
    limits = {"rate": {"requests": 5, "perSeconds": 3600}}
    trigger(hooked, "bucket", {"s3": {"secretRef": {"name": "hub"}, "limits": limits}})

    async def told(*keys: str) -> int:
        records = [
            {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "b"}, "object": {"key": key}}} for key in keys
        ]
        body = json.dumps({"Records": records}).encode()
        lines = ("authorization: Bearer s3cret", "content-type: application/json")
        answer = await hooked.get("/hooks/default/bucket", *lines, method="POST", body=body)
        return int(answer.status)

    assert await told("a", "b", "c") == 200
    assert await told("d", "e", "f") == 429
    assert received(hooked, "bucket") == [3]
    assert await told("d", "e") == 200
    assert (await hooked.get("/hooks/default/bucket")).status == 200  # whether anybody listens costs nothing


# --- nesting ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("depth", [250, 900, 970, DEPTH])
@pytest.mark.parametrize("shape", ["list", "object"])
async def test_json_that_is_too_deep_is_a_bad_request(hooked: Any, depth: int, shape: str) -> None:
    front, name = hooked, f"deep-{shape}-{depth}"
    nested = b"[" * depth + b"]" * depth if shape == "list" else b'{"a":' * depth + b"1" + b"}" * depth
    trigger(front, name, {"event": {"types": [name]}})
    trigger(front, f"{name}-hook", hook())
    binary = ("ce-specversion: 1.0", "ce-id: 1", "ce-source: s", f"ce-type: {name}", "content-type: application/json")
    whole = json.dumps(event(1, name))[:-1].encode() + b', "data": ' + nested + b"}"
    token = "authorization: Bearer s3cret"
    trigger(front, f"{name}-s3", {"s3": {"secretRef": {"name": "hub"}}})
    for path, lines, body in (
        ("/events/default", (*binary, *pod()), nested),
        ("/events/default", (STRUCTURED, *pod()), whole),
        ("/events/default", (BATCHED, *pod()), b"[" + whole + b"]"),
        (f"/hooks/default/{name}-hook", ("content-type: application/json", *signed(nested, 1)), nested),
        (f"/hooks/default/{name}-s3", (token,), b'{"Records": [' + nested + b"]}"),
    ):
        answer = await front.get(path, *lines, method="POST", body=body)
        assert answer.status == 400, (path, answer.body)
        assert "nested more than 200 deep" in json.loads(answer.body)["error"]["message"], path
    assert received(front, name, f"{name}-hook", f"{name}-s3") == [0, 0, 0]
