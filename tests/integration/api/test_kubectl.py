"""What people do with kubectl."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from kappa_fixtures_local import Api, Obj, kubectl_path

pytestmark = pytest.mark.skipif(kubectl_path() is None, reason="no kubectl on this machine")

WIDGET = """
apiVersion: suite.kappa.dev/v1
kind: Widget
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec: {{size: {size}, tags: [a]}}
"""
SERVICE = """
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {{app: {name}}}
  ports:
  - {{name: http, port: 80}}
  - {{name: second, port: {second}}}
"""


@pytest.fixture
def widget(api: Api, name: str) -> Callable[..., str]:
    def apply(*args: str, size: int = 3) -> str:
        return api.kubectl("apply", *args, "-f", "-", stdin=WIDGET.format(name=name, size=size))

    return apply


async def test_apply_creates_changes_and_leaves_alone(widget: Callable[..., str], name: str) -> None:
    assert widget() == f"widget.suite.kappa.dev/{name} created\n"
    assert widget() == f"widget.suite.kappa.dev/{name} unchanged\n"
    assert widget(size=4) == f"widget.suite.kappa.dev/{name} configured\n"


async def test_apply_on_the_server(api: Api, widget: Callable[..., str], name: str) -> None:
    for size in (3, 4):
        assert widget("--server-side", size=size) == f"widget.suite.kappa.dev/{name} serverside-applied\n"
    assert api.kubectl("get", "wd", name, "-o", "jsonpath={.spec.size}") == "4"


async def test_apply_merges_lists_of_built_in_kinds(api: Api, name: str) -> None:
    api.kubectl("apply", "-f", "-", stdin=SERVICE.format(name=name, second=81))
    ports = '{"spec":{"ports":[{"name":"hand","port":90}]}}'
    api.kubectl("patch", "service", name, "-p", ports)
    assert "configured" in api.kubectl("apply", "-f", "-", stdin=SERVICE.format(name=name, second=82))
    found = api.kubectl("get", "service", name, "-o", "jsonpath={.spec.ports[*].port}")
    assert set(found.split()) == {"80", "82", "90"}


async def test_apply_a_list(api: Api, name: str) -> None:
    items = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{name}-{i}"}, "data": {"i": str(i)}}
        for i in range(2)
    ]
    body = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    assert api.kubectl("apply", "-f", "-", stdin=body) == f"configmap/{name}-0 created\nconfigmap/{name}-1 created\n"


async def test_a_bad_object_is_refused_with_its_field(widget: Callable[..., str]) -> None:
    with pytest.raises(AssertionError, match=r"spec\.size in body should be less than or equal to 10"):
        widget(size=99)


async def test_dry_run(api: Api, widget: Callable[..., str], name: str) -> None:
    assert widget("--dry-run=server") == f"widget.suite.kappa.dev/{name} created (server dry run)\n"
    assert "NotFound" in api.kubectl("get", "widget", name, check=False)


async def test_get_prints_the_columns(api: Api, widget: Callable[..., str], name: str) -> None:
    widget()
    lines = api.kubectl("get", "wd", "-l", f"app={name}").splitlines()
    assert lines[0].split() == ["NAME", "SIZE", "PHASE", "AGE"]
    assert lines[1].split()[:2] == [name, "3"]
    assert "DEEP" in api.kubectl("get", "widgets", "-o", "wide")
    assert api.kubectl("get", "widget", name, "-o", "name") == f"widget.suite.kappa.dev/{name}\n"
    assert json.loads(api.kubectl("get", "widget", name, "-o", "json"))["spec"]["nested"] == {"deep": "yes"}
    assert name in api.kubectl("get", "widgets", "-A", "--sort-by=.spec.size")


async def test_label_and_annotate(api: Api, widget: Callable[..., str], name: str) -> None:
    widget()
    assert "labeled" in api.kubectl("label", "widget", name, "tier=gold")
    assert "annotated" in api.kubectl("annotate", "widget", name, "note=yes")
    meta = json.loads(api.kubectl("get", "widget", name, "-o", "json"))["metadata"]
    assert meta["labels"] == {"app": name, "tier": "gold"}
    assert meta["annotations"]["note"] == "yes"
    api.kubectl("label", "widget", name, "tier-")
    assert api.kubectl("get", "widgets", "-l", "tier=gold", "-o", "name") == ""


@pytest.mark.parametrize("kind", ["merge", "json"])
async def test_patch(api: Api, widget: Callable[..., str], name: str, kind: str) -> None:
    widget()
    patch: object = {"spec": {"size": 7}} if kind == "merge" else [{"op": "replace", "path": "/spec/size", "value": 7}]
    assert "patched" in api.kubectl("patch", "widget", name, "--type", kind, "-p", json.dumps(patch))
    assert api.kubectl("get", "widget", name, "-o", "jsonpath={.spec.size}") == "7"


async def test_patch_the_status(api: Api, widget: Callable[..., str], name: str) -> None:
    widget()
    api.kubectl("patch", "widget", name, "--subresource=status", "--type=merge", "-p", '{"status":{"phase":"Up"}}')
    assert api.kubectl("get", "widget", name, "--no-headers").split()[:3] == [name, "3", "Up"]
    api.kubectl("wait", f"widget/{name}", "--for=jsonpath={.status.phase}=Up", "--timeout=10s")


async def test_scale(api: Api, widget: Callable[..., str], name: str) -> None:
    widget()
    assert "scaled" in api.kubectl("scale", "widget", name, "--replicas=4")
    assert api.kubectl("get", "widget", name, "-o", "jsonpath={.spec.nested.replicas}") == "4"


async def test_replace_and_edit(api: Api, widget: Callable[..., str], name: str, tmp_path: Path) -> None:
    widget()
    body: Obj = json.loads(api.kubectl("get", "widget", name, "-o", "json"))
    body["spec"]["size"] = 8
    assert "replaced" in api.kubectl("replace", "-f", "-", stdin=json.dumps(body))
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i 's/size: 8/size: 9/' \"$1\"\n")
    editor.chmod(0o755)
    kubectl = kubectl_path()
    assert kubectl is not None
    command = [kubectl, "--kubeconfig", str(api.backend.kubeconfig), "-n", api.ns, "edit", "widget", name]
    env = {"KUBE_EDITOR": str(editor), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = await asyncio.to_thread(
        subprocess.run, command, env=env, capture_output=True, text=True, timeout=30, check=False
    )
    assert "edited" in done.stdout, done.stderr
    assert api.kubectl("get", "widget", name, "-o", "jsonpath={.spec.size}") == "9"


async def test_describe_shows_events(api: Api, widget: Callable[..., str], name: str) -> None:
    widget()
    meta = json.loads(api.kubectl("get", "widget", name, "-o", "json"))["metadata"]
    about = {
        "kind": "Widget",
        "apiVersion": "suite.kappa.dev/v1",
        "name": name,
        "namespace": api.ns,
        "uid": meta["uid"],
    }
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{name}.1"},
        "involvedObject": about,
        "type": "Warning",
        "reason": "Suspicious",
        "message": "something is up",
        "source": {"component": "suite"},
        "count": 1,
        "firstTimestamp": meta["creationTimestamp"],
        "lastTimestamp": meta["creationTimestamp"],
    }
    (await api.post("/api/v1/namespaces/{ns}/events", event)).ok()
    text = api.kubectl("describe", "widget", name)
    assert "Size:" in text
    assert "Suspicious" in text
    lines = [line for line in api.kubectl("get", "events").splitlines() if "Suspicious" in line]
    assert "widget/" + name in lines[0]


async def test_delete_and_wait(api: Api, widget: Callable[..., str], name: str) -> None:
    widget()
    assert f'"{name}" deleted' in api.kubectl("delete", "widget", name)
    assert "NotFound" in api.kubectl("get", "widget", name, check=False)
    assert api.kubectl("delete", "widget", name, "--ignore-not-found") == ""


async def test_wait_for_a_deletion(api: Api, widget: Callable[..., str], name: str) -> None:
    widget()
    waiting = asyncio.create_task(
        asyncio.to_thread(api.kubectl, "wait", f"widget/{name}", "--for=delete", "--timeout=20s")
    )
    (await api.delete(f"/apis/suite.kappa.dev/v1/namespaces/{{ns}}/widgets/{name}")).ok()
    await waiting


async def test_get_watch(api: Api, widget: Callable[..., str], name: str) -> None:
    widget()
    kubectl = kubectl_path()
    assert kubectl is not None
    command = [
        "--kubeconfig",
        str(api.backend.kubeconfig),
        "-n",
        api.ns,
        "get",
        "widgets",
        "-l",
        f"app={name}",
        "-w",
        "--no-headers",
    ]
    child = await asyncio.create_subprocess_exec(kubectl, *command, stdout=asyncio.subprocess.PIPE)
    assert child.stdout is not None
    try:
        async with asyncio.timeout(20):
            assert (await child.stdout.readline()).split()[:2] == [name.encode(), b"3"]
            widget(size=5)
            assert (await child.stdout.readline()).split()[:2] == [name.encode(), b"5"]
    finally:
        child.kill()
        await child.wait()


async def test_typed_creation(api: Api, name: str) -> None:
    api.kubectl("create", "configmap", name, "--from-literal=a=1")
    api.kubectl("create", "secret", "generic", name, "--from-literal=p=secret")
    assert api.kubectl("get", "configmap", name, "-o", "jsonpath={.data.a}") == "1"
    assert api.kubectl("get", "secret", name, "-o", "jsonpath={.data.p}") == "c2VjcmV0"
    assert api.kubectl("get", "secret", name, "--no-headers").split()[:3] == [name, "Opaque", "1"]


async def test_what_there_is(api: Api) -> None:
    text = api.kubectl("api-resources", "--api-group=suite.kappa.dev")
    assert "widgets" in text
    assert "suite.kappa.dev/v1" in api.kubectl("api-versions")
    assert api.kubectl("auth", "can-i", "create", "pods").strip() == "yes"
    assert "size" in api.kubectl("explain", "widget.spec")
