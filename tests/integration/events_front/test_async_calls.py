"""Asynchronous calls as their callers see them, on a real NATS server: accepted, asked for, cancelled, refused."""

import asyncio
import json
from pathlib import Path
from typing import Any

from kappa_front_rig import connected
from kappa_gateway_rig import Seen, reply
from kappa_nats import NatsServer

from kappa_gateway.settings import Limits

PREFER = "prefer: respond-async"


async def wait_for(rig: Any, id_: str) -> dict[str, Any]:
    """What a final answer of the id says; the test fails when there is none in time."""
    async with asyncio.timeout(20):
        while True:
            answer = await rig.get(f"/async/{id_}", "prefer: wait=5")
            assert answer.status == 200, answer.body
            found: dict[str, Any] = json.loads(answer.body)
            if found["state"] in ("succeeded", "failed", "expired", "cancelled"):
                return found


async def test_prefer_respond_async(front: Any) -> None:
    front.function("prefer")
    answer = await front.get(
        "/fn/default/prefer/a%2Fb?x=1",
        "Prefer: return=minimal, Respond-Async; x=1, wait=10",
        "x-mine: 1",
        "kappa-attempt: 9",
        "x-request-id: r-1",
        "content-type: text/plain",
        method="POST",
        body=b"hello",
    )
    told = json.loads(answer.body)
    assert answer.status == 202
    assert told == {"id": told["id"], "state": "queued", "url": f"/async/{told['id']}"}
    assert answer.headers == {
        "kappa-request-id": "r-1",
        "content-type": "application/json",
        "content-length": str(len(answer.body)),
        "location": told["url"],
        "preference-applied": "respond-async",
    }
    instance = await front.instance("prefer", behave=_say(reply(201, b"done", "x-answer: 1", "x-answer: 2")))
    found = await wait_for(front, told["id"])
    assert (found["state"], found["function"], found["attempts"]) == ("succeeded", "default/prefer", 1)
    assert found["result"]["status"] == 201
    assert found["result"]["body"] == "done"
    assert found["result"]["headers"]["x-answer"] == "1, 2"
    assert found["acceptedAt"] <= found["changedAt"] < found["expiresAt"]
    (seen,) = instance.seen
    assert (seen.method, seen.target, seen.body) == ("POST", "/a%2Fb?x=1", b"hello")
    fields = dict(seen.headers)
    assert fields["x-mine"] == "1"
    assert fields["host"] == "gw"
    assert fields["x-forwarded-prefix"] == "/fn/default/prefer"
    assert [value for name, value in seen.headers if name == "x-forwarded-for"] == ["127.0.0.1"]
    assert [value for name, value in seen.headers if name == "x-forwarded-host"] == ["gw"]
    assert "respond-async" not in str(seen.headers).lower()
    assert fields.get("kappa-attempt") != "9"
    await front.settled("prefer")


async def test_the_async_path_takes_any_method(front: Any) -> None:
    front.function("path")
    instance = await front.instance("path")
    for method, rest in (("GET", ""), ("DELETE", "/x?y=/z"), ("POST", "/"), ("HEAD", "/h")):
        answer = await front.get(f"/async/default/path{rest}", method=method)
        assert answer.status == 202
        assert "preference-applied" not in answer.headers
        await wait_for(front, answer.headers["location"].removeprefix("/async/"))
    assert [(seen.method, seen.target) for seen in instance.seen] == [
        ("GET", "/"),
        ("DELETE", "/x?y=/z"),
        ("POST", "/"),
        ("HEAD", "/h"),
    ]


async def test_host_routes(front: Any) -> None:
    front.function("routed", http={"routes": [{"path": "/o/{id}"}, {"host": "a.org", "path": "/async/{id}"}]})
    await front.until(lambda: front.gateway.catalog.routes.names_host("a.org", "GET", "/async/x"))
    instance = await front.instance("routed")
    answer = await front.get("/o/7", PREFER)
    assert answer.status == 202
    await wait_for(front, json.loads(answer.body)["id"])
    assert dict(instance.seen[0].headers)["kappa-path-parameters"] == "id=7"
    # A route that names its host wins over the platform's paths; other hosts have these
    ours = await front.ask("GET /async/x HTTP/1.1\r\nhost: a.org\r\n\r\n")
    assert (ours.status, ours.body) == (200, b"ok")
    theirs = await front.ask("GET /async/x HTTP/1.1\r\nhost: b.org\r\n\r\n")
    assert theirs.error["message"] == "this is no id of an asynchronous invocation"


async def test_a_route_for_any_host_does_not_win(front: Any) -> None:
    front.function("greedy", http={"routes": [{"path": "/{all+}"}]})
    await front.instance("greedy")
    await front.until(lambda: bool(front.gateway.catalog.routes._hosts))
    assert (await front.get("/anything")).status == 200
    assert (await front.get("/events/default", method="POST")).status == 401
    assert (await front.get("/hooks/default/x", method="POST")).status == 404
    assert (await front.get("/async/x")).status == 404


async def test_large_bodies_go_to_the_object_store(front: Any) -> None:
    front.function("large")
    instance = await front.instance("large")
    at_once, body = b"x" * 900 * 1024, bytes(range(256)) * 6000
    for sent in (at_once, body):
        answer = await front.get("/async/default/large", method="POST", body=sent)
        assert answer.status == 202, answer.body
        await wait_for(front, json.loads(answer.body)["id"])
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    answer = await front.ask(
        b"POST /async/default/large HTTP/1.1\r\nhost: gw\r\ntransfer-encoding: chunked\r\n\r\n" + chunked
    )
    await wait_for(front, json.loads(answer.body)["id"])
    assert [seen.body for seen in instance.seen] == [at_once, body, body]
    assert front.gateway.bodies.budget.used == 0


async def test_headers_that_no_message_can_hold(make_front: Any) -> None:
    front = await make_front(limits=Limits(header_bytes=64 * 1024, head_bytes=128 * 1024))
    front.function("headed")
    instance = await front.instance("headed")
    body, cookie = b"b" * (900 * 1024), 'a="' * 14_000
    answer = await front.get("/async/default/headed", f"cookie: {cookie}", method="POST", body=body)
    assert answer.status == 202, answer.body
    await wait_for(front, json.loads(answer.body)["id"])
    (seen,) = instance.seen
    assert seen.body == body
    assert seen.get("cookie") == cookie
    answer = await front.get("/async/default/headed", f"cookie: {cookie}{cookie[:8000]}", method="POST")
    assert (answer.status, answer.error["code"]) == (431, "headers_too_large")


async def test_limits_hold(make_front: Any) -> None:
    front = await make_front(limits=Limits(rate=None))
    front.function(
        "small", http={"maxBodyBytes": 10, "limits": {"rate": {"requests": 2, "perSeconds": 600, "burst": 2}}}
    )
    assert (await front.get("/async/default/small", method="POST", body=b"x" * 11)).error["code"] == "body_too_large"
    assert (await front.get("/async/default/small", method="POST", body=b"x" * 10)).status == 202
    assert (await front.get("/async/default/small", method="POST")).error["code"] == "rate_limited"
    assert (await front.get("/async/default/nobody", method="POST")).error["code"] == "not_found"
    assert (await front.get("/async/default/small/../x", method="POST")).error["code"] == "bad_request"
    assert (await front.get("/async/default/small/_kappa/drain", method="POST")).error["code"] == "not_found"
    assert front.gateway.bodies.budget.used == 0


async def test_a_full_queue_refuses_callers_and_not_what_can_wait(front: Any) -> None:
    front.function("full", http={"limits": {"maxWaiting": 1}})
    waiting = await front.caller()
    waiting.send("GET /fn/default/full HTTP/1.1\r\nhost: gw\r\n\r\n")
    await front.until(lambda: front.queue("full").waiting == 1)
    assert (await front.get("/fn/default/full")).error["code"] == "queue_full"
    assert (await front.get("/fn/default/full", PREFER)).status == 202
    await front.instance("full")
    assert (await waiting.answer()).status == 200


async def test_ids_that_are_none(front: Any) -> None:
    for id_ in ("", "x", "0" * 32, f"{'0' * 32}-", f"{'0' * 32}-1", f"{'0' * 32}-ZZ", f"{'0' * 32}-{'z' * 14}", "%78"):
        answer = await front.get(f"/async/{id_}")
        assert answer.error["code"] == "not_found", id_
    assert (await front.get("/async/x", method="POST")).headers["allow"] == "GET, HEAD, DELETE"


async def test_another_ones_sequence_tells_nothing(front: Any) -> None:
    front.function("secretive")
    answer = await front.get("/async/default/secretive", method="POST")
    id_ = json.loads(answer.body)["id"]
    assert (await front.get(f"/async/{id_}")).status == 200
    other = f"{'0' * 32}-{id_.partition('-')[2]}"
    assert (await front.get(f"/async/{other}")).status == 404
    assert (await front.get(f"/async/{other}", method="DELETE")).status == 404


async def test_cancelling(front: Any) -> None:
    front.function("cancelled")
    id_ = json.loads((await front.get("/async/default/cancelled", method="POST")).body)["id"]
    assert json.loads((await front.get(f"/async/{id_}")).body)["state"] == "queued"
    answer = await front.get(f"/async/{id_}", method="DELETE")
    assert (answer.status, json.loads(answer.body)["state"]) == (200, "cancelled")
    again = await front.get(f"/async/{id_}", method="DELETE")
    assert (again.status, json.loads(again.body)["state"]) == (200, "cancelled")
    instance = await front.instance("cancelled")
    after = json.loads((await front.get("/async/default/cancelled", method="POST")).body)["id"]
    await wait_for(front, after)
    assert len(instance.seen) == 1
    late = await front.get(f"/async/{after}", method="DELETE")
    assert (late.status, late.error["message"]) == (409, "it cannot be cancelled any more: it is succeeded")


async def test_a_running_one_is_not_cancelled(front: Any) -> None:
    front.function("busy")
    go_on = asyncio.Event()

    async def slow(seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(reply())

    instance = await front.instance("busy", behave=slow)
    id_ = json.loads((await front.get("/async/default/busy", method="POST")).body)["id"]
    await instance.arrived.wait()
    answer = await front.get(f"/async/{id_}", method="DELETE")
    assert (answer.status, answer.error["code"]) == (409, "conflict")
    assert "running" in answer.error["message"]
    go_on.set()
    assert (await wait_for(front, id_))["state"] == "succeeded"


async def test_waiting_for_the_end(front: Any) -> None:
    front.function("awaited")
    id_ = json.loads((await front.get("/async/default/awaited", method="POST")).body)["id"]
    waiting = await front.caller()
    waiting.send(f"GET /async/{id_} HTTP/1.1\r\nhost: gw\r\nprefer: wait=30\r\n\r\n")
    await front.instance("awaited")
    answer = await waiting.answer()
    assert json.loads(answer.body)["state"] == "succeeded"
    assert answer.headers["preference-applied"] == "wait=30"
    assert answer.headers["cache-control"] == "no-store"
    head = await front.get(f"/async/{id_}", method="HEAD")
    assert (head.status, head.body) == (200, b"")


async def test_idempotency_keys(front: Any) -> None:
    front.function("once")
    front.function("twice")

    async def ask(path: str, body: bytes, key: str = "k 1") -> Any:
        return await front.get(f"/async/default/{path}", f"Idempotency-Key: {key}", method="POST", body=body)

    first, again = await ask("once", b"a"), await ask("once", b"a")
    assert (first.status, again.status) == (202, 202)
    assert json.loads(first.body)["id"] == json.loads(again.body)["id"]
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    other = await ask("once", b"b")
    assert (other.status, other.error["code"]) == (422, "key_reused")
    assert (await ask("once/x", b"a")).status == 422
    ids = {json.loads((await ask(path, b"a", key)).body)["id"] for path, key in (("twice", "k 1"), ("once", "k 2"))}
    assert len(ids | {json.loads(first.body)["id"]}) == 3
    assert (await ask("once", b"a", "x" * 256)).error["code"] == "bad_request"
    assert (await ask("once", b"a", "")).error["code"] == "bad_request"
    instance = await front.instance("once")
    await wait_for(front, json.loads(first.body)["id"])
    assert [seen.get("idempotency-key") for seen in instance.seen].count("k 1") == 1


async def test_pages_of_other_origins(front: Any) -> None:
    origin, wants = "origin: https://a.org", "access-control-request-method: POST"
    cors = {"allowOrigins": ["https://a.org"], "allowMethods": ["POST", "GET"], "allowHeaders": ["prefer"]}
    front.function("paged", http={"cors": cors})
    front.function("plain")
    asked = await front.get("/async/default/paged", origin, wants, method="OPTIONS")
    assert (asked.status, asked.headers["access-control-allow-origin"]) == (204, "https://a.org")
    answer = await front.get("/async/default/paged", origin, method="POST")
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (202, "https://a.org")
    place = answer.headers["location"]
    asked = await front.get(place, origin, "access-control-request-method: GET", method="OPTIONS")
    assert asked.status == 204
    assert (await front.get(place, origin)).headers["access-control-allow-origin"] == "https://a.org"
    assert (await front.get("/async/default/plain", origin, wants, method="OPTIONS")).error["code"] == "cors_refused"
    place = (await front.get("/async/default/plain", method="POST")).headers["location"]
    assert (await front.get(place, origin, wants, method="OPTIONS")).error["code"] == "cors_refused"


async def test_websockets_have_no_later(front: Any) -> None:
    front.function("socket")
    instance = await front.instance("socket")
    upgrade = "upgrade: websocket", "connection: upgrade"
    assert (await front.get("/fn/default/socket", PREFER, *upgrade)).status == 200  # the preference is not looked at
    assert len(instance.seen) == 1
    assert (await front.get("/async/default/socket", *upgrade)).error["code"] == "bad_request"


async def test_the_connection_is_kept(front: Any) -> None:
    front.function("kept")
    caller = await front.caller()
    for _ in range(3):
        answer = await caller.ask(
            "POST /async/default/kept HTTP/1.1\r\nhost: gw\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\nhi"
        )
        assert answer.status == 202
        if "connection" in answer.headers:
            caller = await front.caller()
        plain = await caller.ask("POST /async/default/kept HTTP/1.1\r\nhost: gw\r\ncontent-length: 2\r\n\r\nhi")
        assert plain.status == 202
        assert "connection" not in plain.headers
        asked = await caller.ask(f"GET {plain.headers['location']} HTTP/1.1\r\nhost: gw\r\n\r\n")
        assert asked.status == 200
        assert "connection" not in asked.headers
    unread = await caller.ask(
        f"GET {plain.headers['location']} HTTP/1.1\r\nhost: gw\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n"
    )
    assert (unread.status, unread.headers["connection"]) == (200, "close")  # its caller may never send the body


async def test_behind_a_proxy_that_is_trusted(make_front: Any) -> None:
    front = await make_front(trust_forwarded=True)
    front.function("behind")
    instance = await front.instance("behind")
    lines = ("x-forwarded-for: 203.0.113.7", "x-forwarded-host: shop.example.org", "x-forwarded-proto: https")
    answer = await front.get("/async/default/behind", *lines, method="POST")
    await wait_for(front, json.loads(answer.body)["id"])
    forwarded = [(name, value) for name, value in instance.seen[0].headers if name.startswith("x-forwarded-")]
    assert sorted(forwarded) == [
        ("x-forwarded-for", "203.0.113.7, 127.0.0.1"),
        ("x-forwarded-host", "shop.example.org"),
        ("x-forwarded-prefix", "/fn/default/behind"),
        ("x-forwarded-proto", "https"),
    ]


async def test_a_body_that_stops_coming_is_thrown_away(make_front: Any) -> None:
    front = await make_front(events={"message_bytes": 4096}, limits=Limits(body_idle_seconds=0.2))
    front.function("broken")
    caller = await front.caller()
    caller.send(b"POST /async/default/broken HTTP/1.1\r\nhost: gw\r\ncontent-length: 500000\r\n\r\n" + b"x" * 200_000)
    answer = await caller.answer()
    assert answer.error["code"] == "request_timeout"
    assert front.gateway.events.submit.accepted == 0
    assert front.gateway.bodies.budget.used == 0


async def test_nats_is_away(away: Any) -> None:
    away.function("hello")
    await away.instance()
    for path, method in (
        ("/async/default/hello", "POST"),
        ("/async/x-1", "GET"),
        ("/events/default", "POST"),
        ("/hooks/default/x", "POST"),
    ):
        answer = await away.get(path, method=method)
        assert (answer.status, answer.error["code"]) == (503, "events_away"), path
        assert int(answer.headers["retry-after"]) >= 1
    answer = await away.get("/fn/default/hello", PREFER, method="POST", body=b"x")
    assert (answer.status, answer.error["code"]) == (503, "events_away")
    assert (await away.get("/fn/default/hello")).status == 200


async def test_nats_goes_and_comes_back(tmp_path: Path) -> None:
    server = NatsServer(tmp_path)
    await server.start()
    try:
        async with connected(server.url) as front:
            front.gateway.ready = True
            await front.gateway.events.ready.wait()
            front.function("steady")
            await front.instance("steady")
            caller = await front.caller()
            ask = "POST /async/default/steady HTTP/1.1\r\nhost: gw\r\ncontent-length: 0\r\n\r\n"
            before = await caller.ask(ask)
            assert before.status == 202
            await server.kill()
            await front.until(lambda: not front.gateway.events.bus.up)
            assert (await caller.ask(ask)).error["code"] == "events_away"
            assert (await caller.ask(f"GET {before.headers['location']} HTTP/1.1\r\nhost: gw\r\n\r\n")).status == 503
            assert (await caller.ask("GET /fn/default/steady HTTP/1.1\r\nhost: gw\r\n\r\n")).status == 200
            await server.start()
            async with asyncio.timeout(20):
                while (after := await caller.ask(ask)).status != 202:
                    await asyncio.sleep(0.05)
            assert (await wait_for(front, json.loads(after.body)["id"]))["state"] == "succeeded"
            assert (await wait_for(front, json.loads(before.body)["id"]))["state"] == "succeeded"
    finally:
        await server.stop()


def _say(data: bytes) -> Any:
    async def behave(seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return behave
