"""What a developer does with Functions on a real cluster: apply, look, call, break, repair, delete."""

from pathlib import Path

import pytest
from kappa_e2e import Cluster, eventually, function, is_ready, names_of, ready, returns

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*/function.yaml"))

HELLO = """
def handler(event, context):
    query = event.get("queryStringParameters") or {}
    return {"hello": query.get("name", "world")}
"""


async def test_apply_then_call(kappa: Cluster) -> None:
    await kappa.apply(function("hello", HELLO, scaling={"idleSeconds": 1}))
    status = await kappa.until("hello", is_ready, 60)
    assert status["url"] == f"http://gateway.{kappa.system}/fn/{kappa.namespace}/hello"
    # The instance that proved the code goes first, so that the call meets a function at zero.
    status = await kappa.until("hello", lambda status: status["replicas"] == 0, 60)
    assert ready(status)["reason"] == "ScaledToZero"

    first = await kappa.call("hello?name=kappa")
    assert (first.status, first.json) == (200, {"hello": "kappa"}), first
    assert first.seconds < 3, first
    second = await kappa.call("hello")
    assert (second.status, second.json) == (200, {"hello": "world"})
    assert second.seconds < 0.5, second


async def test_printer_columns(kappa: Cluster) -> None:
    await kappa.apply(function("columns", HELLO, scaling={"minReplicas": 1}))
    status = await kappa.until("columns", lambda status: status.get("readyReplicas") == 1)
    head, row = (line.split() for line in (await kappa.kubectl("get", "fn", "columns")).splitlines())
    assert head == ["NAME", "READY", "REVISION", "REPLICAS", "URL", "AGE"]
    assert row[:-1] == ["columns", "True", status["activeRevision"], "1", status["url"]]
    head, row = (line.split() for line in (await kappa.kubectl("get", "fn", "columns", "-o", "wide")).splitlines())
    assert head[-2:] == ["REASON", "MESSAGE"]
    assert row[6] == ready(status)["reason"]


async def test_explain(kappa: Cluster) -> None:
    text = await kappa.kubectl("explain", "fn.spec.timeoutSeconds")
    assert "The one deadline of an invocation" in text


async def test_bad_specs_are_refused_when_applied(kappa: Cluster) -> None:
    assert "spec.handler" in await kappa.refused(function("bad", HELLO, handler="nothing"))
    assert "spec.timeoutSeconds" in await kappa.refused(function("bad", HELLO, timeoutSeconds=0))
    assert "spec.code" in await kappa.refused(function("bad", {"inline": "x", "files": {"a.py": ""}}))
    assert "spec.env" in await kappa.refused(function("bad", HELLO, env=[{"name": "PORT", "value": "1"}]))
    assert "metadata.name" in await kappa.refused(function("a" * 53, HELLO))


async def test_code_that_does_not_load(kappa: Cluster) -> None:
    """The exception becomes the condition; what was good keeps serving; the repaired code takes over."""
    await kappa.apply(function("repaired", returns("good")))
    good = await kappa.until("repaired", is_ready)
    assert (await kappa.call("repaired")).status == 200
    kept = await kappa.get("configmap", "repaired.revision")
    assert kept["metadata"]["labels"]["kappa.dev/revision"] == good["activeRevision"]

    await kappa.apply(function("repaired", "import no_such_module\n"))
    status = await kappa.until("repaired", lambda status: ready(status).get("status") == "False")
    assert "No module named 'no_such_module'" in ready(status)["message"]
    assert status["activeRevision"] == good["activeRevision"]
    assert status["failedRevision"] not in ("", good["activeRevision"])
    assert (await kappa.call("repaired")).json == "good"

    await kappa.apply(function("repaired", returns("better")))
    await kappa.until("repaired", is_ready)
    assert (await kappa.call("repaired")).json == "better"


async def test_never_good(kappa: Cluster) -> None:
    await kappa.apply(function("nohandler", "x = 1\n"))
    status = await kappa.until("nohandler", lambda status: ready(status).get("status") == "False")
    assert "handler" in ready(status)["message"]
    assert "activeRevision" not in status
    answer = await kappa.call("nohandler")
    assert (answer.status, answer.json["error"]["code"]) == (503, "not_ready"), answer
    assert answer.seconds < 1, answer


async def test_faults_are_told_apart(kappa: Cluster) -> None:
    nothing = await kappa.call("no-such-function")
    assert (nothing.status, nothing.headers["kappa-error-source"]) == (404, "gateway")
    assert nothing.json["error"]["code"]
    await kappa.apply(function("raises", "def handler(event, context):\n    raise KeyError('boom')\n"))
    await kappa.until("raises", is_ready)
    raised = await kappa.call("raises")
    assert (raised.status, raised.headers["kappa-error-source"]) == (500, "function")
    assert raised.json["errorType"] == "KeyError"


async def test_instances_are_locked_down(kappa: Cluster) -> None:
    await kappa.apply(function("locked", HELLO, scaling={"minReplicas": 1}))
    await kappa.until("locked", lambda status: status.get("readyReplicas") == 1)
    (pod,) = await kappa.pods("locked")
    spec = pod["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["metadata"]["labels"].items() >= {"app.kubernetes.io/component": "instance"}.items()


async def test_config_map_secret_and_volume(kappa: Cluster) -> None:
    """Code from a ConfigMap; a secret through valueFrom and a volume, which a pool pod cannot have."""
    code = """
import os

def handler(event, context):
    with open("/data/text") as file:
        return [VERSION, os.environ["TOKEN"], file.read()]
"""

    def config_map(name: str, **data: str) -> dict[str, object]:
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}

    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mixed"}, "stringData": {"token": "t0p"}}
    await kappa.apply(
        secret,
        config_map("mixed-data", text="from a volume"),
        config_map("mixed-code", **{"main.py": "VERSION = 1\n" + code}),
        function(
            "mixed",
            {"configMap": {"name": "mixed-code"}},
            env=[{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "mixed", "key": "token"}}}],
            volumes=[{"name": "data", "configMap": {"name": "mixed-data"}}],
            volumeMounts=[{"name": "data", "mountPath": "/data", "readOnly": True}],
        ),
    )
    old = await kappa.until("mixed", is_ready, 60)
    assert (await kappa.call("mixed")).json == [1, "t0p", "from a volume"]

    await kappa.apply(config_map("mixed-code", **{"main.py": "VERSION = 2\n" + code}))
    changed = lambda status: is_ready(status) and status["activeRevision"] != old["activeRevision"]  # noqa: E731
    await kappa.until("mixed", changed, 60)
    assert (await kappa.call("mixed")).json[0] == 2


async def test_image_function(kappa: Cluster, images: dict[str, str]) -> None:
    """Any container with an HTTP server on $PORT."""
    server = """
import http.server, os

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = ("image answers " + self.path).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
"""
    registry = f"{images['registry']}/" if images["registry"] else ""
    image = f"{registry}kappa-runtime-python:{images['tag']}"
    await kappa.apply(function("image", {"image": image, "command": ["python", "-c", server]}))
    await kappa.until("image", is_ready, 60)
    answer = await kappa.call("image/a/b")
    assert (answer.status, answer.body) == (200, b"image answers /a/b"), answer


async def test_routes_and_their_conflict(kappa: Cluster) -> None:
    http = {"routes": [{"host": "api.example.org", "path": "/greet/{name}", "methods": ["GET"]}]}
    await kappa.apply(
        function("first", "def handler(event, context):\n    return event['pathParameters']\n", http=http)
    )
    await kappa.until("first", is_ready)
    await kappa.apply(function("second", returns("second"), http=http))
    status = await kappa.until("second", lambda status: ready(status).get("reason") == "RouteConflict")
    assert f"{kappa.namespace}/first" in ready(status)["message"]

    answer = await kappa.call("/greet/ada", headers={"host": "api.example.org"})
    assert (answer.status, answer.json) == (200, {"name": "ada"}), answer
    assert (await kappa.call("/greet/ada", headers={"host": "other.example.org"})).status == 404

    await kappa.kubectl("delete", "fn", "first")
    await kappa.until("second", is_ready)

    async def moved() -> tuple[bool, object]:
        found = await kappa.call("/greet/ada", headers={"host": "api.example.org"})
        return found.status == 200 and found.json == "second", found

    await eventually(moved, 10, "the route at its new owner")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
async def test_examples(kappa: Cluster, path: Path) -> None:
    """Each example applies as it stands and becomes what it says: ready, or (failing) an explained failure."""
    applied = await kappa.kubectl("apply", "-f", str(path), "-o", "name")
    for name in [line.partition("/")[2] for line in applied.splitlines() if line.startswith("function.kappa.dev/")]:
        status = await kappa.until(name, lambda status: ready(status).get("status") in ("True", "False"))
        assert ready(status)["reason"] == "LoadFailed" if name == "broken" else is_ready(status), ready(status)
    await kappa.kubectl("delete", "-f", str(path), "--wait=false")


async def test_delete(kappa: Cluster) -> None:
    await kappa.apply(function("gone", HELLO, scaling={"minReplicas": 1}))
    await kappa.until("gone", lambda status: status.get("readyReplicas") == 1)
    assert (await kappa.call("gone")).status == 200
    await kappa.kubectl("delete", "fn", "gone")

    async def nothing_left() -> tuple[bool, object]:
        pods, answer = await kappa.pods("gone"), await kappa.call("gone")
        return not pods and answer.status == 404, (names_of(pods), answer)

    await eventually(nothing_left, 45, "pods and answers of a deleted function")
