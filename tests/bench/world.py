"""What the benchmark runs: embedded clusters, gateways, baselines and upstreams, as processes on chosen cores.

Core 0 has the proxy that is measured, core 1 everything else (load, upstream, cluster, runtime).
"""

import contextlib
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import yaml
from kappa_gateway_program import COMMAND, Identity
from kappa_ports import free_port

from kappa_api import names
from kappa_api.tokens import pod_token
from kappa_api.wire import Specialize

Json = dict[str, Any]
HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
SECRET = secrets.token_hex(16)
NAMESPACE, FUNCTION = "default", "hello"
PROXY_CORE, OTHER_CORE = 0, 1
RUNTIME_IMAGE = "kappa-runtime-python"
HELLO = 'def handler(event, context):\n    return {"hello": "world"}\n'


@dataclass
class Process:
    """A child and where it listens."""

    name: str
    child: subprocess.Popen[bytes]
    url: str = ""

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.child.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def megabytes(self) -> float:
        for line in Path(f"/proc/{self.child.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        return 0.0


class World:
    """Starts processes and ends them all, last first, when left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "World":
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def start(self, name: str, command: list[str], core: int, env: dict[str, str] | None = None) -> Process:
        log = self._stack.enter_context((self.folder / f"{name}.log").open("wb"))
        child = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONSAFEPATH": "1", **(env or {})},
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
        self._stack.callback(_end, child)
        return Process(name, child)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-2000:]

    # --- what is measured ---------------------------------------------------------------------------------------------
    def cluster(self, name: str, functions: int, **http: Any) -> "Cluster":
        """An embedded cluster with so many Functions; only the first has instances. `http`: of the Functions' specs."""
        state = self.folder / name
        image = f"{RUNTIME_IMAGE}={sys.executable} -m kappa_runtime"
        command = [sys.executable, "-m", "kappa_local", "serve", "--port", "0", "--state-dir", str(state)]
        self.start(name, [*command, "--image", image], OTHER_CORE)
        wait(lambda: "ready " in self.log(name), f"{name} did not start")
        cluster = Cluster(self.log(name).split("ready ")[1].split()[0], state / "kubeconfig")
        for crd in sorted((REPOSITORY / "charts" / "kappa" / "crds").glob("*.yaml")):
            for document in yaml.safe_load_all(crd.read_text()):
                cluster.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", document)
        path = f"/apis/{names.API_VERSION}/namespaces/{NAMESPACE}/{names.FUNCTION_PLURAL}"
        wait(lambda: cluster.exists(path), "the CRD is not served")
        for number in range(functions):
            cluster.post(path, function(f"{FUNCTION}{number}" if number else FUNCTION, **http))
        return cluster

    def gateway(self, name: str, cluster: "Cluster", **more: str) -> Process:
        identity = Identity.new(name)
        process = self.start(name, list(COMMAND), PROXY_CORE, identity.env(cluster.kubeconfig, SECRET) | more)
        wait(lambda: status(identity.admin_url + names.PATH_READYZ) == 200, f"{name} is not ready", self, name)
        process.url = f"{identity.url}{names.FUNCTION_PATH}{NAMESPACE}/{FUNCTION}"
        return process

    def plain(self, address: str) -> Process:
        port = free_port()
        command = [sys.executable, str(HERE / "plain_proxy.py"), str(port), address, str(names.INSTANCE_PORT)]
        process = self.start("plain", command, PROXY_CORE)
        process.url = f"http://127.0.0.1:{port}/"
        wait(lambda: status(process.url) == 200, "the plain proxy did not start", self, "plain")
        return process

    def upstream(self, name: str, address: str) -> Process:
        """The fast upstream: nginx where it is installed."""
        if shutil.which("nginx"):
            listen = f"listen {address}:{names.INSTANCE_PORT} backlog=1024;"
            location = 'location / { default_type text/plain; return 200 "hello world"; }'
            process = self._nginx(name, f"server {{ {listen} {location} }}", OTHER_CORE)
        else:
            command = [sys.executable, str(HERE / "fast_upstream.py"), address, str(names.INSTANCE_PORT)]
            process = self.start(name, command, OTHER_CORE)
        process.url = f"http://{address}:{names.INSTANCE_PORT}/"
        wait(lambda: status(process.url) == 200, "the upstream did not start", self, name)
        return process

    def nginx(self, address: str) -> Process | None:
        """nginx as a reverse proxy with kept connections, or None when it is not installed."""
        if not shutil.which("nginx"):
            return None
        port = free_port()
        pool = f"upstream up {{ server {address}:{names.INSTANCE_PORT}; keepalive 128; keepalive_requests 100000000; }}"
        proxy = 'location / { proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ""; }'
        server = f"server {{ listen 127.0.0.1:{port} backlog=1024; {proxy} }}"
        process = self._nginx("nginx-proxy", f"{pool} {server}", PROXY_CORE)
        process.url = f"http://127.0.0.1:{port}/"
        wait(lambda: status(process.url) == 200, "nginx did not start", self, "nginx-proxy")
        return process

    def _nginx(self, name: str, http_block: str, core: int) -> Process:
        # one process, no workers: its CPU time is that of the child we started
        (self.folder / f"{name}.conf").write_text(
            f"daemon off; master_process off; pid {self.folder}/{name}.pid; error_log {self.folder}/{name}.err;\n"
            "events { worker_connections 4096; }\n"
            f"http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 75s; {http_block} }}\n"
        )
        command = [shutil.which("nginx") or "nginx", "-p", str(self.folder), "-c", f"{self.folder}/{name}.conf"]
        return self.start(name, command, core)


@dataclass
class Cluster:
    """An embedded cluster's API."""

    url: str
    kubeconfig: Path

    def post(self, path: str, body: Json, method: str = "POST") -> Json:
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), method=method)
        request.add_header("content-type", "application/json")
        with urllib.request.urlopen(request, timeout=10) as answer:
            found: Json = json.load(answer)
            return found

    def get(self, path: str) -> Json:
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            found: Json = json.load(answer)
            return found

    def exists(self, path: str) -> bool:
        return status(self.url + path) == 200

    def instance(self, name: str, *, process: bool, concurrency: int = 200) -> str:
        """A serving instance of FUNCTION; without `process`, only its address. Returns the address."""
        pods = f"/api/v1/namespaces/{NAMESPACE}/pods"
        path = f"/apis/{names.API_VERSION}/namespaces/{NAMESPACE}/{names.FUNCTION_PLURAL}/{FUNCTION}"
        manifest = pod(name, process, concurrency)
        manifest["metadata"]["ownerReferences"] = [owner(self.get(path))]
        self.post(pods, manifest)
        ip: list[str] = []

        def has_address() -> bool:
            ip[:] = [str(self.get(f"{pods}/{name}").get("status", {}).get("podIP", ""))]
            return bool(ip[0])

        wait(has_address, f"pod {name} got no address")
        if process:
            specialize(ip[0], name)
        return ip[0]


def function(name: str, **http: Any) -> Json:
    code = {"inline": HELLO}
    spec = {"runtime": "python", "handler": "main.handler", "code": code, "concurrency": 200, "http": http}
    meta = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": names.API_VERSION, "kind": names.FUNCTION_KIND, "metadata": meta, "spec": spec}


def owner(function: Json) -> Json:
    """What makes a pod an instance of this Function."""
    meta, kind = function["metadata"], names.FUNCTION_KIND
    return {
        "apiVersion": names.API_VERSION,
        "kind": kind,
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
    }


def pod(name: str, process: bool, concurrency: int) -> Json:
    labels = {
        names.LABEL_FUNCTION: FUNCTION,
        names.LABEL_STATE: names.STATE_SERVING,
        names.LABEL_REVISION: "r1",
        names.LABEL_RUNTIME: "python",
    }
    annotations = {names.ANNOTATION_CONCURRENCY: str(concurrency)}
    if not process:
        annotations["kappa.dev/local-process"] = "none"
    env: list[Json] = [
        {"name": names.ENV_POD_TOKEN, "value": pod_token(SECRET.encode(), NAMESPACE, name)},
        {"name": names.ENV_POD_IP, "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels, "annotations": annotations},
        "spec": {"containers": [{"name": names.CONTAINER_NAME, "image": RUNTIME_IMAGE, "env": env}]},
    }


def specialize(address: str, name: str) -> None:
    """Gives the runtime in the pod the hello function."""
    wait(
        lambda: status(f"http://{address}:{names.INSTANCE_PORT}{names.PATH_HEALTH}") == 200, "the runtime did not start"
    )
    message = Specialize(
        NAMESPACE, FUNCTION, "r1", "main.handler", "event", {"main.py": HELLO.encode()}, concurrency=200
    )
    request = urllib.request.Request(
        f"http://{address}:{names.INSTANCE_PORT}{names.PATH_REVISION}",
        json.dumps(message.to_json()).encode(),
        {"authorization": f"Bearer {pod_token(SECRET.encode(), NAMESPACE, name)}", "content-type": "application/json"},
        method="PUT",
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200


def status(url: str) -> int:
    """The HTTP status of a GET, 0 when nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, http.client.HTTPException):
        return 0


def wait(
    condition: Callable[[], bool], problem: str, world: World | None = None, log: str = "", seconds: float = 30
) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{problem}\n{world.log(log) if world else ''}")
        time.sleep(0.05)


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def latencies(url: str, count: int) -> Iterator[float]:
    """Seconds of each of `count` calls, one after the other on one connection."""
    host, _, path = url.removeprefix("http://").partition("/")
    name, port = host.split(":")
    request = f"GET /{path} HTTP/1.1\r\nhost: {host}\r\n\r\n".encode()
    with socket.create_connection((name, int(port))) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            before = time.perf_counter()
            connection.sendall(request)
            reply = connection.recv(65536)
            yield time.perf_counter() - before
            if not reply.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"{url}: {reply[:200]!r}")
