"""Pods as processes: only the embedded cluster runs these, so only there they are tested."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from kappa_fixtures_local import Obj, Watch

from kappa_local.cluster import Cluster, Settings, spawn
from kappa_local.recorder import KEEP

SERVER = (
    "import os, sys, http.server\n"
    "class H(http.server.BaseHTTPRequestHandler):\n"
    "    def do_GET(self):\n"
    "        self.send_response(200); self.end_headers(); self.wfile.write(os.environ['POD_NAME'].encode())\n"
    "    def log_message(self, *a): pass\n"
    "print('serving', flush=True)\n"
    "http.server.ThreadingHTTPServer((os.environ['POD_IP'], 8080), H).serve_forever()\n"
)
ENV = [
    {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
]


class Pods:
    """The default namespace of an in-process cluster, over HTTP."""

    def __init__(self, cluster: Cluster, session: aiohttp.ClientSession) -> None:
        self.cluster = cluster
        self.session = session
        self.url = f"{cluster.url}/api/v1/namespaces/default/pods"

    async def create(self, name: str, container: Obj, **spec: Any) -> Obj:
        main = {"name": "main", "image": "none", **container}
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {"restartPolicy": "Never", "containers": [main], **spec},
        }
        async with self.session.post(self.url, json=body) as response:
            made: Obj = await response.json()
            assert response.status == 201, made
            return made

    async def run(self, name: str, code: str, **spec: Any) -> Obj:
        return await self.create(name, {"command": ["python3", "-S", "-c", code]}, **spec)

    async def until(self, name: str, wanted: Any) -> Obj:
        """The pod when `wanted(pod)` first holds; None is passed when it is gone."""
        params = {"fieldSelector": f"metadata.name={name}"}
        async with self.session.get(self.url, params=params) as response:
            found = await response.json()
        now: Obj | None = found["items"][0] if found["items"] else None
        if wanted(now):
            return now or {}
        params |= {"watch": "1", "resourceVersion": found["metadata"]["resourceVersion"]}
        async with asyncio.timeout(20), self.session.get(self.url, params=params) as response:
            watch = Watch(response)
            while True:
                event = await watch.next()
                pod: Obj = event["object"]
                if wanted(None if event["type"] == "DELETED" else pod):
                    return pod

    async def phase(self, name: str, phase: str) -> Obj:
        return await self.until(name, lambda pod: pod and pod["status"]["phase"] == phase)

    async def ready(self, name: str) -> Obj:
        return await self.until(name, is_ready)

    async def log(self, name: str, **query: str) -> str:
        async with self.session.get(f"{self.url}/{name}/log", params=query) as response:
            return await response.text()

    async def delete(self, name: str, **options: Any) -> Obj:
        async with self.session.delete(f"{self.url}/{name}", json=options) as response:
            body: Obj = await response.json()
            return body

    async def last_words(self, name: str, **options: Any) -> Obj:
        """Deletes the pod and waits for it; its last state."""
        async with self.session.get(f"{self.url}/{name}") as response:
            version = (await response.json())["metadata"]["resourceVersion"]
        params = {"watch": "1", "fieldSelector": f"metadata.name={name}", "resourceVersion": version}
        async with self.session.get(self.url, params=params) as response:
            await self.delete(name, **options)
            event = await Watch(response).until(lambda event: event["type"] == "DELETED")
            pod: Obj = event["object"]
            return pod

    async def configure(self, plural: str, body: Obj) -> None:
        async with self.session.post(self.url.replace("pods", plural), json=body) as response:
            assert response.status == 201, await response.text()


def is_ready(pod: Obj | None) -> bool:
    conditions = (pod or {}).get("status", {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def state(pod: Obj) -> Obj:
    found: Obj = pod["status"]["containerStatuses"][0]["state"]
    return found


@pytest.fixture
async def pods(tmp_path: Path) -> AsyncIterator[Pods]:
    settings = Settings(tmp_path, images={"server": [sys.executable, "-S", "-c", SERVER]}, backoff=0.05)
    async with Cluster(settings) as cluster, aiohttp.ClientSession() as session:
        yield Pods(cluster, session)


async def test_an_image_is_a_command(pods: Pods) -> None:
    probe = {"httpGet": {"port": 8080}}
    await pods.create("web", {"image": "registry.example/team/server:1.2", "env": ENV, "readinessProbe": probe})
    pod = await pods.ready("web")
    ip = pod["status"]["podIP"]
    assert ip.startswith("127.")
    assert ip != "127.0.0.1"
    assert pod["spec"]["nodeName"] == "kappa-local"
    async with pods.session.get(f"http://{ip}:8080/") as response:
        assert await response.text() == "web"
    assert await pods.log("web") == "serving\n"


async def test_each_pod_has_its_own_address(pods: Pods) -> None:
    for name in ("a", "b"):
        await pods.create(name, {"image": "server", "env": ENV, "readinessProbe": {"tcpSocket": {"port": 8080}}})
    first, second = await pods.ready("a"), await pods.ready("b")
    assert first["status"]["podIP"] != second["status"]["podIP"]


async def test_an_unknown_image(pods: Pods) -> None:
    await pods.create("x", {"image": "nginx:1"})
    pod = await pods.until(
        "x", lambda pod: "waiting" in state(pod) and state(pod)["waiting"]["reason"] == "ErrImagePull"
    )
    assert 'kappa_local cannot run image "nginx:1"' in state(pod)["waiting"]["message"]
    assert "Known images: server" in state(pod)["waiting"]["message"]
    await pods.delete("x")
    await pods.until("x", lambda pod: pod is None)


@pytest.mark.parametrize(("code", "phase", "reason"), [(0, "Succeeded", "Completed"), (3, "Failed", "Error")])
async def test_ends(pods: Pods, code: int, phase: str, reason: str) -> None:
    await pods.run("end", f"raise SystemExit({code})")
    pod = await pods.phase("end", phase)
    assert state(pod)["terminated"]["exitCode"] == code
    assert state(pod)["terminated"]["reason"] == reason
    assert not is_ready(pod)


async def test_a_program_that_does_not_exist(pods: Pods) -> None:
    await pods.create("x", {"command": ["/no/such/program"]})
    pod = await pods.phase("x", "Failed")
    assert state(pod)["terminated"]["reason"] == "StartError"
    assert "/no/such/program" in state(pod)["terminated"]["message"]


async def test_restarts(pods: Pods) -> None:
    code = (
        "import os, sys; n = int(open('n').read()) if os.path.exists('n') else 0; open('n', 'w').write(str(n + 1))\n"
        "print('life', n); sys.exit(n < 2)"
    )
    await pods.run("again", code, restartPolicy="OnFailure")
    pod = await pods.phase("again", "Succeeded")
    status = pod["status"]["containerStatuses"][0]
    assert status["restartCount"] == 2
    assert status["lastState"]["terminated"]["exitCode"] == 1
    assert await pods.log("again") == "life 2\n"
    assert await pods.log("again", previous="true") == "life 1\n"


async def test_the_environment(pods: Pods) -> None:
    meta = {"name": "settings"}
    await pods.configure(
        "configmaps", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"color": "red", "size": "3"}}
    )
    await pods.configure(
        "secrets", {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"password": "hush"}}
    )
    os.environ["KAPPA_TEST_LEAK"] = "leaked"
    env = [
        {"name": "PLAIN", "value": "x"},
        {"name": "TWICE", "value": "$(PLAIN)$(PLAIN) $$(PLAIN) $(NONE)"},
        {"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "color"}}},
        {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "settings", "key": "password"}}},
        {"name": "NONE_AT_ALL", "valueFrom": {"secretKeyRef": {"name": "no", "key": "no", "optional": True}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
    ]
    container = {
        "command": ["python3", "-S", "-c", "import os, json; print(json.dumps(dict(os.environ)))"],
        "env": env,
        "envFrom": [{"configMapRef": {"name": "settings"}, "prefix": "CM_"}],
        "resources": {"limits": {"memory": "64Mi"}},
    }
    try:
        await pods.create("env", container)
        await pods.phase("env", "Succeeded")
    finally:
        del os.environ["KAPPA_TEST_LEAK"]
    seen = json.loads(await pods.log("env"))
    assert seen["TWICE"] == "xx $(PLAIN) $(NONE)"
    assert (seen["COLOR"], seen["PASSWORD"], seen["CM_size"]) == ("red", "hush", "3")
    assert (seen["NODE"], seen["MEMORY"], seen["HOSTNAME"]) == ("kappa-local", "64", "env")
    assert "NONE_AT_ALL" not in seen
    assert "KAPPA_TEST_LEAK" not in seen
    assert seen["PYTHONSAFEPATH"] == "1"


async def test_a_config_map_that_comes_late(pods: Pods) -> None:
    source = {"configMapKeyRef": {"name": "late", "key": "a"}}
    await pods.create(
        "late",
        {
            "command": ["python3", "-S", "-c", "import os; print(os.environ['A'])"],
            "env": [{"name": "A", "valueFrom": source}],
        },
    )
    pod = await pods.until(
        "late", lambda pod: state(pod).get("waiting", {}).get("reason") == "CreateContainerConfigError"
    )
    assert 'configmap "late" not found' in state(pod)["waiting"]["message"]
    await pods.configure(
        "configmaps", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late"}, "data": {"a": "b"}}
    )
    await pods.phase("late", "Succeeded")
    assert await pods.log("late") == "b\n"


async def test_volumes(pods: Pods) -> None:
    await pods.configure(
        "configmaps",
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "files"}, "data": {"a": "1", "b": "2"}},
    )
    code = (
        "import os, pathlib\n"
        "root = pathlib.Path(os.environ['KAPPA_LOCAL_MOUNT_ROOT'])\n"
        "print(sorted(p.name for p in (root / 'etc/all').iterdir()), (root / 'etc/one/x').read_text())\n"
        "(root / 'scratch/f').write_text('ok'); print(os.listdir(root / 'scratch'))\n"
    )
    mounts = [
        {"name": "all", "mountPath": "/etc/all"},
        {"name": "one", "mountPath": "/etc/one"},
        {"name": "tmp", "mountPath": "/scratch"},
    ]
    volumes = [
        {"name": "all", "configMap": {"name": "files"}},
        {"name": "one", "configMap": {"name": "files", "items": [{"key": "b", "path": "x"}]}},
        {"name": "tmp", "emptyDir": {}},
    ]
    await pods.create("vol", {"command": ["python3", "-S", "-c", code], "volumeMounts": mounts}, volumes=volumes)
    await pods.phase("vol", "Succeeded")
    assert await pods.log("vol") == "['a', 'b'] 2\n['f']\n"


async def test_init_containers_run_first(pods: Pods) -> None:
    inits = [
        {"name": f"i{n}", "image": "none", "command": ["python3", "-S", "-c", f"open('order', 'a').write('{n}')"]}
        for n in (1, 2)
    ]
    await pods.run("order", "print(open('order').read())", initContainers=inits)
    await pods.phase("order", "Succeeded")
    assert await pods.log("order") == "12\n"


async def test_a_failing_init_container(pods: Pods) -> None:
    inits = [{"name": "bad", "image": "none", "command": ["python3", "-S", "-c", "raise SystemExit(1)"]}]
    await pods.run("never", "print('no')", initContainers=inits)
    pod = await pods.phase("never", "Failed")
    assert "waiting" in state(pod)


async def test_a_graceful_end(pods: Pods) -> None:
    code = (
        "import signal, sys, time\n"
        "def stop(*a): print('bye', flush=True); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "print('up', flush=True)\n"
        "while True: time.sleep(60)\n"
    )
    await pods.run("soft", code)
    await pods.phase("soft", "Running")
    following = asyncio.create_task(pods.log("soft", follow="true"))
    async with pods.session.get(f"{pods.url}/soft/log", params={"follow": "1"}) as response:
        await response.content.readline()
    last = await pods.last_words("soft")
    assert last["metadata"]["deletionTimestamp"]
    assert state(last)["terminated"]["exitCode"] == 0
    assert await following == "up\nbye\n"


async def test_one_that_does_not_listen_is_killed(pods: Pods) -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )
    await pods.run("hard", code)
    async with pods.session.get(f"{pods.url}/hard/log", params={"follow": "1"}) as response:
        while not await response.content.readline():
            pass
    last = await pods.last_words("hard", gracePeriodSeconds=1)
    assert state(last)["terminated"]["exitCode"] == 137


async def test_force(pods: Pods) -> None:
    await pods.run("now", "import time; time.sleep(600)")
    pod = await pods.phase("now", "Running")
    pid = int(pod["status"]["containerStatuses"][0]["containerID"].removeprefix("process://"))
    await pods.delete("now", gracePeriodSeconds=0)
    await pods.until("now", lambda pod: pod is None)
    await gone(pid)


async def test_one_that_takes_more_memory_than_it_may_is_killed(pods: Pods) -> None:
    code = "hoard = [bytearray(b'x') * (64 << 20)]; print('full', flush=True); import time; time.sleep(600)"
    for name, limit in (("greedy", "32Mi"), ("modest", "1Gi")):
        container = {"command": ["python3", "-S", "-c", code], "resources": {"limits": {"memory": limit}}}
        await pods.create(name, container)
    ended = state(await pods.phase("greedy", "Failed"))["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)
    async with pods.session.get(f"{pods.url}/modest") as response:
        assert (await response.json())["status"]["phase"] == "Running"


async def gone(pid: int) -> None:
    """Waits until a process has ended; whose child it is does not matter."""
    async with asyncio.timeout(10):
        while is_running(pid):
            await asyncio.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"


async def test_readiness_follows_the_probe(pods: Pods) -> None:
    probe = {"exec": {"command": ["/bin/sh", "-c", "test -e ok"]}, "periodSeconds": 1, "failureThreshold": 1}
    code = "import os, time\nopen('ok', 'w').close()\ntime.sleep(600)"
    await pods.create("flaky", {"command": ["python3", "-S", "-c", code], "readinessProbe": probe})
    pod = await pods.ready("flaky")
    (pods.cluster.settings.state_dir / "pods" / pod["metadata"]["uid"] / "home" / "ok").unlink()
    pod = await pods.until("flaky", lambda pod: not is_ready(pod))
    assert pod["status"]["phase"] == "Running"


async def test_liveness_restarts(pods: Pods) -> None:
    probe = {"exec": {"command": ["/bin/sh", "-c", "false"]}, "periodSeconds": 1, "failureThreshold": 1}
    await pods.create(
        "sick",
        {"command": ["python3", "-S", "-c", "import time; time.sleep(600)"], "livenessProbe": probe},
        restartPolicy="Always",
    )
    pod = await pods.until("sick", lambda pod: pod["status"]["containerStatuses"][0]["restartCount"] >= 1)
    assert pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 143


async def test_logs(pods: Pods) -> None:
    await pods.run("talk", "import sys\nfor n in range(5): print('line', n)\nprint('last', end='', file=sys.stderr)")
    await pods.phase("talk", "Succeeded")
    assert await pods.log("talk", tailLines="2") in ("line 4\nlast\n", "line 3\nline 4\n")
    assert len((await pods.log("talk")).splitlines()) == 6
    assert (await pods.log("talk", limitBytes="4")) in ("line", "last")
    stamped = await pods.log("talk", timestamps="true", tailLines="1")
    assert stamped.startswith("20")
    assert await pods.log("talk", sinceSeconds="3600", tailLines="0") == ""
    assert "is not valid for pod talk" in await pods.log("talk", container="other")


async def test_pods_without_a_process(pods: Pods) -> None:
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "idle", "annotations": {"kappa.dev/local-process": "none"}},
        "spec": {"containers": [{"name": "main", "image": "whatever"}]},
    }
    async with pods.session.post(pods.url, json=body) as response:
        assert response.status == 201
    pod = await pods.ready("idle")
    assert pod["status"]["phase"] == "Running"
    await pods.delete("idle")
    await pods.until("idle", lambda pod: pod is None)


async def test_events(pods: Pods) -> None:
    await pods.run("told", "pass")
    await pods.phase("told", "Succeeded")
    url = pods.url.replace("pods", "events")
    async with pods.session.get(url, params={"fieldSelector": "involvedObject.name=told"}) as response:
        reasons = [event["reason"] for event in (await response.json())["items"]]
    assert reasons == ["Scheduled", "Started"]


async def test_only_the_newest_events_are_kept(pods: Pods) -> None:
    """Those of the API's clients and the kubelet's own alike; the last ones are the last written."""
    url = pods.url.replace("pods", "events")
    about = {"kind": "Pod", "namespace": "default", "name": "p", "apiVersion": "v1", "uid": "u"}
    for number in range(KEEP + 20):
        event = {"metadata": {"name": f"e{number:04}"}, "involvedObject": about, "reason": "R", "message": "m"}
        async with pods.session.post(url, json={"apiVersion": "v1", "kind": "Event", **event}) as response:
            assert response.status == 201
    async with pods.session.get(url) as response:
        names = sorted(item["metadata"]["name"] for item in (await response.json())["items"])
    assert names == [f"e{number:04}" for number in range(20, KEEP + 20)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
async def test_nothing_is_left_behind(tmp_path: Path, number: signal.Signals) -> None:
    code = (
        "import subprocess, sys, time\n"
        "p = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(600)'])\n"
        "print(p.pid, flush=True); time.sleep(600)"
    )
    async with spawn(tmp_path) as running, aiohttp.ClientSession() as session:
        url = f"{running.url}/api/v1/namespaces/default/pods"
        container = {"name": "main", "image": "none", "command": ["python3", "-S", "-c", code]}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "deep"}, "spec": {"containers": [container]}}
        async with session.post(url, json=body) as response:
            assert response.status == 201
        async with session.get(url, params={"watch": "1"}) as response:
            watch = Watch(response)
            event = await watch.until(
                lambda event: (
                    "running" in (event["object"]["status"].get("containerStatuses") or [{"state": {}}])[0]["state"]
                )
            )
        pid = int(event["object"]["status"]["containerStatuses"][0]["containerID"].removeprefix("process://"))
        async with session.get(f"{url}/deep/log", params={"follow": "1"}) as response:
            child = int(await response.content.readline())
        running.process.send_signal(number)
        await running.process.wait()
        await gone(pid)
        await gone(child)


async def test_a_port_that_is_taken(tmp_path: Path, pods: Pods) -> None:
    port = pods.cluster.url.rpartition(":")[2]
    command = [sys.executable, "-m", "kappa_local", "serve", "--port", port, "--state-dir", str(tmp_path / "second")]
    child = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await child.communicate()
    assert child.returncode == 1
    assert errors.decode() == f"kappa_local: port {port} on 127.0.0.1 is taken: choose another with --port\n"
