"""The steps of the demo that call functions. They raise StepError when what they see is not what a user may expect."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from kappa_local.demo.load import Load
from kappa_local.demo.screen import Screen
from kappa_local.platform.kubectl import Answer, Kubectl
from kappa_local.platform.settings import REPOSITORY

EXAMPLES = REPOSITORY / "examples"
BURST_CALLERS = 20
BURST_SECONDS = 6.0
ROLL_SECONDS = 3.0
IDLE_LIMIT_SECONDS = 25.0
FRAME_SECONDS = 0.2


class StepError(Exception):
    """A step did not end as it should; the message says what was expected and what was seen."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What every step works with."""

    kubectl: Kubectl
    session: aiohttp.ClientSession
    screen: Screen
    gateway: str

    async def run(self, *arguments: str, stdin: str = "", fails: bool = False) -> Answer:
        """Shows and runs a kubectl command; it must succeed, or fail when `fails` is set."""
        self.screen.command("kubectl " + " ".join(arguments))
        answer = await self.kubectl.run(arguments, stdin)
        self.screen.output(answer.text)
        if answer.ok == fails:
            raise StepError(f"kubectl {arguments[0]} was expected to {'fail' if fails else 'succeed'}")
        return answer

    async def get(self, path: str) -> tuple[int, Any]:
        """Shows and makes one call; the reply's JSON."""
        self.screen.command(f"curl {self.gateway}{path}")
        begun = time.monotonic()
        async with self.session.get(self.gateway + path) as reply:
            value = await reply.json(content_type=None)
        self.screen.output(f"{reply.status} {json.dumps(value)}   ({(time.monotonic() - begun) * 1000:.1f} ms)")
        return reply.status, value

    async def function(self, name: str) -> dict[str, Any]:
        """The Function as the API server holds it."""
        answer = await self.kubectl.run(["get", "fn", name, "-o", "json"])
        found: dict[str, Any] = json.loads(answer.out) if answer.ok else {}
        return found


async def deploy(stage: Stage) -> str:
    await stage.run("apply", "-f", shown(EXAMPLES / "hello" / "function.yaml"))
    await stage.run("wait", "--for=condition=Ready", "fn/hello", "--timeout=20s")
    await stage.run("get", "fn", "hello")
    return "the function is Ready: its code was loaded once before it may take traffic"


async def call(stage: Stage) -> str:
    for path, name in (("/fn/default/hello", "world"), ("/hello/Ada", "Ada")):
        status, value = await stage.get(path)
        expect(status == 200 and value.get("message") == f"Hello, {name}!", f"a greeting for {name}", value)
    return "answered by name and by route"


async def bad_input(stage: Stage) -> str:
    text = (EXAMPLES / "hello" / "function.yaml").read_text()
    answer = await stage.run("apply", "-f", "-", stdin=text.replace("handler: main.handler", "handler: 42"), fails=True)
    expect("spec.handler" in answer.text, "a refusal that names spec.handler", answer.text)
    status, value = await stage.get("/fn/default/nothing-here")
    expect(status == 404 and "error" in value, "404 with an error in JSON", value)
    return "refused with the field's name, and 404 says what is missing"


async def burst(stage: Stage) -> str:
    await stage.run("apply", "-f", shown(EXAMPLES / "slow" / "function.yaml"))
    await stage.run("wait", "--for=condition=Ready", "fn/slow", "--timeout=20s")
    load = Load(stage.session, f"{stage.gateway}/fn/default/slow", BURST_CALLERS)
    stage.screen.command(
        f"{BURST_CALLERS} callers for {BURST_SECONDS:.0f} s, 200 ms of work a call, one at a time each"
    )
    replicas: list[float] = []
    answered: list[float] = []
    before = 0

    def rows() -> Sequence[tuple[str, Sequence[float], str]]:
        return (
            ("replicas", replicas, f"{replicas[-1]:.0f} (peak {max(replicas):.0f})"),
            (
                "calls/s",
                answered,
                f"{answered[-1]:.0f} ({len(load.tally.seconds)} answered, {load.tally.failed} failed)",
            ),
        )

    begun = time.monotonic()
    load.start()
    done = False
    while True:
        await asyncio.sleep(FRAME_SECONDS)
        status = (await stage.function("slow")).get("status", {})
        replicas.append(status.get("replicas", 0))
        answered.append((len(load.tally.seconds) - before) / FRAME_SECONDS)
        before = len(load.tally.seconds)
        stage.screen.chart(rows())
        elapsed = time.monotonic() - begun
        if not done and elapsed > BURST_SECONDS:
            await load.stop()
            done = True
        if done and replicas[-1] == 0:
            break
        if elapsed > BURST_SECONDS + IDLE_LIMIT_SECONDS:
            stage.screen.chart_done(rows())
            raise StepError(f"still {replicas[-1]:.0f} replicas {elapsed - BURST_SECONDS:.0f} s after the last call")
    stage.screen.chart_done(rows())
    tally = load.tally
    expect(tally.failed == 0, "every call answered", f"{tally.failed} failed, first: {tally.first_failure}")
    expect(max(replicas) > 1, "more than one replica under load", max(replicas))
    return (
        f"{len(tally.seconds)} calls, 0 failed, up to {max(replicas):.0f} replicas, back to 0; "
        f"p50 {tally.quantile(0.5) * 1000:.0f} ms, slowest {max(tally.seconds) * 1000:.0f} ms"
    )


async def from_zero(stage: Stage) -> str:
    begun = time.monotonic()
    status, value = await stage.get("/fn/default/slow")
    expect(status == 200, "an answer from zero replicas", value)
    return f"woken from zero and answered in {(time.monotonic() - begun) * 1000:.0f} ms, 200 of them its own work"


async def roll(stage: Stage) -> str:
    old = (await stage.function("hello"))["status"]["activeRevision"]
    load = Load(stage.session, f"{stage.gateway}/fn/default/hello", 4)
    load.start()
    text = (EXAMPLES / "hello" / "function.yaml").read_text().replace("value: Hello", "value: Good day")
    await stage.run("apply", "-f", "-", stdin=text)
    try:
        await changed(stage, "hello", lambda status: status.get("activeRevision") not in (old, None, ""))
        await asyncio.sleep(ROLL_SECONDS)
    finally:
        tally = await load.stop()
    await stage.run("get", "fn", "hello")
    status, value = await stage.get("/fn/default/hello")
    expect(status == 200 and value["message"] == "Good day, world!", "the new greeting", value)
    expect(tally.failed == 0, "no failed call", f"{tally.failed} failed, first: {tally.first_failure}")
    return f"rolled to a new revision under load: {len(tally.seconds)} calls, 0 failed"


async def broken(stage: Stage) -> str:
    text = (EXAMPLES / "hello" / "function.yaml").read_text().replace("import os", "import no_such_module")
    await stage.run("apply", "-f", "-", stdin=text)
    status = await changed(stage, "hello", lambda status: "no_such_module" in ready(status).get("message", ""))
    stage.screen.output(f"Ready={ready(status)['status']} {ready(status)['reason']}: {ready(status)['message']}")
    code, value = await stage.get("/fn/default/hello")
    expect(code == 200 and value["message"] == "Good day, world!", "the last good revision to keep serving", value)
    return "a revision that does not load never takes traffic, and the status says why"


async def remove(stage: Stage) -> str:
    await stage.run("delete", "trigger", "--all")
    await stage.run("delete", "fn", "hello", "slow", "report", "cleanup")
    answer = await stage.run("get", "fn")
    expect("No resources found" in answer.text, "no functions left", answer.text)
    return "functions deleted; their pods are collected with them"


def expect(right: bool, expected: str, seen: object) -> None:
    if not right:
        raise StepError(f"expected {expected}; saw {seen}")


def ready(status: dict[str, Any]) -> dict[str, Any]:
    """The Ready condition of a status, or an empty object."""
    found: dict[str, Any] = next((c for c in status.get("conditions", ()) if c["type"] == "Ready"), {})
    return found


async def changed(
    stage: Stage, name: str, done: Callable[[dict[str, Any]], bool], seconds: float = 20.0
) -> dict[str, Any]:
    """The Function's status once `done` holds for it. Raises StepError after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        status: dict[str, Any] = (await stage.function(name)).get("status", {})
        if done(status):
            return status
        if time.monotonic() > deadline:
            raise StepError(
                f"the status of {name} did not change as expected within {seconds:.0f} s: {json.dumps(status)}"
            )
        await asyncio.sleep(FRAME_SECONDS)


def shown(path: Path) -> str:
    """A path as a user would type it from the repository."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
