"""What a user sees of a Trigger: columns, conditions, Events, and counters that survive a restart of the operator."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from kappa_platform import POLL_SECONDS, System, condition, function

pytestmark = pytest.mark.asyncio(loop_scope="session")

Json = Any
CODE = "def handler(event, context):\n    return None\n"
OPEN = {"event": {"auth": {"type": "none"}}}


def trigger(name: str, source: Json, **spec: Json) -> str:
    found = {"function": "sink", "source": source} | spec
    return json.dumps({"apiVersion": "kappa.dev/v1", "kind": "Trigger", "metadata": {"name": name}, "spec": found})


async def until(system: System, name: str, done: Callable[[Json], bool], seconds: float = 20.0) -> Json:
    """The Trigger's status as soon as `done` holds for it."""
    deadline = time.monotonic() + seconds
    while True:
        answer = await system.kubectl.run(["get", "trigger", name, "-o", "json"])
        assert answer.ok, answer.text
        status: Json = json.loads(answer.out).get("status", {})
        if done(status):
            return status
        assert time.monotonic() < deadline, f"status of {name} after {seconds} s: {json.dumps(status, indent=1)}"
        await asyncio.sleep(POLL_SECONDS)


def because(reason: str) -> Callable[[Json], bool]:
    return lambda status: condition(status, "Ready").get("reason") == reason


async def emit(system: System, kind: str, number: int) -> None:
    """CloudEvents into the namespace, until they are accepted: a gateway learns of a Trigger a moment after kubectl."""
    deadline = time.monotonic() + 10
    for index in range(number):
        headers = {"ce-specversion": "1.0", "ce-id": f"{kind}-{index}", "ce-source": "/test", "ce-type": kind}
        while True:
            async with system.http.post(f"{system.url}/events/default", headers=headers) as reply:
                if reply.status == 202 and (await reply.json()).get("triggers", 1):
                    break
                assert time.monotonic() < deadline, await reply.text()
            await asyncio.sleep(POLL_SECONDS)


async def test_a_trigger_waits_for_its_function_and_then_delivers(system: System) -> None:
    assert (await system.apply(trigger("early", {"event": {"types": ["early"], **OPEN["event"]}}))).ok
    status = await until(system, "early", because("FunctionNotFound"))
    assert "'sink'" in condition(status, "Ready")["message"]
    assert (await system.apply(function("sink", CODE))).ok
    await until(system, "early", because("Connected"))
    await system.ready("sink")
    await emit(system, "early", 3)
    status = await until(system, "early", lambda status: status.get("delivered") == 3)
    assert (status["received"], status["lag"], status["source"]) == (3, 0, "event")
    lines = (await system.kubectl.run(["get", "trig", "early"])).out.splitlines()
    assert lines[0].split() == ["NAME", "READY", "FUNCTION", "SOURCE", "LAG", "LAST", "EVENT", "AGE"]
    assert lines[1].split()[:5] == ["early", "True", "sink", "event", "0"]
    wide = (await system.kubectl.run(["get", "triggers", "early", "-o", "wide"])).out.splitlines()
    assert wide[0].split()[-4:] == ["REASON", "MESSAGE", "DELIVERED", "FAILED"]
    described = (await system.kubectl.run(["describe", "trigger", "early"])).out
    assert "FunctionNotFound" in described.partition("Events:")[2]
    assert "Connected" in described.partition("Events:")[2]

    # The next operator adds to what the last one wrote
    await restart(system, "operator")
    await emit(system, "early", 5)  # three of them again: the stream has had these
    status = await until(system, "early", lambda status: status.get("delivered") == 5)
    assert status["received"] == 5
    assert (await system.kubectl.run(["delete", "trigger", "early"])).ok


async def restart(system: System, component: str) -> None:
    """Another pod of the same manifest."""
    answer = await system.kubectl.run(["-n", "kappa-system", "get", "pod", component, "-o", "json"])
    pod = json.loads(answer.out)
    manifest = {"apiVersion": "v1", "kind": "Pod", "spec": pod["spec"]}
    manifest["metadata"] = {key: pod["metadata"][key] for key in ("name", "namespace", "labels")}
    assert (await system.kubectl.run(["-n", "kappa-system", "delete", "pod", component])).ok
    assert (await system.apply(json.dumps(manifest))).ok
    wait = ["-n", "kappa-system", "wait", "--for=condition=Ready", f"pod/{component}", "--timeout=20s"]
    assert (await system.kubectl.run(wait)).ok


@pytest.mark.parametrize(
    ("spec", "reason", "says"),
    [
        pytest.param(
            {"source": OPEN, "ordered": {"key": "subject"}, "batch": {"size": 2}},
            "InvalidSpec",
            "spec.batch.size",
            id="spec",
        ),
        pytest.param({"source": {"subject": {"subject": "other.orders"}}}, "SourceFailed", "default.", id="foreign"),
        pytest.param({"source": OPEN, "suspend": True}, "Suspended", "spec.suspend", id="suspended"),
    ],
)
async def test_what_is_wrong_stands_in_the_status(system: System, spec: Json, reason: str, says: str) -> None:
    assert (await system.apply(function("sink", CODE))).ok
    assert (await system.apply(trigger("wrong", **spec))).ok
    status = await until(system, "wrong", because(reason))
    assert says in condition(status, "Ready")["message"]
    assert (await system.kubectl.run(["delete", "trigger", "wrong"])).ok


async def test_what_the_schema_refuses_is_refused_with_the_fields_name(system: System) -> None:
    answer = await system.apply(trigger("refused", {"kv": {"bucket": "a.b"}}))
    assert not answer.ok
    assert "spec.source.kv.bucket" in answer.text
