"""Who may call asynchronously and ask for the result: the function's own callers, checked the same way both times."""

import asyncio
import base64
import json
from typing import Any

from kappa_auth_world import hashed, secret
from kappa_events_rig import answers
from kappa_gateway_rig import Seen, reply

KEYS = {"type": "apiKey", "apiKey": {"secrets": [{"name": "robots"}]}}
KEY = "x-api-key: beep"


def guarded(front: Any, name: str) -> None:
    front.function(name, http={"auth": KEYS})
    front.gateway.guard.keys.put(secret("robots", r2d2=hashed("beep"), c3po=hashed("boop")))


async def test_a_guarded_function(front: Any) -> None:
    guarded(front, "guarded")
    instance = await front.instance("guarded")
    assert (await front.get("/async/default/guarded", method="POST")).status == 401
    assert (await front.get("/fn/default/guarded", "prefer: respond-async", method="POST")).status == 401
    answer = await front.get("/async/default/guarded", KEY, method="POST")
    place = answer.headers["location"]
    assert (await front.get(place)).status == 401
    assert (await front.get(place, "x-api-key: wrong")).status == 401
    assert (await front.get(place, method="DELETE")).status == 401
    assert json.loads((await front.get(place, KEY, "prefer: wait=20")).body)["state"] == "succeeded"
    (seen,) = instance.seen
    assert (seen.get("kappa-identity-type"), seen.get("kappa-identity-principal")) == ("apiKey", "r2d2")
    assert seen.get("x-api-key") == ""


async def test_each_caller_has_keys_of_his_own(front: Any) -> None:
    guarded(front, "keyed")

    async def ask(*lines: str) -> str:
        answer = await front.get("/async/default/keyed", "idempotency-key: 1", *lines, method="POST")
        return str(json.loads(answer.body)["id"])

    mine, again, theirs = await ask(KEY), await ask(KEY), await ask("x-api-key: boop")
    assert mine == again != theirs


async def test_a_function_that_becomes_guarded(front: Any) -> None:
    """The rules of now count, not those of when the call came."""
    front.function("later", generation=1)
    place = (await front.get("/async/default/later", method="POST")).headers["location"]
    assert (await front.get(place)).status == 200
    front.function("later", generation=2, http={"auth": KEYS})
    assert (await front.get(place)).status in (401, 503)


async def test_what_a_deleted_function_answered_is_nobodys(front: Any) -> None:
    guarded(front, "deleted")
    await front.instance("deleted", answers(reply(200, b"for r2d2 alone")))
    place = (await front.get("/async/default/deleted", KEY, method="POST")).headers["location"]
    found = json.loads((await front.get(place, KEY, "prefer: wait=20")).body)
    assert found["result"]["body"] == "for r2d2 alone"
    front.gateway.catalog.remove_function("default/deleted")
    answer = await front.get(place)
    assert answer.status == 200
    assert json.loads(answer.body)["state"] == "succeeded"
    assert "result" not in json.loads(answer.body)
    assert (await front.get(place, method="DELETE")).status == 404


async def test_a_function_replaced_while_the_body_came(front: Any) -> None:
    front.function("replaced")
    caller = await front.caller()
    caller.send("POST /async/default/replaced HTTP/1.1\r\nhost: gw\r\ncontent-length: 4\r\n\r\nab")
    await front.until(lambda: len(front.gateway.deadlines) == 1)
    resource = {
        "metadata": {"namespace": "default", "name": "replaced", "uid": "another", "generation": 1},
        "spec": {"runtime": "python", "handler": "main.handler", "code": {"inline": ""}, "http": {"auth": KEYS}},
    }
    front.gateway.catalog.put_function(resource)
    caller.send("cd")
    answer = await caller.answer()
    assert (answer.status, answer.error["code"]) == (503, "not_ready")


async def test_results_that_are_no_text(front: Any) -> None:
    front.function("binary")
    data = bytes(range(256))

    async def behave(seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(200, data, "content-type: image/png", "kappa-duration-ms: 3"))

    await front.instance("binary", behave)
    place = (await front.get("/async/default/binary", method="POST")).headers["location"]
    result = json.loads((await front.get(place, "prefer: wait=20")).body)["result"]
    assert base64.b64decode(result["bodyBase64"]) == data
    assert result["headers"]["content-type"] == "image/png"
