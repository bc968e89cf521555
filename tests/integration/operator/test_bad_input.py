"""What a developer gets wrong, and what the status says about it; the last good revision keeps serving."""

import pytest
from kappa_operator_world import World, condition, inline

GOOD = "def handler(event, context):\n    return 'one'\n"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (inline("def handler(event, context)\n    return 1\n"), ["SyntaxError", "main.py line 1"]),
        (inline("import nowhere\n\ndef handler(e, c): ...\n"), ["ModuleNotFoundError", "nowhere", "main.py line 1"]),
        (inline("def other(e, c): ...\n"), ["handler"]),
        (inline("raise SystemExit(3)\n"), ["SystemExit"]),
    ],
    ids=["syntax", "import", "no handler", "exit"],
)
async def test_code_that_does_not_load(world: World, spec: dict[str, object], words: list[str]) -> None:
    await world.apply("bad", spec)

    status = await world.status("bad", lambda s: condition(s, "Ready").get("status") == "False")

    ready = condition(status, "Ready")
    assert ready["reason"] == "LoadFailed"
    for word in words:
        assert word in ready["message"]
    assert "activeRevision" not in status
    assert condition(status, "Serving")["status"] == "False"
    await world.until(lambda: world.pods("kappa.dev/function=bad"), lambda pods: not pods)

    await world.apply("bad", inline(GOOD))
    status = await world.ready("bad")
    assert "failedRevision" not in status


async def test_a_bad_update_leaves_the_old_revision_serving_even_after_a_restart_from_zero(world: World) -> None:
    await world.apply("fn", inline(GOOD))
    old = (await world.ready("fn"))["activeRevision"]

    await world.apply("fn", inline("import nowhere\n"))
    status = await world.status("fn", lambda s: "failedRevision" in s)

    ready = condition(status, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "LoadFailed")
    assert ready["message"].endswith(f"; revision {old} keeps serving")
    assert condition(status, "Serving")["status"] == "True"
    assert status["activeRevision"] == old
    (pod,) = await world.serving("fn")
    assert (await world.invoke(pod))[0] == 200

    # The spec does not hold the old code any more, and nobody remembers it: it must come from the cluster.
    await world.operators[0].stop(kill=True)
    await world.call("DELETE", f"/api/v1/namespaces/default/pods/{pod['metadata']['name']}")
    await world.operator()
    await world.until(lambda: world.demand("fn", waiting=1), lambda answer: answer == 204)
    (pod,) = await world.until(lambda: world.serving("fn"), lambda pods: len(pods) == 1)
    assert pod["metadata"]["labels"]["kappa.dev/revision"] == old
    assert await world.invoke(pod) == (200, b'"one"')
    again = (await world.function("fn"))["status"]
    assert condition(again, "Ready") == ready


async def test_an_unknown_runtime_is_named_and_awaited(world: World) -> None:
    await world.apply("fn", inline(GOOD, runtime="cobol"))
    status = await world.status("fn", lambda s: "conditions" in s)
    ready = condition(status, "Ready")
    assert ready["reason"] == "RuntimeNotFound"
    assert ready["message"] == "there is no Runtime 'cobol'; there are: python"

    runtime = {"apiVersion": "kappa.dev/v1", "kind": "Runtime", "metadata": {"name": "cobol"}}
    spec = {"image": "runtime-python", "pool": {"min": 0, "max": 1}}
    await world.call("POST", "/apis/kappa.dev/v1/runtimes", {**runtime, "spec": spec})
    await world.ready("fn")


async def test_code_from_a_config_map_follows_it(world: World) -> None:
    spec = {"runtime": "python", "handler": "app.run", "code": {"configMap": {"name": "code"}}}
    await world.apply("fn", spec)
    status = await world.status("fn", lambda s: "conditions" in s)
    assert condition(status, "Ready")["reason"] == "CodeNotFound"

    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "code"}}
    one, two = ({"app.py": f"def run(event, context):\n    return {n}\n"} for n in (1, 2))
    await world.call("POST", "/api/v1/namespaces/default/configmaps", {**config, "data": one})
    first = (await world.ready("fn"))["activeRevision"]
    assert (await world.invoke((await world.serving("fn"))[0]))[1] == b"1"

    path = "/api/v1/namespaces/default/configmaps/code"
    await world.call("PATCH", path, {"data": two}, {"Content-Type": "application/merge-patch+json"})
    await world.ready("fn", revision_after=first)
    pods = await world.until(lambda: world.serving("fn"), lambda pods: len(pods) == 1)
    assert (await world.invoke(pods[0]))[1] == b"2"


async def test_two_functions_on_one_route(world: World) -> None:
    http = {"routes": [{"host": "api.example.org", "path": "/orders/{id}"}]}
    await world.apply("older", inline(GOOD, http=http))
    await world.ready("older")
    await world.apply("younger", inline(GOOD, http={"routes": [{"host": "api.example.org", "path": "/orders/{key}"}]}))

    status = await world.status("younger", lambda s: condition(s, "Ready").get("reason") == "RouteConflict")
    assert "api.example.org/orders/{key} belongs to default/older" in condition(status, "Ready")["message"]
    assert condition(status, "Serving")["status"] == "True"

    await world.call("DELETE", "/apis/kappa.dev/v1/namespaces/default/functions/older")
    status = await world.ready("younger")
    assert condition(status, "Routes")["status"] == "True"
