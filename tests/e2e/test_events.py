"""Asynchronous invocations and Triggers on a real Kubernetes, with three NATS servers installed by the chart."""

import asyncio
import datetime
import json
from typing import Any

import pytest
from kappa_e2e import Cluster, eventually, function, is_ready, returns

Json = Any

FAILS = "def handler(event, context):\n    raise ValueError('never good')\n"
NATS = "app.kubernetes.io/component=nats"


async def deploy(kappa: Cluster, name: str, code: str, **fields: Json) -> None:
    await kappa.apply(function(name, code, **fields))

    async def look() -> tuple[bool, Json]:
        status = (await kappa.get("fn", name)).get("status", {})
        return is_ready(status), status

    await eventually(look, 60, f"{name} Ready")


def trigger(name: str, target: str, source: Json, **spec: Json) -> Json:
    found = {"function": target, "source": source} | spec
    return {"apiVersion": "kappa.dev/v1", "kind": "Trigger", "metadata": {"name": name}, "spec": found}


async def accepted(kappa: Cluster, name: str, body: bytes = b"{}", *, patience: float = 30.0) -> str:
    """The id of an invocation that was accepted. While NATS has no leader there is 503, and nothing was accepted."""

    async def ask() -> tuple[bool, Json]:
        reply = await kappa.call(f"/async/{kappa.namespace}/{name}", method="POST", data=body)
        assert reply.status in (0, 202, 503), reply.body
        return reply.status == 202, json.loads(reply.body)["id"] if reply.status == 202 else reply.status

    return str(await eventually(ask, patience, f"an invocation of {name} to be accepted"))


async def result(kappa: Cluster, identity: str, *states: str, seconds: float = 60.0) -> Json:
    async def look() -> tuple[bool, Json]:
        reply = await kappa.call(f"/async/{identity}")
        found = reply.json if reply.status == 200 else reply.status
        return reply.status == 200 and found["state"] in (states or ("succeeded",)), found

    return await eventually(look, seconds, f"{identity} to be {' or '.join(states) or 'succeeded'}")


async def status_of(kappa: Cluster, kind: str, name: str, done: Any, seconds: float = 60.0) -> Json:
    async def look() -> tuple[bool, Json]:
        status = (await kappa.get(kind, name)).get("status", {})
        return bool(done(status)), status

    return await eventually(look, seconds, f"the status of {kind} {name}")


async def test_nats_runs_as_the_chart_says(kappa: Cluster) -> None:
    pods = await kappa.get("pods", namespace=kappa.system, selector=NATS)
    assert sorted(pod["metadata"]["name"] for pod in pods) == [f"kappa-nats-{number}" for number in range(3)]
    assert all(condition["status"] == "True" for pod in pods for condition in pod["status"]["conditions"])


async def test_an_asynchronous_call_wakes_a_function_from_zero(kappa: Cluster) -> None:
    await deploy(kappa, "later", returns({"done": True}), scaling={"idleSeconds": 1})

    async def look() -> tuple[bool, Json]:
        status = (await kappa.get("fn", "later")).get("status", {})
        return not status.get("replicas"), status

    await eventually(look, 60, "later at zero")
    found = await result(kappa, await accepted(kappa, "later"))
    assert json.loads(found["result"]["body"]) == {"done": True}
    assert found["attempts"] == 1


async def test_a_schedule_fires_once_and_the_columns_show_it(kappa: Cluster) -> None:
    await deploy(kappa, "clock", returns(None))
    due = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=8)
    await kappa.apply(trigger("once", "clock", {"schedule": {"at": due.strftime("%Y-%m-%dT%H:%M:%SZ")}}))
    status = await status_of(kappa, "trigger", "once", lambda status: status.get("delivered"))
    assert (status["received"], status["delivered"], status["failed"], status["lag"]) == (1, 1, 0, 0)
    lines = (await kappa.kubectl("get", "triggers", "once")).splitlines()
    assert lines[0].split() == ["NAME", "READY", "FUNCTION", "SOURCE", "LAG", "LAST", "EVENT", "AGE"]
    assert lines[1].split()[:5] == ["once", "True", "clock", "schedule", "0"]
    assert "once" in await kappa.kubectl("get", "all")
    assert "Connected" in await kappa.kubectl("describe", "trigger", "once")


async def test_what_fails_for_good_becomes_a_dead_letter(kappa: Cluster) -> None:
    await deploy(kappa, "broken", FAILS, **{"async": {"retries": 0}})
    identity = await accepted(kappa, "broken")
    assert "never good" in json.dumps(await result(kappa, identity, "failed"))
    await status_of(kappa, "fn", "broken", lambda status: status.get("async", {}).get("deadLetters") == 1)
    program = ["exec", "deploy/kappa-gateway", "--", "python", "-m", "kappa_gateway.dead", "list"]
    listed = await kappa.kubectl(*program, namespace=kappa.system)
    assert f"{kappa.namespace}/broken" in listed


async def test_a_schema_that_a_real_api_server_holds_to(kappa: Cluster) -> None:
    said = await kappa.refused(trigger("bad", "clock", {"kv": {"bucket": "a.b"}}))
    assert "spec.source.kv.bucket" in said
    said = await kappa.refused(trigger("bad", "clock", {"event": {}, "schedule": {"cron": "@daily"}}))
    assert "spec.source" in said


@pytest.mark.parametrize("force", [False, True], ids=["told to end", "killed"])
async def test_nothing_is_lost_when_a_nats_server_goes(kappa: Cluster, force: bool) -> None:
    await deploy(kappa, "counted", returns("ok", sleep=0.05), concurrency=1, **{"async": {"backoff": {"seconds": 1}}})
    ids: list[str] = []
    stop = asyncio.Event()

    async def calls() -> None:
        while not stop.is_set():
            ids.append(await accepted(kappa, "counted"))
            await asyncio.sleep(0.05)  # some dozens a second: the load is not the point

    async with asyncio.TaskGroup() as tasks:
        for _ in range(4):
            tasks.create_task(calls())
        try:
            before = (await kappa.get("pod", "kappa-nats-1", namespace=kappa.system))["metadata"]["uid"]
            flags = ["--grace-period=0", "--force"] if force else []
            await kappa.kubectl("delete", "pod", "kappa-nats-1", "--wait=false", *flags, namespace=kappa.system)

            async def back() -> tuple[bool, Json]:
                pods = await kappa.get("pods", namespace=kappa.system, selector=NATS)
                found = [pod for pod in pods if pod["metadata"]["name"] == "kappa-nats-1"]
                if not found or found[0]["metadata"]["uid"] == before:
                    return False, "not made anew"
                return is_ready(found[0]["status"]), found[0]["status"]

            await eventually(back, 180, "kappa-nats-1 Ready again")
        finally:
            stop.set()
    assert len(ids) > 50
    assert len(set(ids)) == len(ids)
    states = [(await result(kappa, identity, "succeeded", "failed"))["state"] for identity in ids]
    assert states.count("succeeded") == len(ids)
