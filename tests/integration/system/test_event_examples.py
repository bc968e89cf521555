"""Every example of events does what examples/README.md says, through kubectl, the gateway and NATS."""

import asyncio
import datetime
import hashlib
import hmac
import json
import os
import sys
import time
from typing import Any

import pytest
from kappa_platform import EXAMPLES, POLL_SECONDS, System

pytestmark = pytest.mark.asyncio(loop_scope="session")
PATIENCE = 30.0


async def applied(system: System, folder: str, *functions: str, change: tuple[str, str] = ("", "")) -> None:
    text = (EXAMPLES / folder / "function.yaml").read_text()
    assert change[0] in text
    answer = await system.apply(text.replace(*change) if change[0] else text)
    assert answer.ok, answer.text
    for name in functions:
        await system.ready(name)


async def logged(system: System, function: str, *texts: str) -> str:
    """The function's log as soon as all of `texts` stand in it."""
    deadline = time.monotonic() + PATIENCE
    while True:
        answer = await system.kubectl.run(["logs", "-l", f"kappa.dev/function={function}", "--tail=1000"])
        if all(text in answer.out for text in texts):
            return answer.out
        assert time.monotonic() < deadline, f"{texts} not in the log of {function}:\n{answer.text}"
        await asyncio.sleep(POLL_SECONDS)


async def post(system: System, path: str, body: Any, **headers: str) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"content-type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    deadline = time.monotonic() + PATIENCE
    while True:  # a gateway learns of a Trigger, and of its Secret, a moment after it was applied
        async with system.http.post(system.url + path, data=data, headers=given) as reply:
            text = await reply.text()
            if reply.status < 400 or time.monotonic() > deadline:
                return reply.status, text
        await asyncio.sleep(POLL_SECONDS)


async def test_async_gives_an_id_and_then_the_result(system: System) -> None:
    await applied(system, "async", "report")
    status, text = await post(system, "/async/default/report", {"numbers": [1, 2, 3]})
    assert status == 202
    async with system.http.get(system.url + json.loads(text)["url"], headers={"prefer": "wait=20"}) as reply:
        found = await reply.json()
    assert (found["state"], found["attempts"]) == ("succeeded", 2), found
    assert json.loads(found["result"]["body"]) == {"sum": 6, "attempt": 1}


async def test_schedule_fires(system: System) -> None:
    due = datetime.datetime.now(datetime.UTC).replace(microsecond=0) + datetime.timedelta(seconds=3)
    at = due.isoformat().replace("+00:00", "Z")
    timed = ('cron: "* * * * *"\n      timeZone: Europe/Berlin\n', f'at: "{at}"\n')
    await applied(system, "schedule", "cleanup", change=timed)
    await logged(system, "cleanup", f"due at {at}: removing what is older than 30 days")


async def test_queue_repeats_only_what_failed(system: System) -> None:
    await applied(system, "queue", "worker")
    await listening(system, "orders")
    path = "jsonpath={.spec.containers[0].env[?(@.name=='KAPPA_NATS_URL')].value}"
    url = await system.kubectl.run(["-n", "kappa-system", "get", "pod", "gateway", "-o", path])
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLES / "queue" / "send.py"),
        "20",
        env=os.environ | {"KAPPA_NATS_PORT": url.out.strip().rpartition(":")[2]},
    )
    assert await program.wait() == 0
    text = await logged(system, "worker", *(f'"order {number} is done"' for number in range(20)))
    again = [number for number in range(20) if f'"order {number} has to come again"' in text]
    assert again == [0, 5, 10, 15]
    assert all(text.count(f'"order {number} is done"') == 1 for number in range(20)), text


async def test_chain_of_emitted_events(system: System) -> None:
    await applied(system, "chain", "shop", "billing", "mail")
    await listening(system, "placed", "paid")
    status, _ = await post(system, "/fn/default/shop", {"name": "Ada", "pieces": 2})
    assert status == 202
    await logged(system, "mail", "dear Ada, you paid 6")


async def test_s3_takes_pictures_only(system: System) -> None:
    await applied(system, "s3", "thumbnail")

    def record(key: str) -> Any:
        thing = {"key": key, "size": 7, "sequencer": key}
        return {
            "eventSource": "minio:s3",
            "eventName": "s3:ObjectCreated:Put",
            "s3": {"bucket": {"name": "photos"}, "object": thing},
        }

    body = {"Records": [record("notes.txt"), record("my+cat.jpg")]}
    status, text = await post(system, "/hooks/default/uploads", body, authorization="Bearer change-me")
    assert status == 200, text
    found = await logged(system, "thumbnail", "ObjectCreated:Put: my cat.jpg, 7 bytes")
    assert "notes.txt" not in found


async def test_webhook_checks_the_signature_and_the_branch(system: System) -> None:
    await applied(system, "webhook", "on-push")
    for number, ref in enumerate(("refs/heads/other", "refs/heads/main")):
        body = json.dumps({"ref": ref, "repository": {"full_name": "me/project"}}).encode()
        signature = "sha256=" + hmac.new(b"change-me", body, hashlib.sha256).hexdigest()
        headers = {"x_github_event": "push", "x_github_delivery": f"delivery-{number}"}
        status, text = await post(system, "/hooks/default/github", body, x_hub_signature_256=signature, **headers)
        assert status < 300, text
    found = await logged(system, "on-push", "me/project refs/heads/main")
    assert "refs/heads/other" not in found
    forged = {"x-hub-signature-256": "sha256=" + "0" * 64, "x-github-event": "push"}
    async with system.http.post(system.url + "/hooks/default/github", data=b"{}", headers=forged) as reply:
        assert reply.status == 401


async def listening(system: System, *triggers: str) -> None:
    """Until these Triggers are Ready."""
    names = [f"trigger/{name}" for name in triggers]
    answer = await system.kubectl.run(["wait", "--for=condition=Ready", *names, f"--timeout={PATIENCE:g}s"])
    assert answer.ok, answer.text
