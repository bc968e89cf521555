"""The steps of the demo about events: an asynchronous invocation that is retried, and a schedule that fires."""

import asyncio
import datetime
import json
import time
from typing import Any

from kappa_local.demo.steps import EXAMPLES, FRAME_SECONDS, Stage, StepError, expect, shown

WAIT_SECONDS = 15.0
FIRES_IN_SECONDS = 4


async def asynchronous(stage: Stage) -> str:
    await stage.run("apply", "-f", shown(EXAMPLES / "async" / "function.yaml"))
    await stage.run("wait", "--for=condition=Ready", "fn/report", "--timeout=20s")
    body = json.dumps({"numbers": [1, 2, 3]})
    stage.screen.command(f"curl -d '{body}' {stage.gateway}/async/default/report")
    async with stage.session.post(f"{stage.gateway}/async/default/report", data=body) as reply:
        accepted = await reply.json()
    stage.screen.output(f"{reply.status} {json.dumps(accepted)}")
    expect(reply.status == 202, "202: JetStream has it", reply.status)
    stage.screen.command(f"curl -H 'prefer: wait=10' {stage.gateway}{accepted['url']}")
    async with stage.session.get(stage.gateway + accepted["url"], headers={"prefer": "wait=10"}) as reply:
        found = await reply.json()
    stage.screen.output(json.dumps(found))
    expect(found["state"] == "succeeded", "a result", found)
    expect(found["attempts"] == 2, "a second attempt, as the first one always fails here", found)
    return "accepted in 202, failed once, repeated a second later; the result is kept for an hour"


async def schedule(stage: Stage) -> str:
    """As the example has it, but once, so that nobody waits for the next full minute."""
    due = datetime.datetime.now(datetime.UTC).replace(microsecond=0) + datetime.timedelta(seconds=FIRES_IN_SECONDS)
    at = due.strftime("%Y-%m-%dT%H:%M:%SZ")
    text = (EXAMPLES / "schedule" / "function.yaml").read_text()
    once = text.replace('cron: "* * * * *"', f'at: "{at}"').replace("      timeZone: Europe/Berlin\n", "")
    await stage.run("apply", "-f", "-", stdin=once)
    status = await _delivered(stage, "every-minute")
    await stage.run("get", "triggers")
    answer = await stage.run("logs", "-l", "kappa.dev/function=cleanup", "--tail=5")
    expect(f"due at {at}" in answer.text, f"the function's line about {at}", answer.text)
    return f"fired at {at}; the Trigger's status counts {status['delivered']} delivered"


async def _delivered(stage: Stage, name: str) -> dict[str, Any]:
    """The Trigger's status once it has delivered an event."""
    deadline = time.monotonic() + WAIT_SECONDS + FIRES_IN_SECONDS
    while True:
        answer = await stage.kubectl.run(["get", "trigger", name, "-o", "json"])
        status: dict[str, Any] = json.loads(answer.out).get("status", {}) if answer.ok else {}
        if status.get("delivered"):
            return status
        if time.monotonic() > deadline:
            raise StepError(f"expected an event to be delivered; the Trigger's status: {json.dumps(status)}")
        await asyncio.sleep(FRAME_SECONDS)
